//! From the boot loader to Rust: entry points, boot protocols, start of the other processors.
//!
//! Row 3 (metal). The walk of a boot:
//!
//! 1. `entry` (assembly): one entry for PVH, multiboot 1 and multiboot 2, in 32-bit protected mode. It maps the first 4 GiB twice,
//!    at 0 and at the boot window, and goes to long mode.
//! 2. `start`, on the boot stack: what the loader said ([`information`]), what firmware says ([`firmware`]), whether the image
//!    ([`Product`]) fits the processor; then, and only then, the machine is touched: what memory is free, the hypervisor's own tables,
//!    its own stack.
//! 3. [`Product::run`], which is the image's: judges the boot module, starts the processors ([`Boot::start_processors`]), builds
//!    spaces ([`Boot::space`]) and lets the processors go ([`Boot::enter`]).
#![cfg_attr(not(test), no_std)]
// On a host nobody boots: what only the entry assembly names looks unused there.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

#[cfg(target_os = "none")]
mod entry;
/// What `entry` provides, on a host where no image is linked: nothing ever boots there, but everything can be checked and tested.
#[cfg(not(target_os = "none"))]
mod entry {
    pub(crate) fn window_table() -> u64 {
        0
    }
    pub(crate) fn trampoline() -> &'static [u8] {
        &[]
    }
    /// # Safety
    /// As the real one asks, which nobody can get wrong here.
    pub(crate) unsafe fn forget_boot_tables() {}
    pub(crate) fn borders() -> memory::ImageBorders {
        memory::ImageBorders { text: (0, 0), constants: (0, 0), data: (0, 0), sealed: (0, 0), zeroed: (0, 0) }
    }
    pub(crate) fn product() -> crate::Product {
        let requirements = &cpu::Requirements { all: &[], own: &[], stated: &[], others: &[] };
        crate::Product { missing: |_| None, requirements, run: |_| cpu::halt() }
    }
}
pub mod firmware;
pub mod information;
mod machine;
mod processors;
mod start;

pub use cpu::serial::line as say;
pub use firmware::Firmware;
pub use information::{BootInfo, Protocol};
pub use machine::Machine;
pub use start::{Boot, Product, SpacePlan, refuse};
