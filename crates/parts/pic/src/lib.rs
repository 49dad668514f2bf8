//! The 8259A pair of interrupt controllers, cascaded as in a PC, with the chip set's edge/level registers.
//!
//! Sources: Intel 8259A data sheet (order number 231468-003); Intel 82371AB (PIIX4) data sheet, ELCR1 and ELCR2.
//! See the README for what is left out and why.
#![no_std]

mod chip;
#[cfg(test)]
mod tests;

use chip::{CASCADE, Chip};
use contracts::{Context, Device, LegacyPic, Platform, PortRange, Savable};
use x86::Width;

const MASTER: u16 = 0x20;
const MASTER_ODD: u16 = 0x21;
const SLAVE: u16 = 0xa0;
const SLAVE_ODD: u16 = 0xa1;
const MASTER_LEVEL: u16 = 0x4d0;
const SLAVE_LEVEL: u16 = 0x4d1;

/// Inputs of the master that can be level-triggered: not the timer, the keyboard and the cascade (82371AB, ELCR1).
const MASTER_LEVEL_MASK: u8 = 0xf8;
/// Inputs of the slave that can be level-triggered: not the real-time clock and the coprocessor.
const SLAVE_LEVEL_MASK: u8 = 0xde;

/// What a read finds where no chip drives the data bus.
const FLOATING: u8 = 0xff;

/// Two 8259A, the second on input 2 of the first.
///
/// At power-on it is as a PC's firmware leaves it: initialized, vectors 0x08 to 0x0f and 0x70 to 0x77, all masked. A
/// guest that is loaded without firmware finds what it would find after one.
#[derive(Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Pic {
    /// Passes the slave's INT on to the master's input 2. The slave's INT falls and rises between two acknowledges, so
    /// each of its requests is an edge of its own; holding the line would lose the second.
    #[inline]
    fn cascade(&mut self) {
        let asks = self.slave.winner().is_some();
        self.master.drive(CASCADE, asks);
    }

    fn pulse(&mut self) {
        self.master.drive(CASCADE, false);
        self.cascade();
    }
}

impl Device for Pic {
    const NAME: &'static str = "pic";
    const PORTS: &'static [PortRange] = &[
        PortRange { first: MASTER, last: MASTER_ODD },
        PortRange { first: SLAVE, last: SLAVE_ODD },
        PortRange { first: MASTER_LEVEL, last: SLAVE_LEVEL },
    ];

    const CLOCKED: bool = false;

    fn new(_: &Platform) -> Self {
        Self { master: Chip::initialized(0x08, 1 << CASCADE), slave: Chip::initialized(0x70, CASCADE) }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    #[inline]
    fn read_port(&mut self, port: u16, _: Width, _: &mut Context<'_>) -> u32 {
        let value = match port {
            MASTER | MASTER_ODD => self.master.read(port == MASTER_ODD),
            SLAVE | SLAVE_ODD => {
                let value = self.slave.read(port == SLAVE_ODD);
                // Only a poll changes what the slave asks for.
                self.cascade();
                value
            }
            MASTER_LEVEL => self.master.level(),
            SLAVE_LEVEL => self.slave.level(),
            _ => FLOATING,
        };
        u32::from(value)
    }

    #[inline]
    fn write_port(&mut self, port: u16, _: Width, value: u32, _: &mut Context<'_>) {
        let value = value as u8;
        match port {
            MASTER => self.master.write_even(value),
            MASTER_ODD => self.master.write_odd(value),
            SLAVE => self.slave.write_even(value),
            SLAVE_ODD => self.slave.write_odd(value),
            MASTER_LEVEL => self.master.set_level(value & MASTER_LEVEL_MASK),
            SLAVE_LEVEL => self.slave.set_level(value & SLAVE_LEVEL_MASK),
            _ => {}
        }
        self.cascade();
    }
}

impl LegacyPic for Pic {
    #[inline]
    fn set_line(&mut self, line: u8, level: bool) {
        match line {
            // The cascade is no input of the platform's.
            CASCADE => {}
            0..8 => self.master.drive(line, level),
            8..16 => {
                self.slave.drive(line - 8, level);
                self.cascade();
            }
            _ => {}
        }
    }

    #[inline]
    fn output(&self) -> bool {
        self.master.winner().is_some()
    }

    fn acknowledge(&mut self) -> u8 {
        // Without a request the chip still answers, as input 7, and puts nothing into service ("Interrupt Sequence":
        // "a default IR7").
        let Some(input) = self.master.acknowledge() else { return self.master.vector(7) };
        if input != CASCADE || !self.master.has_slave(input) {
            return self.master.vector(input);
        }
        if !self.slave.answers_to(CASCADE) {
            self.pulse();
            return FLOATING;
        }
        let vector = match self.slave.acknowledge() {
            Some(input) => self.slave.vector(input),
            None => self.slave.vector(7),
        };
        self.pulse();
        vector
    }
}
