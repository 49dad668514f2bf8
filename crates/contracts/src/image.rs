//! The one generic parameter: everything that a product is composed of.

use crate::{DeviceSet, Host, IoApic, LegacyPic, LocalApic, Scheduler, Vcpu};

/// Capacities that a profile fixes; `limits` in its file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Compartments at a time.
    pub compartments: u8,
    /// vCPUs of a compartment.
    pub vcpus_per_compartment: u8,
    /// Host processors used.
    pub cpus: u8,
}

/// What a profile says of itself, in the image.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The name of `profiles/NAME.toml`.
    pub name: &'static str,
    /// Capacities.
    pub limits: Limits,
    /// The parts compiled in.
    pub parts: &'static [&'static str],
}

/// A product: each of its choices is a type. The monitor is generic over this and over nothing else.
pub trait Image: Sized + 'static {
    /// Virtual processors: SVM, VMX, or the fake.
    type Vcpu: Vcpu + Send;
    /// The machine.
    type Host: Host;
    /// The scheduler.
    type Scheduler: Scheduler;
    /// Local APIC of each vCPU.
    type LocalApic: LocalApic + Send;
    /// The I/O APIC.
    type IoApic: IoApic + Send;
    /// The 8259A pair.
    type LegacyPic: LegacyPic + Send;
    /// All other devices.
    type Devices: DeviceSet + Send;
    /// A clock page that guests read without an exit: part `kvm-clock`.
    type ClockPage: crate::absent::ClockPageChoice;
    /// What was compiled.
    const PROFILE: &'static Profile;
}
