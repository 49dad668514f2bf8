//! What the architecture says of events, the same for both vendors.

use x86::Exception;

/// DR7.GD: the next access to a debug register raises #DB. Its delivery clears it (APM Vol. 2 §13.1.1).
pub const GENERAL_DETECT: u64 = 1 << 13;

/// The double-fault rules (APM Vol. 2 table 8-3; SDM Vol. 3A table 6-5) for a new exception while another one, with vector `old`, is on its
/// way. `None`: shutdown.
pub fn combined(old: Option<u8>, new: Exception) -> Option<Exception> {
    let contributory = |vector: u8| matches!(vector, 0 | 10..=13);
    let Some(old) = old else { return Some(new) };
    let page = Exception::Page.vector();
    if old == Exception::DoubleFault.vector() && (contributory(new.vector()) || new.vector() == page) {
        return None;
    }
    let double = (contributory(old) && contributory(new.vector()))
        || (old == page && (new.vector() == page || contributory(new.vector())));
    Some(if double { Exception::DoubleFault } else { new })
}

/// Whether RF in the frame of a #DB keeps it from coming again: a breakpoint that was met, by DR6 (`status`) and DR7 (`control`), is one on
/// the execution of an instruction (APM Vol. 2 §13.1.3).
pub fn resumes(status: u64, control: u64) -> bool {
    // Breakpoint 0 to 3 was met, and its kind, of four bits from bit 16 on, is the execution of an instruction.
    (0..4).any(|number| status >> number & 1 == 1 && control >> (16 + 4 * number) & 3 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_exceptions_become_one_as_the_manual_says() {
        use Exception::{
            Debug, DivideError, DoubleFault, GeneralProtection, InvalidOpcode, Page, SegmentNotPresent,
        };
        assert_eq!(combined(None, Page), Some(Page));
        for (old, new, raised) in [
            (DivideError, GeneralProtection, Some(DoubleFault)),
            (SegmentNotPresent, Page, Some(Page)),
            (Page, Page, Some(DoubleFault)),
            (Page, GeneralProtection, Some(DoubleFault)),
            (Page, InvalidOpcode, Some(InvalidOpcode)),
            (Debug, GeneralProtection, Some(GeneralProtection)),
            (DoubleFault, Page, None),
            (DoubleFault, DivideError, None),
            (DoubleFault, Debug, Some(Debug)),
        ] {
            assert_eq!(combined(Some(old.vector()), new), raised, "{old:?} {new:?}");
        }
    }

    #[test]
    fn only_breakpoints_on_execution_resume() {
        // Breakpoint 1 on execution, on writes; one that was not met; a single step.
        for (status, control, expected) in [
            (1 << 1, 0x408, true),
            (1 << 1, 1 << 20 | 0x408, false),
            (0xffff_0ff0, 0x408, false),
            (1 << 14, 0x2400, false),
        ] {
            assert_eq!(resumes(status, control), expected, "{status:#x} {control:#x}");
        }
    }
}
