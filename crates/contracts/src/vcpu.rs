//! A virtual processor: mechanism only. It enters the guest and says why it came back; it never decides.

use crate::{CpuIndex, Exit, GuestTicks, HostTime, PortExit};
use x86::interrupts::InterruptRegisters;
use x86::{
    CodeSize, Cr0, Cr4, DescriptorTable, Efer, Exception, Fault, General, Rflags, Segment, SegmentName,
    Segments, Xcr0,
};

/// How a vCPU comes to a host processor.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The processor it comes to.
    pub cpu: CpuIndex,
    /// Another processor ran it last, or it never ran: translations that this one holds may be old.
    pub moved: bool,
    /// This processor ran another vCPU last, or another processor ran this one last: what the predictors learnt here must not be
    /// used. Other vCPUs of the same compartment count, since the guest keeps its own processes apart by barriers that hold on one
    /// processor only.
    pub stranger: bool,
}

/// The registers with which a vCPU begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StartState {
    /// General registers by number.
    pub general: [u64; 16],
    /// Where it begins.
    pub instruction_pointer: u64,
    /// RFLAGS.
    pub flags: Rflags,
    /// CR0.
    pub cr0: Cr0,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// EFER, without SVME.
    pub efer: Efer,
    /// Segment registers.
    pub segments: Segments,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR.
    pub idt: DescriptorTable,
}

impl StartState {
    /// A processor after a start-up interrupt with `vector`: real mode at page `vector`, and the signature, which is that of the compartment's
    /// frozen CPUID, in EDX (APM Vol. 2 §14.1, §16.5). (Out of line: it is some 260 bytes of code, and nothing that is hot.)
    #[inline(never)]
    pub fn start_up(vector: u8, signature: u32) -> Self {
        let data = Segment::real_mode(0, false);
        let mut state = Self {
            general: [0; 16],
            instruction_pointer: 0,
            flags: Rflags::ALWAYS_ONE,
            cr0: Cr0::EXTENSION_TYPE,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            segments: Segments {
                es: data,
                cs: Segment::real_mode((vector as u16) << 8, true),
                ss: data,
                ds: data,
                fs: data,
                gs: data,
                ldtr: Segment { selector: 0, attributes: 0x82, limit: 0xffff, base: 0 },
                tr: Segment { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0 },
            },
            gdt: DescriptorTable { base: 0, limit: 0xffff },
            idt: DescriptorTable { base: 0, limit: 0xffff },
        };
        state.general[General::Rdx as usize] = signature.into();
        state
    }
}

/// Where the address of the next instruction comes from: hardware part `nrip-save`, or nowhere.
pub trait NextInstruction {
    /// Whether the processor says it.
    const SAVED: bool;
}

/// Where the bytes and the operands of an instruction that caused an exit come from: hardware part `decode-assists`, or nowhere.
pub trait DecodedInstruction {
    /// Whether the processor says them.
    const GIVEN: bool;
}

/// What the processor forgets where the translations of one guest have to go: those alone (hardware part `flush-by-asid`), or all of them.
pub trait TranslationFlush {
    /// Whether it can tell them apart.
    const OWN: bool;
}

/// Who notices that a guest spins, waiting for another: the processor (hardware part `pause-filter`), or nobody.
pub trait SpinDetector {
    /// Whether the processor does.
    const PRESENT: bool;
}

/// Who runs a guest in real mode and in protected mode without paging: the processor (hardware part `unrestricted-guest`), or nobody.
pub trait UnpagedModes {
    /// Whether the processor does.
    const UNRESTRICTED: bool;
}

/// Whether translations carry a tag that says whose they are: hardware part `vpid`, or they are forgotten at each world switch.
pub trait TranslationTags {
    /// Whether they do.
    const TAGGED: bool;
}

/// What ends a guest's turn: a timer of the world switch (hardware part `preemption-timer`), or the host's own.
pub trait DeadlineTimer {
    /// Whether the world switch has one.
    const PRESENT: bool;
}

/// Whether guests have the instructions that save supervisor state, XSAVES and XRSTORS: hardware part `xsaves`, or they do not exist.
pub trait SupervisorState {
    /// Whether they have.
    const SAVED: bool;
}

/// Who delivers the interrupts of a guest's local APIC: the processor (hardware part `apic-virtualization`), or software.
pub trait InterruptDelivery {
    /// Whether the processor holds what it needs for that while the guest runs.
    const HELD: bool;
}

/// A virtual processor, bound to whoever runs it.
///
/// Order of use: [`Vcpu::attach`], then any number of [`Vcpu::run`] with reads and writes of its state between, then
/// [`Vcpu::detach`], always on one processor. While it is detached, only [`Vcpu::start`], [`Vcpu::set_ticks_offset`] and
/// [`Vcpu::ticks`] mean anything: some processors keep the state where only they can read it (docs/decisions, 7).
pub trait Vcpu {
    /// Whether the processor decodes what it can of an instruction that caused an exit (hardware part `decode-assists`). Where it
    /// does not, no exit says anything that would have to be decoded, and whoever asks this first leaves no code behind.
    const DECODED: bool = false;

    /// Whether [`Exit::Pause`] says that the guest spins (hardware part `pause-filter`). Where it does not, there is no such exit.
    const SPINS: bool = false;

    /// Whether the guest executes XSAVES and XRSTORS where its processor has them (hardware part `xsaves`). Where it does not, they are not shown,
    /// and IA32_XSS does not exist.
    const XSAVES: bool = false;

    /// Whether the four directory pointers of PAE paging are state of their own, which no write of CR0, CR3 or CR4 by the hypervisor loads
    /// (SDM Vol. 3A §4.4.1): then [`Vcpu::set_directory_pointers`] has to be told.
    const HOLDS_DIRECTORY_POINTERS: bool = false;

    /// Whether the processor can hold the local APIC's [`InterruptRegisters`] while the guest runs, and then delivers its interrupts by itself.
    const HOLDS_INTERRUPTS: bool = false;

    /// Puts everything into the state given; pending events and the interrupt shadow are gone, the debug state is as after reset. So
    /// is the vector state where the vCPU is detached; attached, it keeps that, as a processor does over INIT.
    fn start(&mut self, state: &StartState);

    /// Loads what [`Vcpu::run`] does not: vector state, debug registers, speculation controls.
    fn attach(&mut self, how: Attachment);

    /// Stores what [`Vcpu::attach`] loaded. The processor's vector and debug registers keep their values until the next attach replaces
    /// every one of them; nothing reads them in between, since the hypervisor is compiled without vector instructions. Its
    /// speculation controls are the hypervisor's own again.
    fn detach(&mut self);

    /// Enters the guest until it comes back, and says why. An event whose delivery was cut short is delivered first at the next entry.
    #[inline(always)]
    fn run(&mut self) -> Exit {
        self.enter();
        self.exit()
    }

    /// The first half of [`Vcpu::run`].
    fn enter(&mut self);

    /// The second half of [`Vcpu::run`]; once after each [`Vcpu::enter`].
    fn exit(&mut self) -> Exit;

    /// Whether the guest came back because of an IN or OUT, and of which: what [`Vcpu::exit`] would answer, asked before it and in
    /// place of it, for those who are in a hurry.
    fn port_exit(&self) -> Option<PortExit>;

    /// A general register.
    fn general(&self, register: General) -> u64;

    /// Sets a general register, all 64 bits.
    fn set_general(&mut self, register: General, value: u64);

    /// RIP.
    fn instruction_pointer(&self) -> u64;

    /// Where the instruction that caused the last exit ends, if the processor says so.
    fn next_instruction(&self) -> Option<u64>;

    /// Where the IN or OUT that caused the last [`Exit::Port`] ends: processors that do not say it of other instructions do of these.
    #[inline(always)]
    fn after_port(&self) -> Option<u64> {
        self.next_instruction()
    }

    /// The bytes of the instruction that caused the last [`Exit::Memory`], how many and which, where the processor fetched them
    /// ([`Vcpu::DECODED`]). Fewer than 15 were cut off, at a page's end or for reasons of its own; none: it did not fetch.
    #[inline(always)]
    fn fetched_instruction(&self) -> (u8, [u8; 15]) {
        (0, [0; 15])
    }

    /// The instruction is done: RIP becomes `next`, the interrupt shadow and RF are cleared, and a guest that single-steps
    /// gets its #DB.
    fn complete(&mut self, next: u64);

    /// RFLAGS.
    fn flags(&self) -> Rflags;

    /// Sets RFLAGS.
    fn set_flags(&mut self, flags: Rflags);

    /// CR0 as the guest reads it.
    fn cr0(&self) -> Cr0;

    /// Sets CR0; the value was checked. Translations are flushed where the change asks for it.
    fn set_cr0(&mut self, value: Cr0);

    /// CR2.
    fn cr2(&self) -> u64;

    /// CR3.
    fn cr3(&self) -> u64;

    /// Sets CR3, flushing translations.
    fn set_cr3(&mut self, value: u64);

    /// CR4 as the guest reads it.
    fn cr4(&self) -> Cr4;

    /// Sets CR4; the value was checked. Translations are flushed where the change asks for it.
    fn set_cr4(&mut self, value: Cr4);

    /// Sets the directory pointers of PAE paging; they were checked.
    fn set_directory_pointers(&mut self, _pointers: [u64; 4]) {}

    /// EFER as the guest reads it, without SVME.
    fn efer(&self) -> Efer;

    /// Sets EFER; the value was checked.
    fn set_efer(&mut self, value: Efer);

    /// XCR0.
    fn xcr0(&self) -> Xcr0;

    /// Sets XCR0; the value was checked.
    fn set_xcr0(&mut self, value: Xcr0);

    /// The page attribute table.
    fn page_attributes(&self) -> u64;

    /// Sets the page attribute table; the value was checked.
    fn set_page_attributes(&mut self, value: u64);

    /// TSC_AUX, which RDTSCP returns.
    fn set_tsc_aux(&mut self, value: u32);

    /// SPEC_CTRL as the guest reads it.
    fn speculation_control(&self) -> u32;

    /// Sets SPEC_CTRL; the value was checked.
    fn set_speculation_control(&mut self, value: u32);

    /// From now on no indirect branch of this processor is predicted from what came before (PRED_CMD bit 0).
    fn forget_branches(&mut self);

    /// A segment register.
    fn segment(&self, name: SegmentName) -> Segment;

    /// Current privilege level, 0 to 3.
    fn privilege(&self) -> u8;

    /// Default size of the code that runs.
    fn code_size(&self) -> CodeSize;

    /// Lets the guest come back at `deadline` (at once, if that is past), or not for its sake. False: this back end has no timer of
    /// its own (hardware part `preemption-timer`), and the host's has to be armed.
    #[inline(always)]
    fn arm(&mut self, _deadline: Option<HostTime>) -> bool {
        false
    }

    /// What the guest's time stamp counter adds to the host's.
    fn set_ticks_offset(&mut self, offset: u64);

    /// The guest's time stamp counter now.
    fn ticks(&self) -> GuestTicks;

    /// Whether an external interrupt injected now would be taken: IF set, no shadow, no event pending.
    fn accepts_interrupt(&self) -> bool;

    /// Whether the next instruction is one that STI or MOV to SS shields from interrupts.
    fn interrupt_shadow(&self) -> bool {
        false
    }

    /// Whether an NMI injected now would be taken.
    fn accepts_non_maskable(&self) -> bool;

    /// Asks for [`Exit::InterruptWindow`] as soon as an interrupt could be taken; or no longer.
    fn set_window(&mut self, wanted: bool);

    /// Asks for [`Exit::NonMaskableWindow`] as soon as an NMI could be taken.
    fn set_non_maskable_window(&mut self);

    /// The processor holds these registers from the next entry on, where it [can](Vcpu::HOLDS_INTERRUPTS): priority, requests and services move to
    /// it, and are 0 here. `None`: it holds none. The vCPU is attached; what it held before is back.
    fn hold_interrupts(&mut self, _registers: Option<&mut InterruptRegisters>) {}

    /// Gives back what [`Vcpu::hold_interrupts`] moved, as the processor left it, and adds it to what was requested meanwhile. It is called before
    /// anybody else looks at priority or services, and before the vCPU is detached.
    fn return_interrupts(&mut self, _registers: &mut InterruptRegisters) {}

    /// Delivers an external interrupt at the next entry. [`Vcpu::accepts_interrupt`] must hold.
    fn inject_interrupt(&mut self, vector: u8);

    /// Delivers an NMI at the next entry. [`Vcpu::accepts_non_maskable`] must hold.
    fn inject_non_maskable(&mut self);

    /// Raises an exception at the next entry, instead of completing the instruction. One that meets another on its way becomes
    /// a double fault or a shutdown as the architecture says (APM Vol. 2 table 8-3); false: shutdown.
    fn inject_exception(&mut self, exception: Exception, code: Option<u32>) -> bool;

    /// Raises a fault at the next entry, as [`Vcpu::inject_exception`], with CR2 where it is a page fault.
    fn inject_fault(&mut self, fault: Fault) -> bool;
}
