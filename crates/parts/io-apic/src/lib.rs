//! The I/O APIC: 24 pins, each of which becomes an interrupt message as its redirection entry says.
//!
//! Sources: Intel 82093AA datasheet (order number 290566), and for the EOI register of version 0x20 the I/O controller
//! hubs' datasheets (ICH10: 319973, §13.5 "APIC registers"). What is decided where they leave room is in this crate's
//! README.
#![no_std]

use contracts::{
    Context, DeliveryMode, Device, Effect, Effects, InterruptMessage, MemoryRange, Platform, Savable, Trigger,
};
use x86::Width;

/// Where the registers lie in guest-physical memory.
pub const ADDRESS: u64 = 0xfec0_0000;

/// Number of pins.
pub const PINS: usize = 24;

/// The highest pin in bits 23 to 16, version 0x20 in bits 7 to 0: one with an EOI register.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;

/// Offsets in the page (82093AA §3.1; ICH10 §13.5.1).
mod offset {
    pub const SELECT: u64 = 0x00;
    pub const WINDOW: u64 = 0x10;
    pub const END_OF_INTERRUPT: u64 = 0x40;
}

/// Indirect registers (82093AA §3.2).
mod index {
    pub const ID: u8 = 0x00;
    pub const VERSION: u8 = 0x01;
    pub const ARBITRATION: u8 = 0x02;
    pub const FIRST_ENTRY: u8 = 0x10;
}

/// A redirection table entry (82093AA §3.2.4). Delivery status (bit 12) always reads 0: a message is accepted at once.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Entry {
    /// Bits 31 to 0, without the read-only ones.
    low: u32,
    /// Bits 63 to 56.
    destination: u8,
    /// Bit 14: a level-triggered interrupt was sent and not yet ended.
    remote_request: bool,
}

impl Entry {
    const LOGICAL: u32 = 1 << 11;
    const REMOTE_REQUEST: u32 = 1 << 14;
    const LEVEL: u32 = 1 << 15;
    const MASKED: u32 = 1 << 16;
    const WRITABLE: u32 = 0x0001_afff;

    const RESET: Self = Self { low: Self::MASKED, destination: 0, remote_request: false };

    const fn is_masked(self) -> bool {
        self.low & Self::MASKED != 0
    }

    const fn vector(self) -> u8 {
        self.low as u8
    }

    /// The delivery mode; `None` for what no message can carry: the reserved modes, start-up, which is for processors
    /// only, and fixed or lowest-priority interrupts with a vector of the architecture's exceptions.
    fn mode(self) -> Option<DeliveryMode> {
        match DeliveryMode::from_bits((self.low >> 8) as u8 & 7)? {
            DeliveryMode::StartUp => None,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if self.vector() < 16 => None,
            mode => Some(mode),
        }
    }

    /// The trigger that counts: modes that must be programmed as edge are "always treated as an edge triggered interrupt,
    /// even if programmed as a level" (82093AA §3.2.4, NMI).
    fn trigger(self) -> Trigger {
        match self.low >> 8 & 7 {
            0 | 1 if self.low & Self::LEVEL != 0 => Trigger::Level,
            _ => Trigger::Edge,
        }
    }

    /// Sends the entry's message, if it has one.
    fn send(&mut self, effects: &mut Effects) {
        let Some(mode) = self.mode() else { return };
        let trigger = self.trigger();
        self.remote_request = trigger == Trigger::Level;
        effects.push(Effect::Message(InterruptMessage {
            destination: self.destination.into(),
            logical: self.low & Self::LOGICAL != 0,
            mode,
            vector: self.vector(),
            trigger,
        }));
    }

    /// Sends a level-triggered interrupt if it is due: asserted, let through, and not waiting for its end.
    fn level(&mut self, asserted: bool, effects: &mut Effects) {
        if asserted && !self.is_masked() && !self.remote_request && self.trigger() == Trigger::Level {
            self.send(effects);
        }
    }

    /// The end of a level-triggered interrupt with that vector; sends it again if its line is still asserted.
    fn end(&mut self, vector: u8, asserted: bool, effects: &mut Effects) {
        if self.remote_request && self.vector() == vector {
            self.remote_request = false;
            self.level(asserted, effects);
        }
    }

    fn set_low(&mut self, value: u32, asserted: bool, effects: &mut Effects) {
        self.low = value & Self::WRITABLE;
        if self.trigger() == Trigger::Edge {
            // Its meaning is undefined for edges; software without an EOI register clears it by this very change.
            self.remote_request = false;
        }
        self.level(asserted, effects);
    }

    fn read_low(self) -> u32 {
        self.low | if self.remote_request { Self::REMOTE_REQUEST } else { 0 }
    }
}

/// The I/O APIC of a compartment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoApic {
    select: u8,
    id: u8,
    /// Bit n: pin n is asserted.
    asserted: u32,
    entries: [Entry; PINS],
}

impl IoApic {
    /// The entry that an index names, and whether it is the high half.
    fn entry(select: u8) -> Option<(usize, bool)> {
        let word = select.checked_sub(index::FIRST_ENTRY)?;
        let pin = usize::from(word >> 1);
        (pin < PINS).then_some((pin, word & 1 != 0))
    }

    fn read_window(&self) -> u32 {
        match self.select {
            index::ID | index::ARBITRATION => u32::from(self.id) << 24,
            index::VERSION => VERSION,
            select => {
                match Self::entry(select).and_then(|(pin, high)| Some((self.entries.get(pin)?, high))) {
                    Some((entry, true)) => u32::from(entry.destination) << 24,
                    Some((entry, false)) => entry.read_low(),
                    None => 0,
                }
            }
        }
    }

    fn write_window(&mut self, value: u32, effects: &mut Effects) {
        if self.select == index::ID {
            self.id = (value >> 24) as u8 & 0xf;
            return;
        }
        let Some((pin, high)) = Self::entry(self.select) else { return };
        let asserted = self.asserted >> pin & 1 != 0;
        let Some(entry) = self.entries.get_mut(pin) else { return };
        if high {
            entry.destination = (value >> 24) as u8;
        } else {
            entry.set_low(value, asserted, effects);
        }
    }
}

impl contracts::IoApic for IoApic {
    fn set_line(&mut self, pin: u8, level: bool, effects: &mut Effects) {
        let Some(entry) = self.entries.get_mut(usize::from(pin)) else { return };
        let bit = 1 << pin;
        let rises = level && self.asserted & bit == 0;
        if level {
            self.asserted |= bit;
        } else {
            self.asserted &= !bit;
        }
        match entry.trigger() {
            // 82093AA §3.2.4, bit 16: edges on a masked pin are not held pending.
            Trigger::Edge if rises && !entry.is_masked() => entry.send(effects),
            Trigger::Edge => {}
            Trigger::Level => entry.level(level, effects),
        }
    }

    fn end_of_interrupt(&mut self, vector: u8, effects: &mut Effects) {
        for (pin, entry) in self.entries.iter_mut().enumerate() {
            entry.end(vector, self.asserted >> pin & 1 != 0, effects);
        }
    }
}

impl Device for IoApic {
    const NAME: &'static str = "io-apic";
    const MEMORY: &'static [MemoryRange] = &[MemoryRange { start: ADDRESS, length: 0x1000 }];

    fn new(_: &Platform) -> Self {
        Self { select: 0, id: 0, asserted: 0, entries: [Entry::RESET; PINS] }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    fn read_memory(&mut self, address: u64, width: Width, _: &mut Context<'_>) -> u64 {
        match (address.wrapping_sub(ADDRESS), width) {
            (offset::SELECT, Width::Double) => self.select.into(),
            (offset::WINDOW, Width::Double) => self.read_window().into(),
            // Nobody drives the bus: other widths, other offsets, and the write-only EOI register.
            _ => width.mask(),
        }
    }

    fn write_memory(&mut self, address: u64, width: Width, value: u64, context: &mut Context<'_>) {
        match (address.wrapping_sub(ADDRESS), width) {
            (offset::SELECT, Width::Double) => self.select = value as u8,
            (offset::WINDOW, Width::Double) => self.write_window(value as u32, context.effects),
            (offset::END_OF_INTERRUPT, Width::Double) => {
                contracts::IoApic::end_of_interrupt(self, value as u8, context.effects);
            }
            _ => {}
        }
    }
}
