//! Row 2: what metal, monitor and parts promise each other.
//!
//! Everything above metal is generic over these traits, and only the image joins them to the hardware. A choice of
//! the product line is an associated type of [`Image`]; a part that is left out is a type from [`absent`]. The
//! back end in [`fake`] lets the monitor and the parts run in host tests.
#![no_std]

pub mod absent;
mod device;
mod effects;
mod exit;
pub mod fake;
mod host;
mod image;
mod interrupt;
mod memory;
mod scheduler;
mod second_stage;
mod time;
mod vcpu;

pub use device::{Attached, Context, Device, DeviceSet, MemoryRange, Platform, PortMap, PortRange, Savable};
pub use effects::{Effect, Effects, Power, Timer};
pub use exit::{
    Access, ControlAccess, Direction, EntryFailure, Exit, MemoryExit, PortExit, StringOperand,
    StringPortExit, Unsupported,
};
pub use host::{CpuIndex, Host, Vault};
pub use image::{Image, Limits, Profile};
pub use interrupt::{
    ApicDestination, ApicEffects, DeliveryMode, InterruptCommand, InterruptMessage, IoApic, LegacyPic, Line,
    LocalApic, LocalPin, Shorthand, Trigger,
};
pub use memory::{GuestMemory, NotMemory};
pub use scheduler::{Leave, Scheduler, Turn, VcpuName};
pub use second_stage::{FlushToken, HugePages, MapError, MapMode, SecondStage};
pub use time::{Clock, GuestTicks, GuestTime, HostTime, RATE_LIMIT};
pub use vcpu::{
    Attachment, DeadlineTimer, DecodedInstruction, InterruptDelivery, NextInstruction, SpinDetector,
    StartState, SupervisorState, TranslationFlush, TranslationTags, UnpagedModes, Vcpu,
};
