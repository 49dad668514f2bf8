//! One turn of a vCPU on a processor of the host: the run loop. Forward only, no way back up, no global.
//!
//! What a turn may look at is in [`Serving`]: the compartment that is mapped, the vCPU that this processor owns, and of everybody
//! else only mailboxes.

use crate::audit::{Access, Kind, Subject};
use crate::compartment::{Activity, Compartment, VirtualProcessor};
use crate::console::Console;
use crate::fetch;
use crate::mailbox::request;
use crate::slot::{Ending, Reason, Slot, State};
use contracts::{
    Attachment, CpuIndex, Exit, GuestMemory, GuestTicks, Host, HostTime, Image, Leave, LegacyPic, LocalApic,
    LocalPin, Scheduler, StartState, Trigger, Vcpu, VcpuName,
};
use decode::Intercepted;
use plan::OnUnclaimed;
use spin::Mutex;
use x86::{General, Rflags};

/// How often a turn looks into the mailbox before it lets others have the processor.
const MAIL_ROUNDS: u8 = 8;

/// Nothing is left to do for this exit: a fault was raised in the guest, or it executes again, or the compartment ends and the mail says
/// so. A value without content: what it stands for is noted where it arises, and no exit carries it about.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Over;

/// General registers with their values.
struct Registers([(General, u64); 4]);

impl core::fmt::Display for Registers {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|(register, value)| write!(formatter, " {register:?}={value:#x}"))
    }
}

/// Everything that a turn works with.
pub struct Serving<'turn, I: Image, M, const VCPUS: usize> {
    /// The machine.
    pub host: &'turn I::Host,
    /// The scheduler.
    pub scheduler: &'turn I::Scheduler,
    /// The compartment as others see it.
    pub slot: &'turn Slot<VCPUS>,
    /// The compartment.
    pub compartment: &'turn Compartment<I, VCPUS>,
    /// Its RAM.
    pub memory: &'turn M,
    /// The console.
    pub console: &'turn Mutex<Console>,
    /// Which vCPU.
    pub name: VcpuName,
    /// On which processor.
    pub cpu: CpuIndex,
    /// Whether the keyboard has bytes for somebody.
    pub keyboard: &'turn dyn Fn() -> bool,
}

impl<I: Image, M: GuestMemory, const VCPUS: usize> Serving<'_, I, M, VCPUS> {
    /// Serves the vCPU until it waits, its turn ends, or its compartment ends.
    pub fn turn(&self, vcpu: &mut VirtualProcessor<I>, until: Option<HostTime>, stranger: bool) -> Leave {
        if vcpu.activity() == Activity::Parked {
            // A vCPU that has parked has nothing to do until the compartment is started again.
            return Leave::Halted { wake_at: None };
        }
        let moved = vcpu.last_cpu != Some(self.cpu);
        vcpu.last_cpu = Some(self.cpu);
        vcpu.virt.attach(Attachment { cpu: self.cpu, moved, stranger: stranger || moved });
        vcpu.set_look();
        vcpu.set_rearm();
        self.expire_timers(vcpu);
        let leave = self.rounds(vcpu, until);
        vcpu.take_back();
        vcpu.virt.detach();
        leave
    }

    fn rounds(&self, vcpu: &mut VirtualProcessor<I>, until: Option<HostTime>) -> Leave {
        let Some(mailbox) = self.slot.mailboxes.get(usize::from(vcpu.number)) else {
            return Leave::Halted { wake_at: None };
        };
        loop {
            if (!mailbox.is_empty() || vcpu.wants_attention())
                && let Some(leave) = self.attend(vcpu, mailbox, until)
            {
                return leave;
            }
            vcpu.virt.enter();
            if let Some(access) = vcpu.virt.port_exit() {
                vcpu.count(&Exit::Port(access));
                self.port(vcpu, &access, Self::port_in, Self::port_out);
            } else {
                match vcpu.virt.exit() {
                    Exit::Interrupted => {
                        vcpu.count(&Exit::Interrupted);
                        if let Some(leave) = self.interrupted(vcpu, until) {
                            return leave;
                        }
                    }
                    Exit::Pause if I::Vcpu::SPINS => {
                        self.dispatch(vcpu, Exit::Pause);
                        // Whom it waits for may wait for this very processor: where others do, they come first.
                        if until.is_some() {
                            return Leave::Yielded;
                        }
                    }
                    exit => self.dispatch(vcpu, exit),
                }
            }
        }
    }

    /// What the guest did ends its compartment. The vCPU finds that in its mailbox before its next entry.
    #[cold]
    #[inline(never)]
    pub fn stop(&self, vcpu: &VirtualProcessor<I>, reason: Reason) -> Over {
        if self.end(vcpu.number, Ending::Stopped(reason)) {
            self.dump(vcpu, reason);
        }
        Over
    }

    /// Sees to everything that must be done before the next entry. `Some`: there is none.
    #[inline(never)]
    fn attend(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        mailbox: &crate::mailbox::Mailbox,
        until: Option<HostTime>,
    ) -> Option<Leave> {
        loop {
            // What it asks for can put more into it: a timer that goes off, a pin that brings NMI. Others may never stop to write.
            let mut rounds = 0;
            while !mailbox.is_empty() {
                if rounds == MAIL_ROUNDS {
                    return Some(Leave::Preempted);
                }
                rounds += 1;
                if let Some(leave) = self.take_mail(vcpu) {
                    return Some(leave);
                }
            }
            if vcpu.take_look() {
                self.deliver(vcpu);
            }
            match vcpu.activity() {
                Activity::Running => {}
                // Nobody can wake or start it: its compartment ends, and the mail says so.
                Activity::Halted | Activity::WaitingForStart if !self.may_wake(vcpu) => continue,
                _ => return Some(Leave::Halted { wake_at: self.own_deadline(vcpu) }),
            }
            if vcpu.take_rearm() {
                let own = self.own_deadline(vcpu);
                let deadline = [until, own].into_iter().flatten().min();
                if !vcpu.virt.arm(deadline) {
                    self.host.arm(deadline);
                }
            }
            vcpu.lend();
            return None;
        }
    }

    /// A host interrupt came: a deadline, a kick, or the keyboard.
    fn interrupted(&self, vcpu: &mut VirtualProcessor<I>, until: Option<HostTime>) -> Option<Leave> {
        self.host.service();
        if vcpu.virt.interrupt_shadow() {
            vcpu.sheltered = vcpu.virt.instruction_pointer();
        }
        vcpu.set_rearm();
        self.expire_timers(vcpu);
        let over = until.is_some_and(|until| until <= self.host.now());
        (over || self.scheduler.contended(self.cpu) || (self.keyboard)()).then_some(Leave::Preempted)
    }

    /// Ends this life of the compartment: all its vCPUs are told to park. Answers whether this was the first word of it.
    pub fn end(&self, own: u8, ending: Ending) -> bool {
        let first = self.slot.end(ending);
        if first {
            for number in 0..self.slot.vcpus() {
                self.tell(number, own, request::PARK);
            }
        }
        first
    }

    /// Says why a compartment is stopped.
    pub fn say_stopped(&self, reason: Reason) {
        self.console.lock().own(self.host, format_args!("{} stopped: {reason}", self.slot.name()));
    }

    /// Says why a compartment is stopped, and shows the registers of the guilty vCPU.
    #[cold]
    fn dump(&self, vcpu: &VirtualProcessor<I>, reason: Reason) {
        let (virt, name) = (&vcpu.virt, self.slot.name());
        self.say_stopped(reason);
        let mut console = self.console.lock();
        console.own(
            self.host,
            format_args!(
                "{name} vcpu {} rip={:#x} cs={:#x} rflags={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
                vcpu.number,
                virt.instruction_pointer(),
                virt.segment(x86::SegmentName::Cs).selector,
                virt.flags().bits(),
                virt.cr0().bits(),
                virt.cr2(),
                virt.cr3(),
                virt.cr4().bits(),
                virt.efer().bits(),
            ),
        );
        for row in [
            [General::Rax, General::Rbx, General::Rcx, General::Rdx],
            [General::Rsi, General::Rdi, General::Rbp, General::Rsp],
            [General::R8, General::R9, General::R10, General::R11],
            [General::R12, General::R13, General::R14, General::R15],
        ] {
            let values = row.map(|register| (register, virt.general(register)));
            console.own(self.host, format_args!("{name} vcpu {}{}", vcpu.number, Registers(values)));
        }
    }

    /// Takes the requests out of the vCPU's mailbox. `Some`: it leaves its processor.
    fn take_mail(&self, vcpu: &mut VirtualProcessor<I>) -> Option<Leave> {
        let mailbox = self.slot.mailboxes.get(usize::from(vcpu.number))?;
        if vcpu.activity() != Activity::Running {
            self.slot.revive(vcpu.number);
        }
        let requests = mailbox.take();
        vcpu.set_look();
        if requests & request::PARK != 0 {
            vcpu.set_activity(Activity::Parked);
            self.slot.add_exits(&vcpu.exits);
            vcpu.exits = [0; Exit::KINDS];
            if self.slot.park() {
                self.finish();
            }
            return Some(Leave::Halted { wake_at: None });
        }
        if requests & request::INIT != 0 {
            vcpu.apic_mut().init();
            self.publish(vcpu);
            vcpu.set_activity(Activity::WaitingForStart);
            vcpu.non_maskable = false;
        }
        if requests & request::START_UP != 0 && vcpu.activity() == Activity::WaitingForStart {
            let signature = self.compartment.cpuid.signature();
            vcpu.virt.start(&StartState::start_up(mailbox.start_vector(), signature));
            vcpu.set_activity(Activity::Running);
        }
        if requests & request::NON_MASKABLE != 0 {
            vcpu.non_maskable = true;
        }
        if requests & request::INTERRUPT != 0 {
            let apic = vcpu.apic_beside();
            mailbox.take_vectors(|vector, trigger| apic.accept(vector, trigger));
        }
        if requests & request::EXTERNAL != 0
            && let Some(level) = self.slot.external.take_change()
        {
            self.pin_changed(vcpu, level);
        }
        if requests & request::TIMERS != 0 {
            vcpu.set_rearm();
            self.expire_timers(vcpu);
        }
        None
    }

    /// Gives the vCPU the interrupt that it should take now, if it can; otherwise asks to be told when it can.
    fn deliver(&self, vcpu: &mut VirtualProcessor<I>) {
        if !matches!(vcpu.activity(), Activity::Running | Activity::Halted) {
            return;
        }
        if vcpu.non_maskable {
            if vcpu.virt.accepts_non_maskable() {
                vcpu.non_maskable = false;
                self.awaken(vcpu);
                vcpu.virt.inject_non_maskable();
            } else {
                vcpu.virt.set_non_maskable_window();
            }
        }
        let external = self.has_external(vcpu);
        if !external && (vcpu.is_served() || vcpu.apic_mut().pending().is_none()) {
            return;
        }
        if vcpu.virt.flags().contains(Rflags::INTERRUPT) {
            self.awaken(vcpu);
        }
        self.step_over_halt(vcpu);
        if I::Vcpu::HOLDS_INTERRUPTS && !external && vcpu.apic_mut().lendable().is_some() {
            // It is lent before the entry, and delivered as soon as the guest takes it.
            return;
        }
        if !vcpu.virt.accepts_interrupt() {
            vcpu.virt.set_window(true);
            return;
        }
        let vector = if external {
            let mut devices = self.compartment.platform.lock();
            let vector = devices.pic.device.acknowledge();
            let output = devices.pic.device.output();
            self.slot.external.settle(output);
            // Nothing follows: it takes external interrupts, which are asked for.
            vcpu.apic_beside().set_pin(LocalPin::Lint0, output);
            Some(vector)
        } else {
            vcpu.apic_mut().acknowledge()
        };
        if let Some(vector) = vector {
            vcpu.virt.inject_interrupt(vector);
        }
        if vcpu.apic_mut().pending().is_some() || self.has_external(vcpu) {
            vcpu.virt.set_window(true);
        }
    }

    /// Whether the PIC has an interrupt for this vCPU.
    #[inline(always)]
    fn has_external(&self, vcpu: &VirtualProcessor<I>) -> bool {
        vcpu.number == 0 && vcpu.apic().takes_external(self.slot.external.is_high())
    }

    /// STI; HLT: the interrupt that came between the two is taken behind the HLT, which it wakes. To execute the HLT here spares two
    /// exits, and does not rest on the interrupt shadow: emulators forget it at VMRUN, take the interrupt before the HLT, and then
    /// halt with nothing left to wake them. Where the host interrupted the guest between the two before, the shadow may be forgotten
    /// already, and the place is remembered; an interrupt may always come as late as behind a HLT.
    fn step_over_halt(&self, vcpu: &mut VirtualProcessor<I>) {
        let virt = &mut vcpu.virt;
        if (virt.interrupt_shadow() || vcpu.sheltered == virt.instruction_pointer())
            && virt.flags().contains(Rflags::INTERRUPT)
            && virt.privilege() == 0
            && let Ok(next) = fetch::next_in_full(
                virt,
                self.memory,
                Intercepted::Halt,
                self.compartment.cpuid.physical_bits(),
            )
        {
            virt.complete(next);
        }
    }

    fn awaken(&self, vcpu: &mut VirtualProcessor<I>) {
        if vcpu.activity() == Activity::Halted {
            vcpu.set_activity(Activity::Running);
            self.slot.revive(vcpu.number);
        }
    }

    /// Whether a vCPU that does not run can ever again; if none of the compartment's can, it is stopped.
    fn may_wake(&self, vcpu: &mut VirtualProcessor<I>) -> bool {
        let interruptible = vcpu.activity() == Activity::Halted
            && (vcpu.non_maskable || vcpu.virt.flags().contains(Rflags::INTERRUPT));
        if interruptible {
            self.slot.revive(vcpu.number);
        } else if self.slot.lapse(vcpu.number) && self.slot.state() == State::Running {
            self.stop(vcpu, Reason::Dead);
            return false;
        }
        true
    }

    /// Lets every timer go off whose time has come: the vCPU's own, and, on the first vCPU, the platform's.
    fn expire_timers(&self, vcpu: &mut VirtualProcessor<I>) {
        let now = vcpu.virt.ticks();
        if vcpu.apic().deadline().is_some_and(|deadline| deadline <= now) {
            vcpu.apic_beside().expire(now);
            vcpu.set_look();
        }
        if vcpu.number == 0 {
            self.expire_devices(vcpu);
        }
    }

    /// When this vCPU next has something to do by itself.
    fn own_deadline(&self, vcpu: &VirtualProcessor<I>) -> Option<HostTime> {
        let origin = self.compartment.facts.origin.0;
        let own = vcpu.apic().deadline().map(|GuestTicks(ticks)| HostTime(ticks.saturating_add(origin)));
        if vcpu.number != 0 {
            return own;
        }
        let platform =
            self.compartment.platform.lock().deadline().map(|time| self.compartment.host_time(time));
        match (own, platform) {
            (Some(own), Some(platform)) => Some(own.min(platform)),
            (own, platform) => own.or(platform),
        }
    }

    /// Puts a request into the mailbox of vCPU `number` and sees to it that it notices. `own` is the vCPU that this turn serves.
    pub fn tell(&self, number: u8, own: u8, what: u32) {
        if let Some(mailbox) = self.slot.mailboxes.get(usize::from(number))
            && mailbox.put(what)
        {
            self.rouse(number, own);
        }
    }

    /// Posts an interrupt to vCPU `number`.
    pub fn post(&self, number: u8, own: u8, vector: u8, trigger: Trigger) {
        if let Some(mailbox) = self.slot.mailboxes.get(usize::from(number))
            && mailbox.post(vector, trigger)
        {
            self.rouse(number, own);
        }
    }

    /// Sends a start-up interrupt to vCPU `number`.
    pub fn start_up(&self, number: u8, own: u8, vector: u8) {
        if let Some(mailbox) = self.slot.mailboxes.get(usize::from(number))
            && mailbox.start_up(vector)
        {
            self.rouse(number, own);
        }
    }

    fn rouse(&self, number: u8, own: u8) {
        if number == own {
            // Its mailbox is looked at before the next entry.
            return;
        }
        let name = VcpuName { compartment: self.name.compartment, vcpu: number };
        if let Some(cpu) = self.scheduler.wake(name, self.host.now()) {
            // It may be this very processor: somebody else should run here now, and this turn has no other end.
            self.host.kick(cpu);
        }
    }

    /// Publishes what messages have to match to reach the vCPU.
    pub fn publish(&self, vcpu: &VirtualProcessor<I>) {
        self.compartment.directory.publish(vcpu.number, &vcpu.apic().destination());
    }

    /// The guest used what is not there: a port or memory that no device claims, a register that is in no table. All such accesses come
    /// here, and here alone the manifest's `on-unclaimed` decides.
    #[inline(never)]
    pub fn unclaimed(&self, vcpu: &VirtualProcessor<I>, access: Access) {
        if self.compartment.plan.on_unclaimed == OnUnclaimed::Stop {
            return self.forbidden(vcpu, access);
        }
        self.note(Kind::Unknown, Subject::Access(access));
    }

    /// An unclaimed access ends the compartment. The vCPU finds that in its mailbox before its next entry; until then the access is
    /// completed as ever, so that it is never half done.
    #[cold]
    #[inline(never)]
    fn forbidden(&self, vcpu: &VirtualProcessor<I>, access: Access) {
        self.note(Kind::Unknown, Subject::Access(access));
        self.stop(vcpu, Reason::Unclaimed(access));
    }

    /// Notes something in the audit log.
    #[inline(never)]
    pub fn note(&self, kind: Kind, subject: Subject) {
        self.slot.note(kind, subject, || self.compartment.time(self.host.now()));
    }
}
