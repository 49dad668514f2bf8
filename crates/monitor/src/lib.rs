//! Row 4: the monitor. Compartments, vCPUs, exit dispatch, the run loop, the interrupt fabric, lifecycle, the audit log.
//!
//! Generic over one [`contracts::Image`] and a vault that holds compartments; it names no metal and no part. Read [`Monitor`] first,
//! then [`serve`] (one turn of a vCPU), then [`dispatch`] (what follows from an exit).
#![no_std]

pub mod audit;
pub mod compartment;
pub mod console;
pub mod control;
pub mod cpuid;
mod dispatch;
mod fabric;
mod fetch;
mod lifecycle;
pub mod mailbox;
mod registers;
pub mod serve;
pub mod slot;
mod string;

use audit::Kind;
use compartment::Compartment;
use console::Console;
use contracts::{CpuIndex, Host, HostTime, Image, Leave, Scheduler, Turn, Vault, VcpuName};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use heapless::Deque;
use serve::Serving;
use slot::{Ending, Slot, State};
use spin::Mutex;

pub use compartment::Facts;
pub use cpuid::CpuidTable;
pub use lifecycle::start_state;

/// Milliseconds until what was typed is offered again to a compartment whose receiver was full.
const TYPING_PAUSE: u64 = 5;

/// Ctrl-]: the next byte is for the hypervisor.
const ATTENTION: u8 = 0x1d;

/// The whole of the monitor: what all processors share. Of a compartment's private state nothing is here.
pub struct Monitor<'world, I: Image, V, const COMPARTMENTS: usize, const VCPUS: usize> {
    host: &'world I::Host,
    vault: &'world V,
    scheduler: I::Scheduler,
    /// Compartments as others see them.
    pub slots: &'world [Slot<VCPUS>; COMPARTMENTS],
    console: Mutex<Console>,
    keyboard: Mutex<Keyboard>,
    reported: [AtomicBool; COMPARTMENTS],
    running: AtomicU8,
}

/// Bytes that were typed and not yet taken, and for whom they are.
#[derive(Debug, Default)]
struct Keyboard {
    waiting: Deque<u8, 256>,
    /// The compartment that the keyboard is attached to.
    focus: Option<u8>,
    attention: bool,
    /// A compartment was just attached: it is told so when served.
    attach: Option<u8>,
}

impl<'world, I, V, const COMPARTMENTS: usize, const VCPUS: usize> Monitor<'world, I, V, COMPARTMENTS, VCPUS>
where
    I: Image,
    V: Vault<Compartment<I, VCPUS>>,
{
    /// A monitor for `cpus` processors, without compartments. The vacant slots are lent to it: in an image they lie where memory is zero
    /// at the start, and take no bytes of its file.
    pub fn new(
        host: &'world I::Host,
        vault: &'world V,
        slots: &'world [Slot<VCPUS>; COMPARTMENTS],
        cpus: u8,
    ) -> Self {
        let scheduler = I::Scheduler::new(cpus);
        scheduler.calibrate(host.kilohertz());
        Self {
            host,
            vault,
            scheduler,
            slots,
            console: Mutex::new(Console::new()),
            keyboard: Mutex::new(Keyboard::default()),
            reported: [const { AtomicBool::new(false) }; COMPARTMENTS],
            running: AtomicU8::new(0),
        }
    }

    /// Shows a line of the hypervisor's own.
    pub fn say(&self, text: core::fmt::Arguments<'_>) {
        self.console.lock().own(self.host, text);
    }

    /// Lets compartment `index` start, which lies in the vault under that index. False: the scheduler has no place for its vCPUs.
    pub fn admit(&self, index: u8, plan: &plan::Compartment) -> bool {
        let Some(slot) = self.slots.get(usize::from(index)) else { return false };
        for vcpu in 0..plan.vcpus {
            let name = VcpuName { compartment: index, vcpu };
            let pinned = plan.cpus.get(usize::from(vcpu)).map(|cpu| CpuIndex(*cpu));
            if !self.scheduler.admit(name, plan.share, pinned) {
                for admitted in 0..vcpu {
                    self.scheduler.retire(VcpuName { compartment: index, vcpu: admitted });
                }
                return false;
            }
        }
        slot.occupy(&plan.name, plan.vcpus);
        self.running.fetch_add(1, Ordering::Relaxed);
        self.scheduler.wake(VcpuName { compartment: index, vcpu: 0 }, self.host.now());
        true
    }

    /// The machine.
    pub fn host(&self) -> &'world I::Host {
        self.host
    }

    /// The scheduler, for set-up.
    pub fn scheduler(&self) -> &I::Scheduler {
        &self.scheduler
    }

    /// What every processor does from now on. Returns when all compartments have ended: then the machine may be turned off.
    pub fn run(&self, cpu: CpuIndex) {
        let mut last = None;
        while self.running.load(Ordering::Acquire) > 0 {
            let waits = self.take_keyboard(cpu);
            let next = self.scheduler.next(cpu, self.host.now());
            if let Some(other) = self.scheduler.hand_over(cpu) {
                self.host.kick(other);
            }
            // Whoever has still to read what was typed may run on another processor, or here and without an end, and read by polling.
            let again = waits.then(|| {
                let pause = TYPING_PAUSE * u64::from(self.host.kilohertz());
                HostTime(self.host.now().0.saturating_add(pause))
            });
            match next {
                Turn::Idle { until } => {
                    self.host.arm([until, again].into_iter().flatten().min());
                    self.host.wait();
                }
                Turn::Run { vcpu, until } => {
                    let until = [until, again].into_iter().flatten().min();
                    let stranger = last != Some(vcpu);
                    last = Some(vcpu);
                    let leave = self.turn(cpu, vcpu, until, stranger);
                    self.scheduler.leave(cpu, vcpu, self.host.now(), leave);
                }
            }
        }
    }

    #[inline(never)]
    fn turn(&self, cpu: CpuIndex, name: VcpuName, until: Option<HostTime>, stranger: bool) -> Leave {
        let nowhere = Leave::Halted { wake_at: None };
        let Some(slot) = self.slots.get(usize::from(name.compartment)) else { return nowhere };
        let left = self.vault.enter(usize::from(name.compartment), |compartment, memory| {
            let Some(vcpu) = compartment.vcpus.get(usize::from(name.vcpu)) else { return nowhere };
            let mut vcpu = vcpu.lock();
            let keyboard = || self.poll_keyboard(cpu);
            let serving = Serving::<'_, I, _, VCPUS> {
                host: self.host,
                scheduler: &self.scheduler,
                slot,
                compartment,
                memory,
                console: &self.console,
                name,
                cpu,
                keyboard: &keyboard,
            };
            if slot.state() == State::Starting && name.vcpu == 0 {
                return serving.begin(&mut vcpu);
            }
            if slot.state() == State::Clearing && name.vcpu == 0 {
                return serving.clear();
            }
            let left = serving.turn(&mut vcpu, until, stranger);
            serving.show_prompt();
            left
        });
        if slot.state().is_final() {
            self.report(usize::from(name.compartment));
        }
        left.unwrap_or(nowhere)
    }

    /// Says once how a compartment ended: one line of key=value words, and a line for each thing that its audit log noted.
    #[inline(never)]
    fn report(&self, index: usize) {
        let (Some(slot), Some(reported)) = (self.slots.get(index), self.reported.get(index)) else { return };
        if reported.swap(true, Ordering::AcqRel) {
            return;
        }
        let name = slot.name();
        slot.with_audit(|audit| {
            for entry in audit.entries() {
                self.say(format_args!(
                    "audit {name} {} times={} first={}us {}",
                    entry.kind.name(),
                    entry.count,
                    entry.first.0 / 1000,
                    entry.subject
                ));
            }
            if audit.unlisted() > 0 {
                self.say(format_args!("audit {name} further={}", audit.unlisted()));
            }
        });
        self.say(format_args!("{}", Report(slot)));
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The others wait for work that never comes: they leave too.
            for cpu in 0..I::PROFILE.limits.cpus {
                self.host.kick(CpuIndex(cpu));
            }
        }
    }

    /// Whether the keyboard has anything to take. The first processor looks after it.
    fn poll_keyboard(&self, cpu: CpuIndex) -> bool {
        if cpu != CpuIndex(0) {
            return false;
        }
        let mut keyboard = self.keyboard.lock();
        while let Some(byte) = self.host.console_read() {
            if byte == ATTENTION {
                // What a compartment does not take must not hold up the way to the others.
                keyboard.waiting.clear();
            }
            // Where there is no room the byte is lost, as on a real line.
            let _ = keyboard.waiting.push_back(byte);
        }
        !keyboard.waiting.is_empty() || keyboard.attach.is_some()
    }

    /// Takes what was typed: Ctrl-] and a digit attach the keyboard to a compartment, all else goes to that compartment. Answers whether
    /// something waits for room there.
    #[inline(never)]
    fn take_keyboard(&self, cpu: CpuIndex) -> bool {
        while self.poll_keyboard(cpu) {
            let mut keyboard = self.keyboard.lock();
            if let Some(index) = keyboard.attach.take() {
                drop(keyboard);
                self.attach(index);
                continue;
            }
            let Some(byte) = keyboard.waiting.pop_front() else { continue };
            if keyboard.attention {
                keyboard.attention = false;
                if let Some(number) = byte.checked_sub(b'1')
                    && self.slots.get(usize::from(number)).is_some_and(|slot| slot.state() != State::Vacant)
                {
                    keyboard.focus = Some(number);
                    keyboard.attach = Some(number);
                }
                continue;
            }
            if byte == ATTENTION {
                keyboard.attention = true;
                continue;
            }
            let focus = keyboard.focus.or_else(|| self.only_compartment());
            drop(keyboard);
            if let Some(index) = focus
                && !self.type_byte(cpu, index, byte)
            {
                // Its receiver is full: the guest reads, then there is room again.
                let _ = self.keyboard.lock().waiting.push_front(byte);
                return true;
            }
        }
        false
    }

    /// The compartment that the keyboard means while it is attached to none: the only one.
    fn only_compartment(&self) -> Option<u8> {
        let mut occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.state() != State::Vacant);
        let (first, _) = occupied.next()?;
        occupied.next().is_none().then_some(first as u8)
    }

    #[inline(never)]
    fn attach(&self, index: u8) {
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.state() == State::Vacant {
                continue;
            }
            self.vault.enter(number, |compartment, _| {
                compartment.platform.lock().attached = number == usize::from(index);
            });
        }
        if let Some(slot) = self.slots.get(usize::from(index)) {
            self.say(format_args!("keyboard attached to {}", slot.name()));
        }
    }

    /// Types a byte into a compartment; false: it has no room now.
    #[inline(never)]
    fn type_byte(&self, cpu: CpuIndex, index: u8, byte: u8) -> bool {
        let Some(slot) = self.slots.get(usize::from(index)) else { return true };
        if slot.state() != State::Running {
            return true;
        }
        let taken = Cell::new(true);
        self.vault.enter(usize::from(index), |compartment, memory| {
            let keyboard = || false;
            let serving = Serving::<'_, I, _, VCPUS> {
                host: self.host,
                scheduler: &self.scheduler,
                slot,
                compartment,
                memory,
                console: &self.console,
                name: VcpuName { compartment: index, vcpu: fabric::NOBODY },
                cpu,
                keyboard: &keyboard,
            };
            taken.set(serving.receive(byte));
        });
        taken.get()
    }
}

/// The report line of a compartment.
struct Report<'slot, const VCPUS: usize>(&'slot Slot<VCPUS>);

impl<const VCPUS: usize> core::fmt::Display for Report<'_, VCPUS> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let slot = self.0;
        write!(formatter, "report {} state={} reason=\"", slot.name(), slot.state().name())?;
        if let Some(Ending::Stopped(reason)) = slot.ending() {
            write!(formatter, "{reason}")?;
        }
        write!(formatter, "\" restarts={} exits", slot.restarts())?;
        for (kind, count) in slot.exits().filter(|(_, count)| *count > 0) {
            write!(formatter, " {kind}={count}")?;
        }
        write!(formatter, " audit")?;
        slot.with_audit(|audit| {
            Kind::ALL.iter().try_for_each(|kind| write!(formatter, " {}={}", kind.name(), audit.count(*kind)))
        })
    }
}
