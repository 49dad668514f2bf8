//! Where pieces lie in a compartment's RAM, and that no two of them lie in the same place.

use super::{Culprit, LoadError, Piece};
use crate::platform;

/// What an entry of the memory map tells the kernel.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// RAM, free for use.
    Ram,
    /// Not for use.
    Reserved,
}

impl MapKind {
    /// Its number in E820, PVH and multiboot maps (ACPI 6.5 §15.1).
    pub fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
        }
    }
}

/// An entry of the memory map that kernels get.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub kind: MapKind,
}

/// The memory map of a compartment with `memory` bytes of RAM.
pub fn memory_map(memory: u64) -> Vec<MapEntry> {
    let (low, high) = plan::memory_layout(memory);
    let entry = |start, end: u64, kind| MapEntry { start, length: end.saturating_sub(start), kind };
    let mut map = vec![
        entry(0, platform::EBDA, MapKind::Ram),
        entry(platform::EBDA, platform::MEBIBYTE, MapKind::Reserved),
        entry(platform::MEBIBYTE, low, MapKind::Ram),
    ];
    if high > 0 {
        map.push(entry(plan::HIGH_MEMORY_START, plan::HIGH_MEMORY_START.saturating_add(high), MapKind::Ram));
    }
    map
}

/// A range that is taken.
struct Taken {
    what: &'static str,
    start: u64,
    end: u64,
}

/// The RAM of a compartment under construction.
pub(super) struct Layout {
    low: u64,
    taken: Vec<Taken>,
    pieces: Vec<Piece>,
}

impl Layout {
    /// Empty RAM of `memory` bytes.
    pub fn new(memory: u64) -> Self {
        Self { low: plan::memory_layout(memory).0, taken: Vec::new(), pieces: Vec::new() }
    }

    /// Where contiguous RAM from 0 ends.
    pub fn low_end(&self) -> u64 {
        self.low
    }

    /// Takes `length` bytes at `start`, which have to lie in low RAM and be free.
    pub fn reserve(&mut self, what: &'static str, start: u64, length: u64) -> Result<(), LoadError> {
        let end = start.checked_add(length).ok_or_else(|| {
            LoadError::broken(format!("{what} asks for memory beyond the end of the address space"))
        })?;
        if end > self.low {
            if end > plan::LOW_MEMORY_LIMIT {
                return Err(LoadError::new(
                    "kernel-address",
                    Culprit::Kernel,
                    format!(
                        "{what} asks for the address {start:#x}, and memory that loaders fill ends at 3 GiB"
                    ),
                    "Take a kernel that is linked to a physical address below 3 GiB.",
                ));
            }
            return Err(super::too_little_memory(what, end));
        }
        if let Some(other) = self.taken.iter().find(|taken| start < taken.end && taken.start < end) {
            return Err(LoadError::new(
                "kernel-overlap",
                Culprit::Kernel,
                format!("{what} asks for the addresses {start:#x} to {end:#x}, where {} lies", other.what),
                "Take a kernel that is linked to 1 MiB or above, and whose parts do not overlap.",
            ));
        }
        self.taken.push(Taken { what, start, end });
        Ok(())
    }

    /// Puts `bytes` at `start`, which have to lie in low RAM and be free.
    pub fn place(&mut self, what: &'static str, start: u64, bytes: Vec<u8>) -> Result<(), LoadError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.reserve(what, start, bytes.len() as u64)?;
        self.fill(start, bytes);
        Ok(())
    }

    /// Puts `bytes` at `start` within a range that was reserved.
    pub fn fill(&mut self, start: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.pieces.push(Piece { target: start, bytes });
        }
    }

    /// The highest page-aligned address below `end` (exclusive) from which `length` bytes are free, above 1 MiB.
    pub fn highest(&self, length: u64, end: u64) -> Option<u64> {
        let mut end = end.min(self.low);
        loop {
            let start = end.checked_sub(length)? & !0xfff;
            if start < platform::MEBIBYTE {
                return None;
            }
            match self
                .taken
                .iter()
                .filter(|taken| start < taken.end && taken.start < start + length)
                .min_by_key(|taken| taken.start)
            {
                None => return Some(start),
                Some(taken) => end = taken.start,
            }
        }
    }

    /// The lowest address that is a multiple of `alignment`, at or above `from`, from which `length` bytes are free.
    pub fn lowest(&self, length: u64, from: u64, alignment: u64) -> Option<u64> {
        let mut start = from.checked_next_multiple_of(alignment)?;
        loop {
            let end = start.checked_add(length)?;
            if end > self.low {
                return None;
            }
            match self
                .taken
                .iter()
                .filter(|taken| start < taken.end && taken.start < end)
                .max_by_key(|taken| taken.end)
            {
                None => return Some(start),
                Some(taken) => start = taken.end.checked_next_multiple_of(alignment)?,
            }
        }
    }

    /// The end of everything that was taken above 1 MiB; 1 MiB if nothing was.
    pub fn used_end(&self) -> u64 {
        self.taken.iter().map(|taken| taken.end).max().unwrap_or(0).max(platform::MEBIBYTE)
    }

    /// The pieces in ascending order.
    pub fn finish(mut self) -> Vec<Piece> {
        self.pieces.sort_by_key(|piece| piece.target);
        self.pieces
    }
}
