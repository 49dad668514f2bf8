//! A clock page that guests read without an exit, in the layout of KVM's clock, which unmodified Linux, the BSDs and
//! others know: their clock is stable from the first instruction, and nothing is calibrated against a timer chip.
//!
//! Source: the Linux kernel's documentation, `Documentation/virt/kvm/x86/msr.rst` (the MSRs and the two structures) and
//! `cpuid.rst` (the leaves). The structures are an interface between guests and hypervisors, and fixed.
#![no_std]

use contracts::absent::{ClockPageChoice, ClockRegister};

/// MSR_KVM_WALL_CLOCK_NEW: where to write the wall clock, once.
pub const WALL_CLOCK: u32 = 0x4b56_4d00;
/// MSR_KVM_SYSTEM_TIME_NEW: where the time page lies; bit 0 turns it on.
pub const SYSTEM_TIME: u32 = 0x4b56_4d01;

/// "KVMKVMKVM" and three zero bytes: EBX, ECX, EDX of leaf 0 (cpuid.rst, KVM_CPUID_SIGNATURE).
const SIGNATURE: [u32; 3] =
    [u32::from_le_bytes(*b"KVMK"), u32::from_le_bytes(*b"VMKV"), u32::from_le_bytes(*b"M\0\0\0")];

/// Features of leaf 1, EAX (cpuid.rst, KVM_CPUID_FEATURES). What is not offered here (steal time, asynchronous page
/// faults, paravirtual EOI and spinlocks) guests do without.
mod feature {
    /// No delay is needed after port accesses: there are no slow chips behind them.
    pub const NO_PORT_DELAY: u32 = 1 << 1;
    /// The clock's MSRs are [`super::WALL_CLOCK`] and [`super::SYSTEM_TIME`].
    pub const CLOCK: u32 = 1 << 3;
    /// The flag [`super::STABLE`] of the time page can be believed.
    pub const CLOCK_STABLE: u32 = 1 << 24;
}

/// Bit 0 of the time page's flags: readings taken on different processors are monotonic.
const STABLE: u8 = 1 << 0;

/// The clock page in KVM's layout.
#[derive(Debug)]
pub struct KvmClock;

/// What the guest multiplies with: `(ticks << shift) * multiplier >> 32` nanoseconds; a negative shift goes right.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Scale {
    multiplier: u32,
    shift: i8,
}

impl Scale {
    /// The most precise scale for a rate of nanoseconds per tick with 32 fractional bits: a multiplier with its highest bit
    /// set. 0 where the rate is 0, which no clock has.
    const fn new(nanoseconds_per_tick: u64) -> Self {
        let bits = u64::BITS - nanoseconds_per_tick.leading_zeros();
        if bits > 32 {
            let shift = bits - 32;
            Self { multiplier: (nanoseconds_per_tick >> shift) as u32, shift: shift as i8 }
        } else if bits > 0 {
            let shift = 32 - bits;
            Self { multiplier: (nanoseconds_per_tick << shift) as u32, shift: -(shift as i8) }
        } else {
            Self { multiplier: 0, shift: 0 }
        }
    }
}

/// Puts `fields` behind one another.
fn page<const SIZE: usize>(fields: &[&[u8]]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (place, byte) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
        *place = *byte;
    }
    bytes
}

impl ClockPageChoice for KvmClock {
    const PRESENT: bool = true;

    /// Leaf 0 answers with the highest leaf, counted from the base as `leaf` is: the caller adds its base.
    fn leaf(leaf: u32) -> [u32; 4] {
        match leaf {
            0 => [1, SIGNATURE[0], SIGNATURE[1], SIGNATURE[2]],
            1 => [feature::NO_PORT_DELAY | feature::CLOCK | feature::CLOCK_STABLE, 0, 0, 0],
            _ => [0; 4],
        }
    }

    fn register(msr: u32) -> Option<ClockRegister> {
        match msr {
            WALL_CLOCK => Some(ClockRegister::Wall),
            SYSTEM_TIME => Some(ClockRegister::Time),
            _ => None,
        }
    }

    fn time_page(version: u32, ticks: u64, nanoseconds: u64, nanoseconds_per_tick: u64) -> [u8; 32] {
        let scale = Scale::new(nanoseconds_per_tick);
        page(&[
            &version.to_le_bytes(),
            &[0; 4],
            &ticks.to_le_bytes(),
            &nanoseconds.to_le_bytes(),
            &scale.multiplier.to_le_bytes(),
            &scale.shift.to_le_bytes(),
            &[STABLE],
            &[0; 2],
        ])
    }

    fn wall_page(version: u32, seconds: u64) -> [u8; 12] {
        // The layout has 32 bits for the seconds, which last until 2106.
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        page(&[&version.to_le_bytes(), &seconds.to_le_bytes(), &[0; 4]])
    }
}
