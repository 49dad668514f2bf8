//! The products: every choice of [`contracts::Image`], made from [`crate::parts`]. There is one for each vendor that the profile names;
//! they differ in back end and second stage alone.

use backend::{BackEnd, Stage};
use boot::Machine;
use contracts::{Attached, Image, Profile};

use crate::setup::Places;
use crate::{parts, setup};

include!(concat!(env!("OUT_DIR"), "/profile.rs"));

/// Compartments that this image holds.
pub const COMPARTMENTS: usize = PROFILE.limits.compartments as usize;
/// vCPUs of a compartment.
pub const VCPUS: usize = PROFILE.limits.vcpus_per_compartment as usize;
/// vCPUs of all compartments.
pub const ALL_VCPUS: usize = COMPARTMENTS * VCPUS;

/// A product, with what only set-up asks for.
pub trait Product: Image<Vcpu = <Self::BackEnd as BackEnd>::Vcpu, Host = Machine> {
    /// The back end.
    type BackEnd: BackEnd;
    /// The second stage.
    type Stage: Stage;

    /// Where its monitor and its compartments have their places. A static, which no generic code can have of its own.
    fn places() -> &'static Places<Self>;
}

/// Defines the product `$name` of a back end and a second stage.
macro_rules! product {
    ($name:ident, $back_end:ty, $stage:ty) => {
        struct $name;

        impl Image for $name {
            type Vcpu = <$back_end as BackEnd>::Vcpu;
            type Host = Machine;
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

        impl Product for $name {
            type BackEnd = $back_end;
            type Stage = $stage;

            fn places() -> &'static Places<Self> {
                static PLACES: Places<$name> = Places::new();
                &PLACES
            }
        }
    };
}

product!(Amd, parts::AmdBackEnd, parts::AmdStage);
product!(Intel, parts::IntelBackEnd, parts::IntelStage);

/// What the boot code has to know of this image. Of a product that the profile does not name nothing is compiled; an image with none is
/// refused by every processor.
pub const IMAGE: boot::Product = match (parts::AmdBackEnd::PRESENT, parts::IntelBackEnd::PRESENT) {
    (true, true) => setup::either::<Amd, Intel>(),
    (false, true) => setup::one::<Intel>(),
    (_, false) => setup::one::<Amd>(),
};
