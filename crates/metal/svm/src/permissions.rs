//! The port and MSR permission maps (APM Vol. 2 §15.10, §15.11), one of each for all compartments: nothing passes but a few
//! registers that the processor switches with VMLOAD and VMSAVE.

use address::HostPhysical;
use core::cell::UnsafeCell;
use x86::msr;

/// 12 KiB: one bit a port, and the bits that accesses beyond port 0xffff look at.
const PORT_BYTES: usize = 3 * 4096;
/// 8 KiB: two bits a register.
const MSR_BYTES: usize = 2 * 4096;

/// Registers that belong to the guest alone while it runs: reads and writes pass.
const PASSED: [u32; 10] = [
    msr::FS_BASE,
    msr::GS_BASE,
    msr::KERNEL_GS_BASE,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SFMASK,
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
];

#[repr(C, align(4096))]
struct Maps {
    ports: UnsafeCell<[u8; PORT_BYTES]>,
    msrs: UnsafeCell<[u8; MSR_BYTES]>,
}

// SAFETY: written by `fill` alone, which the bootstrap processor calls once before any other processor or guest runs (its
// own contract); afterwards only the processor's world switch reads the maps.
unsafe impl Sync for Maps {}

static MAPS: Maps = Maps { ports: UnsafeCell::new([0; PORT_BYTES]), msrs: UnsafeCell::new([0; MSR_BYTES]) };

/// Where register `number` has its two bits: byte, and shift of the read bit. `None` for registers that the map does not
/// cover: those always exit.
const fn place(number: u32) -> Option<(usize, u32)> {
    let (base, offset) = match number {
        0..=0x1fff => (0, number),
        0xc000_0000..=0xc000_1fff => (0x800, number - 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (0x1000, number - 0xc001_0000),
        _ => return None,
    };
    Some((base + (offset / 4) as usize, (offset % 4) * 2))
}

/// Fills the maps: everything exits but [`PASSED`].
///
/// # Safety
/// Called once, on the bootstrap processor, before another processor or a guest runs.
pub unsafe fn fill() {
    // SAFETY: nobody else reads or writes the maps yet (this function's contract).
    let (ports, msrs) = unsafe { (&mut *MAPS.ports.get(), &mut *MAPS.msrs.get()) };
    ports.fill(0xff);
    msrs.fill(0xff);
    for number in PASSED {
        if let Some((byte, shift)) = place(number)
            && let Some(byte) = msrs.get_mut(byte)
        {
            *byte &= !(3 << shift);
        }
    }
}

/// Physical addresses of the port map and the MSR map. The image is linked at its physical address.
pub fn addresses() -> (HostPhysical, HostPhysical) {
    (HostPhysical::new(MAPS.ports.get() as u64), HostPhysical::new(MAPS.msrs.get() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lie_where_the_manual_says() {
        // APM Vol. 2 §15.11: 0x000–0x7ff, 0x800–0xfff, 0x1000–0x17ff, two bits each, the lower one for reads.
        assert_eq!(place(0), Some((0, 0)));
        assert_eq!(place(0x1fff), Some((0x7ff, 6)));
        assert_eq!(place(0xc000_0080), Some((0x820, 0)));
        assert_eq!(place(0xc000_0101), Some((0x840, 2)));
        assert_eq!(place(0xc001_1fff), Some((0x17ff, 6)));
        assert_eq!(place(0x2000), None);
        assert_eq!(place(0x4b56_4d01), None);
    }

    #[test]
    fn only_the_guest_s_own_registers_pass() {
        // SAFETY: no guest and no other test uses the maps.
        unsafe { fill() };
        // SAFETY: as above; `fill` is done.
        let msrs = unsafe { &*MAPS.msrs.get() };
        let open: u32 = msrs.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(open, 2 * PASSED.len() as u32);
        // SAFETY: as above.
        assert!(unsafe { &*MAPS.ports.get() }.iter().all(|byte| *byte == 0xff));
    }
}
