//! Nested page tables of AMD-V (APM Vol. 2 §15.25): the second stage in the processor's own long-mode format.
//!
//! Row 3 (metal). The walker is [`tables`], the frames and the rule that only the compartment's own are mapped are
//! [`backend::StageTables`]; here are the bits of an entry.
#![no_std]

use backend::{StageFormat, StageTables};
use contracts::MapMode;
use cpu::Features;
use tables::Format;

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

impl StageFormat for Nested {
    fn missing(features: &Features) -> Option<&'static str> {
        (!features.npt).then_some("this processor has AMD-V but no nested paging, which part npt needs")
    }

    fn has_huge_pages(features: &Features) -> bool {
        features.page_1g
    }
}

/// The nested page tables of one compartment.
pub type NestedTables = StageTables<Nested>;

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
