//! The local APIC against the manuals' words: SDM is Intel SDM Vol. 3A chapter 11, APM is AMD APM Vol. 2 chapter 16.
//! Everything goes through the contract, as the monitor uses it.

mod command;
mod errors;
mod guests;
mod modes;
mod pins;
mod priority;
mod random;
mod registers;
mod timer;

use contracts::{ApicEffects, DeliveryMode, GuestTicks, InterruptCommand, LocalApic as _, LocalPin, Trigger};
use local_apic::LocalApic;

pub(crate) const EXTENDED: u64 = 0xfee0_0c00;

/// A local APIC with a clock beside it.
pub(crate) struct Bench {
    pub(crate) apic: LocalApic,
    pub(crate) now: u64,
    /// The level at LINT0.
    lint0: bool,
}

impl Bench {
    /// The bootstrap processor's, in xAPIC mode.
    pub(crate) fn bootstrap() -> Self {
        Self { apic: LocalApic::new(0, true), now: 1_000_000, lint0: false }
    }

    /// Another processor's after reset, in xAPIC mode.
    pub(crate) fn reset(id: u8) -> Self {
        Self { apic: LocalApic::new(id, false), now: 1_000_000, lint0: false }
    }

    /// Another processor's, switched to x2APIC mode and software-enabled.
    pub(crate) fn extended(id: u8) -> Self {
        let mut bench = Self::reset(id);
        assert!(bench.apic.write_base(EXTENDED, &mut ApicEffects::default()));
        assert!(bench.wrmsr(0x80f, 0x1ff));
        bench
    }

    pub(crate) fn read(&mut self, offset: u16) -> u32 {
        self.apic.read(offset, GuestTicks(self.now))
    }

    pub(crate) fn write(&mut self, offset: u16, value: u32) -> ApicEffects {
        let mut effects = ApicEffects::default();
        self.apic.write(offset, value, GuestTicks(self.now), &mut effects);
        effects
    }

    pub(crate) fn rdmsr(&mut self, msr: u32) -> Option<u64> {
        self.apic.read_msr(msr, GuestTicks(self.now))
    }

    pub(crate) fn wrmsr(&mut self, msr: u32, value: u64) -> bool {
        self.apic.write_msr(msr, value, GuestTicks(self.now), &mut ApicEffects::default())
    }

    pub(crate) fn command(&mut self, msr: u32, value: u64) -> Option<InterruptCommand> {
        let mut effects = ApicEffects::default();
        assert!(self.apic.write_msr(msr, value, GuestTicks(self.now), &mut effects));
        effects.command
    }

    pub(crate) fn deadline(&mut self, value: u64) {
        self.apic.set_tsc_deadline(value, GuestTicks(self.now));
    }

    /// Lets time pass as the monitor does: the timer is called when it is due, and not before.
    pub(crate) fn pass(&mut self, ticks: u64) {
        let end = self.now + ticks;
        while let Some(GuestTicks(at)) = self.apic.deadline().filter(|at| at.0 <= end) {
            self.now = at.max(self.now);
            self.apic.expire(GuestTicks(self.now));
        }
        self.now = end;
    }

    /// Takes what is pending and ends it at once; says which vector it was.
    pub(crate) fn serve(&mut self) -> Option<u8> {
        let vector = self.apic.acknowledge();
        if vector.is_some() {
            self.end();
        }
        vector
    }

    /// The end of the interrupt in service; says the vector that the I/O APIC must hear of.
    pub(crate) fn end(&mut self) -> Option<u8> {
        let mut effects = ApicEffects::default();
        if self.apic.page().is_some() {
            self.apic.write(0xb0, 0, GuestTicks(self.now), &mut effects);
        } else {
            assert!(self.apic.write_msr(0x80b, 0, GuestTicks(self.now), &mut effects));
        }
        effects.level_end
    }

    /// The level at a pin changes; the same level again is a pulse.
    pub(crate) fn pin(&mut self, pin: LocalPin, level: bool) -> Option<DeliveryMode> {
        if pin == LocalPin::Lint0 {
            self.lint0 = level;
        }
        self.apic.set_pin(pin, level)
    }

    /// Whether the processor is to run an acknowledge cycle.
    pub(crate) fn external(&self) -> bool {
        self.apic.takes_external(self.lint0)
    }

    /// The error status, as software reads it: it writes it first.
    pub(crate) fn status(&mut self) -> u32 {
        self.write(0x280, 0xffff_ffff);
        self.read(0x280)
    }

    pub(crate) fn accept(&mut self, vector: u8) {
        self.apic.accept(vector, Trigger::Edge);
    }
}
