//! The interrupt fabric's contracts: lines, messages, the two controllers and the local APIC.

use crate::{Device, Effects, GuestTicks};
use x86::interrupts::InterruptRegisters;

/// An interrupt line of the platform, numbered as ISA numbers its IRQs: 0 to 15, then the I/O APIC's further pins 16
/// to 23. The fabric maps line 0 to I/O APIC pin 2 (as the compartment's MADT says); all others to their own number.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Line(pub u8);

/// How an interrupt is to be delivered (APM Vol. 2 §16.5, table 16-4).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DeliveryMode {
    /// To the processors named.
    Fixed = 0,
    /// To the one of the processors named that has the lowest priority.
    LowestPriority = 1,
    /// System management interrupt; not delivered in a compartment.
    SystemManagement = 2,
    /// Non-maskable interrupt.
    NonMaskable = 4,
    /// INIT.
    Init = 5,
    /// Start-up: the vector names the page to start at.
    StartUp = 6,
    /// From the PIC, which will name the vector.
    External = 7,
}

impl DeliveryMode {
    /// The mode of that three-bit code; `None` for the reserved one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::SystemManagement),
            4 => Some(Self::NonMaskable),
            5 => Some(Self::Init),
            6 => Some(Self::StartUp),
            7 => Some(Self::External),
            _ => None,
        }
    }
}

/// Edge or level.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Each change counts once.
    Edge,
    /// Asserted until the device lets go; its EOI is told to the I/O APIC.
    Level,
}

/// An interrupt on its way to one or more local APICs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct InterruptMessage {
    /// Destination: APIC id (physical) or set (logical), 8 bits from an I/O APIC, 32 from an x2APIC command.
    pub destination: u32,
    /// Whether `destination` is a logical set.
    pub logical: bool,
    /// How.
    pub mode: DeliveryMode,
    /// Vector; 0 to 15 are illegal for [`DeliveryMode::Fixed`].
    pub vector: u8,
    /// Edge or level.
    pub trigger: Trigger,
}

/// The destination shorthand of an interrupt command (APM Vol. 2 §16.5).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Shorthand {
    /// None: the message's destination counts.
    None,
    /// The sender alone.
    Myself,
    /// All, the sender included.
    All,
    /// All but the sender.
    Others,
}

/// A write to the interrupt command register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct InterruptCommand {
    /// To whom.
    pub shorthand: Shorthand,
    /// What.
    pub message: InterruptMessage,
    /// Whether the sender is in x2APIC mode: logical and broadcast destinations are then 32 bits wide.
    pub wide: bool,
}

/// What a local APIC answers to when messages look for it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct ApicDestination {
    /// Physical id: 8 bits in xAPIC mode, 32 in x2APIC mode.
    pub id: u32,
    /// Logical id: LDR bits 31–24 in xAPIC mode, the whole derived LDR in x2APIC mode.
    pub logical: u32,
    /// xAPIC: flat model (true) or cluster model.
    pub flat: bool,
    /// x2APIC mode.
    pub wide: bool,
    /// Software-enabled: takes fixed and lowest-priority interrupts.
    pub enabled: bool,
}

impl ApicDestination {
    /// Whether a message to `destination` means this APIC (APM Vol. 2 §16.6, §16.14; SDM Vol. 3A §11.6.2, §11.12.10).
    ///
    /// `wide` says that the destination is 32 bits wide (an x2APIC sender); otherwise only its low byte counts.
    pub const fn matches(&self, destination: u32, logical: bool, wide: bool) -> bool {
        let broadcast = if wide { u32::MAX } else { 0xff };
        if destination == broadcast {
            return true;
        }
        if !logical {
            return destination == self.id;
        }
        if self.wide {
            if !wide {
                // An 8-bit logical destination cannot name an x2APIC cluster but the first (SDM Vol. 3A §11.12.10.2).
                return self.logical >> 16 == 0 && self.logical & destination & 0xffff != 0;
            }
            return self.logical >> 16 == destination >> 16 && self.logical & destination & 0xffff != 0;
        }
        if self.flat {
            return self.logical & destination & 0xff != 0;
        }
        let (cluster, members) = ((destination >> 4) & 15, destination & 15);
        (cluster == 15 || cluster == (self.logical >> 4) & 15) && members & self.logical & 15 != 0
    }
}

/// What an access to a local APIC asks of the fabric.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct ApicEffects {
    /// An interrupt command to carry out.
    pub command: Option<InterruptCommand>,
    /// The vector of a level-triggered interrupt that ended: to be told to the I/O APIC.
    pub level_end: Option<u8>,
    /// What messages have to match may have changed: publish [`LocalApic::destination`] again.
    pub destination_changed: bool,
}

/// A pin of a local APIC (SDM Vol. 3A §11.5.1, APM Vol. 2 §16.4.2). The local vector table says what it does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LocalPin {
    /// LINT0, which is INTR where the APIC is disabled. The first vCPU's is wired to the PIC's output, the others' to nothing.
    Lint0 = 0,
    /// LINT1, which is NMI where the APIC is disabled. No device of the platform drives it.
    Lint1 = 1,
}

/// The 8259A pair (part `pic`).
pub trait LegacyPic: Device {
    /// Drives input 0 to 15.
    fn set_line(&mut self, line: u8, level: bool);
    /// Whether INTR is asserted.
    fn output(&self) -> bool;
    /// The acknowledge cycle: the vector to deliver; the spurious one of the controller if the request went away.
    fn acknowledge(&mut self) -> u8;
}

/// The I/O APIC (part `io-apic`).
pub trait IoApic: Device {
    /// Drives pin 0 to 23; messages that follow go into `effects`.
    fn set_line(&mut self, pin: u8, level: bool, effects: &mut Effects);
    /// A local APIC ended a level-triggered interrupt of this vector.
    fn end_of_interrupt(&mut self, vector: u8, effects: &mut Effects);
}

/// The local APIC of one vCPU. Register offsets are those of the hardware's page (APM Vol. 2 table 16-2): 0x20, 0x30 …
pub trait LocalApic: Sized {
    /// The APIC of the vCPU with that id (0 to 254). The bootstrap processor's is as firmware leaves it: enabled, LINT0
    /// taking the PIC's interrupts (virtual wire), LINT1 NMI. The others are as after reset.
    fn new(id: u8, bootstrap: bool) -> Self;

    /// INIT: everything but the id and the base returns to its reset value.
    fn init(&mut self);

    /// The APIC base MSR.
    fn base(&self) -> u64;

    /// Writes the APIC base MSR; false: #GP, nothing changed (reserved bits, illegal change of mode).
    fn write_base(&mut self, value: u64, effects: &mut ApicEffects) -> bool;

    /// Whether the register page answers (xAPIC mode), and then at which guest-physical address.
    fn page(&self) -> Option<u64>;

    /// Reads a register of the page, 32 bits at `offset` (0 to 0xfff, a multiple of 4; others read as 0).
    fn read(&mut self, offset: u16, now: GuestTicks) -> u32;

    /// Writes a register of the page.
    fn write(&mut self, offset: u16, value: u32, now: GuestTicks, effects: &mut ApicEffects);

    /// RDMSR of 0x800 to 0x8ff; `None`: #GP.
    fn read_msr(&mut self, msr: u32, now: GuestTicks) -> Option<u64>;

    /// WRMSR of 0x800 to 0x8ff; false: #GP, nothing changed.
    fn write_msr(&mut self, msr: u32, value: u64, now: GuestTicks, effects: &mut ApicEffects) -> bool;

    /// Whether it is in x2APIC mode.
    fn is_extended(&self) -> bool;

    /// What a write of 0 to the end-of-interrupt register does, in either mode: the interrupt in service ends. Answers its vector if
    /// it was level-triggered: to be told to the I/O APIC. For the busiest of all writes; it needs no clock.
    fn end_of_interrupt(&mut self) -> Option<u8>;

    /// The TSC deadline MSR: 0 where the timer is in another mode or not armed.
    fn tsc_deadline(&self) -> u64;

    /// Writes the TSC deadline MSR; ignored in the other timer modes.
    fn set_tsc_deadline(&mut self, value: u64, now: GuestTicks);

    /// A fixed interrupt from the fabric; ignored while software-disabled. Vectors 0 to 15 set the error status.
    fn accept(&mut self, vector: u8, trigger: Trigger);

    /// The level at a pin has changed, once or more often, and is `level` now. Answers what the processor is to be sent:
    /// [`DeliveryMode::NonMaskable`], [`DeliveryMode::Init`] or [`DeliveryMode::SystemManagement`]. `None`: nothing, or a fixed
    /// interrupt, which is then requested. For external interrupts see [`Self::takes_external`].
    fn set_pin(&mut self, pin: LocalPin, level: bool) -> Option<DeliveryMode>;

    /// Whether LINT0 asserts the processor's INTR, so that the PIC's acknowledge cycle will name a vector. `level` is the pin's, as
    /// [`Self::set_pin`] was told.
    fn takes_external(&self, level: bool) -> bool;

    /// The vector that the processor should take now: the highest requested one above the processor priority.
    fn pending(&self) -> Option<u8>;

    /// The processor takes [`Self::pending`]: moves it from requested to in service.
    fn acknowledge(&mut self) -> Option<u8>;

    /// What a processor may hold while the guest runs (see [`crate::Vcpu::hold_interrupts`]): in x2APIC mode, enabled by software. What is
    /// requested while it does, is [pending](Self::pending) here.
    fn lendable(&mut self) -> Option<&mut InterruptRegisters> {
        None
    }

    /// The processor, which holds the services, ended an interrupt whose trigger was level. Answers whether it is to be told to the I/O APIC.
    fn ended_level(&mut self, _vector: u8) -> bool {
        false
    }

    /// The task priority as CR8 shows it, 0 to 15.
    fn task_priority(&self) -> u8;

    /// MOV to CR8, 0 to 15.
    fn set_task_priority(&mut self, priority: u8);

    /// When the timer next goes off, if it is armed and not masked.
    fn deadline(&self) -> Option<GuestTicks>;

    /// Called at or after the deadline: requests the timer's interrupt and re-arms a periodic timer. Early calls do
    /// nothing.
    fn expire(&mut self, now: GuestTicks);

    /// What messages have to match.
    fn destination(&self) -> ApicDestination;
}
