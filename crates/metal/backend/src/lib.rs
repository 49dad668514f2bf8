//! What the image asks of a virtualization back end and of a second stage while it builds compartments.
//!
//! Row 3 (metal): these speak of frames and of processors, which the contracts do not know. [`NoBackEnd`] and [`NoStage`] stand where a profile has
//! none: they name what is missing, and nothing can be built with them.
#![no_std]

mod event;
mod stage;

pub use event::{GENERAL_DETECT, combined, resumes};
pub use stage::{Owned, StageFormat, StageTables, Stock};

use address::{GuestPhysical, HostPhysical};
use contracts::{CpuIndex, MapError, SecondStage, Vcpu};
use cpu::Features;
use memory::{Frames, OwnedFrames, Page, PrivateArea, Space};

/// A virtualization back end: `svm` or `vmx`.
pub trait BackEnd {
    /// Its virtual processors.
    type Vcpu: Vcpu + Send;

    /// Whether it is one: false for [`NoBackEnd`].
    const PRESENT: bool = true;

    /// What keeps it from running on a processor with these features, as a sentence. Changes nothing.
    fn missing(features: &Features) -> Option<&'static str>;

    /// Takes what all processors need from the frames. Called once, on the bootstrap processor, before [`Self::enable`]. Where
    /// there is no room for them, the error says how many bytes they need.
    fn prepare(frames: &mut Frames, cpus: usize) -> Result<(), u64>;

    /// Switches virtualization on for this processor, which is number `cpu`.
    fn enable(cpu: CpuIndex, features: &Features) -> bool;

    /// Private pages that one virtual processor needs.
    fn pages(features: &Features) -> usize;

    /// Whether a compartment's guest is shown a private page: see [`Self::shown`].
    const SHOWN: bool = false;

    /// A page that the back end wants to have in the guest's physical memory, read-only, and where. `None`: none, or the area has no pages left.
    fn shown(_area: &mut PrivateArea) -> Option<(GuestPhysical, OwnedFrames)> {
        None
    }

    /// Makes a virtual processor in `area`, whose compartment's second stage has its root at `root`. `number` counts all of the
    /// machine from 0. `None`: the area has no pages left.
    fn vcpu(
        area: &mut PrivateArea,
        root: HostPhysical,
        number: u32,
        features: &Features,
    ) -> Option<Self::Vcpu>;
}

/// A second stage while it is built.
pub trait Stage: SecondStage<Frames = OwnedFrames> + Sized {
    /// What keeps it from being used on a processor with these features, as a sentence.
    fn missing(features: &Features) -> Option<&'static str>;

    /// Private pages that tables for so many bytes of RAM in so many extents need at most.
    fn pages(ram: u64, extents: usize) -> usize;

    /// Empty tables of compartment `owner` in `count` contiguous zeroed pages.
    fn new(owner: u8, pages: Page, count: usize, features: &Features) -> Self;

    /// The root.
    fn root(&self) -> HostPhysical;
}

/// Looks at what is mapped while guests run, and lays out what none of them may find: part `isolation-check`. What it finds wrong
/// is a fault of ours, and stops the machine with a sentence. An entry that the processor refuses is a fault of ours too, and named.
pub trait Watch {
    /// Private pages that it wants of each compartment.
    const PAGES: usize = 0;

    /// Whether the rule that a refused entry breaks is looked for where the processor does not name it. Products do without the rules.
    const NAMES_RULES: bool = false;

    /// Memory and processor are known; nothing was carved for compartments, and no other processor runs. The boot window is mapped.
    fn begin(_: &Frames, _: &Features) {}

    /// The space of a compartment was made. The boot window is mapped.
    fn made(_: &Space) {}

    /// The space of compartment `index` is loaded, its second stage has its root at `root`, and `area` has [`Self::PAGES`] left for it.
    fn built(_index: u8, _root: HostPhysical, _area: &mut PrivateArea) {}

    /// This processor is about to take guests.
    fn enabled() {}

    /// A virtual processor is about to be loaded in this processor, whose second stage has its root at `root`.
    #[inline(always)]
    fn attached(_root: HostPhysical) {}

    /// It has come back from its guest.
    #[inline(always)]
    fn exited(_root: HostPhysical) {}

    /// How often all mappings were looked at, for the end of a run; `None` where nobody looks.
    fn looks() -> Option<u64> {
        None
    }
}

/// Nobody looks.
pub struct NoWatch;

impl Watch for NoWatch {}

/// No back end.
pub struct NoBackEnd;

/// No second stage.
pub struct NoStage;

/// What stands in the roles of metal where their parts are left out; see [`contracts::absent::roles`].
pub mod roles {
    /// No back end for AMD's processors.
    pub type AmdBackEnd = super::NoBackEnd;
    /// No second stage for it.
    pub type AmdStage = super::NoStage;
    /// No back end for Intel's processors.
    pub type IntelBackEnd = super::NoBackEnd;
    /// No second stage for it.
    pub type IntelStage = super::NoStage;
    /// Nobody looks at what is mapped.
    pub type Watch = super::NoWatch;
}

impl BackEnd for NoBackEnd {
    type Vcpu = contracts::absent::NoVcpu;
    const PRESENT: bool = false;

    fn missing(_: &Features) -> Option<&'static str> {
        Some("this image has no virtualization back end: its profile names neither part svm nor part vmx")
    }

    fn prepare(_: &mut Frames, _: usize) -> Result<(), u64> {
        Err(0)
    }

    fn enable(_: CpuIndex, _: &Features) -> bool {
        false
    }

    fn pages(_: &Features) -> usize {
        0
    }

    fn vcpu(_: &mut PrivateArea, _: HostPhysical, _: u32, _: &Features) -> Option<Self::Vcpu> {
        None
    }
}

impl SecondStage for NoStage {
    type Frames = OwnedFrames;

    fn map(
        &mut self,
        _: address::GuestPhysical,
        _: &OwnedFrames,
        _: contracts::MapMode,
    ) -> Result<(), MapError> {
        Err(MapError::NoFrames)
    }

    fn unmap(&mut self, _: address::GuestPhysical, _: u64) -> Result<contracts::FlushToken, MapError> {
        Err(MapError::NoFrames)
    }

    fn protect(
        &mut self,
        _: address::GuestPhysical,
        _: u64,
        _: contracts::MapMode,
    ) -> Result<contracts::FlushToken, MapError> {
        Err(MapError::NoFrames)
    }

    fn translate(&self, _: address::GuestPhysical) -> Option<(HostPhysical, contracts::MapMode)> {
        None
    }
}

impl Stage for NoStage {
    fn missing(_: &Features) -> Option<&'static str> {
        Some("this image has no second stage: its profile names neither part npt nor part ept")
    }

    fn pages(_: u64, _: usize) -> usize {
        0
    }

    fn new(_: u8, _: Page, _: usize, _: &Features) -> Self {
        Self
    }

    fn root(&self) -> HostPhysical {
        HostPhysical::new(0)
    }
}
