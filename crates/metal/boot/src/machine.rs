//! The machine under the monitor: `contracts::Host` on real hardware.

use crate::firmware::PowerFact;
use contracts::{CpuIndex, Host, HostTime};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use cpu::block::{NO_DEADLINE, PROCESSORS};
use cpu::{apic, block, clock, port, serial};

/// The machine. There is one, and it is never copied.
#[derive(Debug)]
pub struct Machine {
    /// Seconds since 1970 at TSC 0.
    epoch: AtomicU64,
    /// APIC identifiers by index.
    identifiers: [AtomicU32; PROCESSORS],
    /// How to turn it off, as [`Power`] packs it; 0 if firmware does not say.
    power: [AtomicU64; 3],
}

/// The one machine.
pub(crate) static MACHINE: Machine = Machine {
    epoch: AtomicU64::new(0),
    identifiers: [const { AtomicU32::new(0) }; PROCESSORS],
    power: [const { AtomicU64::new(0) }; 3],
};

/// A port and a value in one word; the top bit says that they are there.
const fn pack(pair: Option<(u16, u8)>) -> u64 {
    match pair {
        Some((port, value)) => 1 << 63 | (port as u64) << 8 | value as u64,
        None => 0,
    }
}

const fn unpack(word: u64) -> Option<(u16, u8)> {
    if word >> 63 == 1 { Some(((word >> 8) as u16, word as u8)) } else { None }
}

/// PM1 control: sleep type and sleep enable; the other bits stay (ACPI 6.5 table 4.21).
const fn sleep(old: u16, kind: u8) -> u16 {
    old & !0x3c00 | (kind as u16 & 7) << 10 | 1 << 13
}

impl Machine {
    pub(crate) fn set_wall_clock(&self, now: u64) {
        let seconds = cpu::ticks() / (u64::from(clock::rate()).max(1) * 1_000);
        self.epoch.store(now.saturating_sub(seconds), Ordering::Relaxed);
    }

    pub(crate) fn set_identifier(&self, cpu: CpuIndex, identifier: u32) {
        if let Some(slot) = self.identifiers.get(usize::from(cpu.0)) {
            slot.store(identifier, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_power(&self, power: Option<PowerFact>) {
        let Some(power) = power else { return };
        let words = [pack(Some(power.first)), pack(power.second), pack(power.enable)];
        for (slot, word) in self.power.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
    }

    /// ACPI S5, if firmware said how.
    fn soft_off(&self) {
        let [first, second, enable] = [0, 1, 2]
            .map(|index: usize| self.power.get(index).and_then(|word| unpack(word.load(Ordering::Relaxed))));
        let Some((port, kind)) = first else { return };
        // SAFETY: The ports are those that the FADT names for this; the machine is to be turned off, so that nothing that they do to
        // it can be wrong.
        unsafe {
            if let Some((command, value)) = enable
                && port::read_u16(port) & 1 == 0
            {
                port::write_u8(command, value);
                let mut patience = 100_000;
                while port::read_u16(port) & 1 == 0 && patience > 0 {
                    core::hint::spin_loop();
                    patience -= 1;
                }
            }
            port::write_u16(port, sleep(port::read_u16(port), kind));
            if let Some((port, kind)) = second {
                port::write_u16(port, sleep(port::read_u16(port), kind));
            }
        }
    }
}

impl Host for Machine {
    #[inline]
    fn now(&self) -> HostTime {
        HostTime(cpu::ticks())
    }

    fn kilohertz(&self) -> u32 {
        clock::rate()
    }

    fn wall_clock(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    #[inline]
    fn arm(&self, deadline: Option<HostTime>) {
        let wanted = deadline.map_or(NO_DEADLINE, |deadline| deadline.0.min(NO_DEADLINE - 1));
        // SAFETY: Processors call this after `Boot::enter` or in the image's [`crate::Product::run`]: each runs on its own stack.
        let local = unsafe { block::local() };
        // The handler notes that the timer fired, so that an unchanged deadline is one that is still to come, or whose interrupt is
        // waiting already.
        if local.deadline.load(Ordering::Relaxed) == wanted {
            return;
        }
        local.deadline.store(wanted, Ordering::Relaxed);
        if wanted == NO_DEADLINE {
            apic::disarm();
        } else {
            apic::arm(wanted);
        }
    }

    fn kick(&self, cpu: CpuIndex) {
        if let Some(identifier) = self.identifiers.get(usize::from(cpu.0)) {
            apic::send_kick(identifier.load(Ordering::Relaxed));
        }
    }

    #[inline]
    fn service(&self) {
        // SAFETY: The descriptor table was loaded before this processor ran anything of the image.
        unsafe { cpu::take_interrupts() };
    }

    #[inline]
    fn wait(&self) {
        // SAFETY: As in `service`.
        unsafe { cpu::wait_for_interrupt() };
    }

    fn machine_check(&self) {
        cpu::fault::machine_check();
    }

    fn console_write(&self, bytes: &[u8]) {
        serial::write(bytes);
    }

    fn console_read(&self) -> Option<u8> {
        serial::read()
    }

    fn power_off(&self) -> ! {
        serial::drain();
        self.soft_off();
        // An emulator may need a moment before it stops.
        for _ in 0..10_000 {
            core::hint::spin_loop();
        }
        // Bench machines that have no ACPI end otherwise: QEMU's isa-debug-exit, Bochs' shutdown port. On real machines nothing
        // listens at these ports.
        // SAFETY: The machine is to be turned off, and S5 has failed or is on its way.
        unsafe {
            port::write_u32(0xf4, 0);
            for byte in *b"Shutdown" {
                port::write_u8(0x8900, byte);
            }
        }
        cpu::halt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_keeps_what_is_not_its_own() {
        assert_eq!(sleep(0b0000_0000_0000_0001, 5), 0x3401);
        assert_eq!(sleep(0xffff, 0), 0xe3ff);
    }

    #[test]
    fn pairs_survive_packing() {
        for pair in [None, Some((0, 0)), Some((0x604, 5)), Some((0xffff, 0xff))] {
            assert_eq!(unpack(pack(pair)), pair);
        }
    }
}
