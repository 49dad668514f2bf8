//! The local APIC, xAPIC and x2APIC, in software: the answer to [`contracts::LocalApic`].
//!
//! Sources: Intel SDM Vol. 3A chapter 11 ("SDM"), AMD APM Vol. 2 chapter 16 ("APM"). Where the two differ, and what is
//! not modelled, is in this crate's README.
#![no_std]

mod timer;

use contracts::{
    ApicDestination, ApicEffects, DeliveryMode, GuestTicks, InterruptCommand, InterruptMessage,
    LocalApic as _, LocalPin, Shorthand, Trigger,
};
use timer::{Mode, Timer};
use x86::interrupts::{InterruptRegisters, Place, VectorSet};

pub use timer::MINIMUM_PERIOD;

/// Version 0x14 (an integrated APIC), six vector table entries, no suppression of EOI broadcasts (SDM §11.4.8).
const VERSION: u32 = 0x0005_0014;

/// Bits of the APIC base MSR (SDM §11.4.3 and §11.12.1; APM §16.3.1).
mod base {
    pub const BOOTSTRAP: u64 = 1 << 8;
    pub const EXTENDED: u64 = 1 << 10;
    pub const ENABLED: u64 = 1 << 11;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub const WRITABLE: u64 = ADDRESS | ENABLED | EXTENDED | BOOTSTRAP;
    pub const RESET: u64 = 0xfee0_0000 | ENABLED;
}

/// Registers by number: the offset in the page divided by 16, and the MSR less 0x800 (SDM tables 11-1 and 11-6).
mod register {
    pub const ID: u8 = 0x02;
    pub const VERSION: u8 = 0x03;
    pub const TASK_PRIORITY: u8 = 0x08;
    pub const ARBITRATION_PRIORITY: u8 = 0x09;
    pub const PROCESSOR_PRIORITY: u8 = 0x0a;
    pub const END_OF_INTERRUPT: u8 = 0x0b;
    pub const REMOTE_READ: u8 = 0x0c;
    pub const LOGICAL_DESTINATION: u8 = 0x0d;
    pub const DESTINATION_FORMAT: u8 = 0x0e;
    pub const SPURIOUS: u8 = 0x0f;
    pub const IN_SERVICE: u8 = 0x10;
    pub const IN_SERVICE_LAST: u8 = 0x17;
    pub const TRIGGER_MODE: u8 = 0x18;
    pub const TRIGGER_MODE_LAST: u8 = 0x1f;
    pub const REQUESTED: u8 = 0x20;
    pub const REQUESTED_LAST: u8 = 0x27;
    pub const ERROR_STATUS: u8 = 0x28;
    pub const COMMAND: u8 = 0x30;
    pub const COMMAND_HIGH: u8 = 0x31;
    pub const ENTRY_TIMER: u8 = 0x32;
    pub const ENTRY_LAST: u8 = 0x37;
    pub const INITIAL_COUNT: u8 = 0x38;
    pub const CURRENT_COUNT: u8 = 0x39;
    pub const DIVIDE: u8 = 0x3e;
    pub const SELF_INTERRUPT: u8 = 0x3f;
}

/// The local vector table's entries (SDM §11.5.1).
mod entry {
    pub const TIMER: usize = 0;
    pub const LINT0: usize = 3;
    pub const LINT1: usize = 4;
    pub const ERROR: usize = 5;
    pub const COUNT: usize = 6;

    pub const MASKED: u32 = 1 << 16;
    pub const MODE: u32 = 7 << 8;
    pub const NON_MASKABLE: u32 = 4 << 8;
    pub const EXTERNAL: u32 = 7 << 8;
    /// Of pins: active low, and level-sensitive.
    pub const LOW: u32 = 1 << 13;
    pub const LEVEL: u32 = 1 << 15;
    /// Delivery status and remote IRR are read-only, not reserved: writing them changes nothing and is no fault.
    pub const SEND_PENDING: u32 = 1 << 12;
    pub const REMOTE_REQUEST: u32 = 1 << 14;
    pub const READ_ONLY_PIN: u32 = SEND_PENDING | REMOTE_REQUEST;

    /// What can be written: timer, thermal sensor, performance counters, LINT0, LINT1, error.
    pub const WRITABLE: [u32; COUNT] =
        [0x0007_00ff, 0x0001_07ff, 0x0001_07ff, 0x0001_a7ff, 0x0001_a7ff, 0x0001_00ff];
    pub const WRITABLE_OR_READ_ONLY: [u32; COUNT] = [
        WRITABLE[0] | SEND_PENDING,
        WRITABLE[1] | SEND_PENDING,
        WRITABLE[2] | SEND_PENDING,
        WRITABLE[3] | READ_ONLY_PIN,
        WRITABLE[4] | READ_ONLY_PIN,
        WRITABLE[5] | SEND_PENDING,
    ];
}

/// Bits of the error status register that can happen here (SDM §11.5.3).
mod error {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Spurious-interrupt vector register: software enable, and what can be written. Bit 9, focus processor checking, has
/// no effect on processors of this century but can be written (APM §16.4.7): 32-bit Linux sets it. Bit 12 would be
/// the suppression of EOI broadcasts, which the version register denies.
const SPURIOUS_ENABLED: u32 = 1 << 8;
const SPURIOUS_WRITABLE: u32 = 0x3ff;

/// Bits of the interrupt command register's low half (SDM §11.6.1).
const COMMAND_WRITABLE: u32 = 0x000c_cfff;
const COMMAND_MODE: u32 = 7 << 8;
const COMMAND_LOGICAL: u32 = 1 << 11;
const COMMAND_ASSERT: u32 = 1 << 14;
const COMMAND_LEVEL: u32 = 1 << 15;
const COMMAND_SHORTHAND: u32 = 3 << 18;

/// The first vector that an interrupt may have; those below are the architecture's exceptions (SDM §11.5.2).
const FIRST_VECTOR: u8 = 16;

/// The local APIC of one vCPU. The sets of vectors come last, which leaves the others at offsets that fit into a byte.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct LocalApic {
    base: u64,
    timer: Timer,
    command: u64,
    entries: [u32; entry::COUNT],
    spurious: u32,
    /// Errors since the last write to the error status register, and what it shows.
    errors: u32,
    error_status: u32,
    /// xAPIC mode only; the x2APIC's follows from the id.
    logical_destination: u32,
    destination_format: u32,
    id: u8,
    /// Which pins are high, by the numbers of their entries.
    pins: u8,
    /// Whether LINT0 brings an external interrupt: it follows from pin and entry, and is asked more often than they change.
    external: bool,
    interrupts: InterruptRegisters,
}

impl LocalApic {
    /// As after reset, with that id and base, and the pins as others drive them.
    #[inline(never)]
    const fn reset(id: u8, base: u64, pins: u8) -> Self {
        let mut entries = [entry::MASKED; entry::COUNT];
        if base & base::ENABLED == 0 {
            // SDM §11.4.3: without the APIC, LINT0 is the processor's INTR pin, and LINT1 its NMI pin.
            entries = Self::wired(entries);
        }
        let external = base & base::ENABLED == 0 && pins >> entry::LINT0 & 1 != 0;
        Self {
            base,
            interrupts: InterruptRegisters::new(),
            timer: Timer::new(),
            id,
            spurious: 0xff,
            entries,
            pins,
            external,
            errors: 0,
            error_status: 0,
            command: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
        }
    }

    /// Becomes what reset leaves, in the mode of that base.
    #[inline(never)]
    fn forget(&mut self, base: u64) {
        *self = Self::reset(self.id, base, self.pins);
    }

    /// LINT0 passes the PIC's interrupts on, LINT1 NMI.
    const fn wired(mut entries: [u32; entry::COUNT]) -> [u32; entry::COUNT] {
        entries[entry::LINT0] = entry::EXTERNAL;
        entries[entry::LINT1] = entry::NON_MASKABLE;
        entries
    }

    #[inline]
    const fn is_enabled(&self) -> bool {
        self.base & base::ENABLED != 0
    }

    /// Whether fixed interrupts are taken. A globally disabled APIC is as after reset, so its spurious-interrupt register
    /// says no.
    #[inline]
    const fn is_software_enabled(&self) -> bool {
        self.spurious & SPURIOUS_ENABLED != 0
    }

    /// The arbitration priority (APM §16.6.4): the highest class of task, service and request.
    fn arbitration_priority(&self) -> u8 {
        let of = |set: &VectorSet| set.highest().map_or(0, Place::vector);
        let InterruptRegisters { task_priority, requested, in_service, .. } = &self.interrupts;
        let class = of(in_service).max(of(requested)) & 0xf0;
        if task_priority & 0xf0 >= class { *task_priority } else { class }
    }

    /// Notes an error. The first since the last write to the error status register makes an interrupt: that write "rearms
    /// the APIC error interrupt triggering mechanism" (SDM §11.5.3).
    #[cold]
    fn note(&mut self, error: u32) {
        let armed = self.errors == 0;
        self.errors |= error;
        let entry = self.entries[entry::ERROR];
        if armed && entry & entry::MASKED == 0 {
            if entry as u8 >= FIRST_VECTOR {
                self.request(entry as u8, Trigger::Edge);
            } else {
                self.errors |= error::RECEIVE_ILLEGAL_VECTOR;
            }
        }
    }

    /// Sets the request bit of a legal vector and remembers its trigger (SDM §11.8.4).
    #[inline]
    fn request(&mut self, vector: u8, trigger: Trigger) {
        let place = Place::of(vector);
        self.interrupts.requested.insert(place);
        match trigger {
            Trigger::Edge => self.interrupts.level.remove(place),
            Trigger::Level => self.interrupts.level.insert(place),
        }
    }

    /// The timer went off.
    #[inline]
    fn timer_interrupt(&mut self) {
        let entry = self.entries[entry::TIMER];
        if entry & entry::MASKED != 0 {
            return;
        }
        if entry as u8 >= FIRST_VECTOR {
            self.request(entry as u8, Trigger::Edge);
        } else {
            self.note(error::RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// Whether the pin of entry `index` is at the level that the entry calls asserted (SDM §11.5.1, "Interrupt Input Pin Polarity").
    /// The entries without a pin never are.
    fn is_asserted(&self, index: usize, entry: u32) -> bool {
        (self.pins >> index & 1 != 0) != (entry & entry::LOW != 0)
    }

    /// Whether the pin of entry `index` brings an external interrupt, which waits for the processor's acknowledge cycle.
    fn brings_external(&self, index: usize, entry: u32) -> bool {
        entry & (entry::MASKED | entry::MODE) == entry::EXTERNAL && self.is_asserted(index, entry)
    }

    /// What follows from the pin of entry `index`, where it is asserted or, as `pulse` says, was for a moment; `edge`: since just now. A
    /// fixed interrupt is requested, the others are for the caller to pass on.
    fn look_at_pin(&mut self, index: usize, edge: bool, pulse: bool) -> Option<DeliveryMode> {
        let entry = *self.entries.get(index)?;
        if index == entry::LINT0 {
            self.external = self.brings_external(index, entry);
        }
        if entry & entry::MASKED != 0 || !(pulse || self.is_asserted(index, entry)) {
            return None;
        }
        match DeliveryMode::from_bits((entry >> 8) as u8 & 7)? {
            DeliveryMode::Fixed => {
                let level = entry & entry::LEVEL != 0;
                // APM §16.4.2: while remote IRR is set, further requests by level "remain pending".
                let due = if level { entry & entry::REMOTE_REQUEST == 0 } else { edge };
                if due {
                    if level && entry as u8 >= FIRST_VECTOR {
                        *self.entries.get_mut(index)? |= entry::REMOTE_REQUEST;
                    }
                    self.accept(entry as u8, if level { Trigger::Level } else { Trigger::Edge });
                }
                None
            }
            // SDM §11.5.1: these are always edge-sensitive. Whoever looks for another reason drops them.
            mode @ (DeliveryMode::NonMaskable | DeliveryMode::Init | DeliveryMode::SystemManagement) => {
                Some(mode)
            }
            // External interrupts are always level-sensitive: they are asked for. The others are reserved.
            _ => None,
        }
    }

    /// A level-triggered interrupt ended: the pin that it came from may come again, and does where it is still asserted.
    #[inline(never)]
    fn end_of_level(&mut self, vector: u8) {
        for index in entry::LINT0..=entry::LINT1 {
            if let Some(entry) = self.entries.get_mut(index)
                && *entry & (entry::REMOTE_REQUEST | 0xff) == entry::REMOTE_REQUEST | u32::from(vector)
            {
                *entry &= !entry::REMOTE_REQUEST;
                self.look_at_pin(index, false, false);
            }
        }
    }

    /// SDM §11.12.10.2: the logical id of an x2APIC follows from its id.
    const fn derived_logical(&self) -> u32 {
        (self.id as u32 >> 4) << 16 | 1 << (self.id & 15)
    }

    /// Carries out an interrupt command (SDM §11.6.1).
    #[inline]
    fn send(&mut self, low: u32, destination: u32, effects: &mut ApicEffects) {
        if low & (COMMAND_MODE | COMMAND_SHORTHAND) != 0 {
            self.send_special(low, destination, effects);
        } else if (low as u8) < FIRST_VECTOR {
            self.note(error::SEND_ILLEGAL_VECTOR);
        } else {
            effects.command = Some(self.command(low, destination, DeliveryMode::Fixed, Shorthand::None));
        }
    }

    #[inline]
    fn command(
        &self,
        low: u32,
        destination: u32,
        mode: DeliveryMode,
        shorthand: Shorthand,
    ) -> InterruptCommand {
        InterruptCommand {
            shorthand,
            message: InterruptMessage {
                destination,
                logical: low & COMMAND_LOGICAL != 0,
                mode,
                vector: low as u8,
                // The trigger bit counts for the INIT level de-assert alone.
                trigger: Trigger::Edge,
            },
            wide: self.is_extended(),
        }
    }

    /// Commands with a shorthand or with another mode than fixed.
    #[inline(never)]
    fn send_special(&mut self, low: u32, destination: u32, effects: &mut ApicEffects) {
        // Reserved, and external interrupts, which only pins have: nothing is sent.
        let Some(mode) = DeliveryMode::from_bits((low >> 8) as u8 & 7) else { return };
        let shorthand = match low >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Myself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if (low as u8) < FIRST_VECTOR => {
                self.note(error::SEND_ILLEGAL_VECTOR);
            }
            DeliveryMode::Fixed if shorthand == Shorthand::Myself => self.interrupt_itself(low as u8),
            // The INIT level de-assert: for the arbitration of processors before the Pentium 4.
            DeliveryMode::Init if low & COMMAND_LEVEL != 0 && low & COMMAND_ASSERT == 0 => {}
            DeliveryMode::External => {}
            _ => effects.command = Some(self.command(low, destination, mode, shorthand)),
        }
    }

    /// A fixed interrupt to itself does not need the fabric.
    #[inline]
    fn interrupt_itself(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.note(error::SEND_ILLEGAL_VECTOR);
        } else if self.is_software_enabled() {
            self.request(vector, Trigger::Edge);
        }
    }

    fn set_spurious(&mut self, value: u32, now: GuestTicks, effects: &mut ApicEffects) {
        self.expire(now);
        let changed = (self.spurious ^ value) & SPURIOUS_ENABLED != 0;
        self.spurious = value & SPURIOUS_WRITABLE;
        if !self.is_software_enabled() {
            // SDM §11.4.7.2: the mask bits of all entries are set; what is requested or in service stays.
            for entry in &mut self.entries {
                *entry |= entry::MASKED;
            }
            self.external = false;
        }
        effects.destination_changed |= changed;
    }

    fn set_entry(&mut self, index: usize, value: u32, now: GuestTicks) {
        // What the timer did until now, it did under the old entry.
        self.expire(now);
        let (Some(entry), Some(writable)) = (self.entries.get_mut(index), entry::WRITABLE.get(index)) else {
            return;
        };
        // Remote IRR means nothing for edges and other modes (SDM §11.5.1): software that changes to them gets rid of it.
        let kept =
            if value & (entry::MODE | entry::LEVEL) == entry::LEVEL { entry::REMOTE_REQUEST } else { 0 };
        *entry = value & writable | *entry & kept;
        if self.spurious & SPURIOUS_ENABLED == 0 {
            // SDM §11.4.7.2: "Attempts to reset these bits will be ignored."
            *entry |= entry::MASKED;
        }
        if index == entry::TIMER {
            self.timer.set_mode(Mode::of(value), now);
        } else {
            self.look_at_pin(index, false, false);
        }
    }

    /// Reads a register that both modes have, and in the same form.
    fn common(&mut self, register: u8, now: GuestTicks) -> Option<u32> {
        Some(match register {
            register::VERSION => VERSION,
            register::TASK_PRIORITY => self.interrupts.task_priority.into(),
            register::PROCESSOR_PRIORITY => self.interrupts.processor_priority().into(),
            register::SPURIOUS => self.spurious,
            register::IN_SERVICE..=register::IN_SERVICE_LAST => self.interrupts.in_service.word(register),
            register::TRIGGER_MODE..=register::TRIGGER_MODE_LAST => self.interrupts.level.word(register),
            register::REQUESTED..=register::REQUESTED_LAST => self.interrupts.requested.word(register),
            register::ERROR_STATUS => self.error_status,
            register::ENTRY_TIMER..=register::ENTRY_LAST => {
                let index = usize::from(register - register::ENTRY_TIMER);
                let entry = *self.entries.get(index)?;
                // All others are accepted at once.
                if self.brings_external(index, entry) { entry | entry::SEND_PENDING } else { entry }
            }
            register::INITIAL_COUNT => self.timer.initial(),
            register::CURRENT_COUNT => {
                self.expire(now);
                self.timer.current(now)
            }
            register::DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// Which bits of a register that both modes have are not reserved; `None` if software cannot write it.
    fn writable(register: u8) -> Option<u32> {
        Some(match register {
            register::TASK_PRIORITY => 0xff,
            register::SPURIOUS => SPURIOUS_WRITABLE,
            register::END_OF_INTERRUPT | register::ERROR_STATUS => 0,
            register::ENTRY_TIMER..=register::ENTRY_LAST => {
                *entry::WRITABLE_OR_READ_ONLY.get(usize::from(register - register::ENTRY_TIMER))?
            }
            register::INITIAL_COUNT => u32::MAX,
            register::DIVIDE => 0b1011,
            _ => return None,
        })
    }

    /// Writes a register that [`Self::writable`] knows. Reserved bits are not kept.
    fn set_common(&mut self, register: u8, value: u32, now: GuestTicks, effects: &mut ApicEffects) {
        match register {
            register::TASK_PRIORITY => self.interrupts.task_priority = value as u8,
            register::END_OF_INTERRUPT => effects.level_end = self.end_of_interrupt(),
            register::SPURIOUS => self.set_spurious(value, now, effects),
            register::ERROR_STATUS => {
                // SDM §11.5.3: the write clears what was logged and logs what happened since the last write.
                self.error_status = self.errors;
                self.errors = 0;
            }
            register::ENTRY_TIMER..=register::ENTRY_LAST => {
                self.set_entry(usize::from(register - register::ENTRY_TIMER), value, now);
            }
            register::INITIAL_COUNT => {
                self.expire(now);
                self.timer.set_initial(value, now);
            }
            register::DIVIDE => {
                self.expire(now);
                self.timer.set_divide(value, now);
            }
            _ => {}
        }
    }

    #[inline(never)]
    fn write_page(&mut self, register: u8, value: u32, now: GuestTicks, effects: &mut ApicEffects) {
        match register {
            register::LOGICAL_DESTINATION => {
                self.logical_destination = value & 0xff00_0000;
                effects.destination_changed = true;
            }
            register::DESTINATION_FORMAT => {
                self.destination_format = value | 0x0fff_ffff;
                effects.destination_changed = true;
            }
            register::COMMAND => {
                let low = value & COMMAND_WRITABLE;
                self.command = self.command >> 32 << 32 | u64::from(low);
                self.send(low, (self.command >> 56) as u32, effects);
            }
            register::COMMAND_HIGH => {
                self.command = u64::from(value & 0xff00_0000) << 32 | self.command & 0xffff_ffff;
            }
            // Software should not write the id (SDM §11.4.6); this one cannot be changed.
            register::ID | register::ARBITRATION_PRIORITY | register::REMOTE_READ => {}
            _ if Self::writable(register).is_some() => self.set_common(register, value, now, effects),
            // Read-only registers.
            _ if self.common(register, now).is_some() => {}
            _ => self.note(error::ILLEGAL_REGISTER),
        }
    }

    #[inline(never)]
    fn write_register(
        &mut self,
        register: u8,
        value: u64,
        now: GuestTicks,
        effects: &mut ApicEffects,
    ) -> bool {
        match (register, Self::writable(register)) {
            (register::SELF_INTERRUPT, _) if value <= 0xff => self.interrupt_itself(value as u8),
            (_, Some(writable)) if value & !u64::from(writable) == 0 => {
                self.set_common(register, value as u32, now, effects);
            }
            _ => return false,
        }
        true
    }
}

impl contracts::LocalApic for LocalApic {
    fn new(id: u8, bootstrap: bool) -> Self {
        if !bootstrap {
            return Self::reset(id, base::RESET, 0);
        }
        let mut apic = Self::reset(id, base::RESET | base::BOOTSTRAP, 0);
        // The virtual wire of MultiProcessor Specification 1.4 §3.6.2.2, with its spurious vector.
        apic.spurious = SPURIOUS_ENABLED | 0x0f;
        apic.entries = Self::wired(apic.entries);
        apic
    }

    fn init(&mut self) {
        self.forget(self.base);
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn write_base(&mut self, value: u64, effects: &mut ApicEffects) -> bool {
        let mode = |base: u64| (base & base::ENABLED != 0, base & base::EXTENDED != 0);
        if value & !base::WRITABLE != 0 {
            return false;
        }
        match (mode(self.base), mode(value)) {
            // Extended but not enabled is no state; x2APIC mode is left by disabling, and entered from xAPIC mode only
            // (SDM §11.12.5, figure 11-27).
            (_, (false, true)) | ((true, true), (true, false)) | ((false, false), (true, true)) => {
                return false;
            }
            // SDM §11.12.5.1: leaving a mode loses everything but the id. Enabled again, it has the pins back.
            ((true, _), (false, false)) | ((false, false), (true, false)) => {
                self.forget(value);
            }
            // "State Changes From xAPIC Mode to x2APIC Mode": all but the command's high half is preserved, and the
            // logical destination, which this mode derives.
            ((true, false), (true, true)) => self.command &= 0xffff_ffff,
            _ => {}
        }
        // Which processor started the machine is not software's to say (APM §16.3.1: read-only).
        self.base = value & !base::BOOTSTRAP | self.base & base::BOOTSTRAP;
        effects.destination_changed = true;
        true
    }

    #[inline]
    fn page(&self) -> Option<u64> {
        (self.is_enabled() && !self.is_extended()).then_some(self.base & base::ADDRESS)
    }

    fn read(&mut self, offset: u16, now: GuestTicks) -> u32 {
        // Bytes 4 to 15 of a register are undefined (SDM §11.4.1); the page answers in xAPIC mode only.
        if offset & 0xf != 0 || offset > 0xfff || self.page().is_none() {
            return 0;
        }
        let register = (offset >> 4) as u8;
        match register {
            register::ID => u32::from(self.id) << 24,
            register::ARBITRATION_PRIORITY => self.arbitration_priority().into(),
            // Write-only, and a command that no processor of this century has.
            register::END_OF_INTERRUPT | register::REMOTE_READ => 0,
            register::LOGICAL_DESTINATION => self.logical_destination,
            register::DESTINATION_FORMAT => self.destination_format,
            register::COMMAND => self.command as u32,
            register::COMMAND_HIGH => (self.command >> 32) as u32,
            _ => {
                if let Some(value) = self.common(register, now) {
                    return value;
                }
                self.note(error::ILLEGAL_REGISTER);
                0
            }
        }
    }

    #[inline]
    fn write(&mut self, offset: u16, value: u32, now: GuestTicks, effects: &mut ApicEffects) {
        if offset & 0xf != 0 || offset > 0xfff || self.page().is_none() {
            return;
        }
        self.write_page((offset >> 4) as u8, value, now, effects);
    }

    fn read_msr(&mut self, msr: u32, now: GuestTicks) -> Option<u64> {
        let register = u8::try_from(msr.wrapping_sub(x86::msr::X2APIC_FIRST)).ok()?;
        if !self.is_extended() {
            return None;
        }
        match register {
            register::ID => Some(self.id.into()),
            register::LOGICAL_DESTINATION => Some(self.derived_logical().into()),
            register::COMMAND => Some(self.command),
            _ => self.common(register, now).map(u64::from),
        }
    }

    #[inline]
    fn write_msr(&mut self, msr: u32, value: u64, now: GuestTicks, effects: &mut ApicEffects) -> bool {
        const COMMAND: u32 = x86::msr::X2APIC_FIRST + register::COMMAND as u32;
        if !self.is_extended() {
            return false;
        }
        match msr {
            COMMAND => {
                // Delivery status does not exist here: bit 12 is reserved (SDM §11.12.9, figure 11-28).
                if value as u32 & !COMMAND_WRITABLE != 0 {
                    return false;
                }
                self.command = value;
                self.send(value as u32, (value >> 32) as u32, effects);
                true
            }
            _ => match u8::try_from(msr.wrapping_sub(x86::msr::X2APIC_FIRST)) {
                Ok(register) => self.write_register(register, value, now, effects),
                Err(_) => false,
            },
        }
    }

    /// The base never has this bit without the enable bit.
    #[inline]
    fn is_extended(&self) -> bool {
        self.base & base::EXTENDED != 0
    }

    /// SDM §11.8.5.
    #[inline]
    fn end_of_interrupt(&mut self) -> Option<u8> {
        let place = self.interrupts.in_service.highest()?;
        self.interrupts.in_service.remove(place);
        if !self.interrupts.level.contains(place) {
            return None;
        }
        let vector = place.vector();
        self.end_of_level(vector);
        Some(vector)
    }

    #[inline]
    fn lendable(&mut self) -> Option<&mut InterruptRegisters> {
        // Disabled by software, an interrupt to itself is lost, which a processor would not know.
        (self.is_extended() && self.is_software_enabled()).then_some(&mut self.interrupts)
    }

    fn ended_level(&mut self, vector: u8) -> bool {
        let level = self.interrupts.level.contains(Place::of(vector));
        if level {
            self.end_of_level(vector);
        }
        level
    }

    #[inline]
    fn tsc_deadline(&self) -> u64 {
        self.timer.deadline()
    }

    #[inline]
    fn set_tsc_deadline(&mut self, value: u64, now: GuestTicks) {
        if self.timer.set_deadline(value, now) {
            self.timer_interrupt();
        }
    }

    #[inline]
    fn accept(&mut self, vector: u8, trigger: Trigger) {
        if !self.is_software_enabled() {
            return;
        }
        if vector < FIRST_VECTOR {
            self.note(error::RECEIVE_ILLEGAL_VECTOR);
        } else {
            self.request(vector, trigger);
        }
    }

    #[inline(never)]
    fn set_pin(&mut self, pin: LocalPin, level: bool) -> Option<DeliveryMode> {
        let index = entry::LINT0 + pin as usize;
        let before = self.pins;
        self.pins = before & !(1 << index) | u8::from(level) << index;
        // What changed and is as it was has been both.
        self.look_at_pin(index, true, self.pins == before)
    }

    #[inline]
    fn takes_external(&self, _: bool) -> bool {
        self.external
    }

    #[inline]
    fn pending(&self) -> Option<u8> {
        self.interrupts.pending()
    }

    #[inline]
    fn acknowledge(&mut self) -> Option<u8> {
        self.interrupts.acknowledge()
    }

    #[inline]
    fn task_priority(&self) -> u8 {
        self.interrupts.task_priority >> 4
    }

    #[inline]
    fn set_task_priority(&mut self, priority: u8) {
        self.interrupts.task_priority = priority << 4;
    }

    #[inline]
    fn deadline(&self) -> Option<GuestTicks> {
        if self.entries[entry::TIMER] & entry::MASKED != 0 { None } else { self.timer.end() }
    }

    #[inline]
    fn expire(&mut self, now: GuestTicks) {
        if self.timer.expire(now) {
            self.timer_interrupt();
        }
    }

    fn destination(&self) -> ApicDestination {
        let wide = self.is_extended();
        ApicDestination {
            id: self.id.into(),
            logical: if wide { self.derived_logical() } else { self.logical_destination >> 24 },
            flat: !wide && self.destination_format >> 28 == 0xf,
            wide,
            enabled: self.is_software_enabled(),
        }
    }
}
