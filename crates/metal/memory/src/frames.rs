//! Frames: physical memory that is free, and carved once. Nothing is ever given back.

use crate::BOOT_REACH;
use address::{HostPhysical, HostRange, PAGE_1G, PAGE_2M, PAGE_4K};
use heapless::Vec;

/// Most pieces in which a compartment's RAM may lie.
pub const MOST_EXTENTS: usize = 8;
/// Most free pieces that are kept; the smallest beyond that are given up.
const MOST_FREE: usize = 64;
/// Nothing below this address is carved: firmware and the start of the other processors live there.
const LOWEST: u64 = 0x10_0000;

/// A piece of the machine's memory map.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Where it lies.
    pub range: HostRange,
    /// Whether it is RAM that nobody claims.
    pub usable: bool,
}

/// Frames of one compartment's RAM. Only this crate makes them, from frames that were carved for that compartment, so that
/// whoever holds one cannot be talked into mapping anything else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedFrames {
    owner: u8,
    range: HostRange,
}

impl OwnedFrames {
    pub(crate) const fn new(owner: u8, range: HostRange) -> Self {
        Self { owner, range }
    }

    /// Index of the compartment whose RAM they are.
    pub const fn owner(&self) -> u8 {
        self.owner
    }

    /// Where they lie.
    pub const fn range(&self) -> HostRange {
        self.range
    }
}

/// Free pieces, page-aligned, disjoint.
#[derive(Clone, Debug, Default)]
struct Free(Vec<HostRange, MOST_FREE>);

const fn align_up(value: u64, alignment: u64) -> Option<u64> {
    match value.checked_add(alignment - 1) {
        Some(sum) => Some(sum & !(alignment - 1)),
        None => None,
    }
}

/// The range from `start` to `end`, if there is anything in it.
fn between(start: u64, end: u64) -> Option<HostRange> {
    HostRange::new(HostPhysical::new(start), end.checked_sub(start)?)
}

impl Free {
    fn new(map: impl Iterator<Item = Region> + Clone, excluded: &[HostRange]) -> Self {
        let mut free = Self::default();
        for region in map.clone().filter(|region| region.usable) {
            let Some(start) = align_up(region.range.start().get().max(LOWEST), PAGE_4K) else { continue };
            let end = region.range.end().align_down(PAGE_4K).get();
            if let Some(range) = between(start, end) {
                // A map that lists memory twice must not make it free twice.
                free.remove(range);
                free.add(range);
            }
        }
        for region in map.filter(|region| !region.usable) {
            free.remove(region.range);
        }
        for range in excluded {
            free.remove(*range);
        }
        free
    }

    fn add(&mut self, range: HostRange) {
        if let Err(range) = self.0.push(range)
            && let Some(smallest) = self.0.iter_mut().min_by_key(|piece| piece.length())
            && smallest.length() < range.length()
        {
            *smallest = range;
        }
    }

    /// Takes out whole pages that share a byte with `range`.
    fn remove(&mut self, range: HostRange) {
        let start = range.start().align_down(PAGE_4K).get();
        let end = align_up(range.end().get(), PAGE_4K).unwrap_or(u64::MAX);
        let mut rest = Self::default();
        for piece in &self.0 {
            for part in [
                between(piece.start().get(), piece.end().get().min(start)),
                between(piece.start().get().max(end), piece.end().get()),
            ]
            .into_iter()
            .flatten()
            {
                rest.add(part);
            }
        }
        *self = rest;
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(HostRange::length).fold(0, u64::saturating_add)
    }

    /// The smallest piece that has room, from its start, below [`BOOT_REACH`].
    fn carve(&mut self, bytes: u64, alignment: u64) -> Option<HostRange> {
        let bytes = align_up(bytes.max(1), PAGE_4K)?;
        let alignment = alignment.max(PAGE_4K).checked_next_power_of_two()?;
        let (_, range) = self
            .0
            .iter()
            .filter_map(|piece| {
                let start = align_up(piece.start().get(), alignment)?;
                let range = HostRange::new(HostPhysical::new(start), bytes)?;
                (range.end() <= piece.end() && range.end().get() <= BOOT_REACH)
                    .then_some((piece.length(), range))
            })
            .min_by_key(|(length, _)| *length)?;
        self.remove(range);
        Some(range)
    }

    /// The best piece for RAM of `wanted` bytes: one that has room for all of it, the highest such; else the largest. 1 GiB pages
    /// are worth more than room.
    fn best(&self, wanted: u64) -> Option<HostRange> {
        let aligned = |piece: &HostRange, alignment: u64| {
            let start = align_up(piece.start().get(), alignment)?;
            between(start, piece.end().align_down(PAGE_2M).get()).filter(|range| range.length() >= alignment)
        };
        let candidates = |alignment: u64| {
            self.0
                .iter()
                .filter_map(move |piece| aligned(piece, alignment))
                .max_by_key(|range| (range.length().min(wanted), range.start()))
        };
        let huge = if wanted >= PAGE_1G { candidates(PAGE_1G) } else { None };
        let range = huge.or_else(|| candidates(PAGE_2M))?;
        HostRange::new(range.start(), range.length().min(wanted))
    }

    fn carve_extents(&mut self, bytes: u64) -> Option<Vec<HostRange, MOST_EXTENTS>> {
        let mut left = align_up(bytes, PAGE_2M).filter(|left| *left > 0)?;
        let mut rest = self.clone();
        let mut extents = Vec::new();
        while left > 0 {
            let extent = rest.best(left)?;
            rest.remove(extent);
            left -= extent.length();
            extents.push(extent).ok()?;
        }
        *self = rest;
        Some(extents)
    }
}

/// Free physical memory of the machine, from which everything is carved at boot.
#[derive(Debug)]
pub struct Frames {
    free: Free,
    total: u64,
}

impl Frames {
    /// None at all.
    pub const NONE: Self = Self { free: Free(Vec::new()), total: 0 };

    /// All usable memory of `map` from 1 MiB on, without `excluded`.
    ///
    /// # Safety
    ///
    /// This is called once. Whatever is in use and lies in usable memory, the image and the boot module above all, is among
    /// `excluded`.
    pub unsafe fn new(map: impl Iterator<Item = Region> + Clone, excluded: &[HostRange]) -> Self {
        let free = Free::new(map, excluded);
        let total = free.bytes();
        Self { free, total }
    }

    /// Carves `bytes`, rounded up to pages, at a multiple of `alignment`, below 4 GiB. `None` where no free piece has room;
    /// nothing changes then. The memory holds whatever it held.
    pub fn carve(&mut self, bytes: u64, alignment: u64) -> Option<HostRange> {
        self.free.carve(bytes, alignment)
    }

    /// Carves `bytes`, rounded up to 2 MiB, in up to eight pieces of whole 2 MiB pages anywhere; pieces of 1 GiB and more begin at
    /// multiples of 1 GiB where possible. `None` where there is not enough; nothing changes then.
    pub fn carve_extents(&mut self, bytes: u64) -> Option<Vec<HostRange, MOST_EXTENTS>> {
        self.free.carve_extents(bytes)
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free.bytes()
    }

    /// Bytes that were free at first.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The free pieces.
    pub fn pieces(&self) -> &[HostRange] {
        &self.free.0
    }

    /// A copy to try things on: what fits there will fit here, if done in the same order.
    pub fn trial(&self) -> Trial {
        Trial(self.free.clone())
    }
}

/// Free memory on paper. Nothing that is carved here can be used.
#[derive(Clone, Debug)]
pub struct Trial(Free);

impl Trial {
    /// Whether [`Frames::carve`] would find room.
    #[must_use]
    pub fn carve(&mut self, bytes: u64, alignment: u64) -> bool {
        self.0.carve(bytes, alignment).is_some()
    }

    /// Whether [`Frames::carve_extents`] would find room.
    #[must_use]
    pub fn carve_extents(&mut self, bytes: u64) -> bool {
        self.0.carve_extents(bytes).is_some()
    }

    /// Bytes that are left.
    pub fn free(&self) -> u64 {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> HostRange {
        between(start, end).unwrap()
    }

    fn usable(start: u64, end: u64) -> Region {
        Region { range: range(start, end), usable: true }
    }

    fn frames(map: &[Region], excluded: &[HostRange]) -> Frames {
        // SAFETY: Nothing here is real memory.
        unsafe { Frames::new(map.iter().copied(), excluded) }
    }

    #[test]
    fn low_memory_reserved_memory_and_what_is_in_use_are_not_free() {
        let map = [
            usable(0, 0x9_fc00),
            usable(0x10_0000, 0x4000_0000),
            Region { range: range(0x3fff_0000, 0x4000_0000), usable: false },
        ];
        let frames = frames(&map, &[range(0x10_0000, 0x18_0123)]);
        assert_eq!(frames.pieces(), [range(0x18_1000, 0x3fff_0000)]);
        assert_eq!(frames.free(), 0x3fff_0000 - 0x18_1000);
    }

    #[test]
    fn memory_that_a_map_lists_twice_is_free_once() {
        let frames = frames(&[usable(0x10_0000, 0x30_0000), usable(0x20_0000, 0x40_0000)], &[]);
        assert_eq!(frames.free(), 0x30_0000);
    }

    #[test]
    fn partial_pages_are_not_used() {
        assert_eq!(frames(&[usable(0x10_0001, 0x10_2fff)], &[]).pieces(), [range(0x10_1000, 0x10_2000)]);
        assert_eq!(frames(&[usable(0x10_0001, 0x10_1fff)], &[]).free(), 0);
    }

    #[test]
    fn nothing_is_carved_twice() {
        let mut frames = frames(&[usable(0x10_0000, 0x20_0000)], &[]);
        let mut seen: std::vec::Vec<HostRange> = std::vec::Vec::new();
        let mut size = 1;
        while let Some(range) = frames.carve(size, if size % 3 == 0 { 0x4000 } else { 0x1000 }) {
            assert!(seen.iter().all(|other| !other.overlaps(&range)));
            assert!(range.start().is_aligned(0x1000));
            seen.push(range);
            size = size * 5 % 20_011;
        }
        let carved: u64 = seen.iter().map(HostRange::length).sum();
        assert_eq!(carved + frames.free(), 0x10_0000);
        assert!(frames.carve(0x10_0000, 0x1000).is_none());
    }

    #[test]
    fn small_pieces_come_from_the_smallest_hole() {
        let mut frames = frames(&[usable(0x20_0000, 0x800_0000), usable(0x10_0000, 0x10_4000)], &[]);
        assert_eq!(frames.carve(0x1000, 0x1000), Some(range(0x10_0000, 0x10_1000)));
    }

    #[test]
    fn page_tables_stay_below_the_boot_windows_end() {
        let mut frames = frames(&[usable(BOOT_REACH, BOOT_REACH + 0x1000_0000)], &[]);
        assert!(frames.carve(0x1000, 0x1000).is_none());
        assert!(frames.carve_extents(0x20_0000).is_some());
    }

    #[test]
    fn memory_of_a_compartment_prefers_whole_and_high_and_huge() {
        let map = [usable(0x10_0000, 0xc000_0000), usable(0x1_0000_0000, 0x1_4000_0000)];
        let mut frames = frames(&map, &[]);
        assert_eq!(frames.carve_extents(0x1000_0000).unwrap(), [range(0x1_0000_0000, 0x1_1000_0000)]);
        // A GiB above is broken now; the one below that begins at a GiB is whole.
        assert_eq!(frames.carve_extents(PAGE_1G).unwrap(), [range(0x4000_0000, 0x8000_0000)]);
    }

    #[test]
    fn memory_in_pieces_is_joined_and_all_or_nothing() {
        let map = [usable(0x20_0000, 0xa0_0000), usable(0x100_0000, 0x180_0000)];
        let mut frames = frames(&map, &[]);
        assert!(frames.carve_extents(0x120_0000).is_none());
        assert_eq!(frames.free(), 0x100_0000);
        let extents = frames.carve_extents(0xc0_0000).unwrap();
        assert_eq!(extents.iter().map(HostRange::length).sum::<u64>(), 0xc0_0000);
        assert_eq!(frames.free(), 0x40_0000);
        assert!(extents.iter().all(|extent| extent.start().is_aligned(PAGE_2M)));
    }

    #[test]
    fn a_trial_answers_as_the_real_thing_and_leaves_it_alone() {
        let mut frames = frames(&[usable(0x20_0000, 0x60_0000)], &[]);
        let mut trial = frames.trial();
        assert!(
            trial.carve_extents(0x20_0000)
                && trial.carve_extents(0x20_0000)
                && !trial.carve_extents(0x20_0000)
        );
        assert!(frames.carve_extents(0x40_0000).is_some());
    }

    #[test]
    fn a_map_of_too_many_pieces_keeps_the_largest() {
        let map: std::vec::Vec<Region> =
            (1..=100).map(|index| usable(index * 0x100_0000, index * 0x100_0000 + index * 0x1000)).collect();
        let frames = frames(&map, &[]);
        assert_eq!(frames.pieces().len(), MOST_FREE);
        assert!(frames.pieces().iter().all(|piece| piece.length() > 36 * 0x1000));
    }
}
