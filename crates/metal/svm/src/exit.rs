//! From the VMCB's exit code to a neutral [`Exit`] (APM Vol. 2 Appendix C).

use crate::control_block::ControlBlock;
use address::GuestPhysical;
use contracts::{
    Access, ControlAccess, DecodedInstruction, Direction, EntryFailure, Exit, MemoryExit, PortExit,
    StringOperand, StringPortExit, Unsupported,
};
use x86::{Exception, General, SegmentName, Width};

/// VMEXIT_INVALID.
pub const INVALID: u64 = u64::MAX;
/// VMEXIT_INTR, and VMEXIT_VINTR: between them the exits that interrupts cause, of the host and of the window.
pub const FIRST_INTERRUPT: u32 = 0x60;
pub const LAST_INTERRUPT: u32 = 0x64;
/// VMEXIT_SHUTDOWN.
pub const SHUTDOWN: u32 = 0x7f;
/// VMEXIT_IOIO.
const PORT: u32 = 0x7b;

/// Reads why the guest came back.
///
/// Only the low 32 bits of the code count: emulators differ in the upper ones (VMEXIT_INVALID is -1 in 32 or in 64 bits).
#[inline(always)]
pub fn decode<D: DecodedInstruction>(block: &ControlBlock) -> Exit {
    let (first, second) = (block.exit_information_1, block.exit_information_2);
    match block.exit_code as u32 {
        PORT => any_port::<D>(first),
        0x7c if first & 1 == 0 => Exit::ReadMsr,
        0x7c => Exit::WriteMsr,
        0x78 => Exit::Halt,
        0x60..=0x62 => Exit::Interrupted,
        0x64 => Exit::InterruptWindow,
        0x72 => Exit::Cpuid,
        0x74 => Exit::NonMaskableWindow,
        0x400 => Exit::Memory(MemoryExit {
            address: GuestPhysical::new(second),
            access: match (first >> 4 & 1, first >> 1 & 1) {
                (1, _) => Access::Execute,
                (_, 1) => Access::Write,
                _ => Access::Read,
            },
            // EXITINTINFO is valid: the guest came back out of the delivery of an event (APM Vol. 2 §15.7.2).
            during_walk: (first >> 33 | block.exit_interruption >> 31) & 1 == 1,
        }),
        code @ 0..=0x1f => Exit::Control(ControlAccess {
            register: (code & 0xf) as u8,
            write: code >= 0x10,
            general: moved::<D>(first),
        }),
        0x65 => Exit::Control(ControlAccess { register: 0, write: true, general: moved::<D>(first) }),
        0x41 => Exit::Exception(Exception::Debug, 0),
        0x51 => Exit::Exception(Exception::AlignmentCheck, first as u32),
        0x52 => Exit::Exception(Exception::MachineCheck, 0),
        0x63 => Exit::HostInit,
        0x6f => Exit::ReadPerformanceCounter,
        0x73 => Exit::Unsupported(Unsupported::ResumeFromManagement),
        0x76 | 0x89 => Exit::CacheInvalidation,
        0x77 => Exit::Pause,
        0x7d => Exit::TaskSwitch,
        SHUTDOWN => Exit::Shutdown,
        0x81 => Exit::Hypercall,
        0x7a | 0x80 | 0x82..=0x85 => Exit::Unsupported(Unsupported::Virtualization),
        0x86 => Exit::Unsupported(Unsupported::Launch),
        0x8a..=0x8c => Exit::Unsupported(Unsupported::MonitorWait),
        0x8d => Exit::SetExtendedControl,
        0x8e => Exit::Unsupported(Unsupported::ProcessorRegisters),
        u32::MAX => Exit::Failed(EntryFailure { code: block.exit_code, rule: None }),
        _ => Exit::Unknown(block.exit_code),
    }
}

/// The general register of a MOV to or from a control register (APM Vol. 2 §15.8.1). `None`: it was another instruction, or the processor
/// says nothing; then its bits mean nothing either.
#[inline(always)]
fn moved<D: DecodedInstruction>(information: u64) -> Option<General> {
    (D::GIVEN && information >> 63 == 1).then(|| General::from_number(information as u8))
}

/// The bytes of the instruction that caused a nested page fault (APM Vol. 2 §15.8.4): how many there are, and which.
///
/// There may be none although the processor has the feature: it fetches them as data, which SMAP can forbid ("Revision Guide for AMD
/// Family 17h Models 00h-0Fh", erratum 1096).
#[inline(always)]
pub fn fetched<D: DecodedInstruction>(block: &ControlBlock) -> (u8, [u8; 15]) {
    if D::GIVEN { (block.fetched & 0xf, block.instruction) } else { (0, [0; 15]) }
}

/// The access of an exit that is an IN or OUT.
#[inline(always)]
pub fn port(block: &ControlBlock) -> Option<PortExit> {
    if block.exit_code as u32 != PORT {
        return None;
    }
    simple_port(block.exit_information_1)
}

/// Reads the information word of an IOIO exit (APM Vol. 2 §15.10.2), unless it is INS or OUTS.
#[inline(always)]
fn simple_port(information: u64) -> Option<PortExit> {
    if information >> 2 & 1 == 1 {
        return None;
    }
    let direction = if information & 1 == 1 { Direction::In } else { Direction::Out };
    Some(PortExit { port: (information >> 16) as u16, width: width(information), direction })
}

/// The width that the information word names: exactly one of the three bits is set.
#[inline(always)]
fn width(information: u64) -> Width {
    if information >> 4 & 1 == 1 {
        Width::Byte
    } else if information >> 5 & 1 == 1 {
        Width::Word
    } else {
        Width::Double
    }
}

/// Reads the information word of any IOIO exit.
#[cold]
#[inline(never)]
fn any_port<D: DecodedInstruction>(information: u64) -> Exit {
    if let Some(simple) = simple_port(information) {
        return Exit::Port(simple);
    }
    Exit::StringPort(StringPortExit {
        port: (information >> 16) as u16,
        width: width(information),
        direction: if information & 1 == 1 { Direction::In } else { Direction::Out },
        repeat: information >> 3 & 1 == 1,
        // Without decode assists bits 12–10 are zero, which would read as ES: the instruction itself has to say.
        operand: if D::GIVEN { operand(information) } else { None },
    })
}

/// The operand of INS or OUTS: bits 12–10 hold the segment, one of bits 9–7 is set for the width of the address.
fn operand(information: u64) -> Option<StringOperand> {
    let segment = if information & 1 == 1 {
        SegmentName::Es
    } else {
        match information >> 10 & 7 {
            0 => SegmentName::Es,
            1 => SegmentName::Cs,
            2 => SegmentName::Ss,
            3 => SegmentName::Ds,
            4 => SegmentName::Fs,
            5 => SegmentName::Gs,
            _ => return None,
        }
    };
    let size = match information >> 7 & 7 {
        1 => Width::Word,
        2 => Width::Double,
        4 => Width::Quad,
        _ => return None,
    };
    Some(StringOperand { segment, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::absent::Absent;

    /// A processor with decode assists.
    struct Decoding;

    impl DecodedInstruction for Decoding {
        const GIVEN: bool = true;
    }

    /// What stands in the block after an exit.
    fn block(code: u64, information: u64) -> ControlBlock {
        let mut block = ControlBlock::zeroed();
        block.exit_code = code;
        block.exit_information_1 = information;
        block
    }

    /// What is told of the general register of exit `code`, with decode assists and without.
    fn general(code: u64, information: u64) -> [(u8, bool, Option<General>); 2] {
        let block = block(code, information);
        [decode::<Decoding>(&block), decode::<Absent>(&block)].map(|exit| match exit {
            Exit::Control(ControlAccess { register, write, general }) => (register, write, general),
            other => panic!("{other:?} is no access to a control register"),
        })
    }

    #[test]
    fn moves_of_control_registers_name_the_general_register_where_the_processor_decodes() {
        let moved = 1 << 63;
        for (code, register, write) in [(0x08, 8, false), (0x14, 4, true), (0x18, 8, true), (0x65, 0, true)] {
            let without = (register, write, None);
            assert_eq!(general(code, moved | 9), [(register, write, Some(General::R9)), without]);
            // The bits between are reserved.
            assert_eq!(
                general(code, moved | 0x7fff_ffff_ffff_fff0),
                [(register, write, Some(General::Rax)), without]
            );
            // CLTS and LMSW: no MOV, and so no register.
            assert_eq!(general(code, 9), [without, without]);
        }
    }

    #[test]
    fn what_the_processor_touches_by_itself_is_no_access_of_an_instruction() {
        let of = |information, cut| {
            let mut block = block(0x400, information);
            block.exit_interruption = cut;
            match decode::<Absent>(&block) {
                Exit::Memory(access) => access.during_walk,
                other => panic!("{other:?} is no access to memory"),
            }
        };
        // A write at the end of a walk; during the walk; in the middle of the delivery of a page fault.
        assert!(!of(1 << 32 | 2, 0));
        assert!(of(1 << 33 | 2, 0));
        assert!(of(1 << 32 | 2, 1 << 31 | 3 << 8 | 14));
        // A vector that is no longer valid is left there by emulators.
        assert!(!of(1 << 32 | 2, 3 << 8 | 14));
    }

    #[test]
    fn exceptions_that_come_back_and_instructions_that_do_not_exist() {
        let of = |code, information| decode::<Absent>(&block(code, information));
        assert_eq!(of(0x41, 0), Exit::Exception(Exception::Debug, 0));
        assert_eq!(of(0x51, 0), Exit::Exception(Exception::AlignmentCheck, 0));
        assert_eq!(of(0x8e, 0), Exit::Unsupported(Unsupported::ProcessorRegisters));
    }

    #[test]
    fn instruction_bytes_are_believed_where_the_processor_decodes() {
        let mut block = block(0x400, 2);
        // SAFETY: offset 0D0h lies in the block, which is borrowed mutably; bytes have no alignment.
        unsafe {
            let raw = (&raw mut block).cast::<u8>().add(0xd0);
            for at in 0..16u8 {
                raw.add(at.into()).write(at + 0x30);
            }
        }
        let all = core::array::from_fn(|at| at as u8 + 0x31);
        // The count's upper bits are reserved.
        assert_eq!(fetched::<Decoding>(&block), (0, all));
        block.fetched = 0xf;
        assert_eq!(fetched::<Decoding>(&block), (15, all));
        assert_eq!(fetched::<Absent>(&block), (0, [0; 15]));
    }

    fn operand(information: u64) -> [Option<StringOperand>; 2] {
        let block = block(0x7b, information);
        [decode::<Decoding>(&block), decode::<Absent>(&block)].map(|exit| match exit {
            Exit::StringPort(StringPortExit { operand, .. }) => operand,
            other => panic!("{other:?} is no INS or OUTS"),
        })
    }

    #[test]
    fn strings_name_their_operand_where_the_processor_decodes() {
        let outs = 0x03f8 << 16 | 1 << 4 | 1 << 2;
        let names = [
            SegmentName::Es,
            SegmentName::Cs,
            SegmentName::Ss,
            SegmentName::Ds,
            SegmentName::Fs,
            SegmentName::Gs,
        ];
        for (number, segment) in names.into_iter().enumerate() {
            for (bit, size) in [(7, Width::Word), (8, Width::Double), (9, Width::Quad)] {
                let word = outs | (number as u64) << 10 | 1 << bit;
                assert_eq!(operand(word), [Some(StringOperand { segment, size }), None]);
                // INS writes to ES whatever stands there.
                let segment = SegmentName::Es;
                assert_eq!(operand(word | 1), [Some(StringOperand { segment, size }), None]);
            }
        }
        // No such segment, no width, two widths: the instruction has to say.
        for word in [outs | 6 << 10 | 1 << 9, outs | 3 << 10, outs | 3 << 10 | 1 << 8 | 1 << 9] {
            assert_eq!(operand(word), [None, None]);
        }
    }

    #[test]
    fn port_words_are_read_as_the_manual_lays_them_out() {
        let word = 0x03f8 << 16 | 1 << 4;
        let any_port = any_port::<Absent>;
        assert_eq!(
            any_port(word),
            Exit::Port(PortExit { port: 0x3f8, width: Width::Byte, direction: Direction::Out })
        );
        assert_eq!(
            any_port(word ^ (1 | 1 << 4 | 1 << 6)),
            Exit::Port(PortExit { port: 0x3f8, width: Width::Double, direction: Direction::In })
        );
        assert_eq!(
            any_port(word | 1 << 2 | 1 << 3 | 3 << 10),
            Exit::StringPort(StringPortExit {
                port: 0x3f8,
                width: Width::Byte,
                direction: Direction::Out,
                repeat: true,
                operand: None,
            })
        );
    }
}
