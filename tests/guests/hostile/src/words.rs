//! The command line, from PVH's start information or from multiboot's.

use crate::machine::read32;
use core::sync::atomic::{AtomicUsize, Ordering};

const PVH_MAGIC: u32 = 0x336e_c578;
const LONGEST: usize = 256;

static mut LINE: [u8; LONGEST] = [0; LONGEST];
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Copies the command line out of memory that attempts will use.
pub fn keep(information: u32) {
    let information = u64::from(information);
    // PVH: `cmdline_paddr` at 24. Multiboot 0.6.96 section 3.3: `cmdline` at 16, if bit 2 of the flags says that it is there.
    let line = if read32(information) == PVH_MAGIC {
        read32(information + 24)
    } else if read32(information) & 4 != 0 {
        read32(information + 16)
    } else {
        0
    };
    if line == 0 {
        return;
    }
    for index in 0..LONGEST {
        // SAFETY: the loader put a string there; the copy has room for it, and nobody else uses that yet.
        unsafe {
            let byte = (u64::from(line) as *const u8).add(index).read_volatile();
            if byte == 0 {
                break;
            }
            (&raw mut LINE).cast::<u8>().add(index).write(byte);
        }
        LENGTH.store(index + 1, Ordering::Relaxed);
    }
}

/// What stands behind `name=` on the command line.
pub fn value(name: &str) -> Option<&'static str> {
    // SAFETY: written by `keep` alone, before anybody reads.
    let line = unsafe {
        core::slice::from_raw_parts((&raw const LINE).cast::<u8>(), LENGTH.load(Ordering::Relaxed))
    };
    let line = core::str::from_utf8(line).ok()?;
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
