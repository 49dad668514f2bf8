//! Control registers and RFLAGS as sets of named bits.

use bitflags::bitflags;

bitflags! {
    /// CR0 (APM Vol. 2 §3.1.1).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Cr0: u64 {
        /// PE: protected mode.
        const PROTECTION = 1 << 0;
        /// MP: WAIT heeds TS.
        const MONITOR_COPROCESSOR = 1 << 1;
        /// EM: no x87.
        const EMULATION = 1 << 2;
        /// TS: #NM at the next use of the FPU.
        const TASK_SWITCHED = 1 << 3;
        /// ET: always 1.
        const EXTENSION_TYPE = 1 << 4;
        /// NE: x87 errors raise #MF.
        const NUMERIC_ERROR = 1 << 5;
        /// WP: read-only pages hold for the supervisor too.
        const WRITE_PROTECT = 1 << 16;
        /// AM: alignment checks allowed.
        const ALIGNMENT_MASK = 1 << 18;
        /// NW: ignored by AMD processors, but CD=0 with NW=1 raises #GP.
        const NOT_WRITETHROUGH = 1 << 29;
        /// CD: caches off.
        const CACHE_DISABLE = 1 << 30;
        /// PG: paging.
        const PAGING = 1 << 31;
    }
}

bitflags! {
    /// CR4 (APM Vol. 2 §3.1.3).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Cr4: u64 {
        /// VME: virtual-8086 extensions.
        const VIRTUAL_8086 = 1 << 0;
        /// PVI: protected-mode virtual interrupts.
        const PROTECTED_VIRTUAL_INTERRUPTS = 1 << 1;
        /// TSD: RDTSC for the supervisor only.
        const TIME_STAMP_DISABLE = 1 << 2;
        /// DE: debugging extensions.
        const DEBUGGING = 1 << 3;
        /// PSE: 4 MiB pages in 32-bit paging.
        const PAGE_SIZE = 1 << 4;
        /// PAE: 8-byte page table entries.
        const PHYSICAL_ADDRESS = 1 << 5;
        /// MCE: machine-check exceptions.
        const MACHINE_CHECK = 1 << 6;
        /// PGE: global pages.
        const GLOBAL_PAGES = 1 << 7;
        /// PCE: RDPMC for everybody.
        const PERFORMANCE_COUNTER = 1 << 8;
        /// OSFXSR: SSE.
        const FXSR = 1 << 9;
        /// OSXMMEXCPT: #XF.
        const SIMD_EXCEPTIONS = 1 << 10;
        /// UMIP: SGDT, SIDT, SLDT, SMSW and STR for the supervisor only.
        const USER_MODE_INSTRUCTION_PREVENTION = 1 << 11;
        /// LA57: five-level paging.
        const LINEAR_57 = 1 << 12;
        /// VMXE: VMX allowed (SDM Vol. 3C §24.7).
        const VIRTUAL_MACHINE = 1 << 13;
        /// FSGSBASE: RDFSBASE and its kin.
        const FSGSBASE = 1 << 16;
        /// PCIDE: process-context identifiers.
        const PROCESS_CONTEXT = 1 << 17;
        /// OSXSAVE: XSAVE and XSETBV.
        const XSAVE = 1 << 18;
        /// SMEP: the supervisor executes no user page.
        const SUPERVISOR_EXECUTION = 1 << 20;
        /// SMAP: the supervisor reads no user page.
        const SUPERVISOR_ACCESS = 1 << 21;
        /// PKE: protection keys.
        const PROTECTION_KEYS = 1 << 22;
    }
}

bitflags! {
    /// EFER (APM Vol. 2 §3.1.7).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Efer: u64 {
        /// SCE: SYSCALL and SYSRET.
        const SYSTEM_CALL = 1 << 0;
        /// LME: long mode once paging is on.
        const LONG_MODE_ENABLE = 1 << 8;
        /// LMA: long mode is on.
        const LONG_MODE_ACTIVE = 1 << 10;
        /// NXE: no-execute pages.
        const NO_EXECUTE = 1 << 11;
        /// SVME: SVM allowed.
        const SECURE_VIRTUAL_MACHINE = 1 << 12;
        /// LMSLE: segment limits in long mode.
        const LONG_MODE_SEGMENT_LIMIT = 1 << 13;
        /// FFXSR: fast FXSAVE.
        const FAST_FXSAVE = 1 << 14;
        /// TCE: translation cache extension.
        const TRANSLATION_CACHE = 1 << 15;
    }
}

bitflags! {
    /// RFLAGS (APM Vol. 2 §3.1.6).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Rflags: u64 {
        /// CF.
        const CARRY = 1 << 0;
        /// Bit 1, always 1.
        const ALWAYS_ONE = 1 << 1;
        /// PF.
        const PARITY = 1 << 2;
        /// AF.
        const AUXILIARY = 1 << 4;
        /// ZF.
        const ZERO = 1 << 6;
        /// SF.
        const SIGN = 1 << 7;
        /// TF: single step.
        const TRAP = 1 << 8;
        /// IF: maskable interrupts taken.
        const INTERRUPT = 1 << 9;
        /// DF: string instructions count down.
        const DIRECTION = 1 << 10;
        /// OF.
        const OVERFLOW = 1 << 11;
        /// NT: nested task.
        const NESTED_TASK = 1 << 14;
        /// RF: resume past an instruction breakpoint.
        const RESUME = 1 << 16;
        /// VM: virtual-8086 mode.
        const VIRTUAL_8086 = 1 << 17;
        /// AC.
        const ALIGNMENT_CHECK = 1 << 18;
    }
}

bitflags! {
    /// XCR0, the extended state that XSAVE handles (APM Vol. 2 §11.5.2).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Xcr0: u64 {
        /// x87, always 1.
        const X87 = 1 << 0;
        /// SSE.
        const SSE = 1 << 1;
        /// AVX.
        const AVX = 1 << 2;
    }
}

impl Rflags {
    /// IOPL, 0 to 3: the least privilege that may use ports.
    pub const fn io_privilege(self) -> u8 {
        ((self.bits() >> 12) & 3) as u8
    }
}
