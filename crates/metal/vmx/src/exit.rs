//! From a VM exit to a neutral [`Exit`] (SDM Vol. 3D appendix C, Vol. 3C §28.2).

use crate::event;
use crate::field::{Field, Fields};
use address::GuestPhysical;
use contracts::{
    Access, ControlAccess, Direction, Exit, MemoryExit, PortExit, StringOperand, StringPortExit, Unsupported,
};
use x86::{Exception, General, SegmentName, Width};

/// Basic exit reasons that this crate itself asks for.
pub mod reason {
    /// An exception or an NMI.
    pub const EXCEPTION: u32 = 0;
    /// The NMI window has opened.
    pub const NON_MASKABLE_WINDOW: u32 = 8;
    /// IN, OUT, INS or OUTS.
    pub const PORT: u32 = 30;
    /// An EPT violation.
    pub const VIOLATION: u32 = 48;
    /// An EPT entry of ours that cannot be.
    pub const MISCONFIGURATION: u32 = 49;
    /// The entry was refused.
    pub const REFUSED: u32 = 1 << 31;
    /// The instruction failed. No processor says this.
    pub const NOT_ENTERED: u32 = u32::MAX;
}

/// Reads why the guest came back, for a basic exit `reason` that is none of a refused entry, nor [`reason::MISCONFIGURATION`].
#[inline(always)]
pub fn decode(fields: &impl Fields, reason: u32, described: bool) -> Exit {
    match reason {
        reason::PORT => any_port(fields, described),
        31 => Exit::ReadMsr,
        32 => Exit::WriteMsr,
        12 => Exit::Halt,
        // An interrupt of the host, or the deadline: the preemption timer.
        1 | 52 => Exit::Interrupted,
        7 => Exit::InterruptWindow,
        10 => Exit::Cpuid,
        reason::NON_MASKABLE_WINDOW => Exit::NonMaskableWindow,
        reason::VIOLATION => violation(fields),
        28 => control(fields.read(Field::QUALIFICATION)),
        other => rare(fields, other),
    }
}

#[cold]
#[inline(never)]
fn rare(fields: &impl Fields, reason: u32) -> Exit {
    match reason {
        reason::EXCEPTION => exception(fields),
        2 => Exit::Shutdown,
        3 => Exit::HostInit,
        9 => Exit::TaskSwitch,
        11 => Exit::Unsupported(Unsupported::Launch),
        13 | 54 => Exit::CacheInvalidation,
        15 => Exit::ReadPerformanceCounter,
        17 => Exit::Unsupported(Unsupported::ResumeFromManagement),
        18 => Exit::Hypercall,
        // VMCLEAR to VMXON, INVEPT, INVVPID, VMFUNC.
        19..=27 | 50 | 53 | 59 => Exit::Unsupported(Unsupported::Virtualization),
        // MWAIT, MONITOR, UMWAIT, TPAUSE.
        36 | 39 | 67 | 68 => Exit::Unsupported(Unsupported::MonitorWait),
        40 => Exit::Pause,
        45 => Exit::EndOfInterrupt(fields.read(Field::QUALIFICATION) as u8),
        56 if fields.read(Field::QUALIFICATION) & 0xfff == 0x3f0 => Exit::SelfInterrupt,
        55 => Exit::SetExtendedControl,
        // ENCLS, PCONFIG, ENCLV, LOADIWKEY, SEAMCALL and TDCALL.
        60 | 65 | 69 | 70 | 76 | 77 => Exit::Unsupported(Unsupported::Launch),
        // INVPCID, RDRAND and RDSEED never exit by these controls: without them they raise #UD, or just happen. So do XSAVES and XRSTORS, but
        // for supervisor state, which nobody has. Start-up interrupts come only to a guest that waits for one, system management has a
        // monitor of its own, and all else has to be asked for.
        other => Exit::Unknown(other.into()),
    }
}

fn exception(fields: &impl Fields) -> Exit {
    let event = fields.read(Field::EXIT_EVENT);
    match (event & event::TYPE, event as u8) {
        (event::NON_MASKABLE, _) => Exit::Interrupted,
        (_, 1) => Exit::Exception(Exception::Debug, 0),
        (_, 17) => Exit::Exception(Exception::AlignmentCheck, fields.read(Field::EXIT_ERROR_CODE) as u32),
        (_, 18) => Exit::Exception(Exception::MachineCheck, 0),
        _ => Exit::Unknown(event << 32),
    }
}

/// SDM Vol. 3C table 28-7.
#[inline(always)]
fn violation(fields: &impl Fields) -> Exit {
    let qualification = fields.read(Field::QUALIFICATION);
    let access = match (qualification >> 2 & 1, qualification >> 1 & 1) {
        (1, _) => Access::Execute,
        (_, 1) => Access::Write,
        _ => Access::Read,
    };
    // Bits 7 and 8: it was the translation of a linear address, and not an access to a table on the way. Or an event was on its way.
    let wanted = qualification >> 7 & 3 == 3;
    let delivering = fields.read(Field::VECTORING_EVENT) & event::VALID != 0;
    Exit::Memory(MemoryExit {
        address: GuestPhysical::new(fields.read(Field::GUEST_PHYSICAL)),
        access,
        during_walk: !wanted || delivering,
    })
}

/// SDM Vol. 3C table 28-3.
const fn control(qualification: u64) -> Exit {
    let general = General::from_number((qualification >> 8) as u8);
    let (register, write, general) = match qualification >> 4 & 3 {
        0 => ((qualification & 15) as u8, true, Some(general)),
        1 => ((qualification & 15) as u8, false, Some(general)),
        // CLTS and LMSW.
        _ => (0, true, None),
    };
    Exit::Control(ControlAccess { register, write, general })
}

/// The access of an exit that is an IN or OUT.
#[inline(always)]
pub fn port(fields: &impl Fields, reason: u32) -> Option<PortExit> {
    if reason != reason::PORT {
        return None;
    }
    simple_port(fields.read(Field::QUALIFICATION))
}

/// Reads the qualification of a port access (SDM Vol. 3C table 28-5), unless it is INS or OUTS.
#[inline(always)]
fn simple_port(qualification: u64) -> Option<PortExit> {
    if qualification >> 4 & 1 == 1 {
        return None;
    }
    Some(PortExit {
        port: (qualification >> 16) as u16,
        width: width(qualification),
        direction: direction(qualification),
    })
}

/// Widths by the number in a qualification; the processor gives none but 0, 1 and 3.
static WIDTHS: [Width; 8] = {
    let mut widths = [Width::Double; 8];
    widths[0] = Width::Byte;
    widths[1] = Width::Word;
    widths
};

/// A table, since this stands in the shortest of all exits.
#[inline(always)]
fn width(qualification: u64) -> Width {
    WIDTHS[(qualification & 7) as usize]
}

const fn direction(qualification: u64) -> Direction {
    if qualification >> 3 & 1 == 1 { Direction::In } else { Direction::Out }
}

#[cold]
#[inline(never)]
fn any_port(fields: &impl Fields, described: bool) -> Exit {
    let qualification = fields.read(Field::QUALIFICATION);
    if let Some(simple) = simple_port(qualification) {
        return Exit::Port(simple);
    }
    let direction = direction(qualification);
    Exit::StringPort(StringPortExit {
        port: (qualification >> 16) as u16,
        width: width(qualification),
        direction,
        repeat: qualification >> 5 & 1 == 1,
        operand: if described { operand(fields.read(Field::EXIT_INSTRUCTION), direction) } else { None },
    })
}

/// The operand of INS or OUTS (SDM Vol. 3C table 28-9); the segment is undefined for INS, which has ES.
fn operand(information: u64, direction: Direction) -> Option<StringOperand> {
    let segment = match (direction, information >> 15 & 7) {
        (Direction::In, _) | (_, 0) => SegmentName::Es,
        (_, 1) => SegmentName::Cs,
        (_, 2) => SegmentName::Ss,
        (_, 3) => SegmentName::Ds,
        (_, 4) => SegmentName::Fs,
        (_, 5) => SegmentName::Gs,
        _ => return None,
    };
    let size = match information >> 7 & 7 {
        0 => Width::Word,
        1 => Width::Double,
        2 => Width::Quad,
        _ => return None,
    };
    Some(StringOperand { segment, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::tests::Model;

    fn decoded(reason: u32, fields: &[(Field, u64)]) -> Exit {
        decode(&Model::with(fields), reason, true)
    }

    #[test]
    fn every_basic_reason_has_its_exit() {
        use Unsupported::{Launch, MonitorWait, ResumeFromManagement, Virtualization};
        let unknown = |reason: u32| Exit::Unknown(reason.into());
        for reason in 0..=80 {
            let expected = match reason {
                0 => Exit::Unknown(0),
                1 | 52 => Exit::Interrupted,
                2 => Exit::Shutdown,
                3 => Exit::HostInit,
                7 => Exit::InterruptWindow,
                8 => Exit::NonMaskableWindow,
                9 => Exit::TaskSwitch,
                10 => Exit::Cpuid,
                12 => Exit::Halt,
                13 | 54 => Exit::CacheInvalidation,
                15 => Exit::ReadPerformanceCounter,
                17 => Exit::Unsupported(ResumeFromManagement),
                18 => Exit::Hypercall,
                19..=27 | 50 | 53 | 59 => Exit::Unsupported(Virtualization),
                11 | 60 | 65 | 69 | 70 | 76 | 77 => Exit::Unsupported(Launch),
                36 | 39 | 67 | 68 => Exit::Unsupported(MonitorWait),
                31 => Exit::ReadMsr,
                32 => Exit::WriteMsr,
                40 => Exit::Pause,
                45 => Exit::EndOfInterrupt(0),
                55 => Exit::SetExtendedControl,
                28 | 30 | 48 => continue,
                other => unknown(other),
            };
            assert_eq!(decoded(reason, &[]), expected, "{reason}");
        }
    }

    #[test]
    fn exceptions_and_interruptions_are_told_apart() {
        let with = |event, code| {
            decoded(0, &[(Field::EXIT_EVENT, event::VALID | event), (Field::EXIT_ERROR_CODE, code)])
        };
        assert_eq!(with(event::NON_MASKABLE | 2, 0), Exit::Interrupted);
        assert_eq!(with(event::EXCEPTION | 1, 7), Exit::Exception(Exception::Debug, 0));
        assert_eq!(with(event::EXCEPTION | 17, 0), Exit::Exception(Exception::AlignmentCheck, 0));
        assert_eq!(with(event::EXCEPTION | 18, 0), Exit::Exception(Exception::MachineCheck, 0));
        assert_eq!(
            with(event::EXCEPTION | 14, 0),
            Exit::Unknown((event::VALID | event::EXCEPTION | 14) << 32)
        );
    }

    #[test]
    fn a_violation_says_what_was_wanted() {
        let with = |qualification, vectoring| {
            let fields = [
                (Field::QUALIFICATION, qualification),
                (Field::GUEST_PHYSICAL, 0xfee0_00b0),
                (Field::VECTORING_EVENT, vectoring),
            ];
            match decoded(48, &fields) {
                Exit::Memory(MemoryExit { address, access, during_walk }) => {
                    assert_eq!(address.get(), 0xfee0_00b0);
                    (access, during_walk)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with(0x181, 0), (Access::Read, false));
        assert_eq!(with(0x182, 0), (Access::Write, false));
        // A read and a write at once is a write.
        assert_eq!(with(0x183, 0), (Access::Write, false));
        assert_eq!(with(0x184, 0), (Access::Execute, false));
        // An access to a page table; one without a linear address; one in the delivery of an event.
        assert_eq!(with(0x81, 0), (Access::Read, true));
        assert_eq!(with(0x01, 0), (Access::Read, true));
        assert_eq!(with(0x182, event::VALID | 0x30), (Access::Write, true));
        assert_eq!(with(0x182, 0x30), (Access::Write, false));
    }

    #[test]
    fn control_register_accesses_name_their_registers() {
        let with = |qualification| match decoded(28, &[(Field::QUALIFICATION, qualification)]) {
            Exit::Control(ControlAccess { register, write, general }) => (register, write, general),
            other => panic!("{other:?}"),
        };
        assert_eq!(with(0x0000), (0, true, Some(General::Rax)));
        assert_eq!(with(0x0f04), (4, true, Some(General::R15)));
        assert_eq!(with(0x0418), (8, false, Some(General::Rsp)));
        assert_eq!(with(0x0020), (0, true, None));
        assert_eq!(with(0x1234_0030), (0, true, None));
    }

    #[test]
    fn port_accesses_are_read_as_the_manual_says() {
        for (qualification, expected) in [
            (0x0040_0008, PortExit { port: 0x40, width: Width::Byte, direction: Direction::In }),
            (0x0cf8_0043, PortExit { port: 0xcf8, width: Width::Double, direction: Direction::Out }),
            (0x01f0_0009, PortExit { port: 0x1f0, width: Width::Word, direction: Direction::In }),
        ] {
            let fields = Model::with(&[(Field::QUALIFICATION, qualification)]);
            assert_eq!(port(&fields, 30), Some(expected));
            assert_eq!(decode(&fields, 30, true), Exit::Port(expected));
            assert_eq!(port(&fields, 31), None);
        }
    }

    #[test]
    fn string_accesses_name_their_operand_where_the_processor_does() {
        let string = |qualification, information, described| {
            let fields =
                Model::with(&[(Field::QUALIFICATION, qualification), (Field::EXIT_INSTRUCTION, information)]);
            assert_eq!(port(&fields, 30), None);
            match decode(&fields, 30, described) {
                Exit::StringPort(access) => (access.direction, access.repeat, access.operand),
                other => panic!("{other:?}"),
            }
        };
        let at = |segment, size| Some(StringOperand { segment, size });
        // REP OUTSB from FS with 32-bit addresses; INSD, whose segment bits mean nothing.
        assert_eq!(
            string(0x03f8_0030, 4 << 15 | 1 << 7, true),
            (Direction::Out, true, at(SegmentName::Fs, Width::Double))
        );
        assert_eq!(
            string(0x01f0_001b, 7 << 15 | 2 << 7, true),
            (Direction::In, false, at(SegmentName::Es, Width::Quad))
        );
        assert_eq!(string(0x03f8_0010, 6 << 15, true), (Direction::Out, false, None));
        assert_eq!(string(0x03f8_0010, 7 << 7, true), (Direction::Out, false, None));
        assert_eq!(string(0x03f8_0030, 4 << 15 | 1 << 7, false), (Direction::Out, true, None));
    }
}
