//! The walk through a guest's page tables: in every mode, through tables of any content.

use crate::tape::Tape;
use address::{GuestLinear, GuestPhysical};
use std::cell::{Cell, RefCell};
use walk::{Access, Paging, Translation, WalkFailure, translate, translate_and_mark};
use x86::{Cr0, Cr4, Efer};

/// RAM has so many bytes: six tables.
const RAM: usize = 0x6000;
/// Five levels, four attempts.
const MOST_READS: u32 = 20;

/// Walks where the bytes say, with tables that they fill.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let (flags, modes) = (tape.byte(), tape.byte());
    let on = |bit: u8| flags & 1 << bit != 0;
    let flag = |set, bit| if set { bit } else { Cr4::empty() };
    let long = on(0);
    let mut efer = if long { Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE } else { Efer::empty() };
    efer.set(Efer::NO_EXECUTE, on(1));
    let mut cr0 = Cr0::PROTECTION | Cr0::EXTENSION_TYPE;
    cr0.set(Cr0::PAGING, long || on(2));
    cr0.set(Cr0::WRITE_PROTECT, on(3));
    let paging = Paging {
        cr0,
        cr3: tape.word().into(),
        cr4: flag(long || on(4), Cr4::PHYSICAL_ADDRESS)
            | flag(on(5), Cr4::PAGE_SIZE)
            | flag(on(6), Cr4::SUPERVISOR_EXECUTION)
            | flag(on(7), Cr4::SUPERVISOR_ACCESS)
            | flag(modes & 1 != 0, Cr4::LINEAR_57),
        efer,
        privilege: modes >> 1 & 3,
        alignment_check: modes & 8 != 0,
        physical_bits: 32 + (modes >> 3) % 21,
    };
    let access = tape.one_of(&[Access::Read, Access::Write, Access::Execute]);
    let linear = GuestLinear::new(tape.value());

    let ram = RefCell::new(vec![0_u8; RAM]);
    while !tape.is_over() {
        // Entries mostly lie where a walk from the bottom of RAM finds them, and lead to where the next table is.
        let place = tape.word();
        let at = (usize::from(place) % (RAM - 8)) & !7;
        let entry = match place & 3 {
            0 => tape.quad(),
            _ => {
                (u64::from(tape.word()) % RAM as u64) & !0xfff
                    | u64::from(tape.byte())
                    | u64::from(tape.flag()) << 63
            }
        };
        ram.borrow_mut()[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
    let reads = Cell::new(0);
    let read = |at: GuestPhysical| {
        reads.set(reads.get() + 1);
        assert!(at.is_aligned(8));
        let at = usize::try_from(at.get()).ok()?;
        Some(u64::from_le_bytes(*ram.borrow().get(at..)?.first_chunk()?))
    };
    let found = translate(&paging, linear, access, read);
    // A quick attempt of up to four entries, then a thorough one.
    assert!(reads.take() <= 9, "a walk of {} reads", reads.get());
    check(&found);

    // The thorough walk alone finds the same; what it marks changes nothing but the accessed and dirty bits, and where a guest wins every
    // race it ends all the same.
    let marked = translate_and_mark(&paging, linear, access, read, |_, _, _| false);
    assert_eq!(found, marked);
    assert!(reads.take() <= MOST_READS);
    let marked = translate_and_mark(&paging, linear, access, read, |at, old, new| {
        if read(at) != Some(old) {
            // It was its own table, and is marked already.
            return false;
        }
        // Twice, where the entry is one of two in its eight bytes.
        assert_eq!((old ^ new) & !0x60_0000_0060, 0, "a mark beyond the accessed and dirty bits");
        assert_eq!(new & old, old);
        let at = at.get() as usize;
        ram.borrow_mut()[at..at + 8].copy_from_slice(&new.to_le_bytes());
        true
    });
    if found.is_err() {
        assert_eq!(found, marked);
    }
    // An entry that is its own table may have been changed under the walk; otherwise it finds the same again.
    check(&marked);
}

fn check(found: &Result<Translation, WalkFailure>) {
    if let Ok(translation) = found {
        let (start, length) = (translation.address.get(), translation.page_length);
        assert!((1..=1 << 30).contains(&length));
        assert!(start < 1 << 52, "an address of more than 52 bits");
        assert_eq!((start + length) & 0xfff, 0, "a page that does not end where pages do");
    }
}

/// A walk through all levels, in each mode.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for flags in [0b0000_0001, 0b0000_0011, 0b0001_0100, 0b0000_0100, 0b0010_0100, 0] {
        for modes in [0, 1, 6, 7] {
            for access in 0..3 {
                let mut bytes = vec![flags, modes, 0, 0, access, 8];
                for table in 0..5_u16 {
                    bytes.extend((table << 12 | 1).to_le_bytes());
                    bytes.extend(((table + 1) << 12).to_le_bytes());
                    bytes.extend([0x27, 0]);
                }
                seeds.push(bytes);
            }
        }
    }
    seeds
}
