//! The interrupt fabric: lines to controllers, messages to local APICs, end-of-interrupt back. And what else devices want done.

use crate::audit::{Kind, Subject};
use crate::compartment::{Devices, VirtualProcessor};
use crate::console::Fed;
use crate::mailbox::request;
use crate::serve::Serving;
use crate::slot::{Ending, Reason};
use contracts::{
    Context, DeliveryMode, DeviceSet, Effect, Effects, GuestMemory, GuestTime, Host, Image, InterruptCommand,
    InterruptMessage, IoApic, LegacyPic, Line, LocalApic, LocalPin, Power, Shorthand, Trigger,
};

/// The line that the interval timer drives; it is pin 2 of the I/O APIC, as the compartment's MADT says.
const TIMER_LINE: u8 = 0;
const TIMER_PIN: u8 = 2;
/// Lines that the PIC has.
const LEGACY_LINES: u8 = 16;
/// The line between the two PICs: no device drives it.
const CASCADE_LINE: u8 = 2;

/// The number of no vCPU.
pub const NOBODY: u8 = u8::MAX;

impl<I: Image, M: GuestMemory, const VCPUS: usize> Serving<'_, I, M, VCPUS> {
    /// Runs `access` on the compartment's devices, then does what they want done. `own` is the vCPU that this turn serves, [`NOBODY`]
    /// where it serves none.
    #[inline]
    pub fn with_devices<R>(&self, own: u8, access: impl FnOnce(&mut Devices<I>, &mut Context<'_>) -> R) -> R {
        let now = self.compartment.time(self.host.now());
        self.with_devices_at(own, now, access)
    }

    /// As [`Self::with_devices`], at a time that the caller knows.
    #[inline(always)]
    pub fn with_devices_at<R>(
        &self,
        own: u8,
        now: GuestTime,
        access: impl FnOnce(&mut Devices<I>, &mut Context<'_>) -> R,
    ) -> R {
        let mut devices = self.compartment.platform.lock();
        let mut effects = Effects::new();
        let mut context = Context { now, effects: &mut effects, memory: self.memory };
        let result = access(&mut devices, &mut context);
        if !effects.touched() {
            return result;
        }
        if !effects.is_empty() {
            self.apply(own, &mut devices, &mut effects);
        }
        let timers = effects.take_timers_changed();
        drop(devices);
        if timers {
            self.tell(0, own, request::TIMERS);
        }
        result
    }

    /// As [`Self::with_devices`], for accesses that are not among the busiest: one function for all, which is told what to do.
    #[inline(never)]
    pub fn with_devices_seldom(&self, own: u8, access: &mut dyn FnMut(&mut Devices<I>, &mut Context<'_>)) {
        self.with_devices(own, access);
    }

    /// Lets the platform's timers go off whose time has come.
    pub fn expire_devices(&self, vcpu: &mut VirtualProcessor<I>) {
        self.with_devices_seldom(vcpu.number, &mut |devices, context| {
            devices.pic.expire(context);
            devices.io_apic.expire(context);
            devices.others.expire(context);
        });
    }

    /// The PIC was programmed: its output may have changed.
    pub fn look_at_pic(&self, own: u8, devices: &Devices<I>) {
        let output = devices.pic.device.output();
        if self.slot.external.drive(output) {
            self.tell(0, own, request::EXTERNAL);
        }
    }

    /// The PIC's output, LINT0 of the first vCPU, which this turn serves, has changed and is at `level` now.
    pub fn pin_changed(&self, vcpu: &mut VirtualProcessor<I>, level: bool) {
        if let Some(mode) = vcpu.apic_beside().set_pin(LocalPin::Lint0, level) {
            let trigger = Trigger::Edge;
            let message = InterruptMessage { destination: 0, logical: false, mode, vector: 0, trigger };
            self.send(vcpu.number, vcpu.number, &message);
        }
    }

    /// Does what devices want done, until nothing is left. Where that ends the compartment, its vCPUs find it in their mailboxes.
    #[inline(never)]
    fn apply(&self, own: u8, devices: &mut Devices<I>, effects: &mut Effects) {
        let mut ending = None;
        while let Some(effect) = effects.pop_first() {
            match effect {
                Effect::Line { line: Line(line), level } => {
                    if line < LEGACY_LINES && line != CASCADE_LINE {
                        devices.pic.device.set_line(line, level);
                        self.look_at_pic(own, devices);
                    }
                    let pin = if line == TIMER_LINE { TIMER_PIN } else { line };
                    devices.io_apic.device.set_line(pin, level, effects);
                }
                Effect::Message(message) => self.route(own, &message, false),
                Effect::Console(byte) => self.console_byte(devices, byte),
                Effect::Power(Power::Off) => ending = Some(Ending::Off),
                Effect::Power(Power::Reset) => ending = Some(Ending::Reset),
            }
        }
        if effects.overflowed() {
            ending = Some(Ending::Stopped(Reason::DeviceOverflow));
        }
        if let Some(ending) = ending
            && self.end(own, ending)
            && let Ending::Stopped(reason) = ending
        {
            self.say_stopped(reason);
        }
    }

    /// A byte of console output.
    fn console_byte(&self, devices: &mut Devices<I>, byte: u8) {
        if devices.line.feed(byte, devices.attached) == Fed::Complete {
            self.console.lock().line(
                self.host,
                self.name.compartment,
                &self.slot.name(),
                devices.line.text(),
            );
            devices.line.clear();
        }
    }

    /// Shows a line that has no end yet, where the keyboard is this compartment's.
    pub fn show_prompt(&self) {
        let devices = self.compartment.platform.lock();
        if devices.attached && !devices.line.text().is_empty() {
            self.console.lock().partial(
                self.host,
                self.name.compartment,
                &self.slot.name(),
                devices.line.text(),
            );
        }
    }

    /// A level-triggered interrupt ended.
    #[inline(never)]
    pub fn end_of_level(&self, own: u8, vector: u8) {
        self.with_devices_seldom(own, &mut |devices, context| {
            devices.io_apic.device.end_of_interrupt(vector, context.effects);
        });
    }

    /// Carries out a write to the interrupt command register.
    pub fn command(&self, own: u8, command: &InterruptCommand) {
        let message = &command.message;
        match command.shorthand {
            Shorthand::None => self.route(own, message, command.wide),
            Shorthand::Myself => self.send(own, own, message),
            Shorthand::All | Shorthand::Others => {
                for number in 0..self.slot.vcpus() {
                    if command.shorthand == Shorthand::All || number != own {
                        self.send(own, number, message);
                    }
                }
            }
        }
    }

    /// Finds the local APICs that a message means.
    fn route(&self, own: u8, message: &InterruptMessage, wide: bool) {
        // One of the processors named takes it; which one the manual leaves open. The first that is enabled does.
        let single = message.mode == DeliveryMode::LowestPriority;
        for number in 0..self.slot.vcpus() {
            let Some(destination) = self.compartment.directory.get(usize::from(number)) else { continue };
            if !destination.matches(message.destination, message.logical, wide) {
                continue;
            }
            if single && !destination.enabled {
                continue;
            }
            self.send(own, number, message);
            if single {
                break;
            }
        }
    }

    /// Delivers a message to vCPU `number`.
    fn send(&self, own: u8, number: u8, message: &InterruptMessage) {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                self.post(number, own, message.vector, message.trigger);
            }
            DeliveryMode::NonMaskable => self.tell(number, own, request::NON_MASKABLE),
            DeliveryMode::Init => self.tell(number, own, request::INIT),
            DeliveryMode::StartUp => self.start_up(number, own, message.vector),
            // The PIC's vector through the I/O APIC: the same as its own line.
            DeliveryMode::External => self.tell(0, own, request::EXTERNAL),
            DeliveryMode::SystemManagement => self.note(Kind::Denied, Subject::InterruptCommand),
        }
    }

    /// A byte from the keyboard for this compartment; false if there is no room now.
    pub fn receive(&self, byte: u8) -> bool {
        let mut taken = false;
        self.with_devices_seldom(NOBODY, &mut |devices, context| {
            taken = devices.others.receive(byte, context);
        });
        taken
    }
}
