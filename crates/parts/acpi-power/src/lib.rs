//! The ACPI fixed hardware of a compartment: power management timer, sleep control, reset register; and the older ways
//! to reset a PC.
//!
//! Sources: ACPI Specification 6.5 §4.8 (section numbers without a title are its own); Intel 82371AB (PIIX4) data sheet,
//! reset control register (0xcf9) and port 92 register.
#![no_std]

mod clock;
#[cfg(test)]
mod tests;

use contracts::{Context, Device, Effect, GuestTime, Line, Platform, PortRange, Power, Savable};
use x86::Width;

/// Where the registers lie. A compartment's FADT must say the same.
pub mod ports {
    /// PM1a event block: status, then enable, two bytes each. FADT: `PM1a_EVT_BLK`, `PM1_EVT_LEN` 4.
    pub const PM1_EVENT: u16 = 0x600;
    /// PM1a control block, two bytes. FADT: `PM1a_CNT_BLK`, `PM1_CNT_LEN` 2.
    pub const PM1_CONTROL: u16 = 0x604;
    /// Power management timer, 32 bits wide. FADT: `PM_TMR_BLK`, `PM_TMR_LEN` 4, flag `TMR_VAL_EXT` set.
    pub const TIMER: u16 = 0x608;
    /// Reset register. FADT: `RESET_REG`, flag `RESET_REG_SUP` set.
    pub const RESET: u16 = 0xcf9;
    /// What resets there. FADT: `RESET_VALUE`.
    pub const RESET_VALUE: u8 = 0x06;
    /// `SLP_TYP` of S5, soft off. DSDT: `_S5`.
    pub const SLEEP_TYPE_OFF: u8 = 5;
    /// The system control interrupt. FADT: `SCI_INT`; level-triggered, active high in the MADT.
    pub const SYSTEM_CONTROL_INTERRUPT: u8 = 9;
    /// Keyboard controller, data. FADT: the flag `8042` of `IAPC_BOOT_ARCH` clear.
    pub const KEYBOARD_DATA: u16 = 0x60;
    /// Keyboard controller, status and command.
    pub const KEYBOARD: u16 = 0x64;
    /// System control port A: A20 and fast reset.
    pub const SYSTEM_CONTROL_A: u16 = 0x92;
}

/// The last byte of the power management block.
const BLOCK_LAST: u16 = ports::TIMER + 3;

// Where each register begins in the block, in bits.
const STATUS: u16 = 0;
const ENABLE: u16 = bits(ports::PM1_EVENT + 2);
const CONTROL: u16 = bits(ports::PM1_CONTROL);
const TIMER: u16 = bits(ports::TIMER);
const END: u16 = bits(BLOCK_LAST + 1);

const SCI: Line = Line(ports::SYSTEM_CONTROL_INTERRUPT);

/// PM1 status, and the enable bit at the same place: the timer's most significant bit changed (§4.8.3.1.1).
const TIMER_CARRY: u16 = 1 << 0;
/// PM1 enable bits that can be set: timer, global lock, power and sleep button, real-time clock (§4.8.3.1.2). Only the
/// timer ever has anything to tell.
const ENABLE_MASK: u16 = TIMER_CARRY | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;

// PM1 control (§4.8.3.2.1).
/// Power management events give SCI, not SMI. Always so: the FADT names no SMI command port.
const SCI_ENABLE: u16 = 1 << 0;
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
/// Write only: go to sleep.
const SLEEP_ENABLE: u16 = 1 << 13;
/// Bits that keep what is written: bus master reload and sleep type.
const CONTROL_MASK: u16 = SLEEP_TYPE | 1 << 1;

/// The timer's most significant bit.
const CARRY_BIT: u32 = 31;

/// Port 0xcf9: resets when it goes from 0 to 1 (82371AB, reset control register). It is never seen as 1.
const RESET_CPU: u8 = 1 << 2;
/// Port 0xcf9, bits that keep: full reset, system reset.
const RESET_MASK: u8 = 1 << 3 | 1 << 1;

/// Port 0x92: A20 is never masked.
const A20: u8 = 1 << 1;
const FAST_RESET: u8 = 1 << 0;

/// What port 0x64 reads as: no data of worth is there (parity error, time-out), and the output buffer stays full however
/// often it is read, so that drivers find out within a few reads that nobody is at home; but commands can always be
/// sent, since systems wait for that, some for ever, before they reset through this port.
const KEYBOARD_STATUS: u8 = 0xc1;
/// What port 0x60 reads as.
const KEYBOARD_DATA: u8 = 0xff;

/// The fixed hardware.
#[derive(Debug)]
pub struct AcpiPower {
    // Registers as written.
    enable: u16,
    control: u16,
    reset: u8,

    // The timer.
    /// How often its most significant bit had changed when the status was last cleared.
    carries_seen: u64,

    // What was told outside.
    /// The level of the system control interrupt.
    level: bool,
}

impl AcpiPower {
    /// How often the timer's most significant bit has changed.
    const fn carries(now: GuestTime) -> u64 {
        clock::ticks(now.0) >> CARRY_BIT
    }

    fn status(&self, now: GuestTime) -> u16 {
        if Self::carries(now) == self.carries_seen { 0 } else { TIMER_CARRY }
    }

    /// The block as one number, at one instant; ones beyond its end.
    fn block(&self, now: GuestTime) -> u128 {
        u128::from(self.status(now)) << STATUS
            | u128::from(self.enable) << ENABLE
            | u128::from(self.control | SCI_ENABLE) << CONTROL
            | u128::from(clock::ticks(now.0) as u32) << TIMER
            | u128::MAX << END
    }

    /// Drives the system control interrupt, and asks for the timer while a carry would raise it.
    fn tell(&mut self, context: &mut Context<'_>) {
        let raised = self.status(context.now) & self.enable != 0;
        if self.level != raised {
            self.level = raised;
            context.effects.line(SCI, raised);
        }
        let waits = self.enable & TIMER_CARRY != 0 && !raised;
        let next = (Self::carries(context.now) + 1) << CARRY_BIT;
        context.effects.timer(waits.then(|| GuestTime(clock::nanoseconds(next))));
    }

    /// Writes to the block the bits of `value` that `mask` names.
    fn write_block(&mut self, value: u128, mask: u128, context: &mut Context<'_>) {
        // "Writing a one clears": bytes that are not written clear nothing.
        if (value & mask) >> STATUS & u128::from(TIMER_CARRY) != 0 {
            self.carries_seen = Self::carries(context.now);
        }
        let merged = self.block(context.now) & !mask | value & mask;
        self.enable = (merged >> ENABLE) as u16 & ENABLE_MASK;
        let control = (merged >> CONTROL) as u16;
        self.control = control & CONTROL_MASK;
        // Other sleep types have no `_Sx` object: nothing to go to.
        if control & SLEEP_ENABLE != 0
            && control & SLEEP_TYPE == u16::from(ports::SLEEP_TYPE_OFF) << SLEEP_TYPE_SHIFT
        {
            context.effects.push(Effect::Power(Power::Off));
        }
        self.tell(context);
    }

    /// Reads the byte at `port`, if it is outside the power management block.
    const fn read_other(&self, port: u16) -> u8 {
        match port {
            ports::RESET => self.reset,
            ports::KEYBOARD => KEYBOARD_STATUS,
            ports::KEYBOARD_DATA => KEYBOARD_DATA,
            ports::SYSTEM_CONTROL_A => A20,
            _ => 0xff,
        }
    }

    /// Writes the byte at `port`, if it is outside the power management block.
    fn write_other(&mut self, port: u16, value: u8, context: &mut Context<'_>) {
        let resets = match port {
            ports::RESET => {
                self.reset = value & RESET_MASK;
                value & RESET_CPU != 0
            }
            // Commands F0 to FF pulse the lines whose bit is 0; bit 0 is the processor's reset.
            ports::KEYBOARD => value & 0xf1 == 0xf0,
            ports::SYSTEM_CONTROL_A => value & FAST_RESET != 0,
            _ => false,
        };
        if resets {
            context.effects.push(Effect::Power(Power::Reset));
        }
    }
}

/// The bit of the block at which `port` begins.
const fn bits(port: u16) -> u16 {
    8 * (port - ports::PM1_EVENT)
}

fn in_block(port: u16) -> bool {
    (ports::PM1_EVENT..=BLOCK_LAST).contains(&port)
}

impl Device for AcpiPower {
    const NAME: &'static str = "acpi-power";
    const PORTS: &'static [PortRange] = &[
        PortRange { first: ports::PM1_EVENT, last: BLOCK_LAST },
        PortRange { first: ports::RESET, last: ports::RESET },
        PortRange { first: ports::KEYBOARD_DATA, last: ports::KEYBOARD_DATA },
        PortRange { first: ports::KEYBOARD, last: ports::KEYBOARD },
        PortRange { first: ports::SYSTEM_CONTROL_A, last: ports::SYSTEM_CONTROL_A },
    ];
    const BYTE_WIDE: bool = false;

    fn new(_: &Platform) -> Self {
        Self { enable: 0, control: 0, reset: 0, carries_seen: 0, level: false }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    #[inline]
    fn read_port(&mut self, port: u16, width: Width, context: &mut Context<'_>) -> u32 {
        if port == ports::TIMER && width == Width::Double {
            return clock::ticks(context.now.0) as u32;
        }
        if in_block(port) {
            (self.block(context.now) >> bits(port)) as u32
        } else {
            u32::from(self.read_other(port)) | 0xffff_ff00
        }
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32, context: &mut Context<'_>) {
        if in_block(port) {
            let mask = u128::from(width.mask() as u32);
            self.write_block(u128::from(value) << bits(port), mask << bits(port), context);
        } else {
            // Of a wider access only the first byte lies at a port of these.
            self.write_other(port, value as u8, context);
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        self.tell(context);
    }
}
