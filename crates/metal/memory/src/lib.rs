//! Physical memory of the host: frames, host page tables, one private space a compartment.
//!
//! Row 3 (metal). The host's address space has these parts, by slot of the highest table (512 GiB each):
//!
//! | slot | what | in whose tables |
//! |---|---|---|
//! | 0 | the hypervisor: image, stacks, device registers | everybody's |
//! | 128 | [`BOOT_WINDOW`]: the first 4 GiB of physical memory | the boot tables', until the processors run |
//! | 256 + i | the window of compartment i: its RAM, its private area, its payload pages | compartment i's alone |
//!
//! The neutral tables have slot 0 and nothing else.
#![cfg_attr(not(test), no_std)]

mod copy;
mod frames;
mod host;
mod ram;
mod space;
mod tables;
mod vault;

pub use frames::{Frames, MOST_EXTENTS, OwnedFrames, Region, Trial};
pub use host::{HostTables, ImageBorders, TablesError, boot_slice, enter_neutral};
pub use ram::{Extent, MOST_PAYLOADS, Ram};
pub use space::{Page, PrivateArea, Space, SpaceError, SpaceRequest};
pub use vault::{InstallError, PrivateVault};

/// Where the boot tables show physical memory from 0 on: slot 128.
pub const BOOT_WINDOW: usize = 128 << 39;
/// How many bytes of physical memory the boot window shows.
pub const BOOT_REACH: u64 = 4 << 30;
/// Where the window of compartment 0 begins: slot 256, the lowest of the upper half.
pub const WINDOWS: usize = 0xffff_8000_0000_0000;
/// From one compartment's window to the next, in bytes.
pub const WINDOW_STRIDE: usize = 1 << 39;
/// Most compartments that have windows.
pub const WINDOW_COUNT: usize = 256;
/// Offset of the private area in a window. RAM ends before it.
pub const PRIVATE_OFFSET: usize = 0x60_0000_0000;
/// Offset of the payload pages in a window.
pub const PAYLOAD_OFFSET: usize = 0x70_0000_0000;

/// Where the window of compartment `index` begins.
pub const fn window(index: u8) -> usize {
    WINDOWS + index as usize * WINDOW_STRIDE
}
