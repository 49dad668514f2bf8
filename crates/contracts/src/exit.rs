//! Why a guest came back, in words that both vendors share.

use address::GuestPhysical;
use x86::{Exception, General, SegmentName, Width};

/// Which way the bytes of a port access go.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Direction {
    /// IN: to the guest.
    In,
    /// OUT: from the guest.
    Out,
}

/// IN or OUT with AL, AX or EAX.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PortExit {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub width: Width,
    /// Which way.
    pub direction: Direction,
}

/// INS or OUTS, with or without a repeat prefix.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StringPortExit {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub width: Width,
    /// Which way.
    pub direction: Direction,
    /// Whether RCX counts.
    pub repeat: bool,
    /// Where in memory the element lies, where the processor says it ([`crate::Vcpu::DECODED`]). `None`: decode the instruction.
    pub operand: Option<StringOperand>,
}

/// What INS and OUTS say of their operand in memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StringOperand {
    /// ES for INS; what OUTS reads from.
    pub segment: SegmentName,
    /// How much of RDI or RSI, and of RCX, counts.
    pub size: Width,
}

/// What a memory access wanted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To execute.
    Execute,
}

/// An access that the second stage does not map.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MemoryExit {
    /// The guest-physical address of the access's first byte that failed.
    pub address: GuestPhysical,
    /// What it wanted.
    pub access: Access,
    /// Whether no instruction wanted it, but the processor by itself: it walked the guest's page tables, or it was delivering an event and
    /// looked for a descriptor or used the stack.
    pub during_walk: bool,
}

/// An access to a control register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ControlAccess {
    /// 0, 3, 4 or 8.
    pub register: u8,
    /// Whether the guest writes it.
    pub write: bool,
    /// The general register of a MOV, where the processor says it ([`crate::Vcpu::DECODED`]). `None`: decode the instruction,
    /// which may also be LMSW, SMSW or CLTS.
    pub general: Option<General>,
}

/// Instructions that no virtual processor of ours has: #UD.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unsupported {
    /// Instructions of a virtual-machine extension, of either vendor.
    Virtualization,
    /// MONITOR and MWAIT in their forms.
    MonitorWait,
    /// SKINIT, GETSEC and others that would change what the machine is.
    Launch,
    /// RSM outside system management mode.
    ResumeFromManagement,
    /// RDPRU, which reads registers of the processor's performance.
    ProcessorRegisters,
}

/// The processor refused to enter the guest: a bug of ours or an impossible state that a guest made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct EntryFailure {
    /// The vendor's code.
    pub code: u64,
    /// The rule that the state breaks, where the back end knows it.
    pub rule: Option<&'static str>,
}

/// Why a guest came back.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A host interrupt is waiting; the guest did nothing.
    Interrupted,
    /// The guest can take an interrupt now; asked for with [`crate::Vcpu::set_window`].
    InterruptWindow,
    /// The guest can take an NMI now.
    NonMaskableWindow,
    /// The guest ended a level-triggered interrupt with that vector, and the processor has taken it out of service
    /// ([`crate::Vcpu::HOLDS_INTERRUPTS`]). The instruction is done.
    EndOfInterrupt(u8),
    /// The guest sent itself an interrupt with a vector that cannot be, the low byte of RAX. The instruction is done.
    SelfInterrupt,
    /// HLT.
    Halt,
    /// CPUID.
    Cpuid,
    /// RDMSR.
    ReadMsr,
    /// WRMSR.
    WriteMsr,
    /// RDPMC.
    ReadPerformanceCounter,
    /// XSETBV.
    SetExtendedControl,
    /// VMMCALL or VMCALL: the guest calls the hypervisor.
    Hypercall,
    /// PAUSE, after so many that the guest is surely spinning.
    Pause,
    /// INVD or WBINVD.
    CacheInvalidation,
    /// IN or OUT.
    Port(PortExit),
    /// INS or OUTS.
    StringPort(StringPortExit),
    /// An access that the second stage does not map.
    Memory(MemoryExit),
    /// An access to a control register.
    Control(ControlAccess),
    /// An instruction that the virtual processor does not have.
    Unsupported(Unsupported),
    /// An exception that the back end was asked to intercept, with its error code.
    Exception(Exception, u32),
    /// A task switch through a task gate or a TSS descriptor.
    TaskSwitch,
    /// Triple fault.
    Shutdown,
    /// An INIT signal for the host's processor.
    HostInit,
    /// The processor refused to enter the guest.
    Failed(EntryFailure),
    /// A code that the back end does not know.
    Unknown(u64),
}

impl Exit {
    /// Number of kinds, for counters.
    pub const KINDS: usize = 20;

    /// Names of the kinds, in the order of [`Exit::kind`].
    pub const KIND_NAMES: [&'static str; Self::KINDS] = [
        "interrupted",
        "window",
        "halt",
        "cpuid",
        "msr-read",
        "msr-write",
        "pmc-read",
        "xsetbv",
        "hypercall",
        "pause",
        "cache",
        "port",
        "port-string",
        "memory",
        "control",
        "unsupported",
        "exception",
        "shutdown",
        "unknown",
        "apic",
    ];

    /// The index of this exit's kind, below [`Exit::KINDS`].
    /// Compiled into its callers, most of which know the exit: then it is a constant.
    #[inline(always)]
    pub const fn kind(&self) -> usize {
        match self {
            Self::Interrupted | Self::HostInit => 0,
            Self::InterruptWindow | Self::NonMaskableWindow => 1,
            Self::Halt => 2,
            Self::Cpuid => 3,
            Self::ReadMsr => 4,
            Self::WriteMsr => 5,
            Self::ReadPerformanceCounter => 6,
            Self::SetExtendedControl => 7,
            Self::Hypercall => 8,
            Self::Pause => 9,
            Self::CacheInvalidation => 10,
            Self::Port(_) => 11,
            Self::StringPort(_) => 12,
            Self::Memory(_) => 13,
            Self::Control(_) => 14,
            Self::Unsupported(_) => 15,
            Self::Exception(..) | Self::TaskSwitch => 16,
            Self::Shutdown => 17,
            Self::Failed(_) | Self::Unknown(_) => 18,
            Self::EndOfInterrupt(_) | Self::SelfInterrupt => 19,
        }
    }
}
