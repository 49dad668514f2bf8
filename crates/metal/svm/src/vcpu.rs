//! A virtual processor of AMD-V.

use crate::control_block::{ControlBlock, Intercepts3, Intercepts4, event, flush, virtual_interrupt};
use crate::host;
use crate::{exit, permissions};
use address::HostPhysical;
use backend::{NoWatch, Watch};
use contracts::{
    Attachment, DecodedInstruction, Exit, GuestTicks, NextInstruction, PortExit, SpinDetector, StartState,
    TranslationFlush, Vcpu,
};
use core::arch::asm;
use core::marker::PhantomData;
use core::ptr::NonNull;
use cpu::{Features, VectorState};
use memory::Page;
use x86::{CodeSize, Cr0, Cr4, Efer, Exception, Fault, General, Rflags, Segment, SegmentName, Xcr0};

/// The private frames of one virtual processor.
pub struct Frames {
    /// For the VMCB.
    pub control_block: Page,
    /// For the vector state, as many contiguous pages as the processor's XSAVE area needs.
    pub vector: Page,
    /// Root of the nested page tables.
    pub nested_root: HostPhysical,
}

/// CR0 after reset has CD and NW set; software finds caches on, as it does after firmware.
const PAGE_ATTRIBUTES_AT_RESET: u64 = 0x0007_0406_0007_0406;
/// DR6 and DR7 after reset (APM Vol. 2 §14.1.3).
const DR6_AT_RESET: u64 = 0xffff_0ff0;
const DR7_AT_RESET: u64 = 0x400;
/// DR6.BS: a single step.
const SINGLE_STEP: u64 = 1 << 14;

/// Intercepts of word 3 that are always on.
const ALWAYS_3: Intercepts3 = Intercepts3::INTERRUPT
    .union(Intercepts3::NON_MASKABLE)
    .union(Intercepts3::SYSTEM_MANAGEMENT)
    .union(Intercepts3::INIT)
    .union(Intercepts3::CR0_SELECTIVE)
    .union(Intercepts3::RDPMC)
    .union(Intercepts3::CPUID)
    .union(Intercepts3::RSM)
    .union(Intercepts3::INVD)
    .union(Intercepts3::HLT)
    .union(Intercepts3::INVLPGA)
    .union(Intercepts3::PORT)
    .union(Intercepts3::MSR)
    .union(Intercepts3::TASK_SWITCH)
    .union(Intercepts3::SHUTDOWN);

/// Intercepts of word 4: all but INT1, which raises its #DB in the guest as INT3 raises #BP.
const ALWAYS_4: Intercepts4 = Intercepts4::all().difference(Intercepts4::ICEBP);

/// Exceptions that come back. A machine check is the host's. The delivery of #DB and of #AC can raise the same exception again, and again,
/// inside the processor, which then takes no interrupt any more: a breakpoint on the stack that #DB is delivered on, a handler of #AC on a
/// stack that is not aligned (CVE-2015-8104, CVE-2015-5307). From here they are raised one at a time, and interrupts come between.
const EXCEPTIONS: u32 = 1 << Exception::MachineCheck.vector()
    | 1 << Exception::Debug.vector()
    | 1 << Exception::AlignmentCheck.vector();

/// Sets the intercepts that are always on. README.md lists them with their reasons.
fn intercept(block: &mut ControlBlock) {
    // Every access to CR4 and CR8, writes of CR0 by CR0_SELECTIVE. Emulators let reserved CR4 bits through into an
    // invalid VMCB, so the monitor checks them, and a guest does not see the MCE that it runs with; CR8 belongs to the local APIC.
    block.control_reads = 1 << 4 | 1 << 8;
    block.control_writes = 1 << 4 | 1 << 8;
    block.exceptions = EXCEPTIONS;
    block.intercepts_3 = ALWAYS_3.bits();
    block.intercepts_4 = ALWAYS_4.bits();
}

/// A guest that executes so many PAUSEs in one go spins: a lock that its holder lets go of is mostly had sooner.
const PAUSES: u16 = 3000;
/// PAUSEs that are further apart than so many cycles are not of one loop.
const PAUSE_DISTANCE: u16 = 128;

/// Has the processor count PAUSEs up to [`PAUSES`]; with `threshold` it begins anew where they are not of one loop. That they are intercepted is
/// [`SvmVcpu::ALWAYS`]'s matter.
fn count_pauses(block: &mut ControlBlock, threshold: bool) {
    block.pause_count = PAUSES;
    block.pause_threshold = if threshold { PAUSE_DISTANCE } else { 0 };
}

/// The place in [`SvmVcpu::general`] of the page with the host's half of VMLOAD's registers; 0 while detached.
const HOST_PAGE: usize = General::Rax as usize;

/// A virtual processor. `N` says whether the processor saves the address of the next instruction, `D` whether it says what an
/// instruction was, `F` whether it can forget this guest's translations alone, `S` whether it notices a guest
/// that spins, `W` who looks at what is mapped.
pub struct SvmVcpu<N, D, F, S, W = NoWatch> {
    block: NonNull<ControlBlock>,
    block_physical: HostPhysical,
    vector: VectorState,
    /// General registers by number. RAX and RSP live in the VMCB; in place of the former is [`HOST_PAGE`].
    general: [u64; 16],
    debug: [u64; 4],
    xcr0: Xcr0,
    /// EFER.LME as the guest set it, without paging: see [`Vcpu::set_efer`].
    long_mode_enable: u64,
    ticks_aux: u32,
    /// SPEC_CTRL.
    speculation: u32,
    /// Whether this processor's TSC_AUX exists.
    has_ticks_aux: bool,
    /// CR4.MCE, where there is one, and the guest's own: see [`Vcpu::set_cr4`].
    machine_check: [u64; 2],
    address_space_shared: bool,
    /// An NMI was delivered and its handler has not returned.
    in_non_maskable: bool,
    /// The NMI handler's IRET stands here and has not been executed yet.
    returning_at: Option<u64>,
    /// The vector of an injected interrupt that waits for the window, whose place in the VMCB the window has taken; 0: none.
    held: u8,
    /// The processors that it runs on take virtual interrupts late: see [`Self::left_pending`].
    late: bool,
    /// Where the guest has to take the interrupt that is pending.
    injected_at: u64,
    parts: PhantomData<(N, D, F, S, W)>,
}

// SAFETY: the frames behind the pointers are this virtual processor's own (`Frames`), so whoever owns it may use them,
// on any processor.
unsafe impl<N, D, F, S, W> Send for SvmVcpu<N, D, F, S, W> {}

impl<N, D, F, S, W> SvmVcpu<N, D, F, S, W>
where
    N: NextInstruction,
    D: DecodedInstruction,
    F: TranslationFlush,
    S: SpinDetector,
    W: Watch,
{
    /// A virtual processor in these frames. `number` counts all virtual processors of the machine from 0 and becomes its address
    /// space identifier; where the processor has too few, several share one and flush it at every change.
    pub fn new(frames: Frames, number: u32, features: &Features) -> Self {
        let usable = features.asids.saturating_sub(1).max(1);
        let mut vcpu = Self {
            block: frames.control_block.pointer().cast(),
            block_physical: frames.control_block.physical(),
            vector: VectorState::new(frames.vector.pointer(), features),
            general: [0; 16],
            debug: [0; 4],
            xcr0: Xcr0::X87,
            long_mode_enable: 0,
            ticks_aux: 0,
            speculation: 0,
            has_ticks_aux: features.rdtscp,
            machine_check: [if features.machine_check { Cr4::MACHINE_CHECK.bits() } else { 0 }, 0],
            address_space_shared: number >= usable,
            in_non_maskable: false,
            returning_at: None,
            held: 0,
            late: false,
            injected_at: 0,
            parts: PhantomData,
        };
        let (ports, msrs) = permissions::addresses();
        let block = vcpu.block_mut();
        intercept(block);
        if S::PRESENT {
            count_pauses(block, features.pause_threshold);
        }
        block.port_permissions = ports.get();
        block.msr_permissions = msrs.get();
        block.address_space = 1 + number % usable;
        block.virtual_interrupt = virtual_interrupt::MASKING;
        block.nested_paging = 1;
        block.nested_root = frames.nested_root.get();
        vcpu.start(&StartState::start_up(0, 0));
        vcpu
    }

    /// The intercepts of word 3 while no window is open.
    const ALWAYS: Intercepts3 = if S::PRESENT { ALWAYS_3.union(Intercepts3::PAUSE) } else { ALWAYS_3 };

    #[inline(always)]
    fn block(&self) -> &ControlBlock {
        // SAFETY: the frame is this virtual processor's own (`Frames`), page-aligned, zeroed at first, and mapped while its
        // compartment is served, which is the only time when safe code holds a reference to `self` (`memory::PrivateVault`).
        // Every bit pattern is a valid `ControlBlock`. The processor writes it only inside `enter`, which borrows `self` mutably.
        unsafe { self.block.as_ref() }
    }

    #[inline(always)]
    fn block_mut(&mut self) -> &mut ControlBlock {
        // SAFETY: as in `block`; `self` is borrowed mutably, so there is no other reference.
        unsafe { self.block.as_mut() }
    }

    fn flush_translations(&mut self) {
        self.block_mut().flush = if F::OWN { flush::OWN } else { flush::ALL };
    }

    fn long_mode(&self) -> bool {
        self.block().efer & Efer::LONG_MODE_ACTIVE.bits() != 0
    }

    /// An event whose delivery was cut short goes in first at the next entry. INTn does not: it is executed again, since RIP still
    /// points at it. Nor does the virtual interrupt that is still pending: it is delivered because of that. (Its type does not tell: QEMU
    /// calls it an exception.)
    #[cold]
    #[inline(never)]
    fn deliver_again(&mut self) {
        let pending = self.interrupt_pending();
        let block = self.block_mut();
        let cut = block.exit_interruption;
        let stays = pending && cut as u8 == virtual_interrupt::vector_of(block.virtual_interrupt);
        if cut & event::TYPE != event::SOFTWARE && !stays {
            block.event_injection = cut;
        }
    }

    /// The guest came back and V_IRQ is still set. That is as it should be where it stands for a window that has not opened, or where the
    /// host was interrupted before the guest took the interrupt. Where the guest, with interrupts on, has come to an instruction that
    /// exits, or to another place than where it was to take the interrupt, the processor is one that takes virtual interrupts
    /// late (Bochs 2.7: when IF next changes): this one goes in as an event before the instruction, and so do all further ones.
    #[cold]
    #[inline(never)]
    fn left_pending(&mut self) {
        let block = self.block();
        let ready = block.rflags & Rflags::INTERRUPT.bits() != 0 && block.interrupt_shadow & 1 == 0;
        if !ready || !self.interrupt_pending() {
            return;
        }
        let passed = match block.exit_code as u32 {
            exit::FIRST_INTERRUPT..=exit::LAST_INTERRUPT => block.rip != self.injected_at,
            exit::SHUTDOWN | u32::MAX => false,
            _ => true,
        };
        if passed {
            self.late = true;
            // The interrupt comes first: the instruction is executed again when its handler returns.
            self.block_mut().exit_code = exit::FIRST_INTERRUPT as u64;
        }
        // An event that was cut short goes in first; V_IRQ keeps the interrupt until then.
        if self.late && self.block().event_injection & event::VALID == 0 {
            let block = self.block_mut();
            let vector = virtual_interrupt::vector_of(block.virtual_interrupt);
            block.virtual_interrupt = virtual_interrupt::MASKING;
            block.event_injection = event::VALID | event::INTERRUPT | vector as u64;
        }
    }

    /// Whether an interrupt that was injected waits for the guest to take it: V_IRQ that stands for no window.
    #[inline(always)]
    fn interrupt_pending(&self) -> bool {
        let block = self.block();
        block.virtual_interrupt & virtual_interrupt::PENDING != 0
            && block.intercepts_3 & Intercepts3::VIRTUAL_INTERRUPT.bits() == 0
    }

    /// IRET is about to be executed, which ends the masking of NMIs.
    #[cold]
    #[inline(never)]
    fn non_maskable_handler_returns(&mut self) {
        let block = self.block_mut();
        block.intercepts_3 &= !Intercepts3::IRET.bits();
        let rip = block.rip;
        self.in_non_maskable = false;
        self.returning_at = Some(rip);
    }

    /// What the delivery of #DB does beside pushing its frame, and an event that is injected does not: it clears DR7.GD, and where the exception
    /// is a breakpoint on an instruction, RF in the frame keeps it from coming again (APM Vol. 2 §13.1.3).
    #[inline(always)]
    fn debug_handler_begins(&mut self) {
        let block = self.block_mut();
        let (status, control) = (block.dr6, block.dr7);
        if backend::resumes(status, control) {
            block.rflags |= Rflags::RESUME.bits();
        }
        block.dr7 = control & !backend::GENERAL_DETECT;
    }
}

/// One round trip: enters the guest with the VMCB at `block`, comes back at the next #VMEXIT.
///
/// Inlined where it is used, so that the compiler saves no more of the host's registers than hold something.
///
/// Interrupts are masked before and after. Between CLGI and VMRUN nothing is taken, so a kick that came after the caller's
/// last look at its mailbox makes VMRUN come back at once (APM Vol. 2 §15.17): IF is set there because with V_INTR_MASKING
/// the host's IF decides whether physical interrupts make the guest exit (APM Vol. 2 §15.21.1).
///
/// # Safety
/// SVM is enabled on this processor; `block` is the physical address of a VMCB; `general` points to a virtual processor's
/// [`SvmVcpu::general`], whose place [`HOST_PAGE`] names a page that VMSAVE filled on this processor.
#[inline(always)]
unsafe fn world_switch(block: u64, general: *mut [u64; 16]) {
    // SAFETY: the caller's promise. All registers that the guest may have changed are named or put back: RBX, RBP and RSP here, the
    // others as outputs, FS, GS, TR, LDTR and the system call registers by VMLOAD. Vector registers are not the hypervisor's.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rsi",
            "mov rcx, [rsi + 8]",
            "mov rdx, [rsi + 16]",
            "mov rbx, [rsi + 24]",
            "mov rbp, [rsi + 40]",
            "mov rdi, [rsi + 56]",
            "mov r8, [rsi + 64]",
            "mov r9, [rsi + 72]",
            "mov r10, [rsi + 80]",
            "mov r11, [rsi + 88]",
            "mov r12, [rsi + 96]",
            "mov r13, [rsi + 104]",
            "mov r14, [rsi + 112]",
            "mov r15, [rsi + 120]",
            "mov rsi, [rsi + 48]",
            "clgi",
            "sti",
            "vmload rax",
            "vmrun rax",
            "vmsave rax",
            "cli",
            // RSP is the host's again. The guest's RSI goes where the pointer to the registers was, and from there to its place.
            "xchg rsi, [rsp]",
            "mov [rsi + 8], rcx",
            "mov [rsi + 16], rdx",
            "mov [rsi + 24], rbx",
            "mov [rsi + 40], rbp",
            "mov [rsi + 56], rdi",
            "mov [rsi + 64], r8",
            "mov [rsi + 72], r9",
            "mov [rsi + 80], r10",
            "mov [rsi + 88], r11",
            "mov [rsi + 96], r12",
            "mov [rsi + 104], r13",
            "mov [rsi + 112], r14",
            "mov [rsi + 120], r15",
            "pop qword ptr [rsi + 48]",
            "mov rax, [rsi]",
            "vmload rax",
            "stgi",
            "pop rbp",
            "pop rbx",
            inout("rax") block => _,
            inout("rsi") general => _,
            out("rcx") _,
            out("rdx") _,
            out("rdi") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
        );
    }
}

impl<N, D, F, S, W> Vcpu for SvmVcpu<N, D, F, S, W>
where
    N: NextInstruction,
    D: DecodedInstruction,
    F: TranslationFlush,
    S: SpinDetector,
    W: Watch,
{
    const DECODED: bool = D::GIVEN;
    const SPINS: bool = S::PRESENT;

    fn start(&mut self, state: &StartState) {
        let page = self.general[HOST_PAGE];
        self.general = state.general;
        self.general[HOST_PAGE] = page;
        self.debug = [0; 4];
        self.in_non_maskable = false;
        self.returning_at = None;
        self.held = 0;
        self.set_speculation_control(0);
        if page == 0 {
            self.xcr0 = Xcr0::X87;
            // SAFETY: the area is this virtual processor's own, large enough and aligned (`Frames`), and its state is not loaded in
            // a processor, since none is attached.
            unsafe { self.vector.reset() };
        } else {
            // A start-up interrupt reaches an attached one. INIT leaves vector state and XCR0 as they are (APM Vol. 2 table 14-1).
            cpu::vector::set_debug_addresses(self.debug);
        }
        let block = self.block_mut();
        block.event_injection = 0;
        block.interrupt_shadow = 0;
        block.exit_interruption = 0;
        block.virtual_interrupt = virtual_interrupt::MASKING;
        block.intercepts_3 = Self::ALWAYS.bits();
        block.es.set(&state.segments.es);
        block.cs.set(&state.segments.cs);
        block.ss.set(&state.segments.ss);
        block.ds.set(&state.segments.ds);
        block.fs.set(&state.segments.fs);
        block.gs.set(&state.segments.gs);
        block.ldtr.set(&state.segments.ldtr);
        block.tr.set(&state.segments.tr);
        block.gdtr.set_table(state.gdt);
        block.idtr.set_table(state.idt);
        block.privilege = 0;
        block.cr0 = state.cr0.bits();
        block.cr2 = 0;
        block.cr3 = state.cr3;
        block.dr6 = DR6_AT_RESET;
        block.dr7 = DR7_AT_RESET;
        block.rflags = (state.flags | Rflags::ALWAYS_ONE).bits();
        block.rip = state.instruction_pointer;
        block.rsp = state.general[General::Rsp as usize];
        block.rax = state.general[General::Rax as usize];
        block.star = 0;
        block.lstar = 0;
        block.cstar = 0;
        block.sfmask = 0;
        block.kernel_gs_base = 0;
        block.sysenter_cs = 0;
        block.sysenter_esp = 0;
        block.sysenter_eip = 0;
        block.page_attributes = PAGE_ATTRIBUTES_AT_RESET;
        block.debug_control = 0;
        self.set_efer(state.efer);
        self.set_cr4(state.cr4);
    }

    fn attach(&mut self, how: Attachment) {
        W::attached(HostPhysical::new(self.block().nested_root));
        if how.stranger {
            cpu::speculation::indirect_branch_barrier();
            cpu::speculation::fill_return_stack();
        }
        if how.moved || self.address_space_shared {
            self.flush_translations();
        }
        self.general[HOST_PAGE] = host::registers(how.cpu).map_or(0, HostPhysical::get);
        if self.speculation != 0 {
            cpu::speculation::restrict(self.speculation);
        }
        cpu::vector::set_debug_addresses(self.debug);
        // SAFETY: the area holds what `reset` or `save` wrote; the values of XCR0, DR0–3 and TSC_AUX are the guest's, checked
        // when they were set, and the hypervisor itself uses none of these registers (it is compiled without vector
        // instructions, sets no breakpoints and does not execute RDTSCP).
        unsafe {
            self.vector.restore(self.xcr0);
            if self.has_ticks_aux {
                cpu::msr::write(x86::msr::TSC_AUX, self.ticks_aux as u64);
            }
        }
    }

    /// The vector registers keep their values until the next virtual processor's replace them; nothing reads them in between.
    fn detach(&mut self) {
        self.xcr0 = self.xcr0();
        // SAFETY: as in `attach`; this processor holds this virtual processor's state.
        unsafe {
            self.vector.save();
        }
        if self.speculation != 0 {
            cpu::speculation::restrict(0);
        }
        self.debug = cpu::vector::debug_addresses();
        self.general[HOST_PAGE] = 0;
    }

    #[inline(always)]
    fn enter(&mut self) {
        if self.general[HOST_PAGE] == 0 {
            self.block_mut().exit_code = exit::INVALID;
            return;
        }
        // SAFETY: the host's page is only set for a processor on which SVM is enabled, by `attach`, and taken back by `detach`;
        // the VMCB is this virtual processor's own, and its RAM, tables and permission maps were set by `new`.
        unsafe { world_switch(self.block_physical.get(), &raw mut self.general) };
        W::exited(HostPhysical::new(self.block().nested_root));
        let block = self.block_mut();
        block.flush = flush::NOTHING;
        block.event_injection = 0;
        let (cut, pending) = (block.exit_interruption, block.virtual_interrupt);
        if cut & event::VALID != 0 {
            self.deliver_again();
        }
        if pending & virtual_interrupt::PENDING != 0 {
            self.left_pending();
        }
    }

    #[inline(always)]
    fn exit(&mut self) -> Exit {
        let exit = exit::decode::<D>(self.block());
        if matches!(exit, Exit::NonMaskableWindow) {
            self.non_maskable_handler_returns();
        }
        exit
    }

    #[inline(always)]
    fn port_exit(&self) -> Option<PortExit> {
        exit::port(self.block())
    }

    #[inline(always)]
    fn general(&self, register: General) -> u64 {
        match register {
            General::Rax => self.block().rax,
            General::Rsp => self.block().rsp,
            other => self.general[other as usize],
        }
    }

    #[inline(always)]
    fn set_general(&mut self, register: General, value: u64) {
        match register {
            General::Rax => self.block_mut().rax = value,
            General::Rsp => self.block_mut().rsp = value,
            other => self.general[other as usize] = value,
        }
    }

    #[inline(always)]
    fn instruction_pointer(&self) -> u64 {
        self.block().rip
    }

    #[inline(always)]
    fn next_instruction(&self) -> Option<u64> {
        let block = self.block();
        (N::SAVED && block.next_instruction != 0).then_some(block.next_instruction)
    }

    /// IN and OUT have always said so (APM Vol. 2 §15.10.2).
    #[inline(always)]
    fn after_port(&self) -> Option<u64> {
        Some(self.block().exit_information_2)
    }

    #[inline(always)]
    fn fetched_instruction(&self) -> (u8, [u8; 15]) {
        exit::fetched::<D>(self.block())
    }

    #[inline(always)]
    fn complete(&mut self, next: u64) {
        let block = self.block_mut();
        block.rip = next;
        block.interrupt_shadow = 0;
        let flags = block.rflags;
        if flags & (Rflags::TRAP.bits() | Rflags::RESUME.bits()) != 0 {
            block.rflags = flags & !Rflags::RESUME.bits();
            if flags & Rflags::TRAP.bits() != 0 {
                block.dr6 |= SINGLE_STEP;
                self.inject_exception(Exception::Debug, None);
            }
        }
    }

    #[inline(always)]
    fn flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.block().rflags)
    }

    fn set_flags(&mut self, flags: Rflags) {
        self.block_mut().rflags = flags.bits() | Rflags::ALWAYS_ONE.bits();
    }

    #[inline(always)]
    fn cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.block().cr0)
    }

    fn set_cr0(&mut self, value: Cr0) {
        let changed = self.cr0() ^ value;
        self.block_mut().cr0 = value.bits();
        if changed.intersects(Cr0::PAGING | Cr0::WRITE_PROTECT | Cr0::PROTECTION) {
            self.flush_translations();
        }
    }

    fn cr2(&self) -> u64 {
        self.block().cr2
    }

    #[inline(always)]
    fn cr3(&self) -> u64 {
        self.block().cr3
    }

    fn set_cr3(&mut self, value: u64) {
        self.block_mut().cr3 = value;
        self.flush_translations();
    }

    #[inline(always)]
    fn cr4(&self) -> Cr4 {
        let [forced, own] = self.machine_check;
        Cr4::from_bits_retain(self.block().cr4 & !forced | own)
    }

    /// A machine check while a guest runs that has MCE off shuts the processor down instead of coming to the host (APM Vol. 2 chapter 9,
    /// "Handling Machine Check Exceptions"): guests run with it on.
    fn set_cr4(&mut self, value: Cr4) {
        let [forced, own] = &mut self.machine_check;
        *own = value.bits() & *forced;
        let held = value.bits() | *forced;
        self.block_mut().cr4 = held;
        // Any write of CR4 that touches paging flushes everything, global pages too (APM Vol. 2 §5.5.2).
        self.flush_translations();
    }

    #[inline(always)]
    fn efer(&self) -> Efer {
        let held = self.block().efer | self.long_mode_enable;
        Efer::from_bits_retain(held).difference(Efer::SECURE_VIRTUAL_MACHINE)
    }

    /// LME means nothing without paging, and the processor gets it with LMA alone: QEMU 7.2 loads the host's CR0 while EFER and CR4 are still
    /// the guest's, and where those are LME without PAE it leaves the host without paging, which resets the machine.
    #[inline(never)]
    fn set_efer(&mut self, value: Efer) {
        if (self.efer() ^ value).contains(Efer::NO_EXECUTE) {
            self.flush_translations();
        }
        self.long_mode_enable = (value & Efer::LONG_MODE_ENABLE).bits();
        let mut held = value | Efer::SECURE_VIRTUAL_MACHINE;
        held.set(Efer::LONG_MODE_ENABLE, value.contains(Efer::LONG_MODE_ACTIVE));
        self.block_mut().efer = held.bits();
    }

    /// Asked of the processor: emulators let a guest set it without the exit that was asked for.
    fn xcr0(&self) -> Xcr0 {
        if self.general[HOST_PAGE] == 0 {
            self.xcr0
        } else {
            self.vector.extended_control().unwrap_or(self.xcr0)
        }
    }

    fn set_xcr0(&mut self, value: Xcr0) {
        self.xcr0 = value;
        // SAFETY: the value was checked against what the processor supports; the hypervisor uses no vector state.
        unsafe { self.vector.set_extended_control(value) };
    }

    fn page_attributes(&self) -> u64 {
        self.block().page_attributes
    }

    fn set_page_attributes(&mut self, value: u64) {
        self.block_mut().page_attributes = value;
        self.flush_translations();
    }

    fn set_tsc_aux(&mut self, value: u32) {
        self.ticks_aux = value;
        if self.has_ticks_aux {
            // SAFETY: the register exists where RDTSCP does; the hypervisor does not use it.
            unsafe { cpu::msr::write(x86::msr::TSC_AUX, value as u64) };
        }
    }

    fn speculation_control(&self) -> u32 {
        self.speculation
    }

    /// The processor keeps the guest's setting until [`Vcpu::detach`], also while the hypervisor serves an exit. That is sound: the
    /// hypervisor's own setting is 0, so the guest's can only take speculation away from it, at the guest's own cost, and no exit is
    /// paid for it.
    ///
    /// Where the processor switches the register itself (CPUID 8000_000A EDX bit 20) a guest runs with what the VMCB has at 2E0h,
    /// which stays 0, joined to what is set here: the same.
    fn set_speculation_control(&mut self, value: u32) {
        self.speculation = value;
        if self.general[HOST_PAGE] != 0 {
            cpu::speculation::restrict(value);
        }
    }

    fn forget_branches(&mut self) {
        cpu::speculation::indirect_branch_barrier();
    }

    #[inline]
    fn segment(&self, name: SegmentName) -> Segment {
        let block = self.block();
        match name {
            SegmentName::Es => block.es.get(),
            SegmentName::Cs => block.cs.get(),
            SegmentName::Ss => block.ss.get(),
            SegmentName::Ds => block.ds.get(),
            SegmentName::Fs => block.fs.get(),
            SegmentName::Gs => block.gs.get(),
        }
    }

    #[inline(always)]
    fn privilege(&self) -> u8 {
        self.block().privilege & 3
    }

    #[inline]
    fn code_size(&self) -> CodeSize {
        let attributes = self.block().cs.get().attributes;
        if self.long_mode() && attributes & Segment::LONG != 0 {
            CodeSize::Bits64
        } else if attributes & Segment::BIG != 0 && self.cr0().contains(Cr0::PROTECTION) {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }

    fn set_ticks_offset(&mut self, offset: u64) {
        self.block_mut().ticks_offset = offset;
    }

    #[inline(always)]
    fn ticks(&self) -> GuestTicks {
        GuestTicks(cpu::ticks().wrapping_add(self.block().ticks_offset))
    }

    #[inline]
    fn accepts_interrupt(&self) -> bool {
        let block = self.block();
        block.rflags & Rflags::INTERRUPT.bits() != 0
            && block.interrupt_shadow & 1 == 0
            && block.event_injection & event::VALID == 0
            && self.held == 0
            && !self.interrupt_pending()
    }

    fn interrupt_shadow(&self) -> bool {
        self.block().interrupt_shadow & 1 != 0
    }

    fn accepts_non_maskable(&self) -> bool {
        let block = self.block();
        !self.in_non_maskable
            && self.returning_at != Some(block.rip)
            && block.interrupt_shadow & 1 == 0
            && block.event_injection & event::VALID == 0
    }

    /// The window is a virtual interrupt too, an intercepted one. There is one place for both: an injected interrupt that the guest
    /// has not taken yet is held until the window opens, and goes in as an event then.
    #[inline]
    fn set_window(&mut self, wanted: bool) {
        if wanted {
            if self.interrupt_pending() {
                self.held = virtual_interrupt::vector_of(self.block().virtual_interrupt);
            }
            let block = self.block_mut();
            block.virtual_interrupt = virtual_interrupt::MASKING | virtual_interrupt::REQUEST;
            block.intercepts_3 |= Intercepts3::VIRTUAL_INTERRUPT.bits();
        } else if !self.interrupt_pending() {
            let held = core::mem::take(&mut self.held);
            let block = self.block_mut();
            block.virtual_interrupt = virtual_interrupt::MASKING;
            block.intercepts_3 &= !Intercepts3::VIRTUAL_INTERRUPT.bits();
            if held != 0 {
                block.event_injection = event::VALID | event::INTERRUPT | held as u64;
            }
        }
    }

    fn set_non_maskable_window(&mut self) {
        if self.returning_at == Some(self.block().rip) {
            // The IRET is still to be executed; an NMI on top of it would overwrite its frame. What IRET turns on again tells us
            // when it is done.
            self.set_window(true);
            return;
        }
        // The handler's IRET ends the masking (APM Vol. 2 §15.22.3).
        self.block_mut().intercepts_3 |= Intercepts3::IRET.bits();
    }

    /// As a virtual interrupt (APM Vol. 2 §15.21.4), which the guest takes before its next instruction. An event would do the same on
    /// real hardware; emulators deliver one twice when they are disturbed at that moment (docs/decisions, 6).
    #[inline]
    fn inject_interrupt(&mut self, vector: u8) {
        let late = self.late;
        self.injected_at = self.block().rip;
        let block = self.block_mut();
        if late {
            block.event_injection = event::VALID | event::INTERRUPT | vector as u64;
            return;
        }
        block.virtual_interrupt =
            virtual_interrupt::MASKING | virtual_interrupt::REQUEST | virtual_interrupt::vector(vector);
        block.intercepts_3 &= !Intercepts3::VIRTUAL_INTERRUPT.bits();
    }

    fn inject_non_maskable(&mut self) {
        self.in_non_maskable = true;
        self.returning_at = None;
        let block = self.block_mut();
        block.event_injection = event::VALID | event::NON_MASKABLE | Exception::NonMaskable.vector() as u64;
        block.intercepts_3 |= Intercepts3::IRET.bits();
    }

    fn inject_exception(&mut self, exception: Exception, code: Option<u32>) -> bool {
        let pending = self.block().event_injection;
        let on_its_way = (pending & event::VALID != 0 && pending & event::TYPE == event::EXCEPTION)
            .then_some(pending as u8);
        let Some(raised) = backend::combined(on_its_way, exception) else {
            return false;
        };
        let code = if raised == exception { code } else { Some(0) };
        if raised == Exception::Debug {
            self.debug_handler_begins();
        }
        self.block_mut().event_injection = event::VALID
            | event::EXCEPTION
            | raised.vector() as u64
            | code.map_or(0, |code| event::HAS_ERROR_CODE | (code as u64) << 32);
        true
    }

    fn inject_fault(&mut self, fault: Fault) -> bool {
        if let Fault::Page { address, .. } = fault {
            self.block_mut().cr2 = address;
        }
        self.inject_exception(fault.exception(), fault.error_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::absent::Absent;

    /// A virtual processor around a block that nothing executes; the test plays the processor.
    fn vcpu(block: &mut ControlBlock) -> SvmVcpu<Absent, Absent, Absent, Absent> {
        vcpu_with(block)
    }

    fn vcpu_with<F: TranslationFlush, S: SpinDetector>(
        block: &mut ControlBlock,
    ) -> SvmVcpu<Absent, Absent, F, S> {
        let block = NonNull::from(block);
        SvmVcpu {
            block,
            block_physical: HostPhysical::new(0),
            vector: VectorState::new(block.cast(), &Features::default()),
            general: [0; 16],
            debug: [0; 4],
            xcr0: Xcr0::X87,
            long_mode_enable: 0,
            ticks_aux: 0,
            has_ticks_aux: false,
            machine_check: [Cr4::MACHINE_CHECK.bits(), 0],
            address_space_shared: false,
            speculation: 0,
            in_non_maskable: false,
            returning_at: None,
            held: 0,
            late: false,
            injected_at: 0,
            parts: PhantomData,
        }
    }

    fn block() -> ControlBlock {
        let mut block = ControlBlock::zeroed();
        block.rflags = Rflags::INTERRUPT.bits();
        block
    }

    const WINDOW: u32 = Intercepts3::VIRTUAL_INTERRUPT.bits();

    struct Present;

    impl TranslationFlush for Present {
        const OWN: bool = true;
    }

    /// TLB_CONTROL (APM Vol. 2 §15.16.1): 1 flushes everything, 3 this guest's.
    #[test]
    fn the_guest_s_translations_go_alone_where_the_processor_can_tell_them() {
        let mut block = block();
        vcpu(&mut block).set_cr3(0x1000);
        assert_eq!(block.flush, 1);
        vcpu_with::<Present, Absent>(&mut block).set_cr3(0x1000);
        assert_eq!(block.flush, 3);
    }

    impl SpinDetector for Present {
        const PRESENT: bool = true;
    }

    #[test]
    fn pauses_exit_where_they_are_counted_and_nowhere_else() {
        const PAUSE: u32 = 1 << 23;
        let mut block = block();
        vcpu(&mut block).start(&StartState::start_up(0, 0));
        assert_eq!(block.intercepts_3 & PAUSE, 0);
        let mut vcpu = vcpu_with::<Absent, Present>(&mut block);
        // Windows come and go, and it stays.
        vcpu.start(&StartState::start_up(0, 0));
        for open in [true, false] {
            vcpu.set_window(open);
            assert_eq!(vcpu.block().intercepts_3 & PAUSE, PAUSE);
        }
        // The count and the threshold lie at 03Eh and 03Ch (APM Vol. 2 appendix B).
        for (threshold, distance) in [(true, 128), (false, 0)] {
            count_pauses(&mut block, threshold);
            assert_eq!((block.pause_count, block.pause_threshold), (3000, distance));
        }
    }

    #[test]
    fn machine_checks_reach_the_host_whatever_the_guest_sets() {
        const MCE: u64 = Cr4::MACHINE_CHECK.bits();
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        for value in
            [Cr4::empty(), Cr4::PHYSICAL_ADDRESS, Cr4::MACHINE_CHECK, Cr4::PAGE_SIZE | Cr4::MACHINE_CHECK]
        {
            vcpu.set_cr4(value);
            assert_eq!((vcpu.cr4(), vcpu.block().cr4), (value, value.bits() | MCE));
        }
    }

    /// What README.md lists: no more, since each costs exits, and no less. That each is needed is for the tests to show that it names.
    #[test]
    fn every_intercept_has_its_reason() {
        let mut block = ControlBlock::zeroed();
        intercept(&mut block);
        let readme = include_str!("../README.md");
        let rows = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| word ")?.split_once(' ')?.1.strip_prefix("bit "));
        let mut words = [0u32; 5];
        for (line, row) in readme.lines().filter(|line| line.starts_with("| word ")).zip(rows) {
            let word: usize = line["| word ".len()..].split(' ').next().unwrap().parse().unwrap();
            let bit: u32 = row.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(words[word] >> bit & 1, 0, "twice: {line}");
            words[word] |= 1 << bit;
        }
        let controls = u32::from(block.control_writes) << 16 | u32::from(block.control_reads);
        assert_eq!(words, [controls, 0, block.exceptions, block.intercepts_3, block.intercepts_4]);
        assert_eq!(block.intercepts_5, 0);
    }

    #[test]
    fn an_interrupt_goes_in_as_a_virtual_one_and_only_one_at_a_time() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        assert!(vcpu.accepts_interrupt());
        vcpu.inject_interrupt(0xec);
        // V_IRQ, highest priority, ignoring the TPR, V_INTR_MASKING, V_INTR_VECTOR (APM Vol. 2 appendix B, offset 060h).
        assert_eq!(vcpu.block().virtual_interrupt, 0xec_011f_0100);
        assert_eq!((vcpu.block().intercepts_3 & WINDOW, vcpu.block().event_injection), (0, 0));
        assert!(!vcpu.accepts_interrupt());
        // The guest takes it: the processor clears V_IRQ.
        vcpu.block_mut().virtual_interrupt &= !virtual_interrupt::PENDING;
        assert!(vcpu.accepts_interrupt());
    }

    #[test]
    fn an_interrupt_that_the_window_displaces_is_delivered_when_it_opens() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        vcpu.inject_interrupt(0x30);
        vcpu.set_window(true);
        assert_eq!(vcpu.block().intercepts_3 & WINDOW, WINDOW);
        assert_eq!((vcpu.block().virtual_interrupt >> 32, vcpu.block().event_injection), (0, 0));
        assert!(!vcpu.accepts_interrupt(), "one is on its way already");
        vcpu.set_window(true);
        vcpu.set_window(false);
        assert_eq!(vcpu.block().event_injection, event::VALID | 0x30);
        assert_eq!(vcpu.block().virtual_interrupt, virtual_interrupt::MASKING);
        assert!(!vcpu.accepts_interrupt());
        vcpu.block_mut().event_injection = 0;
        assert!(vcpu.accepts_interrupt(), "it went in once");
    }

    #[test]
    fn closing_a_window_that_is_not_open_loses_no_interrupt() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        vcpu.inject_interrupt(0x41);
        vcpu.set_window(false);
        assert_eq!(virtual_interrupt::vector_of(vcpu.block().virtual_interrupt), 0x41);
        assert!(!vcpu.accepts_interrupt());
    }

    #[test]
    fn a_processor_that_takes_virtual_interrupts_late_is_given_events() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        // The host was interrupted first: it stays what it is.
        vcpu.inject_interrupt(0x41);
        vcpu.block_mut().exit_code = 0x60;
        vcpu.left_pending();
        assert_eq!((vcpu.block().event_injection, vcpu.interrupt_pending()), (0, true));
        // Behind STI, and with interrupts off, waiting is right.
        for (flags, shadow) in [(Rflags::INTERRUPT.bits(), 1), (0, 0)] {
            (vcpu.block_mut().rflags, vcpu.block_mut().interrupt_shadow) = (flags, shadow);
            vcpu.block_mut().exit_code = 0x7b;
            vcpu.left_pending();
            assert_eq!((vcpu.block().event_injection, vcpu.interrupt_pending()), (0, true));
        }
        // A port access with interrupts on: it should have been taken before.
        vcpu.block_mut().rflags = Rflags::INTERRUPT.bits();
        vcpu.left_pending();
        assert_eq!((vcpu.block().event_injection, vcpu.interrupt_pending()), (event::VALID | 0x41, false));
        assert_eq!(vcpu.exit(), Exit::Interrupted, "the access waits until the handler returns");
        vcpu.block_mut().event_injection = 0;
        vcpu.inject_interrupt(0x42);
        assert_eq!((vcpu.block().event_injection, vcpu.interrupt_pending()), (event::VALID | 0x42, false));
    }

    #[test]
    fn a_guest_that_goes_on_without_exits_shows_a_late_processor() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        let interrupted_at = |vcpu: &mut SvmVcpu<_, _, _, _>, rip| {
            (vcpu.block_mut().exit_code, vcpu.block_mut().rip) = (0x60, rip);
            vcpu.left_pending();
            vcpu.block().event_injection
        };
        // The host is interrupted before the guest does anything, as often as it likes: as it should be.
        vcpu.block_mut().rip = 0x2000;
        vcpu.inject_interrupt(0x42);
        assert_eq!(interrupted_at(&mut vcpu, 0x2000), 0);
        assert_eq!(interrupted_at(&mut vcpu, 0x2000), 0);
        // It has executed something in between.
        assert_eq!(interrupted_at(&mut vcpu, 0x2002), event::VALID | 0x42);
        assert!(!vcpu.interrupt_pending());
    }

    #[test]
    fn the_processor_is_told_of_long_mode_when_it_is_active() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        let (enabled, active) = (Efer::LONG_MODE_ENABLE, Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE);
        for (value, held) in [(Efer::empty(), 0x1000), (enabled, 0x1000), (active, 0x1500), (enabled, 0x1000)]
        {
            vcpu.set_efer(value | Efer::SYSTEM_CALL);
            assert_eq!(vcpu.efer(), value | Efer::SYSTEM_CALL);
            assert_eq!(vcpu.block().efer, held | 1);
            assert_eq!(vcpu.long_mode(), value == active);
        }
    }

    #[test]
    fn a_debug_exception_that_is_raised_again_leaves_what_its_delivery_would() {
        const FLAGS: u64 = Rflags::INTERRUPT.bits();
        const RESUME: u64 = FLAGS | Rflags::RESUME.bits();
        // DR6, DR7; RFLAGS and DR7 afterwards. A single step under general detection; breakpoint 1 on execution, on writes, and one that was
        // not met.
        for (status, control, flags, left) in [
            (1 << 14, 0x2400, FLAGS, 0x400),
            (1 << 1, 0x408, RESUME, 0x408),
            (1 << 1, 1 << 20 | 0x408, FLAGS, 1 << 20 | 0x408),
            (0xffff_0ff0, 0x408, FLAGS, 0x408),
        ] {
            let mut block = block();
            (block.dr6, block.dr7) = (status, control);
            let mut vcpu = vcpu(&mut block);
            assert!(vcpu.inject_exception(Exception::Debug, None));
            assert_eq!((vcpu.block().rflags, vcpu.block().dr7), (flags, left), "{status:#x} {control:#x}");
            assert_eq!(vcpu.block().event_injection, event::VALID | event::EXCEPTION | 1);
        }
    }

    #[test]
    fn a_delivery_that_was_cut_short_happens_once() {
        let mut block = block();
        let mut vcpu = vcpu(&mut block);
        let cut = event::VALID | event::EXCEPTION | 14;
        vcpu.block_mut().exit_interruption = cut;
        vcpu.deliver_again();
        assert_eq!(vcpu.block().event_injection, cut);
        vcpu.block_mut().event_injection = 0;
        // Some processors leave V_IRQ set when the delivery of a virtual interrupt was cut short.
        vcpu.inject_interrupt(0x41);
        vcpu.block_mut().exit_interruption = event::VALID | event::INTERRUPT | 0x41;
        vcpu.deliver_again();
        assert_eq!(vcpu.block().event_injection, 0);
        // Another event that was cut short does not stay anywhere.
        vcpu.block_mut().exit_interruption = cut;
        vcpu.deliver_again();
        assert_eq!(vcpu.block().event_injection, cut);
        vcpu.block_mut().event_injection = 0;
        // INTn is executed again.
        vcpu.block_mut().virtual_interrupt = virtual_interrupt::MASKING;
        vcpu.block_mut().exit_interruption = event::VALID | event::SOFTWARE | 0x80;
        vcpu.deliver_again();
        assert_eq!(vcpu.block().event_injection, 0);
    }
}
