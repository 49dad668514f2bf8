//! The MC146818A real-time clock of a PC, with its 114 bytes of memory.
//!
//! Sources: Motorola MC146818A data sheet, the memory extended to 128 bytes as in PCs; the PC/AT's use of the memory for sizes and the century.
#![no_std]

mod calendar;
mod clock;
#[cfg(test)]
mod tests;

use clock::{Bytes, CENTURY, Format, SECONDS};
use contracts::{Context, Device, GuestTime, Line, Platform, PortRange, Savable};
use x86::Width;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

/// The line of the chip's IRQ output.
const CLOCK: Line = Line(8);

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

/// Register A: update in progress.
const UPDATING: u8 = 0x80;
/// Register A as firmware leaves it: 32.768 kHz, 1024 Hz periodic rate.
const REGISTER_A_START: u8 = 0x26;

/// Register B: no updates, program sets the time.
const SET: u8 = 0x80;
/// Register B: update-ended interrupt.
const UPDATE_ENABLE: u8 = 0x10;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;

/// Register C, and the enables at the same places in register B.
const REQUEST: u8 = 0x80;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;

/// Register D: the battery was good all along.
const VALID: u8 = 0x80;

const SECOND: u64 = 1_000_000_000;
/// From the reset of the divider until the first update.
const FIRST_UPDATE: u64 = SECOND / 2;
/// UIP: 244 µs of warning, then the update cycle of 1984 µs ("Update Cycle", 32.768 kHz).
const UPDATE_CYCLE: u64 = (244 + 1_984) * 1_000;

/// A cycle of the 32.768 kHz time base lasts 1953125 / 64 ns.
const BASE_CYCLE: (u64, u64) = (1_953_125, 64);

/// The clock. It starts with the compartment's wall clock, in BCD and 24-hour format.
#[derive(Debug)]
pub struct Rtc {
    // What the ports show.
    /// Port 0x70 as written: the index, and bit 7, which masks NMI in a PC. No NMI source is behind it here.
    selected: u8,
    /// Clock, alarm, registers A and B, and memory. Of register C it holds the three sources.
    bytes: Bytes,

    // Where the divider chain is.
    /// When the next update ends; `None` while the divider is held in reset.
    next_update: Option<GuestTime>,
    /// Up to when the periodic rate was looked at.
    periodic_seen: GuestTime,

    // What was told outside.
    /// The level of line 8.
    level: bool,
}

impl Rtc {
    fn format(&self) -> Format {
        let register = self.bytes.get(REGISTER_B);
        Format { binary: register & BINARY != 0, hours_24: register & HOURS_24 != 0 }
    }

    fn is_set(&self) -> bool {
        self.bytes.get(REGISTER_B) & SET != 0
    }

    /// The divider runs with the PC's crystal only as "010"; other codes are other crystals, tests, and reset.
    const fn divider_runs(register_a: u8) -> bool {
        register_a & 0x70 == 0x20
    }

    fn raise(&mut self, source: u8) {
        self.bytes.set(REGISTER_C, self.bytes.get(REGISTER_C) | source);
    }

    /// The sources that are raised and enabled.
    fn requested(&self) -> u8 {
        self.bytes.get(REGISTER_C) & self.bytes.get(REGISTER_B) & (PERIODIC | ALARM | UPDATE)
    }

    /// When the periodic rate next has its edge, strictly after `time`.
    fn next_periodic(&self, time: GuestTime) -> Option<GuestTime> {
        let update = self.next_update?;
        // With this time base the first two rates are those of 8 and 9.
        let rate = match self.bytes.get(REGISTER_A) & 15 {
            0 => return None,
            rate @ 1..=2 => rate + 7,
            rate => rate,
        };
        // All rates divide a second, so edges are counted back from the end of the second that `time` lies in.
        let remaining = update.since(time).saturating_sub(1) % SECOND + 1;
        let period = BASE_CYCLE.0 << (rate - 1);
        let periods = (remaining * BASE_CYCLE.1 - 1) / period;
        Some(time.after(remaining - periods * period / BASE_CYCLE.1))
    }

    /// Brings everything up to date.
    #[inline]
    fn settle(&mut self, now: GuestTime) {
        if self.bytes.get(REGISTER_C) & PERIODIC == 0
            && self.next_periodic(self.periodic_seen).is_some_and(|edge| edge <= now)
        {
            self.raise(PERIODIC);
        }
        self.periodic_seen = now;
        if let Some(update) = self.next_update
            && update <= now
        {
            self.update(update, now);
        }
    }

    /// All update cycles that ended until `now`, at once.
    fn update(&mut self, first: GuestTime, now: GuestTime) {
        let further = now.since(first) / SECOND;
        self.next_update = Some(first.after((further + 1) * SECOND));
        if self.is_set() {
            return;
        }
        let cycles = further + 1;
        self.raise(UPDATE);
        if self.bytes.cycles_to_alarm(self.format()).is_some_and(|alarm| alarm <= cycles) {
            self.raise(ALARM);
        }
        self.bytes.advance(cycles, self.format());
    }

    /// When something will be requested that is not yet.
    fn deadline(&self, now: GuestTime) -> Option<GuestTime> {
        // While the line is up nothing new can show until the guest reads register C.
        if self.requested() != 0 {
            return None;
        }
        let enabled = self.bytes.get(REGISTER_B);
        let mut earliest = if enabled & PERIODIC != 0 { self.next_periodic(now) } else { None };
        let updates = if self.is_set() { None } else { self.next_update };
        if let Some(update) = updates {
            let cycles = if enabled & UPDATE != 0 {
                Some(1)
            } else if enabled & ALARM != 0 {
                self.bytes.cycles_to_alarm(self.format())
            } else {
                None
            };
            if let Some(cycles) = cycles {
                let at = update.after(cycles.saturating_sub(1).saturating_mul(SECOND));
                earliest = Some(earliest.map_or(at, |edge| edge.min(at)));
            }
        }
        earliest
    }

    /// Tells line and timer what became of the requests.
    fn tell(&mut self, context: &mut Context<'_>) {
        let level = self.requested() != 0;
        if self.level != level {
            self.level = level;
            context.effects.line(CLOCK, level);
        }
        context.effects.timer(self.deadline(context.now));
    }

    fn read(&mut self, context: &mut Context<'_>) -> u8 {
        let index = self.selected & 0x7f;
        if index <= REGISTER_D || index == CENTURY {
            self.settle(context.now);
        }
        match index {
            REGISTER_A => {
                let updating = !self.is_set()
                    && self.next_update.is_some_and(|update| update.since(context.now) <= UPDATE_CYCLE);
                self.bytes.get(REGISTER_A) | if updating { UPDATING } else { 0 }
            }
            REGISTER_C => {
                let request = if self.requested() != 0 { REQUEST } else { 0 };
                let sources = self.bytes.get(REGISTER_C);
                self.bytes.set(REGISTER_C, 0);
                self.tell(context);
                sources | request
            }
            REGISTER_D => VALID,
            _ => self.bytes.get(index),
        }
    }

    fn write(&mut self, value: u8, context: &mut Context<'_>) {
        let index = self.selected & 0x7f;
        if index > REGISTER_D && index != CENTURY {
            self.bytes.set(index, value);
            return;
        }
        self.settle(context.now);
        match index {
            REGISTER_A => {
                self.bytes.set(REGISTER_A, value & !UPDATING);
                let runs = Self::divider_runs(value);
                if runs != self.next_update.is_some() {
                    self.next_update = runs.then(|| context.now.after(FIRST_UPDATE));
                }
            }
            // SET going high clears UIE.
            REGISTER_B if value & SET != 0 => self.bytes.set(REGISTER_B, value & !UPDATE_ENABLE),
            REGISTER_C | REGISTER_D => return,
            // The high-order bit of the seconds is read only.
            SECONDS => self.bytes.set(SECONDS, value & 0x7f),
            _ => self.bytes.set(index, value),
        }
        self.tell(context);
    }
}

impl Device for Rtc {
    const NAME: &'static str = "rtc";
    const PORTS: &'static [PortRange] = &[PortRange { first: INDEX, last: DATA }];

    fn new(platform: &Platform) -> Self {
        let mut bytes = Bytes::new();
        bytes.set(REGISTER_A, REGISTER_A_START);
        bytes.set(REGISTER_B, HOURS_24);
        let format = Format { binary: false, hours_24: true };
        // Beyond the year 9999 the clock shows nothing sensible anyway; the bound keeps the calendar's arithmetic whole.
        bytes.set_seconds(platform.wall_clock.min(1 << 40), format);
        for (index, value) in memory_sizes(platform.memory) {
            bytes.set(index, value);
        }
        Self {
            selected: 0,
            bytes,
            next_update: Some(GuestTime(SECOND)),
            periodic_seen: GuestTime(0),
            level: false,
        }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    fn read_port(&mut self, port: u16, _: Width, context: &mut Context<'_>) -> u32 {
        u32::from(if port == INDEX { self.selected } else { self.read(context) })
    }

    fn write_port(&mut self, port: u16, _: Width, value: u32, context: &mut Context<'_>) {
        if port == INDEX {
            self.selected = value as u8;
        } else {
            self.write(value as u8, context);
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        self.settle(context.now);
        self.tell(context);
    }
}

/// The bytes from which old systems learn how much RAM there is: index and value. Bytes 0x15/0x16 conventional memory
/// and 0x17/0x18 and 0x30/0x31 memory above 1 MiB, both in KiB; 0x34/0x35 memory from 16 MiB to the hole and 0x5b to
/// 0x5d memory from 4 GiB on, both in units of 64 KiB.
fn memory_sizes(memory: u64) -> [(u8, u8); 11] {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let low = memory.min(plan::LOW_MEMORY_LIMIT);
    let words = |bytes: u64, unit: u64| (bytes / unit).min(0xffff).to_le_bytes();
    let conventional = words(memory.min(640 * KIB), KIB);
    let extended = words(low.saturating_sub(MIB), KIB);
    let above_16 = words(low.saturating_sub(16 * MIB), 64 * KIB);
    let high = ((memory - low) / (64 * KIB)).min(0xff_ffff).to_le_bytes();
    [
        (0x15, conventional[0]),
        (0x16, conventional[1]),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, above_16[0]),
        (0x35, above_16[1]),
        (0x5b, high[0]),
        (0x5c, high[1]),
        (0x5d, high[2]),
    ]
}
