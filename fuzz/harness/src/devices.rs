//! Device models: accesses of all widths at all times, through the device contract.

use crate::tape::Tape;
use contracts::fake::Memory;
use contracts::{Attached, Context, Device, Effect, Effects, GuestTime, IoApic, LegacyPic, Platform};

/// Times end here: some 73 years, longer than any compartment runs.
const END_OF_TIME: u64 = 1 << 61;
/// A device's lines are the platform's.
const LINES: u8 = 24;

/// Does to a device what `bytes` say. `other` does what only this device can be asked.
fn exercise<D: Device>(bytes: &[u8], mut other: impl FnMut(&mut Attached<D>, &mut Tape, &mut Context<'_>)) {
    let mut tape = Tape::new(bytes);
    let memory = Memory::<0x1000>::new();
    let platform = Platform {
        memory: plan::MEMORY_LEAST << (tape.byte() & 15),
        vcpus: 1 + (tape.byte() & 15),
        wall_clock: tape.value(),
    };
    let mut device = Attached::<D>::new(&platform);
    let mut now = 0_u64;
    while !tape.is_over() {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(now), effects: &mut effects, memory: &memory };
        match tape.byte() {
            // Accesses are the most of it, with the place in the same byte.
            operation @ 0..=127 => access(&mut device, operation, &mut tape, &mut context),
            128..=159 => {
                let until = match tape.byte() {
                    0 => device.deadline().map_or(now, |deadline| deadline.0),
                    1 => device.deadline().map_or(now, |deadline| deadline.0.saturating_sub(1)),
                    2 => now.saturating_add(tape.value()),
                    short => now.saturating_add(u64::from(short) << (short & 31)),
                };
                now = until.clamp(now, END_OF_TIME);
                context.now = GuestTime(now);
                device.expire(&mut context);
                let left = device.deadline();
                assert!(
                    left.is_none_or(|left| left.0 > now),
                    "a timer that goes off for ever: {left:?} at {now}"
                );
            }
            160..=191 => {
                let byte = tape.byte();
                device.with(&mut context, |device, context| device.receive(byte, context));
            }
            _ => other(&mut device, &mut tape, &mut context),
        }
        assert!(!effects.overflowed(), "more wishes than fit");
        for effect in effects.as_slice() {
            if let Effect::Line { line, .. } = effect {
                assert!(line.0 < LINES, "a line that no platform has: {line:?}");
            }
        }
    }
}

fn access<D: Device>(device: &mut Attached<D>, operation: u8, tape: &mut Tape, context: &mut Context<'_>) {
    let write = operation & 1 != 0;
    if !D::PORTS.is_empty() && (D::MEMORY.is_empty() || operation & 64 == 0) {
        let range = D::PORTS[usize::from(operation >> 4) % D::PORTS.len()];
        let length = range.last - range.first + 1;
        let port = range.first + (u16::from(operation >> 1)) % length;
        let width = if operation & 32 == 0 { x86::Width::Byte } else { tape.port_width() };
        if write {
            let value = match width {
                x86::Width::Byte => tape.byte().into(),
                _ => tape.double() & width.mask() as u32,
            };
            assert!(device.write_port(port, width, value, context));
        } else {
            assert!(device.read_port(port, width, context).is_some());
        }
    } else if !D::MEMORY.is_empty() {
        let range = D::MEMORY[usize::from(operation >> 4) % D::MEMORY.len()];
        let offset = if operation & 32 == 0 { u64::from(tape.byte() & 0x1f) * 8 } else { tape.word().into() };
        let address = range.start + offset % range.length;
        let width = if operation & 2 == 0 { x86::Width::Double } else { tape.width() };
        if write {
            let value = if operation & 4 == 0 { tape.double().into() } else { tape.value() };
            assert!(device.write_memory(address, width, value & width.mask(), context));
        } else {
            assert!(device.read_memory(address, width, context).is_some());
        }
    }
}

fn nothing<D>(_: &mut Attached<D>, _: &mut Tape, _: &mut Context<'_>) {}

macro_rules! device {
    ($($name:ident: $device:ty, $words:literal;)*) => {$(
        #[doc = $words]
        pub mod $name {
            /// Does to the device what the bytes say.
            pub fn run(bytes: &[u8]) {
                super::exercise::<$device>(bytes, super::nothing);
            }

            /// Any bytes will do.
            pub fn seeds() -> Vec<Vec<u8>> {
                super::seeds()
            }
        }
    )*};
}

device! {
    acpi_power: ::acpi_power::AcpiPower, "The power switch.";
    pci_host: ::pci_host::PciHost, "The PCI host bridge.";
    pit: ::pit::Pit, "The interval timer.";
    rtc: ::rtc::Rtc, "The real-time clock.";
    uart: ::uart::Uart, "The serial port.";
}

/// The PIC pair: its registers, its lines, the acknowledge cycle.
pub mod pic {
    use super::{LegacyPic, exercise};

    /// Does to the device what the bytes say.
    pub fn run(bytes: &[u8]) {
        exercise::<::pic::Pic>(bytes, |pic, tape, _| match tape.byte() {
            choice @ 0..=127 => pic.device.set_line(choice & 15, choice & 16 != 0),
            _ => {
                let (asked, vector) = (pic.device.output(), pic.device.acknowledge());
                // Without a request the chip answers as if its last input had asked (data sheet, "Interrupt Sequence"): with that
                // vector or, in the mode of the 8080, with the low byte of that call address, eight or four bytes apart.
                let last = vector & 7 == 7 || vector & 0x3f == 0x38 || vector & 0x1f == 0x1c;
                assert!(asked || last, "vector {vector:#x} of nobody");
            }
        });
    }

    /// Any bytes will do.
    pub fn seeds() -> Vec<Vec<u8>> {
        super::seeds()
    }
}

/// The I/O APIC: its registers, its pins, ends of interrupts.
pub mod io_apic {
    use super::{IoApic, LINES, exercise};

    /// Does to the device what the bytes say.
    pub fn run(bytes: &[u8]) {
        exercise::<::io_apic::IoApic>(bytes, |io_apic, tape, context| match tape.byte() {
            choice @ 0..=191 => {
                io_apic.device.set_line(choice % LINES, choice & 128 != 0, context.effects);
            }
            _ => io_apic.device.end_of_interrupt(tape.byte(), context.effects),
        });
    }

    /// Any bytes will do.
    pub fn seeds() -> Vec<Vec<u8>> {
        super::seeds()
    }
}

/// Accesses to every place, and then again later.
fn seeds() -> Vec<Vec<u8>> {
    let mut long = vec![0; 4];
    for operation in 0..=255_u8 {
        long.extend([operation, operation.wrapping_mul(37), operation ^ 0x55]);
    }
    vec![vec![0; 16], long]
}
