//! The null parts: what stands where a profile leaves a part out. Each answers as a machine without that device does.

use crate::{
    ApicDestination, ApicEffects, Attachment, Context, CpuIndex, DeadlineTimer, DecodedInstruction,
    DeliveryMode, Device, Effects, Exit, GuestTicks, HostTime, HugePages, InterruptDelivery, IoApic, Leave,
    LegacyPic, LocalApic, LocalPin, NextInstruction, Platform, PortExit, Savable, Scheduler, SpinDetector,
    StartState, SupervisorState, TranslationFlush, TranslationTags, Trigger, Turn, UnpagedModes, Vcpu,
    VcpuName,
};
use x86::{CodeSize, Cr0, Cr4, Efer, Exception, Fault, General, Rflags, Segment, SegmentName, Xcr0};

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

impl DecodedInstruction for Absent {
    const GIVEN: bool = false;
}

impl TranslationFlush for Absent {
    const OWN: bool = false;
}

impl SpinDetector for Absent {
    const PRESENT: bool = false;
}

impl UnpagedModes for Absent {
    const UNRESTRICTED: bool = false;
}

impl TranslationTags for Absent {
    const TAGGED: bool = false;
}

impl DeadlineTimer for Absent {
    const PRESENT: bool = false;
}

impl SupervisorState for Absent {
    const SAVED: bool = false;
}

impl InterruptDelivery for Absent {
    const HELD: bool = false;
}

impl HugePages for Absent {
    const USED: bool = false;
}

/// A virtual processor where there is no back end: there is none.
#[derive(Debug)]
pub enum NoVcpu {}

impl Vcpu for NoVcpu {
    fn start(&mut self, _: &StartState) {
        match *self {}
    }
    fn attach(&mut self, _: Attachment) {
        match *self {}
    }
    fn detach(&mut self) {
        match *self {}
    }
    fn enter(&mut self) {
        match *self {}
    }
    fn exit(&mut self) -> Exit {
        match *self {}
    }
    fn port_exit(&self) -> Option<PortExit> {
        match *self {}
    }
    fn general(&self, _: General) -> u64 {
        match *self {}
    }
    fn set_general(&mut self, _: General, _: u64) {
        match *self {}
    }
    fn instruction_pointer(&self) -> u64 {
        match *self {}
    }
    fn next_instruction(&self) -> Option<u64> {
        match *self {}
    }
    fn complete(&mut self, _: u64) {
        match *self {}
    }
    fn flags(&self) -> Rflags {
        match *self {}
    }
    fn set_flags(&mut self, _: Rflags) {
        match *self {}
    }
    fn cr0(&self) -> Cr0 {
        match *self {}
    }
    fn set_cr0(&mut self, _: Cr0) {
        match *self {}
    }
    fn cr2(&self) -> u64 {
        match *self {}
    }
    fn cr3(&self) -> u64 {
        match *self {}
    }
    fn set_cr3(&mut self, _: u64) {
        match *self {}
    }
    fn cr4(&self) -> Cr4 {
        match *self {}
    }
    fn set_cr4(&mut self, _: Cr4) {
        match *self {}
    }
    fn efer(&self) -> Efer {
        match *self {}
    }
    fn set_efer(&mut self, _: Efer) {
        match *self {}
    }
    fn xcr0(&self) -> Xcr0 {
        match *self {}
    }
    fn set_xcr0(&mut self, _: Xcr0) {
        match *self {}
    }
    fn page_attributes(&self) -> u64 {
        match *self {}
    }
    fn set_page_attributes(&mut self, _: u64) {
        match *self {}
    }
    fn set_tsc_aux(&mut self, _: u32) {
        match *self {}
    }
    fn speculation_control(&self) -> u32 {
        match *self {}
    }
    fn set_speculation_control(&mut self, _: u32) {
        match *self {}
    }
    fn forget_branches(&mut self) {
        match *self {}
    }
    fn segment(&self, _: SegmentName) -> Segment {
        match *self {}
    }
    fn privilege(&self) -> u8 {
        match *self {}
    }
    fn code_size(&self) -> CodeSize {
        match *self {}
    }
    fn set_ticks_offset(&mut self, _: u64) {
        match *self {}
    }
    fn ticks(&self) -> GuestTicks {
        match *self {}
    }
    fn accepts_interrupt(&self) -> bool {
        match *self {}
    }
    fn accepts_non_maskable(&self) -> bool {
        match *self {}
    }
    fn set_window(&mut self, _: bool) {
        match *self {}
    }
    fn set_non_maskable_window(&mut self) {
        match *self {}
    }
    fn inject_interrupt(&mut self, _: u8) {
        match *self {}
    }
    fn inject_non_maskable(&mut self) {
        match *self {}
    }
    fn inject_exception(&mut self, _: Exception, _: Option<u32>) -> bool {
        match *self {}
    }
    fn inject_fault(&mut self, _: Fault) -> bool {
        match *self {}
    }
}

/// No local APIC: nothing answers, nothing arrives.
impl LocalApic for Absent {
    fn new(_: u8, _: bool) -> Self {
        Self
    }
    fn init(&mut self) {}
    fn base(&self) -> u64 {
        0
    }
    fn write_base(&mut self, _: u64, _: &mut ApicEffects) -> bool {
        false
    }
    fn page(&self) -> Option<u64> {
        None
    }
    fn read(&mut self, _: u16, _: GuestTicks) -> u32 {
        0
    }
    fn write(&mut self, _: u16, _: u32, _: GuestTicks, _: &mut ApicEffects) {}
    fn read_msr(&mut self, _: u32, _: GuestTicks) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: u32, _: u64, _: GuestTicks, _: &mut ApicEffects) -> bool {
        false
    }
    fn is_extended(&self) -> bool {
        false
    }
    fn end_of_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn tsc_deadline(&self) -> u64 {
        0
    }
    fn set_tsc_deadline(&mut self, _: u64, _: GuestTicks) {}
    fn accept(&mut self, _: u8, _: Trigger) {}
    /// Without a local APIC the pins are the processor's: INTR and NMI.
    fn set_pin(&mut self, pin: LocalPin, level: bool) -> Option<DeliveryMode> {
        (level && pin == LocalPin::Lint1).then_some(DeliveryMode::NonMaskable)
    }
    fn takes_external(&self, level: bool) -> bool {
        level
    }
    fn pending(&self) -> Option<u8> {
        None
    }
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn deadline(&self) -> Option<GuestTicks> {
        None
    }
    fn expire(&mut self, _: GuestTicks) {}
    fn destination(&self) -> ApicDestination {
        ApicDestination::default()
    }
}

/// No scheduler: nobody is admitted.
#[derive(Debug)]
pub struct NoScheduler<const VCPUS: usize>;

impl<const VCPUS: usize> Scheduler for NoScheduler<VCPUS> {
    fn new(_: u8) -> Self {
        Self
    }
    fn admit(&self, _: VcpuName, _: u32, _: Option<CpuIndex>) -> bool {
        false
    }
    fn retire(&self, _: VcpuName) {}
    fn next(&self, _: CpuIndex, _: HostTime) -> Turn {
        Turn::Idle { until: None }
    }
    fn leave(&self, _: CpuIndex, _: VcpuName, _: HostTime, _: Leave) {}
    fn wake(&self, _: VcpuName, _: HostTime) -> Option<CpuIndex> {
        None
    }
    fn contended(&self, _: CpuIndex) -> bool {
        false
    }
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

/// What stands in each role of a product where its part is left out, under the name of the role. The image's table of contents takes
/// all of these in at once, and a part's two lines there hide the one of its role: a part that is removed with its lines leaves a tree
/// that builds.
pub mod roles {
    use super::{Absent, NoScheduler};

    /// The processor does not say where the next instruction begins.
    pub type NextInstruction = Absent;
    /// The processor does not say what an instruction was.
    pub type DecodedInstruction = Absent;
    /// All translations are forgotten at once.
    pub type TranslationFlush = Absent;
    /// A guest that spins does so to the end of its turn.
    pub type SpinDetector = Absent;
    /// Nobody runs guests without paging.
    pub type UnpagedModes = Absent;
    /// Translations are forgotten at each world switch.
    pub type TranslationTags = Absent;
    /// The host's timer ends turns.
    pub type DeadlineTimer = Absent;
    /// Guests have no XSAVES.
    pub type SupervisorState = Absent;
    /// Software delivers interrupts.
    pub type InterruptDelivery = Absent;
    /// Second stages make do with pages of 2 MiB.
    pub type HugePages = Absent;
    /// No scheduler.
    pub type Schedule<const VCPUS: usize> = NoScheduler<VCPUS>;
    /// No local APIC.
    pub type LocalApic = Absent;
    /// No I/O APIC.
    pub type IoApic = Absent;
    /// No PIC.
    pub type Pic = Absent;
    /// No interval timer.
    pub type Pit = Absent;
    /// No real-time clock.
    pub type Rtc = Absent;
    /// No serial port.
    pub type Uart = Absent;
    /// No power switch.
    pub type AcpiPower = Absent;
    /// No PCI bus.
    pub type PciHost = Absent;
    /// No clock page.
    pub type ClockPage = Absent;
}
