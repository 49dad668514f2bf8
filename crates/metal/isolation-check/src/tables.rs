//! Walks of page tables that end where something is mapped that should not be. Pure: what reads an entry is given.

use address::{HostPhysical, HostRange};
use core::fmt;
use heapless::Vec;
use memory::{MOST_EXTENTS, WINDOW_STRIDE, window};

const PRESENT: u64 = 1;
/// A nested entry leads somewhere with any of these: PRESENT of nested paging, or read, write, execute of extended page tables (SDM Vol. 3C
/// §29.3.2). An entry of ours that leads nowhere has none of them in either format.
const REACHABLE: u64 = 7;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Flags of the entry [`SELF`]: present, accessed, and neither to write nor to execute.
pub const READ_ONLY: u64 = PRESENT | 1 << 5 | 1 << 63;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Levels of the tables, the host's and nested ones.
const LEVELS: u32 = 4;

/// The entry of a compartment's highest table that leads to that table again (APM Vol. 2 §5.3): through it the tables themselves are
/// read, while they are active, without any other mapping. Between the boot window and the compartments' windows.
pub const SELF: u64 = 160;

/// What belongs to a compartment.
pub struct Owned {
    /// Its index.
    pub index: u8,
    /// Its RAM.
    pub ram: Vec<HostRange, { MOST_EXTENTS + 1 }>,
    /// Its private area.
    pub private: HostRange,
    /// Its highest table.
    pub root: HostRange,
    /// The root of its second stage; 0 before that was made.
    pub nested: u64,
}

impl Owned {
    fn ranges(&self) -> impl Iterator<Item = &HostRange> {
        self.ram.iter().chain([&self.private, &self.root])
    }
}

/// What is wrong.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The active tables are no compartment's.
    Root(u64),
    /// Memory of compartment `owner` is mapped at `linear`.
    Foreign {
        /// Whose it is.
        owner: u8,
        /// Where it can be reached.
        linear: u64,
        /// The frame.
        frame: u64,
    },
    /// The compartment's memory is mapped outside its window.
    OutsideWindow(u64),
    /// Something lies in a window, or beside all of them, that is not the compartment's and can be written, or should not be there at all.
    Stray(u64),
    /// The control block names other nested tables than those that were made for the compartment.
    Nested(u64),
    /// A nested table lies outside the private area.
    NestedTable(u64),
    /// The guest can reach a frame at `at` that is no RAM of its compartment.
    GuestReaches {
        /// Guest-physical address.
        at: u64,
        /// The frame.
        frame: u64,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(root) => {
                write!(to, "a guest is served on page tables at {root:#x}, which are no compartment's")
            }
            Self::Foreign { owner, linear, frame } => {
                write!(
                    to,
                    "frame {frame:#x} of compartment {owner} is mapped at {linear:#x} while another one is served"
                )
            }
            Self::OutsideWindow(linear) => {
                write!(to, "memory of the served compartment is mapped outside its window, at {linear:#x}")
            }
            Self::Stray(linear) => write!(to, "what is mapped at {linear:#x} does not belong there"),
            Self::Nested(root) => {
                write!(to, "the nested tables at {root:#x} are not those of the served compartment")
            }
            Self::NestedTable(table) => {
                write!(to, "a nested table lies at {table:#x}, outside the private area")
            }
            Self::GuestReaches { at, frame } => {
                write!(to, "the guest reaches frame {frame:#x} at {at:#x}, which is none of its RAM")
            }
        }
    }
}

const fn canonical(linear: u64) -> u64 {
    ((linear << 16) as i64 >> 16) as u64
}

/// A mapping: where, which bytes, and whether they can be written.
struct Mapping {
    linear: u64,
    frames: HostRange,
    write: bool,
}

/// Calls `visit` for every mapping below `table`, whose entries `read` gives by level, address and table, and which count if they have any
/// bit of `present`. Tables at `SELF` are not entered.
fn walk(
    present: u64,
    read: &impl Fn(u32, u64, u64) -> Result<u64, Wrong>,
    table: u64,
    level: u32,
    from: u64,
    visit: &mut impl FnMut(Mapping) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    for index in 0..ENTRIES {
        let shift = 12 + 9 * level;
        let linear = canonical(from | index << shift);
        let entry = read(level, linear, table)?;
        let next = entry & ADDRESS;
        if entry & present == 0 || level == LEVELS - 1 && index == SELF && next == table {
            continue;
        }
        if level == 0 || level < LEVELS - 1 && entry & LARGE != 0 {
            let size = 1 << shift;
            let frames =
                HostRange::new(HostPhysical::new(next & !(size - 1)), size).ok_or(Wrong::Stray(linear))?;
            visit(Mapping { linear, frames, write: entry & WRITE != 0 })?;
        } else {
            walk(present, read, next, level - 1, linear, visit)?;
        }
    }
    Ok(())
}

fn within(outer: &HostRange, inner: &HostRange) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}

/// Whether the active tables at `root` map what they should while the compartment is served whose they are, and answers which that is.
/// `read` gives an entry by level (0 to 3), linear address, and the frame of the table.
pub fn check_host<'owned>(
    owned: &'owned [Owned],
    root: u64,
    read: &impl Fn(u32, u64, u64) -> Result<u64, Wrong>,
) -> Result<&'owned Owned, Wrong> {
    let served = owned.iter().find(|owned| owned.root.start().get() == root).ok_or(Wrong::Root(root))?;
    let begin = window(served.index) as u64;
    walk(PRESENT, read, root, LEVELS - 1, 0, &mut |mapping| {
        let (linear, frames) = (mapping.linear, mapping.frames);
        for other in owned.iter().filter(|other| other.index != served.index) {
            if other.ranges().any(|range| range.overlaps(&frames)) {
                return Err(Wrong::Foreign { owner: other.index, linear, frame: frames.start().get() });
            }
        }
        let inside = linear.wrapping_sub(begin) < WINDOW_STRIDE as u64;
        let own = served.ranges().any(|range| range.overlaps(&frames));
        let shared = linear < WINDOW_STRIDE as u64;
        match (inside, own) {
            (false, true) => Err(Wrong::OutsideWindow(linear)),
            // Payload pages of the boot module, which are read and no more.
            (true, false) if !mapping.write => Ok(()),
            (true, true)
                if served.ram.iter().chain([&served.private]).any(|range| within(range, &frames)) =>
            {
                Ok(())
            }
            (false, false) if shared => Ok(()),
            _ => Err(Wrong::Stray(linear)),
        }
    })?;
    Ok(served)
}

/// Whether nested tables at `root` lead to RAM of the compartment alone. `read` gives an entry by the frame of its table and its index.
pub fn check_nested(served: &Owned, root: u64, read: &impl Fn(u64, u64) -> u64) -> Result<(), Wrong> {
    if root != served.nested {
        return Err(Wrong::Nested(root));
    }
    let read = |level: u32, at: u64, table: u64| {
        if !served.private.contains(HostPhysical::new(table)) {
            return Err(Wrong::NestedTable(table));
        }
        Ok(read(table, at >> (12 + 9 * level) & (ENTRIES - 1)))
    };
    walk(REACHABLE, &read, root, LEVELS - 1, 0, &mut |mapping| {
        let frame = mapping.frames.start().get();
        let own = served.ram.iter().any(|range| within(range, &mapping.frames));
        if own { Ok(()) } else { Err(Wrong::GuestReaches { at: mapping.linear, frame }) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Tables on paper: entries by frame of the table and index.
    #[derive(Clone, Default)]
    struct Paper(HashMap<(u64, u64), u64>);

    impl Paper {
        /// Maps a page of `1 << shift` bytes, with tables from `tables` on.
        fn map(&mut self, root: u64, linear: u64, frame: u64, level: u32, tables: &mut u64, flags: u64) {
            let index = |level: u32| linear >> (12 + 9 * level) & 511;
            let mut table = root;
            for upper in (level + 1..LEVELS).rev() {
                let entry = self.0.entry((table, index(upper))).or_insert_with(|| {
                    *tables += 0x1000;
                    *tables | 3
                });
                table = *entry & ADDRESS;
            }
            let large = if level > 0 { LARGE } else { 0 };
            self.0.insert((table, index(level)), frame | PRESENT | large | flags);
        }

        fn at(&self, table: u64, index: u64) -> u64 {
            self.0.get(&(table, index)).copied().unwrap_or(0)
        }

        fn host(&self, owned: &[Owned], root: u64) -> Result<u8, Wrong> {
            let read =
                |level: u32, linear: u64, table: u64| Ok(self.at(table, linear >> (12 + 9 * level) & 511));
            check_host(owned, root, &read).map(|served| served.index)
        }
    }

    fn range(start: u64, length: u64) -> HostRange {
        HostRange::new(HostPhysical::new(start), length).unwrap()
    }

    fn owned(index: u8) -> Owned {
        let base = 0x1000_0000 * (u64::from(index) + 1);
        Owned {
            index,
            ram: Vec::from_slice(&[range(base, 0x40_0000)]).unwrap(),
            private: range(base + 0x80_0000, 0x10_0000),
            root: range(base + 0xa0_0000, 0x1000),
            nested: base + 0x80_1000,
        }
    }

    /// Two compartments; tables of the first with its RAM, a private page, a payload page, the hypervisor, and the way to themselves.
    fn good() -> ([Owned; 2], Paper, u64) {
        let owned = [owned(0), owned(1)];
        let root = owned[0].root.start().get();
        let mut paper = Paper::default();
        let mut tables = 0x5000_0000;
        let begin = window(0) as u64;
        paper.map(root, begin, 0x1000_0000, 1, &mut tables, WRITE);
        paper.map(root, begin + 0x20_0000, 0x1020_0000, 1, &mut tables, WRITE);
        paper.map(root, begin + memory::PRIVATE_OFFSET as u64, 0x1080_0000, 0, &mut tables, WRITE);
        paper.map(root, begin + memory::PAYLOAD_OFFSET as u64, 0x6000_0000, 0, &mut tables, 0);
        paper.map(root, 0x10_0000, 0x10_0000, 0, &mut tables, WRITE);
        paper.0.insert((root, SELF), root | PRESENT);
        (owned, paper, root)
    }

    #[test]
    fn what_belongs_there_is_found_to_belong_there() {
        let (owned, paper, root) = good();
        assert_eq!(paper.host(&owned, root), Ok(0));
        assert_eq!(paper.host(&owned, root + 0x1000), Err(Wrong::Root(root + 0x1000)));
    }

    #[test]
    fn a_page_of_the_neighbours_is_found_wherever_it_is_mapped_and_whatever_it_is() {
        let (owned, good, root) = good();
        let begin = window(0) as u64;
        for linear in [
            0x20_0000,
            begin + 0x7fff_f000,
            begin + memory::PAYLOAD_OFFSET as u64 + 0x1000,
            window(1) as u64,
            129 << 39,
        ] {
            for frame in [0x2000_0000, 0x203f_f000, 0x2080_0000, 0x208f_f000, 0x20a0_0000] {
                let mut paper = good.clone();
                paper.map(root, linear, frame, 0, &mut 0x5100_0000, 0);
                assert_eq!(paper.host(&owned, root), Err(Wrong::Foreign { owner: 1, linear, frame }));
            }
        }
        // A large page that holds one of its pages somewhere.
        let mut paper = good;
        paper.map(root, 0x4000_0000, 0, 2, &mut 0x5100_0000, 0);
        assert!(matches!(
            paper.host(&owned, root),
            Err(Wrong::Foreign { owner: 1, linear: 0x4000_0000, .. } | Wrong::OutsideWindow(_))
        ));
    }

    #[test]
    fn what_is_nobodys_does_not_belong_into_windows_nor_the_served_ones_outside() {
        let (owned, good, root) = good();
        let begin = window(0) as u64;
        let with = |linear, frame, flags| {
            let mut paper = good.clone();
            paper.map(root, linear, frame, 0, &mut 0x5100_0000, flags);
            paper.host(&owned, root)
        };
        assert_eq!(with(0x30_0000, 0x1000_0000, 0), Err(Wrong::OutsideWindow(0x30_0000)));
        assert_eq!(with(begin + 0x60_0000, 0x7000_0000, WRITE), Err(Wrong::Stray(begin + 0x60_0000)));
        assert_eq!(with(128 << 39, 0x7000_0000, 0), Err(Wrong::Stray(128 << 39)));
        assert_eq!(with(window(3) as u64, 0x7000_0000, 0), Err(Wrong::Stray(window(3) as u64)));
        // The frame of its own highest table may be read through `SELF` alone.
        assert_eq!(with(begin + 0x60_0000, root, WRITE), Err(Wrong::Stray(begin + 0x60_0000)));
    }

    #[test]
    fn a_guest_reaches_its_own_ram_and_nothing_else() {
        let owned = owned(0);
        let mut good = Paper::default();
        let mut tables = owned.nested;
        good.map(owned.nested, 0, 0x1000_0000, 1, &mut tables, WRITE);
        good.map(owned.nested, 0x20_0000, 0x103f_f000, 0, &mut tables, WRITE);
        let check = |paper: &Paper, root| check_nested(&owned, root, &|table, index| paper.at(table, index));
        assert_eq!(check(&good, owned.nested), Ok(()));
        assert_eq!(check(&good, 0x2080_1000), Err(Wrong::Nested(0x2080_1000)));
        // A neighbour's RAM, the own private area, a large page that begins in RAM and ends behind it.
        for (frame, level) in [(0x2000_0000, 0), (0x1080_0000, 0), (0x1040_0000, 1), (0, 2)] {
            let mut paper = good.clone();
            paper.map(owned.nested, 0x4000_0000, frame, level, &mut tables, 0);
            assert_eq!(check(&paper, owned.nested), Err(Wrong::GuestReaches { at: 0x4000_0000, frame }));
        }
        // Extended page tables can let a guest execute what it cannot read.
        let mut paper = good.clone();
        paper.map(owned.nested, 0x4000_0000, 0x2000_0000, 0, &mut tables, 4);
        for entry in paper.0.values_mut().filter(|entry| **entry == 0x2000_0000 | PRESENT | 4) {
            *entry &= !PRESENT;
        }
        let reached = Wrong::GuestReaches { at: 0x4000_0000, frame: 0x2000_0000 };
        assert_eq!(check(&paper, owned.nested), Err(reached));
        let mut paper = good;
        paper.0.insert((owned.nested, 1), 0x2000_0000 | 3);
        assert_eq!(check(&paper, owned.nested), Err(Wrong::NestedTable(0x2000_0000)));
    }
}
