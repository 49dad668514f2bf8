//! The first serial port, a 16550A at port 0x3f8 (National Semiconductor PC16550D datasheet, section 8).

use crate::machine::{port_in, port_out};
use core::fmt::{self, Write};

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = 0x3f9;
const FIFO_CONTROL: u16 = 0x3fa;
const LINE_CONTROL: u16 = 0x3fb;
const MODEM_CONTROL: u16 = 0x3fc;
/// Line status: what the benchmark reads as a port of a device model.
pub const LINE_STATUS: u16 = 0x3fd;
/// The transmitter holding register is empty.
const TRANSMITTER_EMPTY: u8 = 0x20;

/// Nothing is left in the transmitter.
const TRANSMITTER_IDLE: u8 = 0x40;

/// The serial port.
pub struct Console;

impl Console {
    /// 115200 baud, eight bits, no parity; no interrupts; FIFO on.
    pub fn start() {
        port_out(INTERRUPT_ENABLE, 0);
        port_out(LINE_CONTROL, 0x80);
        port_out(DATA, 1);
        port_out(INTERRUPT_ENABLE, 0);
        port_out(LINE_CONTROL, 3);
        port_out(FIFO_CONTROL, 7);
        port_out(MODEM_CONTROL, 3);
    }

    /// Writes bytes as a driver without interrupts does: wait until there is room, then one byte.
    pub fn write(bytes: &[u8]) {
        for byte in bytes {
            while port_in(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            port_out(DATA, *byte);
        }
    }

    /// Waits until the last byte has left.
    pub fn finish() {
        while port_in(LINE_STATUS) & TRANSMITTER_IDLE == 0 {}
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Self::write(text.as_bytes());
        Ok(())
    }
}

/// Prints formatted text; a serial port cannot fail.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(text);
}
