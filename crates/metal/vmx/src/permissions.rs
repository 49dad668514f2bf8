//! The MSR bitmap (SDM Vol. 3C §25.6.9), one for all compartments: nothing passes but registers that belong to the guest alone while it
//! is attached.

use address::HostPhysical;
use core::cell::UnsafeCell;
use x86::msr;

/// Reads of low numbers, reads of high ones, writes of low ones, writes of high ones: 1 KiB each, one bit a register.
const BYTES: usize = 4096;
/// Where the bits for writes begin.
const WRITES: usize = 2048;

/// Registers that pass both ways: the processor switches the first five with the VMCS, attaching switches the others.
const PASSED: [u32; 10] = [
    msr::FS_BASE,
    msr::GS_BASE,
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::KERNEL_GS_BASE,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SFMASK,
];

/// Registers of the x2APIC that the processor reads in the guest's page of registers: TPR.
const HELD_READS: [u32; 1] = [msr::X2APIC_FIRST + 0x08];
/// Those that it writes there: TPR, EOI, and the interrupt to itself.
const HELD_WRITES: [u32; 3] = [msr::X2APIC_FIRST + 0x08, msr::X2APIC_FIRST + 0x0b, msr::X2APIC_FIRST + 0x3f];

#[repr(C, align(4096))]
struct Map(UnsafeCell<[u8; BYTES]>);

// SAFETY: written by `fill` alone, which the bootstrap processor calls once before any other processor or guest runs (its
// own contract); afterwards only the processor's world switch reads the map.
unsafe impl Sync for Map {}

static MAP: Map = Map(UnsafeCell::new([0; BYTES]));
/// The map for guests whose x2APIC the processor holds. Without that control the same registers would be the host's.
static HELD_MAP: Map = Map(UnsafeCell::new([0; BYTES]));

/// Where register `number` has its bit for reads: byte and bit. `None` for registers that the map does not cover: those always exit.
const fn place(number: u32) -> Option<(usize, u32)> {
    let (base, offset) = match number {
        0..=0x1fff => (0, number),
        0xc000_0000..=0xc000_1fff => (1024, number - 0xc000_0000),
        _ => return None,
    };
    Some((base + (offset / 8) as usize, offset % 8))
}

/// Lets register `number` pass where `half` begins: 0 for reads, or [`WRITES`].
fn open(map: &mut [u8; BYTES], number: u32, half: usize) {
    if let Some((byte, bit)) = place(number)
        && let Some(byte) = map.get_mut(byte + half)
    {
        *byte &= !(1 << bit);
    }
}

/// Fills the map: everything exits but [`PASSED`]; and with `held` the other one, for guests whose x2APIC the processor holds.
///
/// # Safety
/// Called once, on the bootstrap processor, before another processor or a guest runs.
pub unsafe fn fill(held: bool) {
    // SAFETY: nobody else reads or writes the map yet (this function's contract).
    let map = unsafe { &mut *MAP.0.get() };
    map.fill(0xff);
    for number in PASSED {
        open(map, number, 0);
        open(map, number, WRITES);
    }
    if held {
        // SAFETY: as above.
        let held = unsafe { &mut *HELD_MAP.0.get() };
        *held = *map;
        HELD_READS.into_iter().for_each(|number| open(held, number, 0));
        HELD_WRITES.into_iter().for_each(|number| open(held, number, WRITES));
    }
}

/// Physical address of the map. The image is linked at its physical address.
pub fn address() -> HostPhysical {
    HostPhysical::new(MAP.0.get() as u64)
}

/// Physical address of the map for guests whose x2APIC the processor holds.
pub fn held_address() -> HostPhysical {
    HostPhysical::new(HELD_MAP.0.get() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lie_where_the_manual_says() {
        // SDM Vol. 3C §25.6.9.
        assert_eq!(place(0), Some((0, 0)));
        assert_eq!(place(0x1fff), Some((0x3ff, 7)));
        assert_eq!(place(0xc000_0081), Some((0x410, 1)));
        assert_eq!(place(0xc000_1fff), Some((0x7ff, 7)));
        assert_eq!(place(0x2000), None);
        assert_eq!(place(0xc001_0000), None);
    }

    #[test]
    fn only_the_guest_s_own_registers_pass() {
        // SAFETY: no guest and no other test uses the map.
        unsafe { fill(true) };
        // SAFETY: as above; `fill` is done.
        let map = unsafe { &*MAP.0.get() };
        let open = |half: &[u8]| half.iter().map(|byte| byte.count_zeros()).sum::<u32>();
        assert_eq!(open(&map[..WRITES]), PASSED.len() as u32);
        assert_eq!(open(&map[WRITES..]), PASSED.len() as u32);
        // LSTAR, as one that passes: reads and writes.
        assert_eq!((map[0x410] >> 2 & 1, map[0x410 + WRITES] >> 2 & 1), (0, 0));
        // SAFETY: as above.
        let held = unsafe { &*HELD_MAP.0.get() };
        assert_eq!(open(&held[..WRITES]), PASSED.len() as u32 + 1);
        assert_eq!(open(&held[WRITES..]), PASSED.len() as u32 + 3);
        // TPR both ways; EOI and the interrupt to itself for writes; the command never (SDM Vol. 3A table 11-6).
        assert_eq!((held[0x101], held[0x101 + WRITES], held[0x107 + WRITES]), (0xfe, 0xf6, 0x7f));
        assert_eq!(held[0x106 + WRITES], 0xff);
    }
}
