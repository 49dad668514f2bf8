//! A second stage of tables: the rule that only the compartment's own frames are mapped, and the frames behind the tables. The walker
//! is [`tables`]; a format ([`StageFormat`]) is all that the vendors differ in.

use crate::Stage;
use address::{GuestPhysical, HostPhysical, HostRange};
use contracts::{FlushToken, MapError, MapMode, SecondStage};
use core::marker::PhantomData;
use core::ptr::NonNull;
use cpu::Features;
use memory::{OwnedFrames, Page};
use tables::{ENTRIES, Format, TableFrames};

/// A format of second-stage tables, and what it takes of a processor.
pub trait StageFormat: Format {
    /// What keeps it from being used on a processor with these features, as a sentence.
    fn missing(features: &Features) -> Option<&'static str>;

    /// Whether it has pages of 1 GiB there.
    fn has_huge_pages(features: &Features) -> bool;
}

/// Frames that say whose they are.
pub trait Owned {
    /// Index of the compartment whose RAM they are.
    fn owner(&self) -> u8;
    /// Where they lie.
    fn range(&self) -> HostRange;
}

impl Owned for OwnedFrames {
    fn owner(&self) -> u8 {
        Self::owner(self)
    }

    fn range(&self) -> HostRange {
        Self::range(self)
    }
}

/// Contiguous private frames for the tables of one compartment; the first is the root.
pub struct Stock {
    first: NonNull<u64>,
    physical: u64,
    count: usize,
    used: usize,
    /// Whether the processor has 1 GiB pages.
    huge: bool,
}

// SAFETY: the frames are one compartment's own; whoever owns the value may use them on any processor.
unsafe impl Send for Stock {}

impl Stock {
    fn entry(&self, table: u64, index: usize) -> Option<NonNull<u64>> {
        let frame = (table.checked_sub(self.physical)? / 0x1000) as usize;
        // SAFETY: `frame` is below `used`, which is at most the number of contiguous frames behind `first`, and `index` below 512,
        // so the entry lies in them.
        (frame < self.used && index < ENTRIES).then(|| unsafe { self.first.add(frame * ENTRIES + index) })
    }
}

impl TableFrames for Stock {
    fn largest_leaf(&self) -> u8 {
        if self.huge { 3 } else { 2 }
    }

    fn allocate(&mut self) -> Option<u64> {
        if self.used == self.count {
            return None;
        }
        self.used += 1;
        // Frames come zeroed from the private area and are never given back.
        Some(self.physical + (self.used as u64 - 1) * 0x1000)
    }

    fn get(&self, table: u64, index: usize) -> u64 {
        // SAFETY: the entry lies in this stock's own frames, mapped while the compartment is served; the processor's walker may
        // read it at the same time, and writes nothing: formats set accessed and dirty from the start, or have none.
        self.entry(table, index).map_or(0, |entry| unsafe { entry.read_volatile() })
    }

    fn set(&mut self, table: u64, index: usize, value: u64) {
        if let Some(entry) = self.entry(table, index) {
            // SAFETY: as in `get`; aligned eight-byte writes are seen by the walker whole.
            unsafe { entry.write_volatile(value) };
        }
    }
}

/// The second-stage tables of one compartment, in format `F`. Their frames are a [`Stock`] and what they map are [`OwnedFrames`], but in
/// tests.
pub struct StageTables<F, S = Stock, O = OwnedFrames> {
    owner: u8,
    root: u64,
    frames: S,
    format: PhantomData<fn(F, O)>,
}

impl<F: Format, S: TableFrames, O: Owned> StageTables<F, S, O> {
    /// Empty tables of compartment `owner`, whose root is the zeroed frame `root` of `frames`.
    pub fn in_frames(owner: u8, root: u64, frames: S) -> Self {
        Self { owner, root, frames, format: PhantomData }
    }
}

impl<F: Format, S: TableFrames, O: Owned> SecondStage for StageTables<F, S, O> {
    type Frames = O;

    fn map(&mut self, at: GuestPhysical, frames: &O, mode: MapMode) -> Result<(), MapError> {
        if frames.owner() != self.owner {
            return Err(MapError::NotOwned);
        }
        let range = frames.range();
        tables::map::<F>(&mut self.frames, self.root, at, range.start(), range.length(), mode)
    }

    fn unmap(&mut self, at: GuestPhysical, length: u64) -> Result<FlushToken, MapError> {
        tables::change::<F>(&mut self.frames, self.root, at, length, None)?;
        Ok(FlushToken::new())
    }

    fn protect(&mut self, at: GuestPhysical, length: u64, mode: MapMode) -> Result<FlushToken, MapError> {
        tables::change::<F>(&mut self.frames, self.root, at, length, Some(mode))?;
        Ok(FlushToken::new())
    }

    fn translate(&self, at: GuestPhysical) -> Option<(HostPhysical, MapMode)> {
        tables::translate::<F>(&self.frames, self.root, at)
    }
}

impl<F: StageFormat> Stage for StageTables<F> {
    fn missing(features: &Features) -> Option<&'static str> {
        F::missing(features)
    }

    /// The root, a table a 512 GiB, one a GiB, and two spare ones an extent for ends that are no multiple of 2 MiB.
    fn pages(ram: u64, extents: usize) -> usize {
        3 + ram.div_ceil(1 << 30) as usize + 2 * extents
    }

    fn new(owner: u8, pages: Page, count: usize, features: &Features) -> Self {
        let physical = pages.physical().get();
        let frames = Stock {
            first: pages.pointer().cast(),
            physical,
            count: count.max(1),
            used: 1,
            huge: F::has_huge_pages(features),
        };
        Self::in_frames(owner, physical, frames)
    }

    fn root(&self) -> HostPhysical {
        HostPhysical::new(self.root)
    }
}
