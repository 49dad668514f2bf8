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

/// One feature bit of CPUID.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// Its name; a part of the same name requires it.
    pub name: &'static str,
    /// What it is, as the object of "this machine has no …".
    pub what: &'static str,
    /// CPUID leaf.
    pub leaf: u32,
    /// CPUID subleaf.
    pub subleaf: u32,
    /// The register that has the bit.
    pub register: Register,
    /// The bit, 0 to 31.
    pub bit: u8,
}

const fn requirement(
    name: &'static str,
    what: &'static str,
    leaf: u32,
    register: Register,
    bit: u8,
) -> Requirement {
    Requirement { name, what, leaf, subleaf: 0, register, bit }
}

/// Everything that a part or a profile can require (AMD APM Vol. 3, appendix E; Intel SDM Vol. 2A, CPUID).
pub const REQUIREMENTS: [Requirement; 11] = [
    requirement("svm", "AMD virtualization (SVM)", 0x8000_0001, Register::Ecx, 2),
    requirement("npt", "nested paging (NPT)", 0x8000_000a, Register::Edx, 0),
    requirement("vmx", "Intel virtualization (VT-x)", 1, Register::Ecx, 5),
    requirement("nrip-save", "saved next instruction pointer (NRIPS)", 0x8000_000a, Register::Edx, 3),
    requirement("flush-by-asid", "flush by ASID", 0x8000_000a, Register::Edx, 6),
    requirement("decode-assists", "decode assists", 0x8000_000a, Register::Edx, 7),
    requirement("pause-filter", "pause filter", 0x8000_000a, Register::Edx, 10),
    requirement("x2apic", "x2APIC", 1, Register::Ecx, 21),
    requirement("one-gib-pages", "1 GiB pages", 0x8000_0001, Register::Edx, 26),
    requirement("invariant-tsc", "invariant time stamp counter", 0x8000_0007, Register::Edx, 8),
    requirement("no-execute", "no-execute pages (NX)", 0x8000_0001, Register::Edx, 20),
];
