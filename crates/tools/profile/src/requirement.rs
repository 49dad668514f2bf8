//! What a processor must have, as data: the image's check at boot and the host tools read the same table.

/// A register of a CPUID answer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// A word in which a processor says what it has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// An answer of CPUID, of 32 bits.
    Cpuid {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
        /// The register.
        register: Register,
    },
    /// A VMX capability MSR by its number, of 64 bits: there only where CPUID announces VT-x (SDM Vol. 3D appendix A).
    Capability(u32),
}

/// One feature bit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// Its name; a part of the same name requires it. A name can have several bits.
    pub name: &'static str,
    /// What it is, as the object of "this processor has no …".
    pub what: &'static str,
    /// The back end to whose products it belongs; `None` where any can have it.
    pub back_end: Option<&'static str>,
    /// Where the bit is.
    pub source: Source,
    /// The bit, from 0.
    pub bit: u8,
}

const fn general(
    name: &'static str,
    what: &'static str,
    leaf: u32,
    register: Register,
    bit: u8,
) -> Requirement {
    Requirement { name, what, back_end: None, source: Source::Cpuid { leaf, subleaf: 0, register }, bit }
}

const fn amd(name: &'static str, what: &'static str, leaf: u32, register: Register, bit: u8) -> Requirement {
    Requirement { back_end: Some("svm"), ..general(name, what, leaf, register, bit) }
}

const fn intel(name: &'static str, what: &'static str, source: Source, bit: u8) -> Requirement {
    Requirement { name, what, back_end: Some("vmx"), source, bit }
}

const VMX: Source = Source::Cpuid { leaf: 1, subleaf: 0, register: Register::Ecx };
// Of the controls, bits 63 to 32 are those that may be 1 (SDM Vol. 3D appendix A.3).
const PIN: Source = Source::Capability(0x481);
const PRIMARY: Source = Source::Capability(0x482);
const SECONDARY: Source = Source::Capability(0x48b);
const EPT_VPID: Source = Source::Capability(0x48c);

const EPT: &str = "extended page tables (EPT)";
const UNRESTRICTED: &str = "unrestricted guests";
const APIC: &str = "APIC virtualization";
const VPID: &str = "tagged translations (VPID)";
const XSAVES: &str = "XSAVES for guests";

/// Everything that a part or a profile can require (AMD APM Vol. 3, appendix E; Intel SDM Vol. 2A, CPUID, and Vol. 3D appendix A).
///
/// Where a register exists only if a bit of another says so, the row of that bit stands before, under the same name: who asks in this order
/// and stops at the first bit that is missing reads no register that is not there.
pub const REQUIREMENTS: [Requirement; 32] = [
    amd("svm", "AMD virtualization (SVM)", 0x8000_0001, Register::Ecx, 2),
    amd("npt", "nested paging (NPT)", 0x8000_000a, Register::Edx, 0),
    amd("nrip-save", "saved next instruction pointer (NRIPS)", 0x8000_000a, Register::Edx, 3),
    amd("flush-by-asid", "flush by ASID", 0x8000_000a, Register::Edx, 6),
    amd("decode-assists", "decode assists", 0x8000_000a, Register::Edx, 7),
    amd("pause-filter", "pause filter", 0x8000_000a, Register::Edx, 10),
    intel("vmx", "Intel virtualization (VT-x)", VMX, 5),
    // Secondary controls exist.
    intel("ept", EPT, PRIMARY, 63),
    intel("ept", EPT, SECONDARY, 33),
    // Four levels, write-back tables, pages of 2 MiB, INVEPT, and that of all contexts.
    intel("ept", EPT, EPT_VPID, 6),
    intel("ept", EPT, EPT_VPID, 14),
    intel("ept", EPT, EPT_VPID, 16),
    intel("ept", EPT, EPT_VPID, 20),
    intel("ept", EPT, EPT_VPID, 26),
    intel("unrestricted-guest", UNRESTRICTED, PRIMARY, 63),
    intel("unrestricted-guest", UNRESTRICTED, SECONDARY, 39),
    intel("vpid", VPID, PRIMARY, 63),
    intel("vpid", VPID, SECONDARY, 37),
    // INVVPID of a single context.
    intel("vpid", VPID, EPT_VPID, 41),
    intel("preemption-timer", "VMX-preemption timer", PIN, 38),
    intel("apic-virtualization", APIC, PRIMARY, 53),
    intel("apic-virtualization", APIC, PRIMARY, 63),
    // x2APIC, and interrupts that the processor delivers.
    intel("apic-virtualization", APIC, SECONDARY, 36),
    intel("apic-virtualization", APIC, SECONDARY, 41),
    intel("ept-large-pages", "extended page tables of 1 GiB", EPT_VPID, 17),
    intel("xsaves", XSAVES, Source::Cpuid { leaf: 0xd, subleaf: 1, register: Register::Eax }, 3),
    intel("xsaves", XSAVES, PRIMARY, 63),
    intel("xsaves", XSAVES, SECONDARY, 52),
    general("x2apic", "x2APIC", 1, Register::Ecx, 21),
    general("one-gib-pages", "1 GiB pages", 0x8000_0001, Register::Edx, 26),
    general("invariant-tsc", "invariant time stamp counter", 0x8000_0007, Register::Edx, 8),
    general("no-execute", "no-execute pages (NX)", 0x8000_0001, Register::Edx, 20),
];
