//! The interrupt command register (SDM §11.6, §11.12.9) and the self-IPI register (§11.12.11).

use crate::Bench;
use contracts::{DeliveryMode, InterruptCommand, InterruptMessage, LocalApic as _, Shorthand, Trigger};

fn fixed(destination: u32, vector: u8) -> InterruptCommand {
    InterruptCommand {
        shorthand: Shorthand::None,
        message: InterruptMessage {
            destination,
            logical: false,
            mode: DeliveryMode::Fixed,
            vector,
            trigger: Trigger::Edge,
        },
        wide: false,
    }
}

/// §11.6.1: "The act of writing to the low doubleword of the ICR causes the IPI to be sent."
#[test]
fn the_low_half_sends() {
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.write(0x310, 0x0300_0000).command, None);
    assert_eq!(bench.write(0x300, 0x0000_40fd).command, Some(fixed(3, 0xfd)));
    assert_eq!((bench.read(0x300), bench.read(0x310)), (0x0000_40fd, 0x0300_0000));
    bench.write(0x310, 0x0500_0000);
    assert_eq!((bench.read(0x300), bench.read(0x310)), (0x0000_40fd, 0x0500_0000));
    // Delivery status is read-only and always idle.
    bench.write(0x300, 0x0000_50fd);
    assert_eq!(bench.read(0x300), 0x0000_40fd);
}

/// §11.12.9: "a single MSR write to the Interrupt Command Register is required for dispatching an interrupt".
#[test]
fn one_write_sends_in_extended_mode() {
    let mut bench = Bench::extended(0);
    let expected = InterruptCommand { wide: true, ..fixed(0x1234_5678, 0xfd) };
    assert_eq!(bench.command(0x830, 0x1234_5678_0000_00fd), Some(expected));
    // The lowest legal vector.
    assert_eq!(bench.command(0x830, 0x10).map(|command| command.message.vector), Some(0x10));
}

/// Figure 11-12: fields of the command.
#[test]
fn fields() {
    let mut bench = Bench::bootstrap();
    bench.write(0x310, 0x0f00_0000);
    let mut message = fixed(0x0f, 0x40).message;
    message.logical = true;
    let expected = InterruptCommand { message, ..fixed(0, 0) };
    assert_eq!(bench.write(0x300, 0x0840).command, Some(expected));

    let sent = |bench: &mut Bench, low| bench.write(0x300, low).command;
    for (bits, shorthand) in [(2, Shorthand::All), (3, Shorthand::Others)] {
        let command = sent(&mut bench, bits << 18 | 0x40).unwrap();
        assert_eq!(command, InterruptCommand { shorthand, ..fixed(0x0f, 0x40) });
    }
    for (bits, mode) in [
        (1, DeliveryMode::LowestPriority),
        (2, DeliveryMode::SystemManagement),
        (4, DeliveryMode::NonMaskable),
        (5, DeliveryMode::Init),
        (6, DeliveryMode::StartUp),
    ] {
        let command = sent(&mut bench, bits << 8 | 0x4099).unwrap();
        assert_eq!((command.message.mode, command.message.vector), (mode, 0x99));
    }
    // Reserved, and ExtINT, which a command cannot carry.
    assert_eq!(sent(&mut bench, 3 << 8 | 0x40), None);
    assert_eq!(sent(&mut bench, 7 << 8 | 0x40), None);
}

/// §11.6.1, "Level": 0 is for the INIT level de-assert only, which processors since the Pentium 4 ignore. A start-up
/// with vector 0 is legal: page 0.
#[test]
fn init_is_sent_once() {
    let mut bench = Bench::bootstrap();
    assert!(bench.write(0x300, 0xc500).command.is_some());
    assert!(bench.write(0x300, 0x8500).command.is_none());
    assert!(bench.write(0x300, 0x0500).command.is_some());
    let start = bench.write(0x300, 0x0600).command.unwrap();
    assert_eq!((start.message.mode, start.message.vector), (DeliveryMode::StartUp, 0));
}

/// §11.6.1: the trigger bit "is ignored for all other delivery modes": an IPI never counts as a level.
#[test]
fn commands_are_edges() {
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.write(0x300, 0xc0fd).command, Some(fixed(0, 0xfd)));
    assert_eq!(bench.write(0x300, 0x4_c0fd).command, None);
    assert_eq!(bench.apic.acknowledge(), Some(0xfd));
    assert_eq!(bench.end(), None);
}

/// §11.12.11: the self-IPI register is as the command with shorthand self, edge, fixed.
#[test]
fn interrupts_to_itself() {
    let mut bench = Bench::extended(2);
    assert_eq!(bench.command(0x83f, 0xf6), None);
    assert_eq!(bench.serve(), Some(0xf6));
    assert_eq!(bench.command(0x830, 0x4_00f6), None);
    assert_eq!(bench.serve(), Some(0xf6));
    for vector in [0x10, 0xff] {
        assert_eq!(bench.command(0x83f, vector.into()), None);
        assert_eq!(bench.serve(), Some(vector));
    }
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.write(0x300, 0x4_00f6).command, None);
    assert_eq!(bench.serve(), Some(0xf6));
    // §11.4.7.2: disabled by software, it takes nothing but can still send.
    bench.write(0xf0, 0xff);
    bench.write(0x300, 0x4_00f6);
    assert_eq!(bench.serve(), None);
    assert!(bench.write(0x300, 0x00f6).command.is_some());
}
