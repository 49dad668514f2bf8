//! The x86-64 architecture as data: registers, flags, exceptions, MSR numbers, segments.
//!
//! Row 1 (pure). Nothing here executes an instruction; both vendors' back ends, the monitor, the device models and
//! the host tools use the same names. Sources: AMD64 Architecture Programmer's Manual (APM) Vol. 2, rev. 3.41;
//! Intel Software Developer's Manual (SDM) Vol. 3.
#![no_std]

mod exception;
mod flags;
pub mod interrupts;
pub mod msr;
mod register;
mod segment;

pub use exception::{Exception, Fault};
pub use flags::{Cr0, Cr4, Efer, Rflags, Xcr0};
pub use register::{General, Width};
pub use segment::{CodeSize, DescriptorTable, Segment, SegmentName, Segments};
