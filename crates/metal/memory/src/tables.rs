//! Host page tables: four levels (APM Vol. 2 §5.3). Pure arithmetic over a memory of tables.

use address::{HostPhysical, PAGE_1G, PAGE_2M, PAGE_4K};

/// What a mapping allows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Writes pass.
    pub write: bool,
    /// Fetches pass.
    pub execute: bool,
    /// Device registers: no caching.
    pub uncached: bool,
    /// The same in all tables: translations survive a change of tables.
    pub global: bool,
}

/// What the processor's tables can do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Bit 63 forbids fetches.
    pub no_execute: bool,
    /// 1 GiB pages.
    pub huge: bool,
}

/// Why a mapping was not made. Tables that were added for it stay, empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MapError {
    /// An address or the length is no multiple of 4 KiB.
    Unaligned,
    /// Something is mapped there already.
    Occupied,
    /// No frame is left for tables.
    NoFrames,
}

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry that leads to another table. Rights are narrowed in the last entry only.
pub const fn table_entry(table: HostPhysical) -> u64 {
    table.get() & ADDRESS | PRESENT | WRITE | ACCESSED
}

/// Where tables are kept.
pub trait TableMemory {
    /// Reads entry `index`, 0 to 511, of a table.
    fn read(&self, table: HostPhysical, index: usize) -> u64;
    /// Writes entry `index`, 0 to 511, of a table.
    fn write(&mut self, table: HostPhysical, index: usize, entry: u64);
    /// A table of zeros.
    fn table(&mut self) -> Option<HostPhysical>;
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level) & 0x1ff) as usize
}

const fn leaf(physical: u64, attributes: Attributes, abilities: Abilities, level: u32) -> u64 {
    // Accessed and dirty are set at once: no processor need write to the tables, and no table need be writable for it.
    let mut entry = physical & ADDRESS | PRESENT | ACCESSED;
    if attributes.write {
        entry |= WRITE | DIRTY;
    }
    if attributes.uncached {
        entry |= NO_CACHE | WRITE_THROUGH;
    }
    if attributes.global {
        entry |= GLOBAL;
    }
    if !attributes.execute && abilities.no_execute {
        entry |= NO_EXECUTE;
    }
    if level > 0 {
        entry |= LARGE;
    }
    entry
}

/// Maps `length` bytes at `linear` to `physical` in the tables at `root`, with the largest pages that fit.
pub fn map(
    memory: &mut impl TableMemory,
    root: HostPhysical,
    linear: u64,
    physical: u64,
    length: u64,
    attributes: Attributes,
    abilities: Abilities,
) -> Result<(), MapError> {
    if (linear | physical | length) & (PAGE_4K - 1) != 0 {
        return Err(MapError::Unaligned);
    }
    let mut done = 0;
    while done < length {
        let (at, to) = (linear.wrapping_add(done), physical.wrapping_add(done));
        let fits = |size: u64| (at | to) & (size - 1) == 0 && length - done >= size;
        let level = if abilities.huge && fits(PAGE_1G) {
            2
        } else if fits(PAGE_2M) {
            1
        } else {
            0
        };
        let mut table = root;
        for upper in (level + 1..4).rev() {
            let entry = memory.read(table, index(at, upper));
            table = if entry & PRESENT == 0 {
                let next = memory.table().ok_or(MapError::NoFrames)?;
                memory.write(table, index(at, upper), table_entry(next));
                next
            } else if upper < 3 && entry & LARGE != 0 {
                return Err(MapError::Occupied);
            } else {
                HostPhysical::new(entry & ADDRESS)
            };
        }
        if memory.read(table, index(at, level)) & PRESENT != 0 {
            return Err(MapError::Occupied);
        }
        memory.write(table, index(at, level), leaf(to, attributes, abilities, level));
        done += PAGE_4K << (9 * level);
    }
    Ok(())
}

/// The most tables that mapping `length` bytes anywhere with 2 MiB pages at best can take, without the highest.
pub const fn tables_for(length: u64, small_pages: bool) -> u64 {
    let pointers = 1;
    let directories = length / PAGE_1G + 2;
    let pages = if small_pages { length / PAGE_2M + 2 } else { 0 };
    pointers + directories + pages
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Tables in a map, for tests.
    #[derive(Default)]
    pub(crate) struct Paper {
        tables: HashMap<u64, [u64; 512]>,
        pub(crate) limit: usize,
    }

    impl Paper {
        pub(crate) fn new(limit: usize) -> Self {
            Self { tables: HashMap::new(), limit }
        }

        pub(crate) fn tables(&self) -> usize {
            self.tables.len()
        }
    }

    impl TableMemory for Paper {
        fn read(&self, table: HostPhysical, index: usize) -> u64 {
            self.tables[&table.get()][index]
        }
        fn write(&mut self, table: HostPhysical, index: usize, entry: u64) {
            self.tables.get_mut(&table.get()).unwrap()[index] = entry;
        }
        fn table(&mut self) -> Option<HostPhysical> {
            if self.tables.len() == self.limit {
                return None;
            }
            let address = 0x1000 * (self.tables.len() as u64 + 1);
            self.tables.insert(address, [0; 512]);
            Some(HostPhysical::new(address))
        }
    }

    /// The walk that a processor does: last entry, and the physical address.
    pub(crate) fn walk(memory: &Paper, root: HostPhysical, address: u64) -> Option<(u64, u64)> {
        let mut table = root;
        for level in (0..4).rev() {
            let entry = memory.read(table, index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || level < 3 && entry & LARGE != 0 {
                let size = PAGE_4K << (9 * level);
                // In a large leaf the bits below its size are flags or zero (bit 12 would be PAT).
                return Some((entry, entry & ADDRESS & !(size - 1) | address & (size - 1)));
            }
            table = HostPhysical::new(entry & ADDRESS);
        }
        None
    }

    const ALL: Abilities = Abilities { no_execute: true, huge: true };
    const DATA: Attributes = Attributes { write: true, execute: false, uncached: false, global: false };

    fn paper() -> (Paper, HostPhysical) {
        let mut paper = Paper::new(64);
        let root = paper.table().unwrap();
        (paper, root)
    }

    #[test]
    fn a_gigabyte_takes_one_entry_where_it_may() {
        let (mut paper, root) = paper();
        map(&mut paper, root, 0, 0x4000_0000, PAGE_1G, DATA, ALL).unwrap();
        assert_eq!(paper.tables(), 2);
        let (entry, to) = walk(&paper, root, 0x1234_5678).unwrap();
        assert_eq!(to, 0x5234_5678);
        assert!(entry & LARGE != 0 && entry & NO_EXECUTE != 0 && entry & WRITE != 0);
        let (mut small, root) = self::paper();
        let without = Abilities { huge: false, ..ALL };
        map(&mut small, root, 0, 0x4000_0000, PAGE_1G, DATA, without).unwrap();
        assert_eq!(small.tables(), 3);
        assert_eq!(walk(&small, root, 0x1234_5678).unwrap().1, 0x5234_5678);
    }

    #[test]
    fn every_page_of_a_ragged_range_leads_where_it_should_and_no_other_does() {
        let (mut paper, root) = paper();
        let (linear, physical, length) = (0xffff_8000_001f_f000u64, 0x3f_f000u64, 0x40_3000u64);
        map(&mut paper, root, linear, physical, length, DATA, ALL).unwrap();
        for offset in (0..length).step_by(0x1000) {
            assert_eq!(walk(&paper, root, linear + offset).unwrap().1, physical + offset);
        }
        assert!(walk(&paper, root, linear - 1).is_none());
        assert!(walk(&paper, root, linear + length).is_none());
    }

    #[test]
    fn nothing_is_mapped_over() {
        let (mut paper, root) = paper();
        map(&mut paper, root, 0x20_0000, 0, PAGE_2M, DATA, ALL).unwrap();
        assert_eq!(map(&mut paper, root, 0x20_1000, 0, PAGE_4K, DATA, ALL), Err(MapError::Occupied));
        assert_eq!(map(&mut paper, root, 0x20_0000, 0, PAGE_2M, DATA, ALL), Err(MapError::Occupied));
        assert_eq!(map(&mut paper, root, 0, 0, PAGE_1G, DATA, ALL), Err(MapError::Occupied));
    }

    #[test]
    fn rights_are_in_the_last_entry() {
        let (mut paper, root) = paper();
        let code = Attributes { execute: true, global: true, ..Attributes::default() };
        map(&mut paper, root, 0x10_0000, 0x10_0000, PAGE_4K, code, ALL).unwrap();
        let device = Attributes { write: true, uncached: true, ..Attributes::default() };
        map(&mut paper, root, 0x10_1000, 0xfee0_0000, PAGE_4K, device, ALL).unwrap();
        let (entry, _) = walk(&paper, root, 0x10_0000).unwrap();
        assert!(entry & (WRITE | NO_EXECUTE) == 0 && entry & GLOBAL != 0);
        let (entry, _) = walk(&paper, root, 0x10_1000).unwrap();
        assert!(
            entry & NO_EXECUTE != 0 && entry & NO_CACHE != 0 && entry & WRITE != 0 && entry & GLOBAL == 0
        );
        // Without the ability the bit is reserved and must stay clear.
        let without = Abilities { no_execute: false, huge: false };
        map(&mut paper, root, 0x10_2000, 0, PAGE_4K, device, without).unwrap();
        assert_eq!(walk(&paper, root, 0x10_2000).unwrap().0 & NO_EXECUTE, 0);
    }

    #[test]
    fn frames_may_run_out_and_addresses_may_be_odd() {
        let mut paper = Paper::new(2);
        let root = paper.table().unwrap();
        assert_eq!(map(&mut paper, root, 0, 0, PAGE_4K, DATA, ALL), Err(MapError::NoFrames));
        assert_eq!(map(&mut paper, root, 1, 0, PAGE_4K, DATA, ALL), Err(MapError::Unaligned));
        assert_eq!(map(&mut paper, root, 0, 0, 1, DATA, ALL), Err(MapError::Unaligned));
    }

    #[test]
    fn the_estimate_of_tables_is_never_too_low() {
        for (linear, length) in [
            (0u64, PAGE_1G),
            (0x1f_f000, 0x40_2000),
            (0x3fff_f000, 0x2000),
            (0, 0x1000),
            (0x1000, 0x1000_0000),
        ] {
            let (mut paper, root) = paper();
            paper.limit = 5_000;
            let odd = 0x1000;
            map(&mut paper, root, linear, linear + odd, length, DATA, ALL).unwrap();
            assert!(paper.tables() as u64 - 1 <= tables_for(length, true), "{linear:#x} {length:#x}");
        }
    }
}
