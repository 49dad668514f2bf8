//! The 16550A serial port at COM1, which is a compartment's console.
//!
//! Source: National Semiconductor PC16550D data sheet (TL/C/8652). What leaves it is bytes: the transmitter is always
//! empty. See the README.
#![no_std]

mod fifo;
#[cfg(test)]
mod tests;

use contracts::{Context, Device, Effect, GuestTime, Line, Platform, PortRange, Savable};
use fifo::{CAPACITY, Fifo};
use x86::Width;

const FIRST: u16 = 0x3f8;
const LAST: u16 = 0x3ff;

/// The line of COM1.
const INTERRUPT: Line = Line(4);

// Registers, as offsets ("Summary of Registers").
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
/// Read: interrupt identification. Write: FIFO control.
const IDENTIFICATION: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;

// Interrupt enable register.
const RECEIVED_ENABLE: u8 = 0x01;
const TRANSMITTER_ENABLE: u8 = 0x02;
const LINE_ENABLE: u8 = 0x04;
const MODEM_ENABLE: u8 = 0x08;

// Interrupt identification register.
const NONE_PENDING: u8 = 0x01;
const MODEM_PENDING: u8 = 0x00;
const TRANSMITTER_PENDING: u8 = 0x02;
const RECEIVED_PENDING: u8 = 0x04;
const LINE_PENDING: u8 = 0x06;
const TIMEOUT_PENDING: u8 = 0x0c;
const FIFOS_ENABLED: u8 = 0xc0;

// FIFO control register.
const FIFO_ENABLE: u8 = 0x01;
const RECEIVER_RESET: u8 = 0x02;

/// Line control register: the first two registers are the divisor latch.
const DIVISOR_ACCESS: u8 = 0x80;

// Modem control register.
const OUT_2: u8 = 0x08;
const LOOP: u8 = 0x10;
const MODEM_CONTROL_MASK: u8 = 0x1f;

// Line status register.
const DATA_READY: u8 = 0x01;
const OVERRUN: u8 = 0x02;
const TRANSMITTER_EMPTY: u8 = 0x60;

// Modem status register.
const RING: u8 = 0x40;
/// Carrier, data set ready and clear to send: somebody listens.
const CONNECTED: u8 = 0xb0;
const TRAILING_RING: u8 = 0x04;

/// A 16 times clock of 1.8432 MHz makes a bit of divisor 1 last 78125 / 9 ns.
const BIT: (u64, u64) = (78_125, 9);

/// The serial port. At power-on it is as after its master reset ("UART Reset Configuration"), 115200 baud.
#[derive(Debug)]
pub struct Uart {
    // Registers as written.
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: u16,
    fifos: bool,
    /// Bytes that make "received data available" with FIFOs: 1, 4, 8 or 14.
    trigger: u8,

    // The receiver.
    received: Fifo,
    overrun: bool,
    /// A byte has waited four character times.
    timed_out: bool,

    // What else waits for the processor's attention.
    /// The transmitter holding register went empty, and nobody was told yet.
    transmitter: bool,
    /// Bits 3–0 of the modem status register.
    modem_changes: u8,

    // What was told outside.
    /// The level of line 4.
    level: bool,
}

impl Uart {
    const fn in_loop(&self) -> bool {
        self.modem_control & LOOP != 0
    }

    const fn enabled(&self, interrupt: u8) -> bool {
        self.interrupt_enable & interrupt != 0
    }

    /// Whether as much was received as makes an interrupt.
    const fn is_available(&self) -> bool {
        self.received.count() >= if self.fifos { self.trigger } else { 1 }
    }

    /// The interrupt of highest priority ("Interrupt Control Functions").
    const fn pending(&self) -> u8 {
        if self.enabled(LINE_ENABLE) && self.overrun {
            LINE_PENDING
        } else if self.enabled(RECEIVED_ENABLE) && self.is_available() {
            RECEIVED_PENDING
        } else if self.enabled(RECEIVED_ENABLE) && self.timed_out {
            TIMEOUT_PENDING
        } else if self.enabled(TRANSMITTER_ENABLE) && self.transmitter {
            TRANSMITTER_PENDING
        } else if self.enabled(MODEM_ENABLE) && self.modem_changes != 0 {
            MODEM_PENDING
        } else {
            NONE_PENDING
        }
    }

    /// Drives the line. In a PC, OUT2 opens the buffer between INTR and the interrupt controller; in loop mode the pin
    /// is inactive whatever the register says ("Modem Control Register").
    fn tell(&mut self, context: &mut Context<'_>) {
        let open = self.modem_control & (OUT_2 | LOOP) == OUT_2;
        let level = open && self.pending() != NONE_PENDING;
        if self.level != level {
            self.level = level;
            context.effects.line(INTERRUPT, level);
        }
    }

    /// Four character times ("FIFO Interrupt Mode Operation"), in nanoseconds.
    fn time_out(&self) -> u64 {
        let [word, stop, parity] =
            [5 + (self.line_control & 3), 1 + (self.line_control >> 2 & 1), self.line_control >> 3 & 1];
        let bits = u64::from(1 + word + parity + stop);
        4 * bits * u64::from(self.divisor.max(1)) * BIT.0 / BIT.1
    }

    /// Starts the time-out anew, as each byte received or read does. It is needed only where the trigger level does not
    /// interrupt already.
    fn restart_time_out(&mut self, context: &mut Context<'_>) {
        self.timed_out = false;
        let wanted =
            self.fifos && self.enabled(RECEIVED_ENABLE) && self.received.count() != 0 && !self.is_available();
        let deadline: Option<GuestTime> = wanted.then(|| context.now.after(self.time_out()));
        context.effects.timer(deadline);
    }

    /// The transmitter's byte comes back as received. One too many is lost: with FIFOs the new one, else the old one
    /// ("Line Status Register").
    fn loop_back(&mut self, byte: u8, context: &mut Context<'_>) {
        if self.fifos {
            self.overrun |= !self.received.push(byte);
        } else {
            self.overrun |= self.received.count() != 0;
            self.received.clear();
            self.received.push(byte);
        }
        self.restart_time_out(context);
    }

    fn transmit(&mut self, byte: u8, context: &mut Context<'_>) {
        // Writing takes the interrupt back, and the byte being gone at once raises it again: an edge-triggered
        // interrupt controller has to see both.
        self.transmitter = false;
        self.tell(context);
        if self.in_loop() {
            self.loop_back(byte, context);
        } else {
            context.effects.push(Effect::Console(byte));
        }
        self.transmitter = true;
    }

    fn read_data(&mut self, context: &mut Context<'_>) -> u8 {
        let byte = self.received.pop();
        self.restart_time_out(context);
        byte.unwrap_or(0)
    }

    fn read_identification(&mut self) -> u8 {
        let pending = self.pending();
        if pending == TRANSMITTER_PENDING {
            // "Reading the IIR Register (if source of interrupt)" resets it.
            self.transmitter = false;
        }
        pending | if self.fifos { FIFOS_ENABLED } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let ready = if self.received.count() == 0 { 0 } else { DATA_READY };
        let overrun = if self.overrun { OVERRUN } else { 0 };
        self.overrun = false;
        TRANSMITTER_EMPTY | overrun | ready
    }

    /// Bits 7–4 of the modem status register: in loop mode the modem control register's outputs come back as CTS (RTS),
    /// DSR (DTR), RI (OUT1) and DCD (OUT2).
    const fn signals(&self) -> u8 {
        if !self.in_loop() {
            return CONNECTED;
        }
        let control = self.modem_control;
        (control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4 | (control & 8) << 4
    }

    fn write_modem_control(&mut self, value: u8) {
        let before = self.signals();
        self.modem_control = value & MODEM_CONTROL_MASK;
        let after = self.signals();
        self.modem_changes |= ((before ^ after) & !RING) >> 4;
        if before & !after & RING != 0 {
            self.modem_changes |= TRAILING_RING;
        }
    }

    fn write_interrupt_enable(&mut self, value: u8, context: &mut Context<'_>) {
        let newly = value & !self.interrupt_enable;
        self.interrupt_enable = value & 0x0f;
        if newly & TRANSMITTER_ENABLE != 0 {
            // The transmitter is empty, so enabling its interrupt raises it.
            self.transmitter = true;
        }
        if newly & RECEIVED_ENABLE != 0 {
            self.restart_time_out(context);
        }
    }

    fn write_fifo_control(&mut self, value: u8, context: &mut Context<'_>) {
        let fifos = value & FIFO_ENABLE != 0;
        if fifos != self.fifos {
            self.fifos = fifos;
            self.received.clear();
        }
        // "This bit must be a 1 when other FCR bits are written to or they will not be programmed."
        if fifos {
            if value & RECEIVER_RESET != 0 {
                self.received.clear();
            }
            self.trigger = match value >> 6 {
                0 => 1,
                1 => 4,
                2 => 8,
                _ => 14,
            };
        }
        self.restart_time_out(context);
    }
}

impl Device for Uart {
    const NAME: &'static str = "uart";
    const PORTS: &'static [PortRange] = &[PortRange { first: FIRST, last: LAST }];

    fn new(_: &Platform) -> Self {
        Self {
            interrupt_enable: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            divisor: 1,
            fifos: false,
            trigger: 1,
            received: Fifo::default(),
            overrun: false,
            timed_out: false,
            transmitter: false,
            modem_changes: 0,
            level: false,
        }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    #[inline]
    fn read_port(&mut self, port: u16, _: Width, context: &mut Context<'_>) -> u32 {
        let divisor = self.line_control & DIVISOR_ACCESS != 0;
        let value = match port & 7 {
            DATA if divisor => self.divisor as u8,
            DATA => self.read_data(context),
            INTERRUPT_ENABLE if divisor => (self.divisor >> 8) as u8,
            INTERRUPT_ENABLE => self.interrupt_enable,
            IDENTIFICATION => self.read_identification(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => self.read_line_status(),
            MODEM_STATUS => {
                let changes = core::mem::take(&mut self.modem_changes);
                self.signals() | changes
            }
            _ => self.scratch,
        };
        self.tell(context);
        u32::from(value)
    }

    #[inline]
    fn write_port(&mut self, port: u16, _: Width, value: u32, context: &mut Context<'_>) {
        let value = value as u8;
        let divisor = self.line_control & DIVISOR_ACCESS != 0;
        match port & 7 {
            DATA if divisor => self.divisor = self.divisor & 0xff00 | u16::from(value),
            DATA => self.transmit(value, context),
            INTERRUPT_ENABLE if divisor => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            INTERRUPT_ENABLE => self.write_interrupt_enable(value, context),
            IDENTIFICATION => self.write_fifo_control(value, context),
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.write_modem_control(value),
            // Writes to the status registers are for factory tests.
            LINE_STATUS | MODEM_STATUS => {}
            _ => self.scratch = value,
        }
        self.tell(context);
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        self.timed_out = self.fifos && self.received.count() != 0;
        self.tell(context);
    }

    /// A byte for the guest. One that does not fit is refused, so that what a user types is not lost to an overrun.
    fn receive(&mut self, byte: u8, context: &mut Context<'_>) -> bool {
        let capacity = if self.fifos { CAPACITY } else { 1 };
        if self.in_loop() || self.received.count() >= capacity || !self.received.push(byte) {
            return false;
        }
        self.restart_time_out(context);
        self.tell(context);
        true
    }
}
