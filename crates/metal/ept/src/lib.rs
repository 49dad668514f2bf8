//! Extended page tables of VT-x (SDM Vol. 3C §29.3): the second stage in a format of its own.
//!
//! Row 3 (metal). The walker is [`tables`], the frames and the rule that only the compartment's own are mapped are
//! [`backend::StageTables`]; here are the bits of an entry.
#![no_std]

use backend::{StageFormat, StageTables};
use contracts::{HugePages, MapMode};
use core::marker::PhantomData;
use cpu::Features;
use cpu::vmx::{Capabilities, ept};
use tables::Format;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
/// Memory type of a leaf, bits 5 to 3: write-back. The guest's own page attributes still count (bit 6 is clear), and may take caching away.
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The format, with 1 GiB pages where `H` has them. Accessed and dirty flags are not switched on: nobody asks for them.
pub struct Extended<H>(PhantomData<fn(H)>);

impl<H> Format for Extended<H> {
    const LEVELS: u8 = 4;

    fn leaf(address: u64, level: u8, mode: MapMode) -> u64 {
        let mut entry = (address & ADDRESS) | READ | WRITE_BACK;
        if mode.write {
            entry |= WRITE;
        }
        if mode.execute {
            entry |= EXECUTE;
        }
        if level > 1 {
            entry |= LARGE;
        }
        entry
    }

    fn table(address: u64) -> u64 {
        (address & ADDRESS) | READ | WRITE | EXECUTE
    }

    fn is_present(entry: u64) -> bool {
        entry & (READ | WRITE | EXECUTE) != 0
    }

    fn is_leaf(entry: u64, level: u8) -> bool {
        level == 1 || entry & LARGE != 0
    }

    fn address(entry: u64, _: u8) -> u64 {
        entry & ADDRESS
    }

    fn mode(entry: u64) -> MapMode {
        MapMode { write: entry & WRITE != 0, execute: entry & EXECUTE != 0 }
    }
}

impl<H: HugePages> StageFormat for Extended<H> {
    fn missing(features: &Features) -> Option<&'static str> {
        missing::<H>(&Capabilities::of(features))
    }

    fn has_huge_pages(_: &Features) -> bool {
        H::USED
    }
}

fn missing<H: HugePages>(capabilities: &Capabilities) -> Option<&'static str> {
    let has = |bits| capabilities.ept_vpid & bits == bits;
    if capabilities.ept_vpid == 0 {
        return Some("this processor has VT-x but no extended page tables, which part ept needs");
    }
    if !has(ept::FOUR_LEVELS | ept::WRITE_BACK | ept::LARGE_2M | ept::INVALIDATE | ept::INVALIDATE_ALL) {
        return Some(
            "this processor's extended page tables lack four levels, 2 MiB pages, write-back or INVEPT",
        );
    }
    (H::USED && !has(ept::LARGE_1G)).then_some(
        "this processor's extended page tables have no pages of 1 GiB, which part ept-large-pages needs",
    )
}

/// The extended page tables of one compartment.
pub type ExtendedTables<H> = StageTables<Extended<H>>;

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::absent::Absent;

    type Plain = Extended<Absent>;

    struct Present;

    impl HugePages for Present {
        const USED: bool = true;
    }

    #[test]
    fn entries_have_the_bits_of_the_manual() {
        // SDM Vol. 3C tables 29-2 to 29-7.
        assert_eq!(Plain::leaf(0x1234_5000, 1, MapMode::RAM), 0x1234_5037);
        assert_eq!(Plain::leaf(0x4000_0000, 3, MapMode::ROM), 0x4000_00b5);
        let data = MapMode { write: true, execute: false };
        assert_eq!(Plain::leaf(0x20_0000, 2, data), 0x20_00b3);
        assert_eq!(Plain::table(0x7000), 0x7007);
        assert_eq!(Plain::mode(0x20_00b3), data);
        assert!(!Plain::is_present(0x30) && Plain::is_present(1));
    }

    #[test]
    fn what_the_tables_lack_is_named() {
        let with = |ept_vpid| Capabilities { ept_vpid, ..Capabilities::default() };
        let named = |missing: Option<&str>, what: &str| missing.is_some_and(|missing| missing.contains(what));
        assert!(named(missing::<Absent>(&with(0)), "no extended page tables"));
        // What a Nehalem says (SDM Vol. 3D appendix A.10), and a Haswell.
        let (nehalem, haswell) = (0x0f01_0611_4141, 0x0f01_0633_4141);
        assert_eq!(missing::<Absent>(&with(nehalem)), None);
        assert!(named(missing::<Present>(&with(nehalem)), "ept-large-pages"));
        assert_eq!(missing::<Present>(&with(haswell)), None);
        for bit in [6, 14, 16, 20, 26] {
            assert!(named(missing::<Absent>(&with(nehalem & !(1 << bit))), "lack"), "{bit}");
        }
    }
}
