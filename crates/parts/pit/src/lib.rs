//! The 8254 interval timer of a PC, with system control port B (0x61).
//!
//! Counter 0 drives line 0, counter 1 nothing that a guest can see, counter 2 the speaker and bit 5 of port 0x61.
//! Sources: Intel 8254 data sheet (order number 231164-005); Intel 82371AB (PIIX4) data sheet §4.2.4.1 for port 0x61.
#![no_std]

mod clock;
mod counter;
#[cfg(test)]
mod tests;

use contracts::{Context, Device, GuestTime, Line, Platform, PortRange, Savable};
use counter::Counter;
use x86::Width;

/// Counter 0; counters 1 and 2 follow it.
const COUNTER_0: u16 = 0x40;
const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;

/// The line of counter 0.
const TIMER: Line = Line(0);

/// Port 0x61: what a write keeps (gate of counter 2, speaker, and two enables of error checks that never fail).
const PORT_B_WRITABLE: u8 = 0x0f;
const GATE_2: u8 = 0x01;

/// The three counters and port 0x61.
///
/// At power-on no counter has a count, and nothing ticks: a guest that wants ticks programs them. The control words
/// are those of a PC's firmware (square wave, rate generator, square wave).
#[derive(Debug)]
pub struct Pit {
    // The chip.
    counters: [Counter; 3],
    /// Port 0x61 as written.
    port_b: u8,

    // What was told outside.
    /// The level of line 0.
    level: bool,
    /// When line 0 next rises.
    rise: Option<GuestTime>,
}

impl Pit {
    fn drive(&mut self, level: bool, context: &mut Context<'_>) {
        if self.level != level {
            self.level = level;
            context.effects.line(TIMER, level);
        }
    }

    /// Lets line 0 rise if its time has come, once, however many periods went by: late ticks are merged. The next
    /// deadline follows from when the counter was loaded, so lateness does not add up.
    fn rise_if_due(&mut self, context: &mut Context<'_>) {
        if self.rise.is_some_and(|at| at <= context.now) {
            // Only the rise counts for the interrupt controllers; OUT's own width is seen by reading the status.
            self.drive(false, context);
            self.drive(true, context);
            self.schedule(context);
        }
    }

    fn schedule(&mut self, context: &mut Context<'_>) {
        self.rise = self.counters[0].next_rise(context.now);
        context.effects.timer(self.rise);
    }

    /// After counter 0 was programmed: line 0 follows OUT, and the timer the new count.
    fn follow(&mut self, context: &mut Context<'_>) {
        let waits = self.counters[0].waits_low();
        let level = !waits || self.counters[0].output(context.now);
        self.drive(level, context);
        self.schedule(context);
    }

    fn command(&mut self, word: u8, context: &mut Context<'_>) {
        let Some(counter) = self.counters.get_mut(usize::from(word >> 6)) else {
            return self.read_back(word, context.now);
        };
        counter.command(word & 0x3f, context.now);
        if word >> 6 == 0 && word & 0x30 != 0 {
            self.follow(context);
        }
    }

    /// The read-back command latches count, status or both of several counters.
    fn read_back(&mut self, word: u8, now: GuestTime) {
        for (counter, bit) in self.counters.iter_mut().zip([2, 4, 8]) {
            if word & bit == 0 {
                continue;
            }
            if word & 0x20 == 0 {
                counter.latch_count(now);
            }
            if word & 0x10 == 0 {
                counter.latch_status(now);
            }
        }
    }

    #[inline]
    fn read_port_b(&mut self, now: GuestTime) -> u8 {
        let refresh = clock::refreshes(now.0) as u8 & 1;
        let [_, _, third] = &mut self.counters;
        self.port_b | refresh << 4 | u8::from(third.output(now)) << 5
    }
}

impl Device for Pit {
    const NAME: &'static str = "pit";
    const PORTS: &'static [PortRange] =
        &[PortRange { first: COUNTER_0, last: CONTROL }, PortRange { first: PORT_B, last: PORT_B }];

    fn new(_: &Platform) -> Self {
        let [square_wave, rate_generator] = [0x36, 0x14];
        let mut counters =
            [Counter::new(square_wave), Counter::new(rate_generator), Counter::new(square_wave)];
        counters[2].set_gate(false, GuestTime(0));
        Self { counters, port_b: 0, level: true, rise: None }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    #[inline]
    fn read_port(&mut self, port: u16, _: Width, context: &mut Context<'_>) -> u32 {
        let now = context.now;
        u32::from(match self.counters.get_mut(usize::from(port.wrapping_sub(COUNTER_0))) {
            Some(counter) => counter.read(now),
            None if port == PORT_B => self.read_port_b(now),
            // The control word register cannot be read: "no-operation", nobody drives the bus.
            None => 0xff,
        })
    }

    fn write_port(&mut self, port: u16, _: Width, value: u32, context: &mut Context<'_>) {
        let (value, now) = (value as u8, context.now);
        // A rise that is due but was not yet delivered comes before what the guest does to the counter.
        if matches!(port, COUNTER_0 | CONTROL) {
            self.rise_if_due(context);
        }
        if let Some(counter) = self.counters.get_mut(usize::from(port.wrapping_sub(COUNTER_0))) {
            counter.write(value, now);
        }
        match port {
            COUNTER_0 => self.follow(context),
            CONTROL => self.command(value, context),
            PORT_B => {
                self.port_b = value & PORT_B_WRITABLE;
                let [_, _, third] = &mut self.counters;
                third.set_gate(value & GATE_2 != 0, now);
            }
            _ => {}
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        if self.rise.is_some_and(|at| at > context.now) {
            // Too early: ask again.
            context.effects.timer(self.rise);
        }
        self.rise_if_due(context);
    }
}
