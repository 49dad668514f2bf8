//! A compartment: everything that is private to it. It lives in the vault and is mapped only while it is served.

use crate::console::Line;
use crate::cpuid::CpuidTable;
use contracts::{
    ApicDestination, Attached, Clock, Exit, GuestTime, HostTime, Image, LocalApic as _, Platform, StartState,
    Vcpu as _,
};
use core::sync::atomic::{AtomicU64, Ordering};
use heapless::Vec;
use spin::Mutex;

/// What decides about a compartment's life, besides its plan.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its index.
    pub index: u8,
    /// The wall clock at its start, seconds since 1970-01-01 UTC.
    pub wall_clock: u64,
    /// The host's time when its own time was 0.
    pub origin: HostTime,
    /// The rate of its time stamp counter.
    pub clock: Clock,
}

/// Everything private to a compartment.
pub struct Compartment<I: Image, const VCPUS: usize> {
    /// Facts that never change.
    pub facts: Facts,
    /// What its manifest says.
    pub plan: plan::Compartment,
    /// What its vCPUs answer to CPUID.
    pub cpuid: CpuidTable,
    /// The devices that all its vCPUs share, behind its one lock.
    pub platform: Mutex<Devices<I>>,
    /// Its vCPUs. Each is locked by the processor that runs it, for as long as it runs it.
    pub vcpus: Vec<Mutex<VirtualProcessor<I>>, VCPUS>,
    /// What messages have to match to reach each vCPU's local APIC.
    pub directory: Directory<VCPUS>,
}

impl<I: Image, const VCPUS: usize> Compartment<I, VCPUS> {
    /// A compartment with these virtual processors, not started. At most `VCPUS` of them; more are left out.
    #[inline(never)]
    pub fn new(
        facts: Facts,
        plan: plan::Compartment,
        cpuid: CpuidTable,
        virtual_processors: impl Iterator<Item = I::Vcpu>,
    ) -> Self {
        let mut vcpus = Vec::new();
        for (number, vcpu) in virtual_processors.take(VCPUS).enumerate() {
            // `take` leaves room for each.
            let _ = vcpus.push(Mutex::new(VirtualProcessor::new(vcpu, number as u8)));
        }
        let platform = Platform { memory: plan.memory, vcpus: plan.vcpus, wall_clock: facts.wall_clock };
        Self {
            facts,
            plan,
            cpuid,
            platform: Mutex::new(Devices::new(&platform)),
            vcpus,
            directory: Directory::new(),
        }
    }

    /// The compartment's time at a time of the host.
    #[inline]
    pub fn time(&self, now: HostTime) -> GuestTime {
        GuestTime(self.facts.clock.nanoseconds(now.0.wrapping_sub(self.facts.origin.0)))
    }

    /// The host's time at which the compartment's time is surely `time` or later.
    #[inline]
    pub fn host_time(&self, time: GuestTime) -> HostTime {
        HostTime(self.facts.origin.0.saturating_add(self.facts.clock.ticks_covering(time.0)))
    }

    /// What devices are built for.
    pub fn platform_facts(&self) -> Platform {
        Platform { memory: self.plan.memory, vcpus: self.plan.vcpus, wall_clock: self.facts.wall_clock }
    }
}

/// The devices that the vCPUs of a compartment share.
pub struct Devices<I: Image> {
    /// The PIC pair.
    pub pic: Attached<I::LegacyPic>,
    /// The I/O APIC.
    pub io_apic: Attached<I::IoApic>,
    /// All others.
    pub others: I::Devices,
    /// The line that the guest is writing on its console.
    pub line: Line,
    /// Whether the keyboard is this compartment's.
    pub attached: bool,
}

impl<I: Image> Devices<I> {
    fn new(platform: &Platform) -> Self {
        use contracts::DeviceSet;
        Self {
            pic: Attached::new(platform),
            io_apic: Attached::new(platform),
            others: I::Devices::new(platform),
            line: Line::new(),
            attached: false,
        }
    }

    /// Power-on again. The console's line and keyboard stay.
    pub fn reset(&mut self, platform: &Platform) {
        use contracts::DeviceSet;
        self.pic = Attached::new(platform);
        self.io_apic = Attached::new(platform);
        self.others = I::Devices::new(platform);
    }

    /// When the earliest timer goes off.
    pub fn deadline(&self) -> Option<GuestTime> {
        use contracts::DeviceSet;
        [self.pic.deadline(), self.io_apic.deadline(), self.others.deadline()].into_iter().flatten().min()
    }
}

/// Interrupts may have become deliverable since last looked.
const LOOK: u8 = 1 << 0;
/// Deadlines may have changed since the host's timer was armed.
const REARM: u8 = 1 << 1;
/// It does not execute.
const IDLE: u8 = 1 << 2;
/// What a processor may hold of the local APIC was taken back.
const LEND: u8 = 1 << 3;

/// Where the local APIC's page has the count of its timer. Who reads that may find the timer due.
const CURRENT_COUNT: u16 = 0x390;

/// A vCPU with what the monitor keeps for it.
pub struct VirtualProcessor<I: Image> {
    /// The processor itself.
    pub virt: I::Vcpu,
    /// Its local APIC.
    apic: I::LocalApic,
    /// The processor holds its priority, requests and services: see [`contracts::Vcpu::hold_interrupts`].
    lent: bool,
    /// Its index in the compartment.
    pub number: u8,
    /// What it does.
    activity: Activity,
    /// An NMI waits.
    pub non_maskable: bool,
    /// Where the host last interrupted it in an interrupt shadow.
    pub sheltered: u64,
    /// What must be seen to before the next entry, in one byte, so that the hot path looks once: [`LOOK`], [`REARM`], [`IDLE`],
    /// [`LEND`].
    attention: u8,
    /// The processor of the host that ran it last.
    pub last_cpu: Option<contracts::CpuIndex>,
    /// Exits by kind.
    pub exits: [u64; Exit::KINDS],
    /// Registers that only software looks at.
    pub registers: SoftRegisters,
}

/// What a vCPU does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Activity {
    /// It executes.
    Running,
    /// It waits for an interrupt.
    Halted,
    /// It waits for a start-up interrupt.
    WaitingForStart,
    /// It is parked: the compartment ends or resets.
    Parked,
}

impl<I: Image> VirtualProcessor<I> {
    fn new(virt: I::Vcpu, number: u8) -> Self {
        Self {
            virt,
            apic: I::LocalApic::new(number, number == 0),
            lent: false,
            number,
            activity: Activity::Parked,
            non_maskable: false,
            sheltered: 0,
            attention: LOOK | REARM | IDLE,
            last_cpu: None,
            exits: [0; Exit::KINDS],
            registers: SoftRegisters::new(),
        }
    }

    /// Its local APIC, for what the processor never holds: base, timer, pins, and what messages have to match.
    #[inline(always)]
    pub const fn apic(&self) -> &I::LocalApic {
        &self.apic
    }

    /// Its local APIC with everything in it. The vCPU is attached.
    #[inline(always)]
    pub fn apic_mut(&mut self) -> &mut I::LocalApic {
        self.take_back();
        &mut self.apic
    }

    /// Its local APIC beside what the processor may hold: for what requests interrupts at most, and neither looks at priority and services nor
    /// changes the mode.
    #[inline(always)]
    pub const fn apic_beside(&mut self) -> &mut I::LocalApic {
        &mut self.apic
    }

    /// Its local APIC for a use of the register at that offset of its page.
    #[inline(always)]
    pub fn apic_at(&mut self, offset: u16) -> &mut I::LocalApic {
        // TPR to EOI; the spurious-interrupt register, which enables it; ISR, TMR, IRR.
        if matches!(offset, 0x80..=0xb0 | 0xf0..=0x270) {
            self.take_back();
        }
        if offset == CURRENT_COUNT {
            self.set_look();
        }
        &mut self.apic
    }

    /// Whether the processor delivers by itself all that the local APIC has for a guest that runs.
    #[inline(always)]
    pub fn is_served(&self) -> bool {
        I::Vcpu::HOLDS_INTERRUPTS
            && self.lent
            && self.activity == Activity::Running
            && self.apic.pending().is_none()
    }

    /// Takes back what the processor holds of the local APIC. A vCPU that is not attached has everything itself.
    #[inline(always)]
    pub fn take_back(&mut self) {
        if I::Vcpu::HOLDS_INTERRUPTS && self.lent {
            self.return_interrupts();
        }
    }

    #[inline(never)]
    fn return_interrupts(&mut self) {
        self.lent = false;
        self.attention |= LEND;
        if let Some(registers) = self.apic.lendable() {
            self.virt.return_interrupts(registers);
        }
    }

    /// Gives the processor what it may hold of the local APIC while the guest runs.
    #[inline(always)]
    pub fn lend(&mut self) {
        if I::Vcpu::HOLDS_INTERRUPTS && !self.lent {
            self.attention &= !LEND;
            let registers = self.apic.lendable();
            self.lent = registers.is_some();
            self.virt.hold_interrupts(registers);
        }
    }

    /// Counts an exit.
    #[inline(always)]
    pub fn count(&mut self, exit: &Exit) {
        if let Some(count) = self.exits.get_mut(exit.kind()) {
            *count = count.wrapping_add(1);
        }
    }

    /// As [`Self::count`], where nobody knows which exit it is.
    #[inline(never)]
    pub fn count_other(&mut self, exit: &Exit) {
        self.count(exit);
    }

    /// What it does.
    pub const fn activity(&self) -> Activity {
        self.activity
    }

    /// Changes what it does.
    pub const fn set_activity(&mut self, activity: Activity) {
        self.activity = activity;
        match activity {
            Activity::Running => self.attention &= !IDLE,
            _ => self.attention |= IDLE,
        }
    }

    /// Interrupts may have become deliverable.
    #[inline(always)]
    pub const fn set_look(&mut self) {
        self.attention |= LOOK;
    }

    /// Deadlines may have changed since the host's timer was armed.
    #[inline(always)]
    pub const fn set_rearm(&mut self) {
        self.attention |= REARM;
    }

    /// Whether anything must be seen to before the next entry.
    #[inline(always)]
    pub const fn wants_attention(&self) -> bool {
        self.attention != 0
    }

    /// Whether interrupts must be looked at; they then have been.
    pub const fn take_look(&mut self) -> bool {
        let look = self.attention & LOOK != 0;
        self.attention &= !LOOK;
        look
    }

    /// Whether the host's timer must be armed; it then has been.
    pub const fn take_rearm(&mut self) -> bool {
        let rearm = self.attention & REARM != 0;
        self.attention &= !REARM;
        rearm
    }

    /// Power-on again, but for the counters. It is attached to no processor.
    pub fn reset(&mut self) {
        // What a start-up interrupt later finds attached keeps its vector state, which is what power-on makes of it here.
        self.virt.start(&StartState::start_up(0, 0));
        self.apic = I::LocalApic::new(self.number, self.number == 0);
        self.set_activity(Activity::WaitingForStart);
        self.non_maskable = false;
        self.attention |= LOOK | REARM;
        self.registers = SoftRegisters::new();
    }
}

/// Variable memory type range registers.
pub const VARIABLE_RANGES: usize = 8;

/// Registers of a vCPU that change nothing but what they read back as.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SoftRegisters {
    /// Default memory type.
    pub mtrr_default: u64,
    /// Base and mask, in turn.
    pub mtrr_variable: [u64; 2 * VARIABLE_RANGES],
    /// Fixed ranges: 64K, two of 16K, eight of 4K.
    pub mtrr_fixed: [u64; 11],
    /// TSC_AUX.
    pub tsc_aux: u32,
    /// Where the clock page lies, as the guest wrote it.
    pub clock_page: u64,
    /// Where the wall clock was written.
    pub wall_page: u64,
    /// The version of the clock page's last content.
    pub clock_version: u32,
}

impl SoftRegisters {
    /// As firmware leaves them: write-back, but for the hole below 4 GiB.
    const fn new() -> Self {
        let mut mtrr_variable = [0; 2 * VARIABLE_RANGES];
        // Uncached 0xc0000000–0xffffffff: 1 GiB at 3 GiB, valid (APM Vol. 2 §7.7.2).
        mtrr_variable[0] = 0xc000_0000;
        mtrr_variable[1] = 0x000f_ffff_c000_0800;
        Self {
            // Enabled, fixed ranges enabled, write-back.
            mtrr_default: 0xc06,
            mtrr_variable,
            mtrr_fixed: [0x0606_0606_0606_0606; 11],
            tsc_aux: 0,
            clock_page: 0,
            wall_page: 0,
            clock_version: 0,
        }
    }
}

/// For each vCPU, what messages have to match, readable by all vCPUs of the compartment without a lock.
pub struct Directory<const VCPUS: usize> {
    entries: [(AtomicU64, AtomicU64); VCPUS],
}

const FLAT: u64 = 1 << 32;
const WIDE: u64 = 1 << 33;
const ENABLED: u64 = 1 << 34;

impl<const VCPUS: usize> Directory<VCPUS> {
    const fn new() -> Self {
        Self { entries: [const { (AtomicU64::new(0), AtomicU64::new(u64::MAX)) }; VCPUS] }
    }

    /// Publishes what vCPU `number` answers to.
    pub fn publish(&self, number: u8, destination: &ApicDestination) {
        if let Some((word, id)) = self.entries.get(usize::from(number)) {
            let flag = |set: bool, bit: u64| if set { bit } else { 0 };
            word.store(
                u64::from(destination.logical)
                    | flag(destination.flat, FLAT)
                    | flag(destination.wide, WIDE)
                    | flag(destination.enabled, ENABLED),
                Ordering::Relaxed,
            );
            id.store(u64::from(destination.id), Ordering::Release);
        }
    }

    /// What vCPU `number` answers to; `None` if there is none.
    pub fn get(&self, number: usize) -> Option<ApicDestination> {
        let (word, id) = self.entries.get(number)?;
        let id = u32::try_from(id.load(Ordering::Acquire)).ok()?;
        let word = word.load(Ordering::Relaxed);
        Some(ApicDestination {
            id,
            logical: word as u32,
            flat: word & FLAT != 0,
            wide: word & WIDE != 0,
            enabled: word & ENABLED != 0,
        })
    }
}
