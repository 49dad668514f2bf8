//! The null parts: what stands where a profile leaves a part out. Each answers as a machine without that device does.

use crate::{Context, Device, Effects, IoApic, LegacyPic, NextInstruction, Platform, Savable};

/// No such device: claims nothing.
#[derive(Debug)]
pub struct Absent;

impl Device for Absent {
    const NAME: &'static str = "absent";

    fn new(_: &Platform) -> Self {
        Self
    }

    fn savable(&self) -> Savable {
        Savable::Empty
    }

    fn expire(&mut self, _: &mut Context<'_>) {}
}

impl LegacyPic for Absent {
    fn set_line(&mut self, _: u8, _: bool) {}

    fn output(&self) -> bool {
        false
    }

    fn acknowledge(&mut self) -> u8 {
        0
    }
}

impl IoApic for Absent {
    fn set_line(&mut self, _: u8, _: bool, _: &mut Effects) {}

    fn end_of_interrupt(&mut self, _: u8, _: &mut Effects) {}
}

impl NextInstruction for Absent {
    const SAVED: bool = false;
}

/// Whether the image offers guests a clock page (part `kvm-clock`), and what it holds.
pub trait ClockPageChoice {
    /// Whether it is there: its CPUID leaves and MSRs exist.
    const PRESENT: bool;

    /// CPUID leaf `leaf` of the clock's range (0 and 1, relative to its base) as EAX, EBX, ECX, EDX.
    fn leaf(leaf: u32) -> [u32; 4];

    /// Which register an MSR is, if it is the clock's.
    fn register(msr: u32) -> Option<ClockRegister>;

    /// The 32 bytes that describe the clock: at `ticks` of the guest's TSC the time was `nanoseconds`; `version` is even.
    fn time_page(version: u32, ticks: u64, nanoseconds: u64, nanoseconds_per_tick: u64) -> [u8; 32];

    /// The 12 bytes that describe the wall clock at time 0, as seconds and nanoseconds since 1970.
    fn wall_page(version: u32, seconds: u64) -> [u8; 12];
}

/// A register of the clock page.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ClockRegister {
    /// Where the time page lies; bit 0 turns it on.
    Time,
    /// Where to write the wall clock, once.
    Wall,
}

impl ClockPageChoice for Absent {
    const PRESENT: bool = false;

    fn leaf(_: u32) -> [u32; 4] {
        [0; 4]
    }

    fn register(_: u32) -> Option<ClockRegister> {
        None
    }

    fn time_page(_: u32, _: u64, _: u64, _: u64) -> [u8; 32] {
        [0; 32]
    }

    fn wall_page(_: u32, _: u64) -> [u8; 12] {
        [0; 12]
    }
}
