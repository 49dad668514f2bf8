//! Exceptions that the processor, and so the hypervisor, can raise in a guest (APM Vol. 2 §8.2).

/// An exception vector below 32.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the architecture's own.
pub enum Exception {
    DivideError = 0,
    Debug = 1,
    NonMaskable = 2,
    Breakpoint = 3,
    Overflow = 4,
    BoundRange = 5,
    InvalidOpcode = 6,
    DeviceNotAvailable = 7,
    DoubleFault = 8,
    InvalidTss = 10,
    SegmentNotPresent = 11,
    Stack = 12,
    GeneralProtection = 13,
    Page = 14,
    FloatingPoint = 16,
    AlignmentCheck = 17,
    MachineCheck = 18,
    SimdFloatingPoint = 19,
}

impl Exception {
    /// The vector number, 0 to 31.
    pub const fn vector(self) -> u8 {
        self as u8
    }

    /// Whether the processor pushes an error code with it (APM Vol. 2 §8.4).
    pub const fn has_error_code(self) -> bool {
        matches!(
            self,
            Self::DoubleFault
                | Self::InvalidTss
                | Self::SegmentNotPresent
                | Self::Stack
                | Self::GeneralProtection
                | Self::Page
                | Self::AlignmentCheck
        )
    }
}

/// A fault that an instruction earns: raised in the guest instead of completing the instruction.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// #UD: the instruction does not exist on this virtual processor.
    InvalidOpcode,
    /// #GP with its error code (0 for everything that the hypervisor decides).
    GeneralProtection(u16),
    /// #SS with its error code.
    Stack(u16),
    /// #PF at the linear address `address`; `code` as in APM Vol. 2 §8.4.2.
    Page {
        /// The linear address, for CR2.
        address: u64,
        /// The error code's bits.
        code: u16,
    },
}

impl Fault {
    /// #GP(0): what most refused accesses earn.
    pub const GP: Self = Self::GeneralProtection(0);

    /// The exception that it raises.
    pub const fn exception(self) -> Exception {
        match self {
            Self::InvalidOpcode => Exception::InvalidOpcode,
            Self::GeneralProtection(_) => Exception::GeneralProtection,
            Self::Stack(_) => Exception::Stack,
            Self::Page { .. } => Exception::Page,
        }
    }

    /// The error code pushed with it, where there is one.
    pub const fn error_code(self) -> Option<u32> {
        match self {
            Self::InvalidOpcode => None,
            Self::GeneralProtection(code) | Self::Stack(code) | Self::Page { code, .. } => Some(code as u32),
        }
    }
}
