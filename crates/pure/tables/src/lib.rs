//! One walker for page tables of every format: a format is a type of a few lines, the algorithm is here once.
//!
//! Row 1 (pure). The walker sees table frames only through [`TableFrames`], so the same code runs on the machine's
//! tables and, in tests, on arrays. It checks a whole request before it writes the first entry, except for running
//! out of table frames, which leaves what was mapped so far as if it had been asked for (said by the error).
#![no_std]

use address::{GuestPhysical, HostPhysical, PAGE_4K};

/// How a range may be used. Readable always: no second stage has write-only pages.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MapMode {
    /// Writes pass.
    pub write: bool,
    /// Fetches pass.
    pub execute: bool,
}

impl MapMode {
    /// RAM: everything passes.
    pub const RAM: Self = Self { write: true, execute: true };
    /// ROM: no writes.
    pub const ROM: Self = Self { write: false, execute: true };
}

/// Why a mapping was refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MapError {
    /// An address or the length is no multiple of 4 KiB, or the length is 0. Nothing was changed.
    Unaligned,
    /// The range wraps, or exceeds what the tables can express. Nothing was changed.
    OutOfRange,
    /// The frames are another compartment's. Nothing was changed.
    NotOwned,
    /// Part of the guest's range is mapped already. Nothing was changed.
    Occupied,
    /// No frame is left for page tables. What lay before the place where it ran out is done.
    NoFrames,
}

/// Entries of a table.
pub const ENTRIES: usize = 512;

/// A format of 512-entry tables. Level 1 holds 4 KiB leaves, level 2 leaves of 2 MiB, level 3 of 1 GiB.
pub trait Format {
    /// The root's level.
    const LEVELS: u8;
    /// An entry that maps a page at `address`.
    fn leaf(address: u64, level: u8, mode: MapMode) -> u64;
    /// An entry that leads to a table at `address`.
    fn table(address: u64) -> u64;
    /// Whether the entry leads anywhere.
    fn is_present(entry: u64) -> bool;
    /// Whether a present entry of that level is a leaf.
    fn is_leaf(entry: u64, level: u8) -> bool;
    /// Where a present entry leads.
    fn address(entry: u64, level: u8) -> u64;
    /// How a leaf may be used.
    fn mode(entry: u64) -> MapMode;
}

/// The frames that hold tables, named by their physical address.
pub trait TableFrames {
    /// The highest level that may hold leaves on this machine: 1, 2 or 3.
    fn largest_leaf(&self) -> u8;
    /// A zeroed frame for a table, if one is left.
    fn allocate(&mut self) -> Option<u64>;
    /// Reads entry `index` (below 512) of `table`.
    fn get(&self, table: u64, index: usize) -> u64;
    /// Writes entry `index` (below 512) of `table`.
    fn set(&mut self, table: u64, index: usize, entry: u64);
}

/// Bytes that a leaf of that level covers.
const fn span(level: u8) -> u64 {
    PAGE_4K << (9 * (level as u32 - 1))
}

const fn index(address: u64, level: u8) -> usize {
    ((address >> (12 + 9 * (level as u32 - 1))) & 511) as usize
}

const fn check<F: Format>(at: u64, length: u64) -> Result<(), MapError> {
    if length == 0 || !(at | length).is_multiple_of(PAGE_4K) {
        return Err(MapError::Unaligned);
    }
    let limit = span(F::LEVELS) << 9;
    match at.checked_add(length) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(MapError::OutOfRange),
    }
}

/// The leaf that translates `at`: its entry and level.
fn find<F: Format>(frames: &impl TableFrames, root: u64, at: u64) -> (u64, u8) {
    let (mut table, mut level) = (root, F::LEVELS);
    loop {
        let entry = frames.get(table, index(at, level));
        if !F::is_present(entry) || level == 1 || F::is_leaf(entry, level) {
            return (entry, level);
        }
        table = F::address(entry, level);
        level -= 1;
    }
}

/// Where `at` leads, and how it may be used.
pub fn translate<F: Format>(
    frames: &impl TableFrames,
    root: u64,
    at: GuestPhysical,
) -> Option<(HostPhysical, MapMode)> {
    check::<F>(at.align_down(PAGE_4K).get(), PAGE_4K).ok()?;
    let (entry, level) = find::<F>(frames, root, at.get());
    F::is_present(entry).then(|| {
        (HostPhysical::new(F::address(entry, level) + (at.get() & (span(level) - 1))), F::mode(entry))
    })
}

/// Maps `length` bytes at `at` to `to`, with the largest leaves that fit.
pub fn map<F: Format>(
    frames: &mut impl TableFrames,
    root: u64,
    at: GuestPhysical,
    to: HostPhysical,
    length: u64,
    mode: MapMode,
) -> Result<(), MapError> {
    let (at, to) = (at.get(), to.get());
    check::<F>(at, length)?;
    if !to.is_multiple_of(PAGE_4K) {
        return Err(MapError::Unaligned);
    }
    if to.checked_add(length).is_none_or(|end| end > 1 << 52) {
        return Err(MapError::OutOfRange);
    }
    let mut done = 0;
    while done < length {
        let (entry, level) = find::<F>(frames, root, at + done);
        if F::is_present(entry) {
            return Err(MapError::Occupied);
        }
        // Nothing is mapped up to the end of this entry's span.
        done += span(level) - ((at + done) & (span(level) - 1));
    }
    let mut done = 0;
    while done < length {
        let mut level = frames.largest_leaf();
        while level > 1
            && (!(at + done).is_multiple_of(span(level))
                || !(to + done).is_multiple_of(span(level))
                || length - done < span(level))
        {
            level -= 1;
        }
        let table = descend::<F>(frames, root, at + done, &mut level)?;
        frames.set(table, index(at + done, level), F::leaf(to + done, level, mode));
        done += span(level);
    }
    Ok(())
}

/// The table of level `*level` (or lower, where a table stands in the way of a large leaf) for `at`, made where missing.
fn descend<F: Format>(
    frames: &mut impl TableFrames,
    root: u64,
    at: u64,
    level: &mut u8,
) -> Result<u64, MapError> {
    let (mut table, mut here) = (root, F::LEVELS);
    while here > *level {
        let entry = frames.get(table, index(at, here));
        table = if F::is_present(entry) {
            F::address(entry, here)
        } else {
            let new = frames.allocate().ok_or(MapError::NoFrames)?;
            frames.set(table, index(at, here), F::table(new));
            new
        };
        here -= 1;
    }
    // An empty table left behind by an earlier unmapping is used again, with smaller leaves.
    while *level > 1 {
        let entry = frames.get(table, index(at, *level));
        if !F::is_present(entry) || F::is_leaf(entry, *level) {
            break;
        }
        table = F::address(entry, *level);
        *level -= 1;
    }
    Ok(table)
}

/// Sets the mode of what is mapped in `length` bytes at `at`, or takes it away where `mode` is `None`. Splits large leaves that
/// the range covers in part.
pub fn change<F: Format>(
    frames: &mut impl TableFrames,
    root: u64,
    at: GuestPhysical,
    length: u64,
    mode: Option<MapMode>,
) -> Result<(), MapError> {
    let at = at.get();
    check::<F>(at, length)?;
    let mut done = 0;
    while done < length {
        let here = at + done;
        let (mut table, mut level) = (root, F::LEVELS);
        loop {
            let slot = index(here, level);
            let entry = frames.get(table, slot);
            let left_in_entry = span(level) - (here & (span(level) - 1));
            if !F::is_present(entry) {
                done += left_in_entry;
                break;
            }
            if level > 1 && !F::is_leaf(entry, level) {
                table = F::address(entry, level);
                level -= 1;
                continue;
            }
            if here.is_multiple_of(span(level)) && length - done >= span(level) {
                let new = mode.map_or(0, |mode| F::leaf(F::address(entry, level), level, mode));
                frames.set(table, slot, new);
                done += span(level);
                break;
            }
            let below = frames.allocate().ok_or(MapError::NoFrames)?;
            for piece in 0..ENTRIES {
                let address = F::address(entry, level) + piece as u64 * span(level - 1);
                frames.set(below, piece, F::leaf(address, level - 1, F::mode(entry)));
            }
            frames.set(table, slot, F::table(below));
            table = below;
            level -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    struct Plain;
    impl Format for Plain {
        const LEVELS: u8 = 4;
        fn leaf(address: u64, level: u8, mode: MapMode) -> u64 {
            address | 1 | (mode.write as u64) << 1 | ((level > 1) as u64) << 7 | (!mode.execute as u64) << 63
        }
        fn table(address: u64) -> u64 {
            address | 3
        }
        fn is_present(entry: u64) -> bool {
            entry & 1 != 0
        }
        fn is_leaf(entry: u64, level: u8) -> bool {
            level == 1 || entry & 0x80 != 0
        }
        fn address(entry: u64, _: u8) -> u64 {
            entry & 0x000f_ffff_ffff_f000
        }
        fn mode(entry: u64) -> MapMode {
            MapMode { write: entry & 2 != 0, execute: entry >> 63 == 0 }
        }
    }

    struct Arrays {
        tables: Vec<[u64; ENTRIES]>,
        limit: usize,
    }
    impl Arrays {
        fn new(limit: usize) -> (Self, u64) {
            (Self { tables: std::vec![[0; ENTRIES]], limit }, 0x1000)
        }
    }
    impl TableFrames for Arrays {
        fn largest_leaf(&self) -> u8 {
            3
        }
        fn allocate(&mut self) -> Option<u64> {
            (self.tables.len() < self.limit).then(|| {
                self.tables.push([0; ENTRIES]);
                self.tables.len() as u64 * 0x1000
            })
        }
        fn get(&self, table: u64, index: usize) -> u64 {
            self.tables[(table / 0x1000) as usize - 1][index]
        }
        fn set(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[(table / 0x1000) as usize - 1][index] = entry;
        }
    }

    fn at(value: u64) -> GuestPhysical {
        GuestPhysical::new(value)
    }
    fn to(value: u64) -> HostPhysical {
        HostPhysical::new(value)
    }

    #[test]
    fn large_pages_are_used_where_both_sides_are_aligned() {
        let (mut frames, root) = Arrays::new(8);
        map::<Plain>(
            &mut frames,
            root,
            at(0),
            to(0x4000_0000),
            0x4000_0000 + 0x20_0000 + 0x1000,
            MapMode::RAM,
        )
        .unwrap();
        // Root, one level 3, one level 2, one level 1.
        assert_eq!(frames.tables.len(), 4);
        for probe in [0, 0x3fff_ffff, 0x4000_0000, 0x401f_ffff, 0x4020_0fff] {
            let (found, mode) = translate::<Plain>(&frames, root, at(probe)).unwrap();
            assert_eq!((found.get(), mode), (0x4000_0000 + probe, MapMode::RAM));
        }
        assert!(translate::<Plain>(&frames, root, at(0x4020_1000)).is_none());
    }

    #[test]
    fn requests_are_checked_before_the_first_entry_is_written() {
        let (mut frames, root) = Arrays::new(64);
        map::<Plain>(&mut frames, root, at(0x5000), to(0x9000), 0x1000, MapMode::RAM).unwrap();
        let before = frames.tables.clone();
        let mut attempt =
            |guest, host, length| map::<Plain>(&mut frames, root, at(guest), to(host), length, MapMode::RAM);
        assert_eq!(attempt(0, 0, 0), Err(MapError::Unaligned));
        assert_eq!(attempt(1, 0, 0x1000), Err(MapError::Unaligned));
        assert_eq!(attempt(0, 1, 0x1000), Err(MapError::Unaligned));
        assert_eq!(attempt(1 << 48, 0, 0x1000), Err(MapError::OutOfRange));
        assert_eq!(attempt(0xffff_ffff_ffff_f000, 0, 0x2000), Err(MapError::OutOfRange));
        assert_eq!(attempt(0, 1 << 52, 0x1000), Err(MapError::OutOfRange));
        assert_eq!(attempt(0x4000, 0, 0x2000), Err(MapError::Occupied));
        assert_eq!(attempt(0, 0, 0x20_0000), Err(MapError::Occupied));
        assert!(frames.tables == before);
    }

    #[test]
    fn narrowing_a_piece_of_a_large_page_leaves_the_rest() {
        let (mut frames, root) = Arrays::new(64);
        map::<Plain>(&mut frames, root, at(0), to(0x4000_0000), 0x4000_0000, MapMode::RAM).unwrap();
        change::<Plain>(&mut frames, root, at(0x20_3000), 0x2000, Some(MapMode::ROM)).unwrap();
        change::<Plain>(&mut frames, root, at(0x40_0000), 0x20_0000, None).unwrap();
        let mode = |probe| translate::<Plain>(&frames, root, at(probe)).map(|(_, mode)| mode);
        assert_eq!(mode(0x20_2fff), Some(MapMode::RAM));
        assert_eq!(mode(0x20_3000), Some(MapMode::ROM));
        assert_eq!(mode(0x20_4fff), Some(MapMode::ROM));
        assert_eq!(mode(0x20_5000), Some(MapMode::RAM));
        assert_eq!(mode(0x3f_ffff), Some(MapMode::RAM));
        assert_eq!(mode(0x40_0000), None);
        assert_eq!(mode(0x5f_ffff), None);
        assert_eq!(mode(0x60_0000), Some(MapMode::RAM));
    }

    #[test]
    fn running_out_of_frames_is_an_answer() {
        let (mut frames, root) = Arrays::new(2);
        assert_eq!(
            map::<Plain>(&mut frames, root, at(0), to(0), 0x1000, MapMode::RAM),
            Err(MapError::NoFrames)
        );
    }

    /// Against a map of pages: random requests, then every page compared.
    #[test]
    fn agrees_with_a_map_of_pages() {
        let (mut frames, root) = Arrays::new(4096);
        let mut model: HashMap<u64, (u64, MapMode)> = HashMap::new();
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut random = |limit: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % limit
        };
        for _ in 0..400 {
            let grain = [1, 512][random(2) as usize];
            let (start, count) = (random(4096) / grain * grain, (1 + random(1024)).next_multiple_of(grain));
            let host = random(1 << 20) / grain * grain;
            let mode = MapMode { write: random(2) == 0, execute: random(2) == 0 };
            match random(3) {
                0 => {
                    let free = (start..start + count).all(|page| !model.contains_key(&page));
                    let answer =
                        map::<Plain>(&mut frames, root, at(start << 12), to(host << 12), count << 12, mode);
                    assert_eq!(answer, if free { Ok(()) } else { Err(MapError::Occupied) });
                    if free {
                        model.extend((0..count).map(|page| (start + page, (host + page, mode))));
                    }
                }
                1 => {
                    change::<Plain>(&mut frames, root, at(start << 12), count << 12, None).unwrap();
                    model.retain(|page, _| !(start..start + count).contains(page));
                }
                _ => {
                    change::<Plain>(&mut frames, root, at(start << 12), count << 12, Some(mode)).unwrap();
                    for (page, entry) in &mut model {
                        if (start..start + count).contains(page) {
                            entry.1 = mode;
                        }
                    }
                }
            }
        }
        for page in 0..8192 {
            let found = translate::<Plain>(&frames, root, at(page << 12))
                .map(|(host, mode)| (host.get() >> 12, mode));
            assert_eq!(found, model.get(&page).copied(), "page {page}");
        }
    }
}
