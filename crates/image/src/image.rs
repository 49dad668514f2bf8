//! The product: every choice of [`contracts::Image`], made from [`crate::parts`].

use crate::parts;
use contracts::{Attached, Image, Profile};

include!(concat!(env!("OUT_DIR"), "/profile.rs"));

/// Compartments that this image holds.
pub const COMPARTMENTS: usize = PROFILE.limits.compartments as usize;
/// vCPUs of a compartment.
pub const VCPUS: usize = PROFILE.limits.vcpus_per_compartment as usize;
/// vCPUs of all compartments.
pub const ALL_VCPUS: usize = COMPARTMENTS * VCPUS;

/// This product.
pub struct Product;

impl Image for Product {
    type Vcpu = <parts::BackEnd as backend::BackEnd>::Vcpu;
    type Host = boot::Machine;
    type Scheduler = parts::Schedule<ALL_VCPUS>;
    type LocalApic = parts::LocalApic;
    type IoApic = parts::IoApic;
    type LegacyPic = parts::Pic;
    /// In the order in which an access asks them: the busiest first.
    type Devices = (
        Attached<parts::Uart>,
        (
            Attached<parts::AcpiPower>,
            (Attached<parts::Pit>, (Attached<parts::Rtc>, (Attached<parts::PciHost>, ()))),
        ),
    );
    type ClockPage = parts::ClockPage;
    const PROFILE: &'static Profile = &PROFILE;
}
