//! A virtual processor of VT-x.

use crate::apic::RegisterPage;
use crate::controls::{Controls, EntryControls, Primary, Secondary};
use crate::exit::{self, reason};
use crate::field::{Field, Fields, SegmentFields};
use crate::structure::{self, Cleared, Registers, Structure};
use crate::{Parts, event, host, identity, permissions, rules, segment};
use address::HostPhysical;
use backend::Watch;
use contracts::{Attachment, CpuIndex, EntryFailure, Exit, GuestTicks, HostTime, PortExit, StartState, Vcpu};
use core::arch::asm;
use core::marker::PhantomData;
use cpu::vmx::Capabilities;
use cpu::{Features, VectorState};
use memory::Page;
use x86::interrupts::{InterruptRegisters, VectorSet};
use x86::{CodeSize, Cr0, Cr4, Efer, Exception, Fault, General, Rflags, Segment, SegmentName, Xcr0, msr};

/// CR0 after reset has CD and NW set; software finds caches on, as it does after firmware.
const PAGE_ATTRIBUTES_AT_RESET: u64 = 0x0007_0406_0007_0406;
/// DR6 and DR7 after reset (SDM Vol. 3A table 10-1).
const DR6_AT_RESET: u64 = 0xffff_0ff0;
const DR7_AT_RESET: u64 = 0x400;
/// DR6.BS: a single step.
const SINGLE_STEP: u64 = 1 << 14;

/// Exceptions that come back. A machine check is the host's. The delivery of #DB and of #AC can raise the same exception again, and again,
/// inside the processor, which then takes no interrupt any more (CVE-2015-8104, CVE-2015-5307). From here they are raised one at a
/// time, and interrupts come between.
const EXCEPTIONS: u64 = 1 << Exception::MachineCheck.vector()
    | 1 << Exception::Debug.vector()
    | 1 << Exception::AlignmentCheck.vector();

/// Bits of CR0 that the guest changes by itself; all others exit where they change.
const OWN_CR0: u64 = Cr0::TASK_SWITCHED.bits();
/// Bits of CR4 that the guest changes by itself: the processor then forgets the translations that it should.
const OWN_CR4: u64 = Cr4::GLOBAL_PAGES.bits();

/// Ticks of the time stamp counter that a guest has at least until its deadline: some instructions, after what a VM entry itself takes.
const LEAST_TURN: u64 = 256;

/// Registers that are the guest's while it is attached, and nobody's otherwise: the hypervisor executes no SYSCALL and no SWAPGS.
const SYSTEM: [u32; 5] = [msr::KERNEL_GS_BASE, msr::STAR, msr::LSTAR, msr::CSTAR, msr::SFMASK];

/// The private frames of one virtual processor.
pub struct Frames {
    /// For the VMCS.
    pub structure: Page,
    /// For the vector state, as many contiguous pages as the processor's XSAVE area needs.
    pub vector: Page,
    /// Root of the extended page tables.
    pub root: HostPhysical,
    /// For the local APIC's registers, where the processor holds them.
    pub interrupts: Option<Page>,
}

/// What does not change in the life of a virtual processor.
#[derive(Copy, Clone)]
struct Facts {
    controls: Controls,
    /// Root of the extended page tables.
    root: HostPhysical,
    /// CR4.MCE, where there is one: see [`Vcpu::set_cr4`].
    machine_check: Cr4,
    /// The virtual-processor identifier.
    tag: u16,
    has_ticks_aux: bool,
    processor: rules::Processor,
}

impl Facts {
    /// Bits of CR0 that are on in the processor whatever the guest wants.
    fn cr0_ones<P: Parts>(&self) -> u64 {
        let ones = self.processor.capabilities.cr0_ones;
        if P::UNRESTRICTED { ones & !(Cr0::PROTECTION | Cr0::PAGING).bits() } else { ones }
    }
}

/// What a virtual processor asks of the processor that it is attached to, beside the fields.
pub trait Hardware: Fields {
    /// Makes the fields this processor's. False: that cannot be.
    fn load(&mut self) -> bool;
    /// Gives them up.
    fn clear(&mut self);
    /// Which processor it is, and its control registers.
    fn host(&self) -> (CpuIndex, cpu::control::State);
    /// Enters the guest and comes back with the exit's reason, and with the event whose delivery it cut short. `None`: the instruction failed.
    fn enter(&mut self, registers: &mut Registers) -> Option<(u32, u64)>;
    /// CR2.
    fn page_fault_address(&self) -> u64;
    /// Sets CR2.
    fn set_page_fault_address(&mut self, value: u64);
    /// DR6.
    fn debug_status(&self) -> u64;
    /// Sets DR6.
    fn set_debug_status(&mut self, value: u64);
    /// Forgets the translations that have this tag.
    fn forget_translations(&mut self, tag: u16);
}

impl Hardware for Structure {
    fn load(&mut self) -> bool {
        if !host::occupy() {
            return false;
        }
        // SAFETY: `occupy` found this processor in VMX operation and without another structure.
        let loaded = unsafe { Structure::load(self) };
        if !loaded {
            host::vacate();
        }
        loaded
    }

    fn clear(&mut self) {
        Structure::clear(self);
        host::vacate();
    }

    fn host(&self) -> (CpuIndex, cpu::control::State) {
        (cpu::block::current(), cpu::control::state())
    }

    #[inline(always)]
    fn enter(&mut self, registers: &mut Registers) -> Option<(u32, u64)> {
        let Self::Loaded(loaded) = self else { return None };
        // SAFETY: `attach` wrote the host state of this processor, and the controls once; RAM, extended page tables and permissions are
        // the compartment's own (`VmxVcpu::new`).
        unsafe { loaded.enter(registers) }.ok()?;
        let reason = loaded.read(Field::EXIT_REASON) as u32;
        if reason & reason::REFUSED != 0 {
            return Some((reason, 0));
        }
        loaded.entered();
        Some((reason, loaded.read(Field::VECTORING_EVENT)))
    }

    fn page_fault_address(&self) -> u64 {
        let value;
        // SAFETY: reads CR2, changes nothing.
        unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    fn set_page_fault_address(&mut self, value: u64) {
        // SAFETY: CR2 has no effect; the hypervisor's own page faults end in a report, and write it first.
        unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }

    fn debug_status(&self) -> u64 {
        cpu::vector::debug_status()
    }

    fn set_debug_status(&mut self, value: u64) {
        cpu::vector::set_debug_status(value);
    }

    fn forget_translations(&mut self, tag: u16) {
        let descriptor = [u64::from(tag), 0];
        // SAFETY: VMX operation is on where a structure is loaded, and part `vpid` found INVVPID of a single context; the descriptor has
        // the form of SDM Vol. 3C §31.3 and a tag that is not 0.
        unsafe {
            asm!("invvpid {kind}, [{descriptor}]", kind = in(reg) 1u64, descriptor = in(reg) &raw const descriptor,
                options(nostack));
        }
    }
}

/// A virtual processor of a product with the parts `P`.
pub struct VmxVcpu<P, H = Structure> {
    hardware: H,
    facts: Facts,
    /// General registers by number, but RSP: see [`Registers`].
    registers: Registers,
    attached: bool,
    /// Nothing was written into the structure yet.
    fresh: bool,
    /// The processor whose state the structure's host state is.
    host: Option<CpuIndex>,
    /// What it starts with once it is attached.
    start: Option<StartState>,
    /// The primary controls now.
    primary: u32,
    /// The last exit's reason.
    reason: u32,
    deadline: u64,
    /// The structure's timer has to be set before the next entry. An exit leaves what it begins with.
    timed: bool,
    efer: Efer,
    xcr0: Xcr0,
    ticks_offset: u64,
    ticks_aux: u32,
    /// SPEC_CTRL.
    speculation: u32,
    /// CR3 as the guest sees it while the processor uses [`identity`]'s.
    cr3: u64,
    /// While detached: CR2, DR0 to DR3, DR6, [`SYSTEM`].
    cr2: u64,
    debug: [u64; 4],
    status: u64,
    system: [u64; SYSTEM.len()],
    vector: VectorState,
    /// Where the processor holds the local APIC's registers.
    interrupts: Option<RegisterPage>,
    /// Whether it does, and the vectors whose end exits, as the structure says.
    holding: bool,
    level: VectorSet,
    parts: PhantomData<P>,
}

// SAFETY: the frames behind the pointers are this virtual processor's own (`Frames`). Its structure is bound to a processor from `attach`
// to `detach`, and those who attach it keep it on that processor so long (`contracts::Vcpu`); after that it may go anywhere.
unsafe impl<P> Send for VmxVcpu<P> {}

impl<P: Parts> VmxVcpu<P> {
    /// A virtual processor in these frames. `number` counts all virtual processors of the machine from 0. `None`: this processor lacks something
    /// that [`backend::BackEnd::missing`] names.
    pub fn new(frames: Frames, number: u32, features: &Features, capabilities: Capabilities) -> Option<Self> {
        let controls = Controls::compute::<P>(&capabilities, features.rdtscp).ok()?;
        // SAFETY: the page is this virtual processor's own, and mapped while its compartment's space is, as now.
        let cleared = unsafe { Cleared::new(frames.structure, host::revision(&capabilities)) };
        let facts = Facts {
            controls,
            root: frames.root,
            machine_check: if features.machine_check { Cr4::MACHINE_CHECK } else { Cr4::empty() },
            tag: u16::try_from(number + 1).ok()?,
            has_ticks_aux: features.rdtscp,
            processor: rules::Processor { capabilities, physical_bits: features.physical_bits },
        };
        let vector = VectorState::new(frames.vector.pointer(), features);
        // SAFETY: as for the structure. Its registers are read and written while the virtual processor is attached, and so its compartment's
        // space in use.
        let registers =
            frames.interrupts.map(|page| unsafe { RegisterPage::new(page.pointer(), page.physical()) });
        Some(Self::with(Structure::Cleared(cleared), facts, vector, registers))
    }
}

impl<P: Parts, H: Hardware> VmxVcpu<P, H> {
    fn with(hardware: H, facts: Facts, vector: VectorState, interrupts: Option<RegisterPage>) -> Self {
        Self {
            hardware,
            facts,
            registers: [0; 16],
            attached: false,
            fresh: true,
            host: None,
            start: Some(StartState::start_up(0, 0)),
            primary: facts.controls.primary,
            reason: reason::NOT_ENTERED,
            deadline: u64::MAX,
            timed: true,
            efer: Efer::empty(),
            xcr0: Xcr0::X87,
            ticks_offset: 0,
            ticks_aux: 0,
            speculation: 0,
            cr3: 0,
            cr2: 0,
            debug: [0; 4],
            status: DR6_AT_RESET,
            system: [0; SYSTEM.len()],
            vector,
            interrupts,
            holding: false,
            level: VectorSet::new(),
            parts: PhantomData,
        }
    }

    /// Puts what never changes into the structure.
    fn write_controls(&mut self) {
        let Facts { controls, root, tag, .. } = self.facts;
        let permissions = permissions::address().get();
        for (field, value) in [
            (Field::PIN_CONTROLS, controls.pin.into()),
            (Field::PRIMARY_CONTROLS, controls.primary.into()),
            (Field::SECONDARY_CONTROLS, controls.secondary.into()),
            (Field::EXIT_CONTROLS, controls.exit.into()),
            (Field::ENTRY_CONTROLS, controls.entry.into()),
            (Field::EXCEPTIONS, EXCEPTIONS),
            (Field::PAGE_FAULT_MASK, 0),
            (Field::PAGE_FAULT_MATCH, 0),
            (Field::CR3_TARGETS, 0),
            (Field::EXIT_MSR_STORES, 0),
            (Field::EXIT_MSR_LOADS, 0),
            (Field::ENTRY_MSR_LOADS, 0),
            (Field::MSR_BITMAP, permissions),
            (Field::EPT_POINTER, host::ept_pointer(root)),
            (Field::CR0_MASK, !OWN_CR0),
            (Field::CR4_MASK, !OWN_CR4),
            (Field::LINK_POINTER, u64::MAX),
        ] {
            self.hardware.write(field, value);
        }
        if P::TAGGED {
            self.hardware.write(Field::VPID, tag.into());
        }
        if P::XSAVES {
            // No supervisor state is anybody's: should IA32_XSS hold a component all the same, its XSAVES and XRSTORS exit.
            self.hardware.write(Field::XSS_EXITING, u64::MAX);
        }
        if P::DELIVERS {
            let page = self.interrupts.as_ref().map_or(0, |page| page.physical().get());
            self.hardware.write(Field::VIRTUAL_APIC, page);
            self.hardware.write(Field::PRIORITY_THRESHOLD, 0);
            self.write_level();
        }
    }

    /// Whether CR8, the delivery of interrupts and some of the x2APIC's registers are the processor's. Only then may those registers not exit: they
    /// would be the host's.
    fn set_holding(&mut self, holding: bool) {
        self.holding = holding;
        let exits = (Primary::CR8_LOAD | Primary::CR8_STORE).bits();
        let shadow = Primary::TASK_PRIORITY_SHADOW.bits();
        let held = (Secondary::EXTENDED_APIC | Secondary::INTERRUPT_DELIVERY).bits();
        let secondary = self.facts.controls.secondary;
        let (primary, secondary, map) = if holding {
            (self.primary & !exits | shadow, secondary | held, permissions::held_address())
        } else {
            (self.primary & !shadow | exits, secondary, permissions::address())
        };
        self.set_primary(primary);
        self.hardware.write(Field::SECONDARY_CONTROLS, secondary.into());
        self.hardware.write(Field::MSR_BITMAP, map.get());
    }

    /// The vectors whose end exits.
    fn write_level(&mut self) {
        let [a, b, c, d, e, f, g, h] = self.level.words().map(u64::from);
        for (field, vectors) in [
            (Field::END_EXITS_0, b << 32 | a),
            (Field::END_EXITS_1, d << 32 | c),
            (Field::END_EXITS_2, f << 32 | e),
            (Field::END_EXITS_3, h << 32 | g),
        ] {
            self.hardware.write(field, vectors);
        }
    }

    /// Puts the state into the structure.
    fn write_state(&mut self, state: &StartState) {
        let fields = &mut self.hardware;
        let segments = &state.segments;
        let in_order = [
            &segments.es,
            &segments.cs,
            &segments.ss,
            &segments.ds,
            &segments.fs,
            &segments.gs,
            &segments.ldtr,
            &segments.tr,
        ];
        for (register, value) in (0..).zip(in_order) {
            segment::write(fields, SegmentFields(register), value);
        }
        segment::write_table(fields, Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT, state.gdt);
        segment::write_table(fields, Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT, state.idt);
        for (field, value) in [
            (Field::ENTRY_EVENT, 0),
            (Field::GUEST_INTERRUPTIBILITY, 0),
            (Field::GUEST_ACTIVITY, 0),
            (Field::GUEST_PENDING_DEBUG, 0),
            (Field::GUEST_DEBUG_CONTROL, 0),
            (Field::GUEST_DR7, DR7_AT_RESET),
            (Field::GUEST_RFLAGS, (state.flags | Rflags::ALWAYS_ONE).bits()),
            (Field::GUEST_RIP, state.instruction_pointer),
            (Field::GUEST_RSP, state.general[General::Rsp as usize]),
            (Field::GUEST_SYSENTER_CS, 0),
            (Field::GUEST_SYSENTER_ESP, 0),
            (Field::GUEST_SYSENTER_EIP, 0),
            (Field::GUEST_PAT, PAGE_ATTRIBUTES_AT_RESET),
        ] {
            fields.write(field, value);
        }
        self.set_directory_pointers([0; 4]);
        self.set_primary(self.facts.controls.primary);
        self.set_efer(state.efer);
        self.write_cr0(state.cr0);
        self.write_cr4(state.cr4);
        self.write_cr3(state.cr3);
        self.forget_translations();
    }

    fn write_cr0(&mut self, value: Cr0) {
        let ones = self.facts.cr0_ones::<P>();
        self.hardware.write(Field::GUEST_CR0, value.bits() | ones);
        self.hardware.write(Field::CR0_SHADOW, value.bits());
    }

    fn write_cr4(&mut self, value: Cr4) {
        let ones = self.facts.processor.capabilities.cr4_ones;
        let held =
            if self.on_identity() { value.difference(identity::CR4_OFF) | Cr4::PAGE_SIZE } else { value };
        self.hardware.write(Field::GUEST_CR4, (held | self.facts.machine_check).bits() | ones);
        self.hardware.write(Field::CR4_SHADOW, value.bits());
    }

    /// Whether the guest has no paging, and the processor has.
    #[inline(always)]
    fn on_identity(&self) -> bool {
        !P::UNRESTRICTED && !self.cr0().contains(Cr0::PAGING)
    }

    /// CR3, and whether its accesses exit: what the guest writes there while it has no paging counts later.
    fn write_cr3(&mut self, value: u64) {
        let exits = (Primary::CR3_LOAD | Primary::CR3_STORE).bits();
        if self.on_identity() {
            self.cr3 = value;
            self.hardware.write(Field::GUEST_CR3, identity::ADDRESS.get());
            self.set_primary(self.primary | exits);
        } else {
            self.hardware.write(Field::GUEST_CR3, value);
            if !P::UNRESTRICTED {
                self.set_primary(self.primary & !exits);
            }
        }
    }

    fn set_primary(&mut self, value: u32) {
        if value != self.primary {
            self.primary = value;
        }
        self.hardware.write(Field::PRIMARY_CONTROLS, value.into());
    }

    /// What was translated before is not valid any more. Without tags nothing outlives the next entry.
    fn forget_translations(&mut self) {
        if P::TAGGED && self.attached {
            self.hardware.forget_translations(self.facts.tag);
        }
    }

    /// Turns some bits of the interruptibility state off.
    #[inline(always)]
    fn end_interruptibility(&mut self, bits: u64) {
        let state = self.hardware.read(Field::GUEST_INTERRUPTIBILITY);
        if state & bits != 0 {
            self.hardware.write(Field::GUEST_INTERRUPTIBILITY, state & !bits);
        }
    }

    /// The shadow of STI and MOV to SS has passed, and with it a single step that waited for its end.
    #[inline(always)]
    fn end_shadow(&mut self) {
        let state = self.hardware.read(Field::GUEST_INTERRUPTIBILITY);
        if state & event::SHADOW != 0 {
            self.hardware.write(Field::GUEST_INTERRUPTIBILITY, state & !event::SHADOW);
            self.hardware.write(Field::GUEST_PENDING_DEBUG, 0);
        }
    }

    /// An event whose delivery was cut short goes in first at the next entry. INTn, INT3, INTO and INT1 do not: they are executed again,
    /// since RIP still points at them.
    #[cold]
    #[inline(never)]
    fn deliver_again(&mut self, cut: u64) {
        let kind = cut & event::TYPE;
        if kind > event::EXCEPTION {
            return;
        }
        if kind == event::NON_MASKABLE {
            // Its delivery had begun by masking others; the entry wants it not to be masked.
            self.end_interruptibility(event::NON_MASKABLE_MASKED);
        }
        if cut & event::HAS_ERROR_CODE != 0 {
            let code = self.hardware.read(Field::VECTORING_ERROR_CODE);
            self.hardware.write(Field::ENTRY_ERROR_CODE, code);
        }
        self.hardware.write(Field::ENTRY_EVENT, cut & event::WHOLE);
    }

    /// An IRET had ended the masking of NMIs, and then failed: it is executed again, so they are masked still (SDM Vol. 3C §28.2.3).
    #[cold]
    #[inline(never)]
    fn mask_again(&mut self) {
        if self.hardware.read(Field::VECTORING_EVENT) & event::VALID == 0 {
            let state = self.hardware.read(Field::GUEST_INTERRUPTIBILITY);
            self.hardware.write(Field::GUEST_INTERRUPTIBILITY, state | event::NON_MASKABLE_MASKED);
        }
    }

    /// What an exit by an exception or an NMI leaves to be done.
    #[cold]
    #[inline(never)]
    fn after_exception(&mut self) {
        let interruption = self.hardware.read(Field::EXIT_EVENT);
        match (interruption & event::TYPE, interruption as u8) {
            // They are the host's. VMX has taken them from the host's processor, so that they are raised there by hand.
            (event::NON_MASKABLE, _) => cpu::interrupt::raise_non_maskable(),
            (_, 18) => cpu::interrupt::raise_machine_check(),
            (kind, vector) => {
                if interruption & event::UNMASKED != 0 && vector != Exception::DoubleFault.vector() {
                    self.mask_again();
                }
                if kind == event::PRIVILEGED {
                    // INT1 is a trap: its handler returns behind it. DR6 stays as it is.
                    let behind = self.behind();
                    self.hardware.write(Field::GUEST_RIP, behind);
                } else if vector == Exception::Debug.vector() {
                    // What DR6 would say: the exit left it as it was (SDM Vol. 3C §28.1).
                    let met = self.hardware.read(Field::QUALIFICATION) & 0x1_600f;
                    let status = self.hardware.debug_status();
                    // Bit 16 of DR6 is 0 where the exception came from a transaction.
                    let status = (status & !0xf | met & 0x600f) | 1 << 16;
                    self.hardware.set_debug_status(if met >> 16 == 1 { status & !(1 << 16) } else { status });
                }
            }
        }
    }

    /// Where the instruction that caused the exit ends.
    #[inline(always)]
    fn behind(&self) -> u64 {
        let next = self.hardware.read(Field::GUEST_RIP).wrapping_add(self.hardware.read(Field::EXIT_LENGTH));
        if next >> 32 != 0 && self.code_size() != CodeSize::Bits64 { next & 0xffff_ffff } else { next }
    }

    /// What the exit of an entry that was refused says, or of an EPT entry of ours that cannot be.
    #[cold]
    #[inline(never)]
    fn failure(&self) -> Exit {
        let read = |field| self.hardware.read(field);
        let (code, rule) = match self.reason {
            reason::MISCONFIGURATION => (
                u64::from(self.reason),
                Some("an entry of its extended page tables cannot be: a fault of Ringfence"),
            ),
            reason::NOT_ENTERED => (1 << 16 | read(Field::INSTRUCTION_ERROR), None),
            other => (u64::from(other) | read(Field::QUALIFICATION) << 32, None),
        };
        let rule = match rule {
            None if self.in_real_mode() => Some("real mode needs part real-mode"),
            None if P::Watch::NAMES_RULES => rules::broken(&self.hardware, &self.facts.processor),
            named => named,
        };
        Exit::Failed(EntryFailure { code, rule })
    }

    /// Whether the guest wants to be where this processor cannot take it.
    #[inline(always)]
    fn in_real_mode(&self) -> bool {
        !P::UNRESTRICTED && !self.cr0().contains(Cr0::PROTECTION)
    }

    /// The host's state: this processor's own, and the page tables of the compartment's space. The structure keeps it while it is cleared.
    fn write_host(&mut self) {
        let (block, state) = self.hardware.host();
        for (field, value) in [
            (Field::HOST_CR0, state.cr0),
            (Field::HOST_CR3, state.cr3),
            (Field::HOST_CR4, state.cr4),
            (Field::HOST_EFER, state.efer),
            (Field::HOST_PAT, cpu::control::PAGE_ATTRIBUTES),
            (Field::HOST_CS_SELECTOR, cpu::block::CODE_SELECTOR.into()),
            (Field::HOST_SS_SELECTOR, cpu::block::DATA_SELECTOR.into()),
            (Field::HOST_DS_SELECTOR, cpu::block::DATA_SELECTOR.into()),
            (Field::HOST_ES_SELECTOR, cpu::block::DATA_SELECTOR.into()),
            (Field::HOST_FS_SELECTOR, 0),
            (Field::HOST_GS_SELECTOR, 0),
            (Field::HOST_TR_SELECTOR, cpu::block::TASK_SELECTOR.into()),
            (Field::HOST_FS_BASE, 0),
            (Field::HOST_GS_BASE, 0),
            (Field::HOST_TR_BASE, cpu::block::task_address(block)),
            (Field::HOST_GDTR_BASE, cpu::block::descriptors_address(block)),
            (Field::HOST_IDTR_BASE, cpu::interrupt::table_address()),
            (Field::HOST_SYSENTER_CS, 0),
            (Field::HOST_SYSENTER_ESP, 0),
            (Field::HOST_SYSENTER_EIP, 0),
            (Field::HOST_RIP, structure::exit_address()),
        ] {
            self.hardware.write(field, value);
        }
    }

    /// Makes the structure this processor's, with all that is new since it was another's. False: that cannot be.
    #[inline(always)]
    fn load(&mut self, how: Attachment) -> bool {
        if !self.hardware.load() {
            return false;
        }
        self.attached = true;
        if core::mem::take(&mut self.fresh) {
            self.write_controls();
        }
        if self.host.replace(how.cpu) != Some(how.cpu) {
            self.write_host();
        }
        self.hardware.write(Field::TICKS_OFFSET, self.ticks_offset);
        if let Some(state) = self.start.take() {
            self.write_state(&state);
        }
        if how.moved {
            self.forget_translations();
        }
        true
    }

    /// The guest was not entered. (Out of line: it costs instructions where it does not happen.)
    #[cold]
    #[inline(never)]
    fn stay_out(&mut self) {
        self.reason = reason::NOT_ENTERED;
    }

    /// Tells the structure's timer how long it is from now to the deadline.
    #[inline]
    fn set_timer(&mut self) {
        let shift = self.facts.processor.capabilities.miscellaneous as u32 & 31;
        self.timed = self.deadline != u64::MAX;
        let ticks =
            if self.timed { Self::timer_ticks(self.deadline, cpu::ticks(), shift) } else { u32::MAX.into() };
        self.hardware.write(Field::PREEMPTION_TIMER, ticks);
    }

    /// Ticks of the preemption timer until the deadline: so many that it is past then. The timer counts changes of a bit of the time
    /// stamp counter (SDM Vol. 3C §26.5.1), so that the first of them may come at once. Where the deadline is past or near, [`LEAST_TURN`] counts: a
    /// guest whose timer is always due has to come on all the same.
    fn timer_ticks(deadline: u64, now: u64, shift: u32) -> u64 {
        let until = deadline.max(now.saturating_add(LEAST_TURN)).saturating_add((1 << shift) - 1);
        ((until >> shift) - (now >> shift)).min(u32::MAX.into())
    }
}

impl<P: Parts, H: Hardware> Vcpu for VmxVcpu<P, H> {
    /// VT-x has always said what a MOV to or from a control register, INS and OUTS were.
    const DECODED: bool = true;
    const XSAVES: bool = P::XSAVES;
    const HOLDS_DIRECTORY_POINTERS: bool = true;
    const HOLDS_INTERRUPTS: bool = P::DELIVERS;

    fn start(&mut self, state: &StartState) {
        let stack = self.registers[General::Rsp as usize];
        self.registers = state.general;
        self.registers[General::Rsp as usize] = stack;
        self.debug = [0; 4];
        self.status = DR6_AT_RESET;
        self.cr2 = 0;
        self.system = [0; SYSTEM.len()];
        self.set_speculation_control(0);
        if !self.attached {
            self.xcr0 = Xcr0::X87;
            // SAFETY: the area is this virtual processor's own, large enough and aligned (`Frames`), and its state is not loaded in
            // a processor, since none is attached.
            unsafe { self.vector.reset() };
            self.start = Some(*state);
            return;
        }
        // A start-up interrupt reaches an attached one. INIT leaves vector state and XCR0 as they are (SDM Vol. 3A table 10-1).
        self.hardware.set_page_fault_address(0);
        self.hardware.set_debug_status(DR6_AT_RESET);
        cpu::vector::set_debug_addresses(self.debug);
        for (number, value) in SYSTEM.into_iter().zip(self.system) {
            // SAFETY: every 64-bit processor has these registers, and the hypervisor uses none.
            unsafe { cpu::msr::write(number, value) };
        }
        self.write_state(state);
    }

    fn attach(&mut self, how: Attachment) {
        P::Watch::attached(self.facts.root);
        if how.stranger {
            cpu::speculation::indirect_branch_barrier();
            cpu::speculation::fill_return_stack();
            cpu::speculation::empty_data_cache();
        }
        if !self.load(how) {
            return;
        }
        self.hardware.set_page_fault_address(self.cr2);
        self.hardware.set_debug_status(self.status);
        if self.speculation != 0 {
            cpu::speculation::restrict(self.speculation);
        }
        cpu::vector::set_debug_addresses(self.debug);
        // SAFETY: the area holds what `reset` or `save` wrote; the values of XCR0, DR0–3 and the MSRs are the guest's, checked when they
        // were set, by the hypervisor or by the processor, and the hypervisor itself uses none of these registers (it is compiled without
        // vector instructions, sets no breakpoints and executes neither RDTSCP nor SYSCALL nor SWAPGS).
        unsafe {
            self.vector.restore(self.xcr0);
            if self.facts.has_ticks_aux {
                cpu::msr::write(msr::TSC_AUX, self.ticks_aux.into());
            }
            for (number, value) in SYSTEM.into_iter().zip(self.system) {
                cpu::msr::write(number, value);
            }
        }
    }

    /// The vector registers keep their values until the next virtual processor's replace them; nothing reads them in between.
    fn detach(&mut self) {
        if !core::mem::take(&mut self.attached) {
            return;
        }
        // SAFETY: as in `attach`; this processor holds this virtual processor's state.
        unsafe {
            self.vector.save();
            self.system = SYSTEM.map(|number| cpu::msr::read(number));
        }
        if self.speculation != 0 {
            cpu::speculation::restrict(0);
        }
        self.debug = cpu::vector::debug_addresses();
        self.status = self.hardware.debug_status();
        self.cr2 = self.hardware.page_fault_address();
        self.hardware.clear();
    }

    #[inline(always)]
    fn enter(&mut self) {
        if P::TIMER && self.timed {
            self.set_timer();
        }
        if self.in_real_mode() {
            return self.stay_out();
        }
        cpu::speculation::clear_buffers();
        let entered = self.hardware.enter(&mut self.registers);
        P::Watch::exited(self.facts.root);
        let Some((reason, cut)) = entered else { return self.stay_out() };
        self.reason = reason;
        if cut & event::VALID != 0 {
            self.deliver_again(cut);
        }
    }

    #[inline(always)]
    fn exit(&mut self) -> Exit {
        match self.reason {
            reason::EXCEPTION => self.after_exception(),
            reason::NON_MASKABLE_WINDOW => {
                self.set_primary(self.primary & !Primary::NON_MASKABLE_WINDOW.bits())
            }
            reason::VIOLATION if self.hardware.read(Field::QUALIFICATION) & event::UNMASKED != 0 => {
                self.mask_again();
            }
            reason::MISCONFIGURATION | reason::REFUSED.. => return self.failure(),
            _ => {}
        }
        let described = self.facts.processor.capabilities.basic >> 54 & 1 == 1;
        exit::decode(&self.hardware, self.reason & 0xffff, described)
    }

    #[inline(always)]
    fn port_exit(&self) -> Option<PortExit> {
        exit::port(&self.hardware, self.reason)
    }

    #[inline(always)]
    fn general(&self, register: General) -> u64 {
        match register {
            General::Rsp => self.hardware.read(Field::GUEST_RSP),
            other => self.registers[other as usize],
        }
    }

    #[inline(always)]
    fn set_general(&mut self, register: General, value: u64) {
        match register {
            General::Rsp => self.hardware.write(Field::GUEST_RSP, value),
            other => self.registers[other as usize] = value,
        }
    }

    #[inline(always)]
    fn instruction_pointer(&self) -> u64 {
        self.hardware.read(Field::GUEST_RIP)
    }

    #[inline(always)]
    fn next_instruction(&self) -> Option<u64> {
        Some(self.behind())
    }

    #[inline(always)]
    fn complete(&mut self, next: u64) {
        self.hardware.write(Field::GUEST_RIP, next);
        self.end_shadow();
        let flags = self.hardware.read(Field::GUEST_RFLAGS);
        if flags & (Rflags::TRAP | Rflags::RESUME).bits() != 0 {
            self.hardware.write(Field::GUEST_RFLAGS, flags & !Rflags::RESUME.bits());
            if flags & Rflags::TRAP.bits() != 0 {
                let status = self.hardware.debug_status();
                self.hardware.set_debug_status(status | SINGLE_STEP);
                self.inject_exception(Exception::Debug, None);
            }
        }
    }

    #[inline(always)]
    fn flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.hardware.read(Field::GUEST_RFLAGS))
    }

    fn set_flags(&mut self, flags: Rflags) {
        self.hardware.write(Field::GUEST_RFLAGS, flags.bits() | Rflags::ALWAYS_ONE.bits());
    }

    #[inline(always)]
    fn cr0(&self) -> Cr0 {
        let (real, shadow) = (self.hardware.read(Field::GUEST_CR0), self.hardware.read(Field::CR0_SHADOW));
        Cr0::from_bits_retain(real & OWN_CR0 | shadow & !OWN_CR0)
    }

    fn set_cr0(&mut self, value: Cr0) {
        let changed = self.cr0() ^ value;
        let (cr3, cr4) = (self.cr3(), self.cr4());
        self.write_cr0(value);
        if !P::UNRESTRICTED && changed.contains(Cr0::PAGING) {
            self.write_cr4(cr4);
            self.write_cr3(cr3);
        }
        if changed.intersects(Cr0::PAGING | Cr0::WRITE_PROTECT | Cr0::PROTECTION) {
            self.forget_translations();
        }
    }

    fn cr2(&self) -> u64 {
        self.hardware.page_fault_address()
    }

    #[inline(always)]
    fn cr3(&self) -> u64 {
        if self.on_identity() { self.cr3 } else { self.hardware.read(Field::GUEST_CR3) }
    }

    fn set_cr3(&mut self, value: u64) {
        self.write_cr3(value);
        self.forget_translations();
    }

    #[inline(always)]
    fn cr4(&self) -> Cr4 {
        let (real, shadow) = (self.hardware.read(Field::GUEST_CR4), self.hardware.read(Field::CR4_SHADOW));
        Cr4::from_bits_retain(real & OWN_CR4 | shadow & !OWN_CR4)
    }

    /// A machine check while a guest runs that has MCE off shuts the processor down instead of coming to the host (SDM Vol. 3A §6.15,
    /// interrupt 18): guests run with it on.
    fn set_cr4(&mut self, value: Cr4) {
        self.write_cr4(value);
        // Any write of CR4 that touches paging forgets everything, global pages too (SDM Vol. 3A §4.10.4.1).
        self.forget_translations();
    }

    fn set_directory_pointers(&mut self, pointers: [u64; 4]) {
        let fields =
            [Field::GUEST_POINTER_0, Field::GUEST_POINTER_1, Field::GUEST_POINTER_2, Field::GUEST_POINTER_3];
        for (field, pointer) in fields.into_iter().zip(pointers) {
            self.hardware.write(field, pointer);
        }
    }

    #[inline(always)]
    fn efer(&self) -> Efer {
        self.efer
    }

    fn set_efer(&mut self, value: Efer) {
        if (self.efer ^ value).contains(Efer::NO_EXECUTE) {
            self.forget_translations();
        }
        self.efer = value;
        let long = EntryControls::LONG_MODE.bits();
        let controls = self.facts.controls.entry;
        let controls =
            if value.contains(Efer::LONG_MODE_ACTIVE) { controls | long } else { controls & !long };
        self.hardware.write(Field::ENTRY_CONTROLS, controls.into());
        // LME means nothing without paging, and where the processor has paging on always, it must be as LMA is.
        let mut held = value;
        if !P::UNRESTRICTED {
            held.set(Efer::LONG_MODE_ENABLE, value.contains(Efer::LONG_MODE_ACTIVE));
        }
        self.hardware.write(Field::GUEST_EFER, held.bits());
    }

    /// No guest changes it without an exit.
    fn xcr0(&self) -> Xcr0 {
        self.xcr0
    }

    fn set_xcr0(&mut self, value: Xcr0) {
        self.xcr0 = value;
        // SAFETY: the value was checked against what the processor supports; the hypervisor uses no vector state.
        unsafe { self.vector.set_extended_control(value) };
    }

    fn page_attributes(&self) -> u64 {
        self.hardware.read(Field::GUEST_PAT)
    }

    fn set_page_attributes(&mut self, value: u64) {
        self.hardware.write(Field::GUEST_PAT, value);
        self.forget_translations();
    }

    fn set_tsc_aux(&mut self, value: u32) {
        self.ticks_aux = value;
        if self.facts.has_ticks_aux {
            // SAFETY: the register exists where RDTSCP does; the hypervisor does not use it.
            unsafe { cpu::msr::write(msr::TSC_AUX, value.into()) };
        }
    }

    fn speculation_control(&self) -> u32 {
        self.speculation
    }

    /// The processor keeps the guest's setting until [`Vcpu::detach`], also while the hypervisor serves an exit. That is sound: the
    /// guest's can only take speculation away from what the hypervisor has set for itself, at the guest's own cost, and no exit is
    /// paid for it.
    fn set_speculation_control(&mut self, value: u32) {
        self.speculation = value;
        if self.attached {
            cpu::speculation::restrict(value);
        }
    }

    fn forget_branches(&mut self) {
        cpu::speculation::indirect_branch_barrier();
    }

    #[inline]
    fn segment(&self, name: SegmentName) -> Segment {
        segment::read(&self.hardware, SegmentFields(name as u32))
    }

    /// The privilege of SS, which is the guest's in every mode (SDM Vol. 3C §25.4.1).
    #[inline(always)]
    fn privilege(&self) -> u8 {
        (self.hardware.read(Field::GUEST_SS_ACCESS) >> 5 & 3) as u8
    }

    #[inline]
    fn code_size(&self) -> CodeSize {
        let access = self.hardware.read(Field::GUEST_CS_ACCESS);
        if self.efer.contains(Efer::LONG_MODE_ACTIVE) && access & segment::LONG != 0 {
            CodeSize::Bits64
        } else if access & segment::BIG != 0 && self.cr0().contains(Cr0::PROTECTION) {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }

    #[inline(always)]
    fn arm(&mut self, deadline: Option<HostTime>) -> bool {
        self.deadline = deadline.map_or(u64::MAX, |HostTime(ticks)| ticks);
        self.timed = true;
        P::TIMER
    }

    fn set_ticks_offset(&mut self, offset: u64) {
        self.ticks_offset = offset;
        self.hardware.write(Field::TICKS_OFFSET, offset);
    }

    #[inline(always)]
    fn ticks(&self) -> GuestTicks {
        GuestTicks(cpu::ticks().wrapping_add(self.ticks_offset))
    }

    #[inline]
    fn accepts_interrupt(&self) -> bool {
        self.flags().contains(Rflags::INTERRUPT)
            && !self.interrupt_shadow()
            && self.hardware.read(Field::ENTRY_EVENT) & event::VALID == 0
    }

    fn interrupt_shadow(&self) -> bool {
        self.hardware.read(Field::GUEST_INTERRUPTIBILITY) & event::SHADOW != 0
    }

    fn accepts_non_maskable(&self) -> bool {
        let blocking = event::SHADOW | event::NON_MASKABLE_MASKED;
        self.hardware.read(Field::GUEST_INTERRUPTIBILITY) & blocking == 0
            && self.hardware.read(Field::ENTRY_EVENT) & event::VALID == 0
    }

    #[inline]
    fn set_window(&mut self, wanted: bool) {
        let window = Primary::INTERRUPT_WINDOW.bits();
        let controls = if wanted { self.primary | window } else { self.primary & !window };
        if controls != self.primary {
            self.set_primary(controls);
        }
    }

    fn set_non_maskable_window(&mut self) {
        self.set_primary(self.primary | Primary::NON_MASKABLE_WINDOW.bits());
    }

    fn hold_interrupts(&mut self, registers: Option<&mut InterruptRegisters>) {
        let (Some(registers), Some(page), true) = (registers, &mut self.interrupts, self.attached) else {
            if self.holding {
                self.set_holding(false);
            }
            return;
        };
        let status = page.store(registers);
        self.hardware.write(Field::GUEST_INTERRUPT_STATUS, status);
        if registers.level != self.level {
            self.level.clone_from(&registers.level);
            self.write_level();
        }
        if !self.holding {
            self.set_holding(true);
        }
    }

    fn return_interrupts(&mut self, registers: &mut InterruptRegisters) {
        if let Some(page) = &mut self.interrupts
            && self.holding
        {
            page.load(registers, self.hardware.read(Field::GUEST_INTERRUPT_STATUS));
        }
    }

    #[inline]
    fn inject_interrupt(&mut self, vector: u8) {
        self.hardware.write(Field::ENTRY_EVENT, event::VALID | event::INTERRUPT | u64::from(vector));
    }

    /// The processor masks further ones until the handler's IRET: "virtual NMIs".
    fn inject_non_maskable(&mut self) {
        let vector = u64::from(Exception::NonMaskable.vector());
        self.hardware.write(Field::ENTRY_EVENT, event::VALID | event::NON_MASKABLE | vector);
    }

    fn inject_exception(&mut self, exception: Exception, code: Option<u32>) -> bool {
        let pending = self.hardware.read(Field::ENTRY_EVENT);
        let on_its_way = (pending & event::VALID != 0 && pending & event::TYPE == event::EXCEPTION)
            .then_some(pending as u8);
        let Some(raised) = backend::combined(on_its_way, exception) else {
            return false;
        };
        let code = if raised == exception { code } else { Some(0) };
        // In real mode no exception has an error code (SDM Vol. 3C §27.2.1.3).
        let code = code.filter(|_| self.cr0().contains(Cr0::PROTECTION));
        if raised == Exception::Debug {
            // What the delivery of #DB does beside pushing its frame, and an event that is injected does not.
            let (status, control) = (self.hardware.debug_status(), self.hardware.read(Field::GUEST_DR7));
            if backend::resumes(status, control) {
                let flags = self.hardware.read(Field::GUEST_RFLAGS);
                self.hardware.write(Field::GUEST_RFLAGS, flags | Rflags::RESUME.bits());
            }
            self.hardware.write(Field::GUEST_DR7, control & !backend::GENERAL_DETECT);
        }
        // The handler's first instruction is behind every shadow.
        self.end_shadow();
        let event = event::VALID | event::EXCEPTION | u64::from(raised.vector());
        if let Some(code) = code {
            self.hardware.write(Field::ENTRY_ERROR_CODE, code.into());
        }
        self.hardware
            .write(Field::ENTRY_EVENT, event | if code.is_some() { event::HAS_ERROR_CODE } else { 0 });
        true
    }

    fn inject_fault(&mut self, fault: Fault) -> bool {
        if let Fault::Page { address, .. } = fault {
            self.hardware.set_page_fault_address(address);
        }
        self.inject_exception(fault.exception(), fault.error_code())
    }
}

#[cfg(test)]
pub mod tests {
    extern crate std;
    use super::*;
    use crate::controls::tests::{Present, everything};
    use crate::{Vmx, apic};
    use contracts::absent::Absent;
    use core::ptr::NonNull;
    use std::collections::BTreeMap;
    use x86::interrupts::Place;

    /// Fields that nothing executes; the test plays the processor.
    #[derive(Default)]
    pub struct Model {
        fields: BTreeMap<u32, u64>,
        cr2: u64,
        dr6: u64,
        entries: u32,
        forgotten: std::vec::Vec<u16>,
        /// The processor that has it.
        cpu: CpuIndex,
        /// The exits to come: reason, and fields.
        exits: std::collections::VecDeque<std::vec::Vec<(Field, u64)>>,
    }

    impl Model {
        pub fn with(fields: &[(Field, u64)]) -> Self {
            let fields = fields.iter().map(|(field, value)| (field.0, *value)).collect();
            Self { fields, ..Self::default() }
        }
    }

    impl Fields for Model {
        fn read(&self, field: Field) -> u64 {
            self.fields.get(&field.0).copied().unwrap_or(0)
        }

        fn write(&mut self, field: Field, value: u64) {
            // As wide as the field's number says (SDM Vol. 3D appendix B).
            let mask = [0xffff, u64::MAX, 0xffff_ffff, u64::MAX][(field.0 >> 13 & 3) as usize];
            self.fields.insert(field.0, value & mask);
        }
    }

    impl Hardware for Model {
        fn load(&mut self) -> bool {
            true
        }

        fn clear(&mut self) {}

        /// As real processors' are: alike, but for the tables.
        fn host(&self) -> (CpuIndex, cpu::control::State) {
            let cr3 = 0x1000 + 0x1000 * u64::from(self.cpu.0);
            (self.cpu, cpu::control::State { cr0: 0x8001_0033, cr3, cr4: 0x20a0, efer: 0xd00 })
        }

        fn enter(&mut self, _: &mut Registers) -> Option<(u32, u64)> {
            self.entries += 1;
            let exit = self.exits.pop_front()?;
            // An exit takes the event that was injected, and what it does not say is invalid.
            let event = self.read(Field::ENTRY_EVENT);
            self.write(Field::ENTRY_EVENT, event & !event::VALID);
            self.write(Field::VECTORING_EVENT, 0);
            for (field, value) in exit {
                self.write(field, value);
            }
            let reason = self.read(Field::EXIT_REASON) as u32;
            let refused = reason & reason::REFUSED != 0;
            Some((reason, if refused { 0 } else { self.read(Field::VECTORING_EVENT) }))
        }

        fn page_fault_address(&self) -> u64 {
            self.cr2
        }

        fn set_page_fault_address(&mut self, value: u64) {
            self.cr2 = value;
        }

        fn debug_status(&self) -> u64 {
            self.dr6
        }

        fn set_debug_status(&mut self, value: u64) {
            self.dr6 = value;
        }

        fn forget_translations(&mut self, tag: u16) {
            self.forgotten.push(tag);
        }
    }

    /// Has the rule named that a refused entry breaks, and looks at nothing else.
    pub struct Looking;

    impl Watch for Looking {
        const NAMES_RULES: bool = true;
    }

    /// A product with these parts.
    type With<U, T, D, S, A> = Vmx<U, T, D, S, A, Looking>;

    pub type Modelled = VmxVcpu<With<Present, Present, Present, Present, Present>, Model>;

    impl<P> VmxVcpu<P, Model> {
        /// The fields.
        pub fn into_model(self) -> Model {
            self.hardware
        }
    }

    fn of_parts<P: Parts>() -> VmxVcpu<P, Model> {
        let capabilities = everything();
        let facts = Facts {
            controls: Controls::compute::<P>(&capabilities, true).unwrap(),
            root: HostPhysical::new(0x5000),
            machine_check: Cr4::MACHINE_CHECK,
            tag: 7,
            has_ticks_aux: false,
            processor: rules::Processor { capabilities, physical_bits: 40 },
        };
        let vector = VectorState::new(NonNull::dangling(), &Features::default());
        VmxVcpu::with(Model::default(), facts, vector, P::DELIVERS.then(apic::tests::page))
    }

    /// A virtual processor as `attach` leaves it, but for the registers of a real processor.
    fn attach<P: Parts>() -> VmxVcpu<P, Model> {
        let mut vcpu = of_parts::<P>();
        vcpu.write_controls();
        for (field, value) in [
            // Where a test's program lies is beyond this processor's physical addresses.
            (Field::MSR_BITMAP, 0x4000),
            (Field::HOST_CR0, 0x8001_0033),
            (Field::HOST_CR3, 0x1000),
            (Field::HOST_CR4, 0x20a0),
            (Field::HOST_EFER, 0xd00),
            (Field::HOST_PAT, PAGE_ATTRIBUTES_AT_RESET),
            (Field::HOST_CS_SELECTOR, 8),
            (Field::HOST_TR_SELECTOR, 0x18),
        ] {
            vcpu.hardware.write(field, value);
        }
        vcpu.attached = true;
        let state = vcpu.start.take().unwrap();
        vcpu.write_state(&state);
        vcpu.hardware.forgotten.clear();
        vcpu
    }

    pub fn attached() -> Modelled {
        attach()
    }

    fn exits(vcpu: &mut Modelled, reason: u32, fields: &[(Field, u64)]) -> Exit {
        let mut all = std::vec![(Field::EXIT_REASON, u64::from(reason))];
        all.extend_from_slice(fields);
        vcpu.hardware.exits.push_back(all);
        vcpu.enter();
        vcpu.exit()
    }

    fn entry_event(vcpu: &Modelled) -> u64 {
        vcpu.hardware.read(Field::ENTRY_EVENT)
    }

    /// The addresses that an exit loads, of the processor that it is on: another's would be used by two (SDM Vol. 3C §28.5).
    #[test]
    fn a_processor_that_it_comes_to_finds_its_own_host_state() {
        let mut vcpu = of_parts::<With<Present, Present, Present, Present, Present>>();
        let mut come = |cpu: u8, moved: bool| {
            vcpu.hardware.cpu = CpuIndex(cpu);
            vcpu.hardware.forgotten.clear();
            assert!(vcpu.load(Attachment { cpu: CpuIndex(cpu), moved, stranger: moved }));
            let own = [
                (Field::HOST_CR3, 0x1000 + 0x1000 * u64::from(cpu)),
                (Field::HOST_TR_BASE, cpu::block::task_address(CpuIndex(cpu))),
                (Field::HOST_GDTR_BASE, cpu::block::descriptors_address(CpuIndex(cpu))),
                (Field::HOST_CR0, 0x8001_0033),
                (Field::HOST_CR4, 0x20a0),
                (Field::HOST_EFER, 0xd00),
                (Field::HOST_IDTR_BASE, cpu::interrupt::table_address()),
                (Field::HOST_RIP, structure::exit_address()),
            ];
            for (field, value) in own {
                assert_eq!(vcpu.hardware.read(field), value, "{field:?} on processor {cpu}");
            }
            vcpu.hardware.forgotten.len()
        };
        let forgotten = [(0, true), (1, true), (1, false), (0, true)].map(|(cpu, moved)| come(cpu, moved));
        assert!(forgotten[0] > 0 && forgotten[3] > 0, "translations are as old there");
        assert_eq!((forgotten[1], forgotten[2]), (1, 0));
    }

    #[test]
    fn a_guest_sees_its_own_control_registers() {
        let mut vcpu = attached();
        for cr0 in [0x10, 0x11, 0x8000_0011, 0x6000_0010] {
            vcpu.set_cr0(Cr0::from_bits_retain(cr0));
            assert_eq!(vcpu.cr0().bits(), cr0);
            // NE must be on in the processor; PE and PG need not be.
            assert_eq!(vcpu.hardware.read(Field::GUEST_CR0), cr0 | 0x20);
        }
        // CLTS and MOV reach TS without an exit.
        let real = vcpu.hardware.read(Field::GUEST_CR0);
        vcpu.hardware.write(Field::GUEST_CR0, real | 8);
        assert!(vcpu.cr0().contains(Cr0::TASK_SWITCHED));
        vcpu.set_cr4(Cr4::PHYSICAL_ADDRESS);
        assert_eq!((vcpu.cr4(), vcpu.hardware.read(Field::GUEST_CR4)), (Cr4::PHYSICAL_ADDRESS, 0x2060));
        vcpu.hardware.write(Field::GUEST_CR4, 0x20e0);
        assert_eq!(vcpu.cr4(), Cr4::PHYSICAL_ADDRESS | Cr4::GLOBAL_PAGES);
        assert_eq!(vcpu.hardware.read(Field::CR4_MASK) & 0x2080, 0x2000, "VMXE is not the guest's");
    }

    #[test]
    fn without_the_part_a_guest_without_paging_runs_on_a_table_that_changes_nothing() {
        let mut vcpu = attach::<With<Absent, Absent, Absent, Absent, Absent>>();
        let read = |vcpu: &VmxVcpu<With<Absent, Absent, Absent, Absent, Absent>, Model>, field| {
            vcpu.hardware.read(field)
        };
        let exits = |vcpu: &_| read(vcpu, Field::PRIMARY_CONTROLS) >> 15 & 3;
        let protected = Cr0::EXTENSION_TYPE | Cr0::PROTECTION;
        vcpu.set_cr0(protected);
        vcpu.set_cr3(0x7000);
        vcpu.set_cr4(Cr4::PHYSICAL_ADDRESS | Cr4::SUPERVISOR_EXECUTION);
        vcpu.set_efer(Efer::LONG_MODE_ENABLE);
        // The guest sees what it wrote; the processor pages, by 4 MiB pages of 32-bit tables.
        assert_eq!((vcpu.cr0(), vcpu.cr3(), vcpu.efer()), (protected, 0x7000, Efer::LONG_MODE_ENABLE));
        assert_eq!(vcpu.cr4(), Cr4::PHYSICAL_ADDRESS | Cr4::SUPERVISOR_EXECUTION);
        assert_eq!(
            (read(&vcpu, Field::GUEST_CR0), read(&vcpu, Field::GUEST_CR3)),
            (0x8000_0031, 0xfffb_c000)
        );
        assert_eq!((read(&vcpu, Field::GUEST_CR4), read(&vcpu, Field::GUEST_EFER)), (0x2050, 0));
        assert_eq!(exits(&vcpu), 3, "accesses to CR3 exit");
        // Long mode is switched on: all is the guest's own.
        vcpu.set_efer(Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE);
        vcpu.set_cr0(protected | Cr0::PAGING);
        assert_eq!((vcpu.cr3(), read(&vcpu, Field::GUEST_CR3), exits(&vcpu)), (0x7000, 0x7000, 0));
        assert_eq!((read(&vcpu, Field::GUEST_CR4), read(&vcpu, Field::GUEST_EFER)), (0x10_2060, 0x500));
        // And off again.
        vcpu.set_efer(Efer::LONG_MODE_ENABLE);
        vcpu.set_cr0(protected);
        assert_eq!((vcpu.cr3(), read(&vcpu, Field::GUEST_CR3), exits(&vcpu)), (0x7000, 0xfffb_c000, 3));
    }

    #[test]
    fn without_the_part_real_mode_is_refused_by_name() {
        let mut vcpu = attach::<With<Absent, Absent, Absent, Absent, Absent>>();
        vcpu.set_cr0(Cr0::EXTENSION_TYPE);
        vcpu.enter();
        assert_eq!(vcpu.hardware.entries, 0, "it is not even tried");
        let Exit::Failed(failure) = vcpu.exit() else { panic!("it failed") };
        assert_eq!(failure.rule, Some("real mode needs part real-mode"));
    }

    #[test]
    fn the_entry_controls_follow_long_mode() {
        let mut vcpu = attached();
        let (enabled, active) = (Efer::LONG_MODE_ENABLE, Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE);
        for (value, long) in [(Efer::empty(), 0), (enabled, 0), (active, 1), (enabled, 0)] {
            vcpu.set_efer(value);
            assert_eq!(vcpu.hardware.read(Field::ENTRY_CONTROLS) >> 9 & 1, long);
            assert_eq!((vcpu.efer(), vcpu.hardware.read(Field::GUEST_EFER)), (value, value.bits()));
        }
    }

    #[test]
    fn translations_are_forgotten_where_they_carry_tags() {
        let mut tagged = attached();
        tagged.set_cr0(Cr0::EXTENSION_TYPE | Cr0::CACHE_DISABLE);
        assert!(tagged.hardware.forgotten.is_empty(), "caches are no translations");
        tagged.set_cr0(Cr0::EXTENSION_TYPE | Cr0::PROTECTION);
        tagged.set_cr3(0x3000);
        tagged.set_cr4(Cr4::PAGE_SIZE);
        tagged.set_efer(Efer::NO_EXECUTE);
        tagged.set_efer(Efer::NO_EXECUTE | Efer::SYSTEM_CALL);
        assert_eq!(tagged.hardware.forgotten, [7; 4]);
        assert_eq!(tagged.hardware.read(Field::VPID), 7);
        let mut plain = attach::<With<Present, Absent, Present, Absent, Absent>>();
        plain.set_cr3(0x3000);
        assert!(plain.hardware.forgotten.is_empty());
        assert_eq!(plain.hardware.read(Field::VPID), 0);
    }

    #[test]
    fn supervisor_state_never_passes() {
        let with = attached();
        assert_eq!(with.hardware.read(Field::SECONDARY_CONTROLS) >> 20 & 1, 1);
        assert_eq!(with.hardware.read(Field::XSS_EXITING), u64::MAX, "every component exits");
        let without = attach::<With<Present, Present, Present, Absent, Absent>>();
        assert_eq!(without.hardware.read(Field::SECONDARY_CONTROLS) >> 20 & 1, 0, "#UD");
    }

    #[test]
    fn an_interrupt_goes_in_once_and_only_where_it_is_taken() {
        let mut vcpu = attached();
        assert!(!vcpu.accepts_interrupt());
        vcpu.set_flags(Rflags::INTERRUPT);
        assert!(vcpu.accepts_interrupt());
        for shadow in [1, 2] {
            vcpu.hardware.write(Field::GUEST_INTERRUPTIBILITY, shadow);
            assert!(!vcpu.accepts_interrupt() && vcpu.interrupt_shadow());
        }
        vcpu.hardware.write(Field::GUEST_INTERRUPTIBILITY, 0);
        vcpu.inject_interrupt(0xec);
        assert_eq!(entry_event(&vcpu), 0x8000_00ec);
        assert!(!vcpu.accepts_interrupt());
        assert_eq!(exits(&mut vcpu, 12, &[]), Exit::Halt);
        assert!(vcpu.accepts_interrupt());
    }

    #[test]
    fn windows_are_opened_and_closed() {
        let mut vcpu = attached();
        let primary = |vcpu: &Modelled| vcpu.hardware.read(Field::PRIMARY_CONTROLS);
        let closed = primary(&vcpu);
        vcpu.set_window(true);
        assert_eq!(primary(&vcpu), closed | 1 << 2);
        assert_eq!(exits(&mut vcpu, 7, &[]), Exit::InterruptWindow);
        vcpu.set_window(false);
        assert_eq!(primary(&vcpu), closed);
        vcpu.set_non_maskable_window();
        assert_eq!(primary(&vcpu), closed | 1 << 22);
        assert_eq!(exits(&mut vcpu, 8, &[]), Exit::NonMaskableWindow);
        assert_eq!(primary(&vcpu), closed, "it opens once");
    }

    #[test]
    fn an_nmi_waits_until_its_handler_has_returned() {
        let mut vcpu = attached();
        assert!(vcpu.accepts_non_maskable());
        vcpu.inject_non_maskable();
        assert_eq!(entry_event(&vcpu), 0x8000_0202);
        // The processor masks further ones.
        exits(&mut vcpu, 12, &[(Field::GUEST_INTERRUPTIBILITY, 8)]);
        assert!(!vcpu.accepts_non_maskable());
        // An IRET that ended the masking, and then touched what is not mapped: it is masked still.
        let unmasked = [(Field::GUEST_INTERRUPTIBILITY, 0), (Field::QUALIFICATION, 0x1181)];
        exits(&mut vcpu, 48, &unmasked);
        assert!(!vcpu.accepts_non_maskable());
        let raised = [
            (Field::GUEST_INTERRUPTIBILITY, 0),
            (Field::EXIT_EVENT, event::VALID | event::UNMASKED | event::EXCEPTION | 17),
        ];
        exits(&mut vcpu, 0, &raised);
        assert!(!vcpu.accepts_non_maskable());
    }

    #[test]
    fn a_delivery_that_was_cut_short_happens_once() {
        let mut vcpu = attached();
        vcpu.set_cr0(Cr0::EXTENSION_TYPE | Cr0::PROTECTION);
        let cut =
            |event| [(Field::VECTORING_EVENT, event::VALID | event), (Field::VECTORING_ERROR_CODE, 0x42)];
        for (event, again) in [
            (0x30, 0x8000_0030),
            (event::EXCEPTION | event::HAS_ERROR_CODE | 14, 0x8000_0b0e),
            // INTn and INT3 are executed again.
            (4 << 8 | 0x80, 0),
            (6 << 8 | 3, 0),
        ] {
            exits(&mut vcpu, 48, &cut(event));
            assert_eq!(entry_event(&vcpu) & !(u64::from(again == 0) * 0x7fff_ffff), again, "{event:#x}");
            exits(&mut vcpu, 12, &[]);
            assert_eq!(entry_event(&vcpu) & event::VALID, 0);
        }
        assert_eq!(vcpu.hardware.read(Field::ENTRY_ERROR_CODE), 0x42);
        // An NMI: what its delivery masked is open for it again.
        let masked = [(Field::VECTORING_EVENT, 0x8000_0202), (Field::GUEST_INTERRUPTIBILITY, 8)];
        exits(&mut vcpu, 48, &masked);
        assert_eq!((entry_event(&vcpu), vcpu.hardware.read(Field::GUEST_INTERRUPTIBILITY)), (0x8000_0202, 0));
        // A fault in the delivery of a fault.
        exits(&mut vcpu, 48, &cut(event::EXCEPTION | event::HAS_ERROR_CODE | 14));
        assert!(vcpu.inject_exception(Exception::Page, Some(2)));
        assert_eq!((entry_event(&vcpu), vcpu.hardware.read(Field::ENTRY_ERROR_CODE)), (0x8000_0b08, 0));
        exits(&mut vcpu, 48, &cut(event::EXCEPTION | event::HAS_ERROR_CODE | 8));
        assert!(!vcpu.inject_exception(Exception::Page, Some(2)), "shutdown");
    }

    #[test]
    fn an_exception_has_its_code_outside_real_mode_alone() {
        let mut vcpu = attached();
        assert!(vcpu.inject_fault(Fault::GP));
        assert_eq!(entry_event(&vcpu), 0x8000_030d);
        vcpu.hardware.write(Field::ENTRY_EVENT, 0);
        vcpu.set_cr0(Cr0::EXTENSION_TYPE | Cr0::PROTECTION);
        vcpu.hardware.write(Field::GUEST_INTERRUPTIBILITY, 2);
        assert!(vcpu.inject_fault(Fault::Page { address: 0x1234, code: 6 }));
        assert_eq!(entry_event(&vcpu), 0x8000_0b0e);
        assert_eq!((vcpu.cr2(), vcpu.hardware.read(Field::ENTRY_ERROR_CODE)), (0x1234, 6));
        assert_eq!(vcpu.hardware.read(Field::GUEST_INTERRUPTIBILITY), 0);
    }

    #[test]
    fn a_completed_instruction_ends_the_shadow_and_a_step() {
        let mut vcpu = attached();
        vcpu.hardware.write(Field::GUEST_INTERRUPTIBILITY, 1);
        vcpu.hardware.write(Field::GUEST_PENDING_DEBUG, 1 << 14);
        vcpu.set_flags(Rflags::TRAP | Rflags::RESUME);
        vcpu.complete(0x1002);
        assert_eq!(vcpu.instruction_pointer(), 0x1002);
        assert_eq!(vcpu.hardware.read(Field::GUEST_INTERRUPTIBILITY), 0);
        assert_eq!(vcpu.hardware.read(Field::GUEST_PENDING_DEBUG), 0);
        assert_eq!(vcpu.flags(), Rflags::TRAP | Rflags::ALWAYS_ONE);
        assert_eq!((entry_event(&vcpu), vcpu.hardware.dr6 >> 14 & 1), (0x8000_0301, 1));
    }

    #[test]
    fn a_debug_exception_says_in_dr6_what_it_met() {
        let mut vcpu = attached();
        vcpu.hardware.dr6 = 0xffff_4ff1;
        vcpu.hardware.write(Field::GUEST_DR7, 0x2408);
        let debug = |qualification| [(Field::EXIT_EVENT, 0x8000_0301), (Field::QUALIFICATION, qualification)];
        assert_eq!(exits(&mut vcpu, 0, &debug(2)), Exit::Exception(Exception::Debug, 0));
        // Breakpoint 1 instead of 0; BS stays, as software clears it.
        assert_eq!(vcpu.hardware.dr6, 0xffff_4ff2);
        assert!(vcpu.inject_exception(Exception::Debug, None));
        assert!(vcpu.flags().contains(Rflags::RESUME), "a breakpoint on execution");
        assert_eq!(vcpu.hardware.read(Field::GUEST_DR7), 0x408);
        // INT1: behind it, and DR6 as it was.
        vcpu.hardware.write(Field::GUEST_RIP, 0x1000);
        let status = vcpu.hardware.dr6;
        let fields = [(Field::EXIT_EVENT, event::VALID | event::PRIVILEGED | 1), (Field::EXIT_LENGTH, 1)];
        assert_eq!(exits(&mut vcpu, 0, &fields), Exit::Exception(Exception::Debug, 0));
        assert_eq!((vcpu.instruction_pointer(), vcpu.hardware.dr6), (0x1001, status));
    }

    #[test]
    fn a_refused_entry_names_the_rule() {
        let mut vcpu = attached();
        vcpu.set_cr3(1 << 40);
        let Exit::Failed(failure) = exits(&mut vcpu, 0x8000_0021, &[]) else { panic!("it failed") };
        assert_eq!((failure.code, failure.rule), (0x8000_0021, Some("CR3 is beyond physical addresses")));
        // The instruction failed: no exit at all.
        let mut vcpu = attached();
        vcpu.hardware.write(Field::INSTRUCTION_ERROR, 7);
        vcpu.hardware.write(Field::VPID, 0);
        vcpu.enter();
        let Exit::Failed(failure) = vcpu.exit() else { panic!("it failed") };
        assert_eq!((failure.code, failure.rule), (0x1_0007, Some("the virtual-processor identifier is 0")));
        let Exit::Failed(failure) = exits(&mut attached(), 49, &[]) else { panic!("it failed") };
        assert!(failure.rule.is_some_and(|rule| rule.contains("extended page tables")));
    }

    #[test]
    fn the_next_instruction_wraps_as_the_mode_does() {
        let mut vcpu = attached();
        vcpu.hardware.write(Field::GUEST_RIP, 0xffff_ffff);
        vcpu.hardware.write(Field::EXIT_LENGTH, 2);
        assert_eq!(vcpu.next_instruction(), Some(1));
        vcpu.set_efer(Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE);
        vcpu.hardware.write(Field::GUEST_CS_ACCESS, 0xa09b);
        assert_eq!(vcpu.next_instruction(), Some(0x1_0000_0001));
    }

    #[test]
    fn the_timer_is_never_early_and_lets_the_guest_come_on() {
        // Where the counter stands within a tick matters: it is past the deadline when the last tick comes, and not a whole tick before.
        for now in [1000u64, 1023, 1024, 1055] {
            for left in [LEAST_TURN, LEAST_TURN + 1, 1000, 1 << 30] {
                let end = ((now >> 5) + Modelled::timer_ticks(now + left, now, 5)) << 5;
                assert!((left..left + 32).contains(&(end - now)), "{now} {left}");
            }
            // Past, or nearly: time for some instructions.
            for deadline in [0, now, now + 5] {
                let end = ((now >> 5) + Modelled::timer_ticks(deadline, now, 5)) << 5;
                assert!((LEAST_TURN..LEAST_TURN + 32).contains(&(end - now)), "{now} {deadline}");
            }
        }
        assert_eq!(Modelled::timer_ticks(u64::MAX - 1, 0, 0), u64::from(u32::MAX));
        let mut vcpu = attached();
        assert!(vcpu.arm(None));
        vcpu.enter();
        assert_eq!(vcpu.hardware.read(Field::PREEMPTION_TIMER), u64::from(u32::MAX));
        assert!(vcpu.arm(Some(HostTime(1))));
        vcpu.enter();
        assert!((1..=LEAST_TURN + 1).contains(&vcpu.hardware.read(Field::PREEMPTION_TIMER)));
        assert_eq!(exits(&mut vcpu, 52, &[]), Exit::Interrupted);
        assert!(!attach::<With<Present, Present, Absent, Absent, Absent>>().arm(None));
    }

    #[test]
    fn the_processor_holds_what_it_is_lent() {
        let mut vcpu = attached();
        let ends = [Field::END_EXITS_0, Field::END_EXITS_1, Field::END_EXITS_2, Field::END_EXITS_3];
        let ends = |vcpu: &Modelled| ends.map(|field| vcpu.hardware.read(field));
        let switched = |vcpu: &Modelled| {
            [Field::PRIMARY_CONTROLS, Field::SECONDARY_CONTROLS, Field::MSR_BITMAP]
                .map(|field| vcpu.hardware.read(field))
        };
        let [primary, secondary, _] = switched(&vcpu);
        assert_eq!((vcpu.hardware.read(Field::VIRTUAL_APIC), ends(&vcpu)), (0x9000, [0; 4]));
        assert_eq!((primary >> 19 & 7, secondary >> 4 & 0x21), (3, 0));

        // The registers pass exactly where the processor keeps them from the host's, and CR8 where it has the priority.
        let mut lent = apic::tests::registers(0x20, &[0x41], &[0x31, 0x61]);
        for vector in [0x20, 0xc1, 0xe2] {
            lent.level.insert(Place::of(vector));
        }
        let before = lent.clone();
        vcpu.set_window(true);
        vcpu.hold_interrupts(Some(&mut lent));
        assert_eq!(vcpu.hardware.read(Field::GUEST_INTERRUPT_STATUS), 0x4161);
        assert_eq!(ends(&vcpu), [1 << 32, 0, 0, 4 << 32 | 2]);
        let held = [primary ^ 7 << 19 | 1 << 2, secondary | 0x21 << 4, permissions::held_address().get()];
        assert_eq!(switched(&vcpu), held);
        vcpu.return_interrupts(&mut lent);
        assert_eq!(lent, before);

        vcpu.set_window(false);
        vcpu.hold_interrupts(None);
        assert_eq!(switched(&vcpu), [primary, secondary, permissions::address().get()]);
        vcpu.hold_interrupts(Some(&mut apic::tests::registers(0, &[], &[])));
        assert_eq!((vcpu.hardware.read(Field::GUEST_INTERRUPT_STATUS), ends(&vcpu)), (0, [0; 4]));
        assert_eq!(exits(&mut vcpu, 45, &[(Field::QUALIFICATION, 0x61)]), Exit::EndOfInterrupt(0x61));
        assert_eq!(exits(&mut vcpu, 56, &[(Field::QUALIFICATION, 0x3f0)]), Exit::SelfInterrupt);
        assert_eq!(exits(&mut vcpu, 56, &[(Field::QUALIFICATION, 0xb0)]), Exit::Unknown(56));
    }
}
