//! Nested page tables of AMD-V (APM Vol. 2 §15.25): the second stage in the processor's own long-mode format.
//!
//! Row 3 (metal). The walker is [`tables`]; here are the bits of an entry, the frames behind it, and the rule that only
//! the compartment's own frames are mapped.
#![no_std]

use address::{GuestPhysical, HostPhysical};
use backend::Stage;
use contracts::{FlushToken, MapError, MapMode, SecondStage};
use core::ptr::NonNull;
use cpu::Features;
use memory::{OwnedFrames, Page};
use tables::{ENTRIES, Format, TableFrames};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// Every nested access counts as a user access (APM Vol. 2 §15.25.5).
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The long-mode format. Accessed and dirty are set from the start: nobody asks for them, and the processor then never has to write
/// them.
pub struct Nested;

impl Format for Nested {
    const LEVELS: u8 = 4;

    fn leaf(address: u64, level: u8, mode: MapMode) -> u64 {
        let mut entry = (address & ADDRESS) | PRESENT | USER | ACCESSED | DIRTY;
        if mode.write {
            entry |= WRITE;
        }
        if !mode.execute {
            entry |= NO_EXECUTE;
        }
        if level > 1 {
            entry |= LARGE;
        }
        entry
    }

    fn table(address: u64) -> u64 {
        (address & ADDRESS) | PRESENT | WRITE | USER | ACCESSED
    }

    fn is_present(entry: u64) -> bool {
        entry & PRESENT != 0
    }

    fn is_leaf(entry: u64, level: u8) -> bool {
        level == 1 || entry & LARGE != 0
    }

    fn address(entry: u64, _: u8) -> u64 {
        entry & ADDRESS
    }

    fn mode(entry: u64) -> MapMode {
        MapMode { write: entry & WRITE != 0, execute: entry & NO_EXECUTE == 0 }
    }
}

/// Contiguous private frames for the tables of one compartment; the first is the root.
struct Stock {
    first: NonNull<u64>,
    physical: u64,
    count: usize,
    used: usize,
    /// Whether the processor has 1 GiB pages.
    huge: bool,
}

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
        // read it at the same time, and writes nothing, since accessed and dirty are set from the start.
        self.entry(table, index).map_or(0, |entry| unsafe { entry.read_volatile() })
    }

    fn set(&mut self, table: u64, index: usize, value: u64) {
        if let Some(entry) = self.entry(table, index) {
            // SAFETY: as in `get`; aligned eight-byte writes are seen by the walker whole.
            unsafe { entry.write_volatile(value) };
        }
    }
}

/// The nested page tables of one compartment.
pub struct NestedTables {
    owner: u8,
    stock: Stock,
}

// SAFETY: the frames are this compartment's own; whoever owns the value may use them on any processor.
unsafe impl Send for NestedTables {}

impl Stage for NestedTables {
    fn missing(features: &Features) -> Option<&'static str> {
        (!features.npt).then_some("this processor has AMD-V but no nested paging, which part npt needs")
    }

    /// The root, a table a 512 GiB, one a GiB, and two spare ones an extent for ends that are no multiple of 2 MiB.
    fn pages(ram: u64, extents: usize) -> usize {
        3 + ram.div_ceil(1 << 30) as usize + 2 * extents
    }

    fn new(owner: u8, pages: Page, count: usize, features: &Features) -> Self {
        Self {
            owner,
            stock: Stock {
                first: pages.pointer().cast(),
                physical: pages.physical().get(),
                count: count.max(1),
                used: 1,
                huge: features.page_1g,
            },
        }
    }

    fn root(&self) -> HostPhysical {
        HostPhysical::new(self.stock.physical)
    }
}

impl SecondStage for NestedTables {
    type Frames = OwnedFrames;

    fn map(&mut self, at: GuestPhysical, frames: &OwnedFrames, mode: MapMode) -> Result<(), MapError> {
        if frames.owner() != self.owner {
            return Err(MapError::NotOwned);
        }
        let (root, range) = (self.stock.physical, frames.range());
        let (to, length) = (range.start(), range.length());
        tables::map::<Nested>(&mut self.stock, root, at, to, length, mode)
    }

    fn unmap(&mut self, at: GuestPhysical, length: u64) -> Result<FlushToken, MapError> {
        let root = self.stock.physical;
        tables::change::<Nested>(&mut self.stock, root, at, length, None)?;
        Ok(FlushToken::new())
    }

    fn protect(&mut self, at: GuestPhysical, length: u64, mode: MapMode) -> Result<FlushToken, MapError> {
        let root = self.stock.physical;
        tables::change::<Nested>(&mut self.stock, root, at, length, Some(mode))?;
        Ok(FlushToken::new())
    }

    fn translate(&self, at: GuestPhysical) -> Option<(HostPhysical, MapMode)> {
        tables::translate::<Nested>(&self.stock, self.stock.physical, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_bits_of_the_manual() {
        // APM Vol. 2 §5.3.3, figures 5-21 to 5-24.
        assert_eq!(Nested::leaf(0x1234_5000, 1, MapMode::RAM), 0x1234_5067);
        assert_eq!(Nested::leaf(0x4000_0000, 3, MapMode::ROM), 0x4000_00e5);
        let data = MapMode { write: true, execute: false };
        assert_eq!(Nested::leaf(0x20_0000, 2, data), 1 << 63 | 0x20_00e7);
        assert_eq!(Nested::table(0x7000), 0x7027);
        assert_eq!(Nested::mode(1 << 63 | 0x20_00e7), data);
    }
}
