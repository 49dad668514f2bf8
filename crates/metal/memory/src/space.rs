//! The private space of one compartment: tables that map the hypervisor, and of all compartments this one alone.

use crate::host::{BootTables, abilities, shared_entry};
use crate::ram::{Extents, HIGH_START};
use crate::tables::{Attributes, MapError, TableMemory, map, tables_for};
use crate::{
    Extent, Frames, MOST_PAYLOADS, OwnedFrames, PAYLOAD_OFFSET, PRIVATE_OFFSET, Ram, Trial, copy, window,
};
use address::{GuestPhysical, HostPhysical, HostRange, PAGE_2M, PAGE_4K};
use core::ptr::NonNull;
use heapless::Vec;

/// What a compartment's space shall hold.
#[derive(Copy, Clone, Debug)]
pub struct SpaceRequest<'plan> {
    /// Index of the compartment.
    pub index: u8,
    /// Bytes of RAM from guest-physical 0, a multiple of 2 MiB, at most 4 GiB.
    pub low: u64,
    /// Bytes of RAM from guest-physical 4 GiB, a multiple of 2 MiB.
    pub high: u64,
    /// Pages of the private area: the compartment's state, its control blocks, the tables of its second stage.
    pub private_pages: usize,
    /// Where the boot module lies.
    pub module: HostRange,
    /// Bytes of the module that the compartment may be filled from: offset and length, not empty, in the module.
    pub payloads: &'plan [(u64, u64)],
}

/// Why a space cannot be made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SpaceError {
    /// Not enough free memory for its RAM.
    NoMemory {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Not enough free memory below 4 GiB, in one piece, for its tables and its private area.
    NoFrames {
        /// Bytes that they need.
        needed: u64,
        /// Bytes that are free anywhere.
        free: u64,
    },
    /// The request breaks a rule that its fields state.
    Request,
    /// More payloads than [`MOST_PAYLOADS`].
    Payloads,
}

impl From<MapError> for SpaceError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NoFrames => Self::NoFrames { needed: PAGE_4K, free: 0 },
            MapError::Occupied | MapError::Unaligned => Self::Request,
        }
    }
}

impl core::fmt::Display for SpaceError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMemory { needed, free } => {
                write!(formatter, "{} MiB of memory are needed, {} MiB are free", needed >> 20, free >> 20)
            }
            Self::NoFrames { needed, free } => write!(
                formatter,
                "{} KiB below 4 GiB are needed for tables and private state, {} KiB are free",
                needed >> 10,
                free >> 10
            ),
            Self::Request => write!(formatter, "its memory layout is impossible"),
            Self::Payloads => write!(formatter, "it has more than {MOST_PAYLOADS} payloads"),
        }
    }
}

/// A zeroed frame of a compartment's private area.
///
/// It stays its holder's for ever. The pointer means something only while that compartment's space is loaded.
#[derive(Debug)]
pub struct Page {
    pointer: NonNull<u8>,
    physical: HostPhysical,
}

impl Page {
    /// Where it is mapped while its compartment is served: 4096 bytes, read and write.
    #[inline(always)]
    pub const fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Where it is mapped, as a number.
    #[inline(always)]
    pub fn virtual_address(&self) -> usize {
        self.pointer.as_ptr() as usize
    }

    /// Where it is on the bus.
    #[inline(always)]
    pub const fn physical(&self) -> HostPhysical {
        self.physical
    }
}

// SAFETY: A page has one holder, who may hand it to another processor; the memory is not bound to any.
unsafe impl Send for Page {}
// SAFETY: Sharing a `Page` shares two numbers. Whoever turns the pointer into accesses answers for them.
unsafe impl Sync for Page {}

/// The private area of one compartment: pages that are handed out once.
#[derive(Debug)]
pub struct PrivateArea {
    owner: u8,
    base: usize,
    physical: HostPhysical,
    pages: usize,
    used: usize,
}

impl PrivateArea {
    /// A zeroed page; `None` when all are handed out.
    pub fn page(&mut self) -> Option<Page> {
        self.pages(1)
    }

    /// The first of `count` zeroed pages that follow each other, linearly and physically; `None` when not so many are left.
    pub fn pages(&mut self, count: usize) -> Option<Page> {
        let end = self.used.checked_add(count).filter(|end| *end <= self.pages && count > 0)?;
        let offset = self.used * PAGE_4K as usize;
        self.used = end;
        Some(Page {
            pointer: NonNull::new((self.base + offset) as *mut u8)?,
            physical: self.physical.checked_add(offset as u64)?,
        })
    }

    /// A page that the compartment's own guest is shown: what `words` gives for each place from 0 to 1023 is written into it now, and nobody but the
    /// second stage gets hold of it. `None` when all are handed out.
    pub fn shown_page(&mut self, words: impl Fn(u32) -> u32) -> Option<OwnedFrames> {
        let page = self.page()?;
        for (place, word) in (0..PAGE_4K as u32 / 4).map(|place| (place as usize, words(place))) {
            // SAFETY: The page was handed out a moment ago and to nobody else; it is mapped, as an area is while it exists, and aligned.
            unsafe { page.pointer().cast::<u32>().add(place).write_volatile(word) };
        }
        Some(OwnedFrames::new(self.owner, HostRange::new(page.physical(), PAGE_4K)?))
    }

    /// Pages that are left.
    pub const fn left(&self) -> usize {
        self.pages - self.used
    }
}

/// A compartment's space, made but not yet entered.
#[derive(Debug)]
pub struct Space {
    index: u8,
    root: HostPhysical,
    ram: Ram,
    area: PrivateArea,
    tables: u64,
}

const DATA: Attributes = Attributes { write: true, execute: false, uncached: false, global: false };
const CONSTANTS: Attributes = Attributes { write: false, ..DATA };

fn check(request: &SpaceRequest<'_>) -> Result<(), SpaceError> {
    let even = |length: u64| length & (PAGE_2M - 1) == 0;
    let in_module = |(offset, length): &(u64, u64)| {
        *length > 0 && offset.checked_add(*length).is_some_and(|end| end <= request.module.length())
    };
    let private = (request.private_pages as u64).checked_mul(PAGE_4K);
    if !even(request.low)
        || !even(request.high)
        || request.low == 0
        || request.low > HIGH_START
        || request.high > (PRIVATE_OFFSET as u64) - HIGH_START
        || request.private_pages == 0
        || private.is_none_or(|bytes| bytes > (PAYLOAD_OFFSET - PRIVATE_OFFSET) as u64)
        || !request.payloads.iter().all(in_module)
    {
        return Err(SpaceError::Request);
    }
    if request.payloads.len() > MOST_PAYLOADS {
        return Err(SpaceError::Payloads);
    }
    Ok(())
}

/// Pages of the module that hold payloads, merged where they touch: first byte and length, relative to the module's first page.
#[inline(never)]
fn payload_pages(request: &SpaceRequest<'_>) -> Result<Vec<(u64, u64), MOST_PAYLOADS>, SpaceError> {
    let slack = request.module.start().offset_in(PAGE_4K);
    let mut pages: Vec<(u64, u64), MOST_PAYLOADS> = Vec::new();
    for (offset, length) in request.payloads {
        let start = (slack + offset) & !(PAGE_4K - 1);
        let end = (slack + offset + length).next_multiple_of(PAGE_4K);
        // Sorted as they come: few, and mostly in order already.
        let place = pages.iter().position(|(other, _)| *other > start).unwrap_or(pages.len());
        pages.insert(place, (start, end)).map_err(|_| SpaceError::Payloads)?;
    }
    let mut merged: Vec<(u64, u64), MOST_PAYLOADS> = Vec::new();
    for &(start, end) in &pages {
        match merged.last_mut() {
            Some(last) if start <= last.0 + last.1 => last.1 = last.1.max(end - last.0),
            _ => merged.push((start, end - start)).map_err(|_| SpaceError::Payloads)?,
        }
    }
    Ok(merged)
}

/// Spreads carved ranges over guest-physical memory, cut at the hole.
#[inline(never)]
fn lay_out(owner: u8, low: u64, ranges: &[HostRange]) -> Option<Extents> {
    let mut extents = Extents::new();
    let mut filled = 0;
    for range in ranges {
        let mut start = range.start();
        let mut left = range.length();
        while left > 0 {
            let (at, length) = if filled < low {
                (filled, left.min(low - filled))
            } else {
                (HIGH_START + (filled - low), left)
            };
            let frames = OwnedFrames::new(owner, HostRange::new(start, length)?);
            extents.push(Extent { at: GuestPhysical::new(at), frames }).ok()?;
            start = start.checked_add(length)?;
            left -= length;
            filled += length;
        }
    }
    Some(extents)
}

impl Space {
    /// The most bytes that the tables and the private area of such a space take.
    pub fn overhead_of(request: &SpaceRequest<'_>) -> u64 {
        let payloads = request.payloads.iter().map(|(_, length)| tables_for(*length, true)).sum::<u64>();
        let private = (request.private_pages as u64).saturating_mul(PAGE_4K);
        // RAM comes in 2 MiB pages at least: no tables of small pages.
        let tables = 1 + tables_for(request.low, false) + tables_for(request.high, false);
        (PAGE_4K * (tables + tables_for(private, true) + payloads)).saturating_add(private)
    }

    /// Whether [`Space::build`] would find room, after all that was tried before on the same `trial`.
    #[inline(never)]
    pub fn fits(trial: &mut Trial, request: &SpaceRequest<'_>) -> Result<(), SpaceError> {
        check(request)?;
        let needed = request.low.saturating_add(request.high);
        let free = trial.free();
        if !trial.carve_extents(needed) {
            return Err(SpaceError::NoMemory { needed, free });
        }
        let needed = Self::overhead_of(request);
        let free = trial.free();
        if trial.carve(needed, PAGE_4K) { Ok(()) } else { Err(SpaceError::NoFrames { needed, free }) }
    }

    /// Carves RAM and private area and makes the tables. What was carved before an error is lost: try [`Space::fits`] first.
    ///
    /// # Safety
    ///
    /// The boot window is mapped, and [`crate::HostTables::build`] was called. The module lies where the request says, its pages
    /// are not among the free frames, and nobody writes them ever. No other space has that index.
    #[inline(never)]
    pub unsafe fn build(frames: &mut Frames, request: &SpaceRequest<'_>) -> Result<Self, SpaceError> {
        check(request)?;
        let payload_pages = payload_pages(request)?;
        let needed = request.low.saturating_add(request.high);
        let free = frames.free();
        let ranges = frames.carve_extents(needed).ok_or(SpaceError::NoMemory { needed, free })?;
        let extents = lay_out(request.index, request.low, &ranges).ok_or(SpaceError::Request)?;
        let private_bytes = request.private_pages as u64 * PAGE_4K;
        let private = frames
            .carve(private_bytes, PAGE_4K)
            .ok_or(SpaceError::NoFrames { needed: private_bytes, free: frames.free() })?;

        // SAFETY: The caller's promise.
        let mut memory = unsafe { BootTables::new(frames) };
        let root = memory.table().ok_or(MapError::NoFrames)?;
        memory.write(root, 0, shared_entry());
        let base = window(request.index);
        let abilities = abilities();
        for extent in &extents {
            let (at, range) = (base as u64 + extent.at.get(), extent.frames.range());
            map(&mut memory, root, at, range.start().get(), range.length(), DATA, abilities)?;
        }
        let area_base = base + PRIVATE_OFFSET;
        map(&mut memory, root, area_base as u64, private.start().get(), private_bytes, DATA, abilities)?;
        // The module keeps its place in a 2 MiB page, so that its inner part takes large pages.
        let first_page = request.module.start().align_down(PAGE_4K);
        let payload_base = (base + PAYLOAD_OFFSET) as u64 + first_page.offset_in(PAGE_2M);
        for (start, length) in &payload_pages {
            let physical = first_page.get() + start;
            map(&mut memory, root, payload_base + start, physical, *length, CONSTANTS, abilities)?;
        }
        let tables = memory.count;
        let payloads = Vec::from_slice(request.payloads).map_err(|_| SpaceError::Payloads)?;
        let misalignment = request.module.start().offset_in(PAGE_2M);
        Ok(Self {
            index: request.index,
            root,
            ram: Ram::new(base, request.low, request.high, misalignment, payloads, extents),
            area: PrivateArea {
                owner: request.index,
                base: area_base,
                physical: private.start(),
                pages: request.private_pages,
                used: 0,
            },
            tables,
        })
    }

    /// Index of the compartment.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Bytes beside the RAM: tables and private area.
    pub const fn overhead(&self) -> u64 {
        (self.tables + self.area.pages as u64) * PAGE_4K
    }

    /// The RAM: its extents can be looked at before the space is entered.
    pub const fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The frames of the private area.
    pub fn private(&self) -> Option<HostRange> {
        HostRange::new(self.area.physical, self.area.pages as u64 * PAGE_4K)
    }

    /// The frame of its highest table.
    pub const fn root(&self) -> HostPhysical {
        self.root
    }

    /// Zeroes the private area and hands both parts out.
    ///
    /// # Safety
    ///
    /// The space is loaded.
    pub(crate) unsafe fn open(self) -> (Ram, PrivateArea) {
        // SAFETY: The area is mapped in the space, which is loaded, and no page of it was handed out yet.
        unsafe { copy::clear(self.area.base as *mut u8, self.area.pages * PAGE_4K as usize) };
        (self.ram, self.area)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, length: u64) -> HostRange {
        HostRange::new(HostPhysical::new(start), length).unwrap()
    }

    fn request(payloads: &[(u64, u64)]) -> SpaceRequest<'_> {
        SpaceRequest {
            index: 3,
            low: PAGE_2M,
            high: 0,
            private_pages: 4,
            module: range(0x20_1800, 0x10_0000),
            payloads,
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let good = request(&[(0, 1)]);
        assert_eq!(check(&good), Ok(()));
        let bad = [
            SpaceRequest { low: PAGE_2M + 1, ..good },
            SpaceRequest { low: 0, ..good },
            SpaceRequest { low: HIGH_START + PAGE_2M, ..good },
            SpaceRequest { high: 1, ..good },
            SpaceRequest { high: PRIVATE_OFFSET as u64, ..good },
            SpaceRequest { private_pages: 0, ..good },
            SpaceRequest { private_pages: usize::MAX, ..good },
            SpaceRequest { payloads: &[(0, 0)], ..good },
            SpaceRequest { payloads: &[(0, 0x10_0001)], ..good },
            SpaceRequest { payloads: &[(u64::MAX, 2)], ..good },
        ];
        for request in bad {
            assert_eq!(check(&request), Err(SpaceError::Request), "{request:?}");
        }
        let many = [(0, 1); MOST_PAYLOADS + 1];
        assert_eq!(check(&request(&many)), Err(SpaceError::Payloads));
    }

    #[test]
    fn payload_pages_are_whole_merged_and_no_more() {
        // The module begins 800h into a page: byte 800h of it begins the second page.
        let payloads = [(0x5000, 0x10), (0x700, 0x101), (0x17ff, 1), (0x9000, 0x800)];
        let pages = payload_pages(&request(&payloads)).unwrap();
        assert_eq!(pages[..], [(0, 0x2000), (0x5000, 0x1000), (0x9000, 0x1000)]);
    }

    #[test]
    fn memory_is_laid_out_around_the_hole() {
        let ranges = [range(0x1_0000_0000, 0x60_0000), range(0x20_0000, 0x40_0000)];
        let extents = lay_out(7, 0x40_0000, &ranges).unwrap();
        let seen: std::vec::Vec<_> =
            extents.iter().map(|e| (e.at.get(), e.frames.range(), e.frames.owner())).collect();
        assert_eq!(
            seen,
            [
                (0, range(0x1_0000_0000, 0x40_0000), 7),
                (HIGH_START, range(0x1_0040_0000, 0x20_0000), 7),
                (HIGH_START + 0x20_0000, range(0x20_0000, 0x40_0000), 7),
            ]
        );
    }

    #[test]
    fn private_pages_are_handed_out_once() {
        let mut area =
            PrivateArea { owner: 0, base: 0x7000, physical: HostPhysical::new(0x9000), pages: 3, used: 0 };
        let first = area.page().unwrap();
        assert_eq!((first.virtual_address(), first.physical().get()), (0x7000, 0x9000));
        assert!(area.pages(0).is_none() && area.pages(3).is_none());
        let pair = area.pages(2).unwrap();
        assert_eq!((pair.virtual_address(), pair.physical().get()), (0x8000, 0xa000));
        assert!(area.page().is_none() && area.left() == 0);
    }

    #[test]
    fn a_trial_refuses_what_memory_cannot_hold() {
        let region = crate::Region { range: range(0x10_0000, 0x80_0000), usable: true };
        // SAFETY: Nothing here is real memory.
        let frames = unsafe { Frames::new([region].into_iter(), &[]) };
        let mut trial = frames.trial();
        assert_eq!(Space::fits(&mut trial, &request(&[(0, 1)])), Ok(()));
        let large = SpaceRequest { low: 0x80_0000, ..request(&[(0, 1)]) };
        assert!(matches!(
            Space::fits(&mut trial, &large),
            Err(SpaceError::NoMemory { needed: 0x80_0000, .. })
        ));
        // Room for the RAM, and for nothing beside it.
        let region = crate::Region { range: range(0x20_0000, PAGE_2M + PAGE_4K), usable: true };
        // SAFETY: As above.
        let frames = unsafe { Frames::new([region].into_iter(), &[]) };
        let needed = Space::overhead_of(&request(&[(0, 1)]));
        assert!(needed > 4 * PAGE_4K);
        assert_eq!(
            Space::fits(&mut frames.trial(), &request(&[(0, 1)])),
            Err(SpaceError::NoFrames { needed, free: PAGE_4K })
        );
    }
}
