//! Events in the fields for their injection and for what was cut short (SDM Vol. 3C §25.8.3, §25.9.2, §25.9.3), and the
//! interruptibility state (§25.4.2).

/// The event is valid.
pub const VALID: u64 = 1 << 31;
/// An error code goes with it.
pub const HAS_ERROR_CODE: u64 = 1 << 11;
/// The bits that hold the type.
pub const TYPE: u64 = 7 << 8;
/// External interrupt.
pub const INTERRUPT: u64 = 0;
/// NMI.
pub const NON_MASKABLE: u64 = 2 << 8;
/// Exception.
pub const EXCEPTION: u64 = 3 << 8;
/// INT1.
pub const PRIVILEGED: u64 = 5 << 8;
/// In what an exit says: an IRET that had ended the masking of NMIs was cut short.
pub const UNMASKED: u64 = 1 << 12;
/// What of an event that was cut short goes into an injection.
pub const WHOLE: u64 = VALID | HAS_ERROR_CODE | TYPE | 0xff;

/// Interruptibility: STI or MOV to SS shields the next instruction.
pub const SHADOW: u64 = 3;
/// Interruptibility: NMIs are masked.
pub const NON_MASKABLE_MASKED: u64 = 1 << 3;
