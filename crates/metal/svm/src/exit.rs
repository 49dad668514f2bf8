//! From the VMCB's exit code to a neutral [`Exit`] (APM Vol. 2 Appendix C).

use crate::control_block::ControlBlock;
use address::GuestPhysical;
use contracts::{
    Access, ControlAccess, Direction, EntryFailure, Exit, MemoryExit, PortExit, StringPortExit, Unsupported,
};
use x86::{Exception, SegmentName, Width};

/// VMEXIT_INVALID.
pub const INVALID: u64 = u64::MAX;
/// VMEXIT_IOIO.
const PORT: u32 = 0x7b;

/// Reads why the guest came back.
///
/// Only the low 32 bits of the code count: emulators differ in the upper ones (VMEXIT_INVALID is -1 in 32 or in 64 bits).
#[inline(always)]
pub fn decode(block: &ControlBlock) -> Exit {
    let (first, second) = (block.exit_information_1, block.exit_information_2);
    match block.exit_code as u32 {
        PORT => any_port(first),
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
            during_walk: first >> 33 & 1 == 1,
        }),
        code @ 0..=0x0f => Exit::Control(ControlAccess { register: code as u8, write: false, general: None }),
        code @ 0x10..=0x1f => {
            Exit::Control(ControlAccess { register: (code & 0xf) as u8, write: true, general: None })
        }
        0x65 => Exit::Control(ControlAccess { register: 0, write: true, general: None }),
        0x41 => Exit::Exception(Exception::Debug, 0),
        0x52 => Exit::Exception(Exception::MachineCheck, 0),
        0x63 => Exit::HostInit,
        0x6f => Exit::ReadPerformanceCounter,
        0x73 => Exit::Unsupported(Unsupported::ResumeFromManagement),
        0x76 | 0x89 => Exit::CacheInvalidation,
        0x77 => Exit::Pause,
        0x7d => Exit::TaskSwitch,
        0x7f => Exit::Shutdown,
        0x81 => Exit::Hypercall,
        0x7a | 0x80 | 0x82..=0x85 => Exit::Unsupported(Unsupported::Virtualization),
        0x86 => Exit::Unsupported(Unsupported::Launch),
        0x8a..=0x8c => Exit::Unsupported(Unsupported::MonitorWait),
        0x8d => Exit::SetExtendedControl,
        u32::MAX => Exit::Failed(EntryFailure { code: block.exit_code }),
        _ => Exit::Unknown(block.exit_code),
    }
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
fn any_port(information: u64) -> Exit {
    if let Some(simple) = simple_port(information) {
        return Exit::Port(simple);
    }
    // Bits 12–10 hold the segment where the processor has decode assists. Without them they are zero, which would read
    // as ES: the instruction itself has to say.
    let segment = match information >> 10 & 7 {
        1 => Some(SegmentName::Cs),
        2 => Some(SegmentName::Ss),
        3 => Some(SegmentName::Ds),
        4 => Some(SegmentName::Fs),
        5 => Some(SegmentName::Gs),
        _ => None,
    };
    Exit::StringPort(StringPortExit {
        port: (information >> 16) as u16,
        width: width(information),
        direction: if information & 1 == 1 { Direction::In } else { Direction::Out },
        repeat: information >> 3 & 1 == 1,
        segment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_words_are_read_as_the_manual_lays_them_out() {
        let word = 0x03f8 << 16 | 1 << 4;
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
                segment: Some(SegmentName::Ds),
            })
        );
    }
}
