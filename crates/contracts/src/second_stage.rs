//! The second stage of address translation: guest-physical to host-physical.

use address::{GuestPhysical, HostPhysical};
pub use tables::{MapError, MapMode};

/// Proof that a mapping was taken away or narrowed: until it is used, processors may still hold the old translation.
#[must_use = "processors may hold the old translation until it is flushed"]
#[derive(Debug)]
pub struct FlushToken(());

impl FlushToken {
    /// Made by a second stage whose tables were narrowed.
    pub const fn new() -> Self {
        Self(())
    }

    /// The caller has flushed every processor that may hold the old translation.
    pub fn flushed(self) {}
}

impl Default for FlushToken {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether pages of 1 GiB are used where the second stage's processors need not have them: hardware part `ept-large-pages`.
pub trait HugePages {
    /// Whether they are.
    const USED: bool;
}

/// The second-stage tables of one compartment.
pub trait SecondStage {
    /// Frames typed as some compartment's own.
    type Frames;

    /// Maps all of `frames` at `at`, with the largest pages that fit. Refuses frames that are not this compartment's.
    fn map(&mut self, at: GuestPhysical, frames: &Self::Frames, mode: MapMode) -> Result<(), MapError>;

    /// Takes away `length` bytes at `at`; parts that are not mapped are passed over.
    fn unmap(&mut self, at: GuestPhysical, length: u64) -> Result<FlushToken, MapError>;

    /// Narrows or widens what is allowed on `length` bytes at `at`, splitting large pages where needed.
    fn protect(&mut self, at: GuestPhysical, length: u64, mode: MapMode) -> Result<FlushToken, MapError>;

    /// Where `at` leads, and how it may be used; `None` if nowhere.
    fn translate(&self, at: GuestPhysical) -> Option<(HostPhysical, MapMode)>;
}
