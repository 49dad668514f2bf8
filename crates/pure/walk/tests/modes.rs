//! Each mode, and each reason to fail, by hand.
#![allow(clippy::panic, clippy::unwrap_used)] // A test: what surprises it stops it.

use address::{GuestLinear, GuestPhysical};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use walk::{Access, Paging, Translation, WalkFailure, translate, translate_and_mark};
use x86::{Cr0, Cr4, Efer, Fault};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;

/// RAM in which every aligned quad that was not written is 0, up to a limit.
#[derive(Default)]
struct Ram {
    quads: RefCell<BTreeMap<u64, u64>>,
}

impl Ram {
    const END: u64 = 0x100_0000;

    fn of(entries: &[(u64, u64)]) -> Self {
        let ram = Self::default();
        for (at, value) in entries {
            ram.set(*at, *value);
        }
        ram
    }

    fn set(&self, at: u64, value: u64) {
        assert_eq!(at % 8, 0);
        self.quads.borrow_mut().insert(at, value);
    }

    /// Sets a 4-byte entry.
    fn set_double(&self, at: u64, value: u32) {
        let quad = self.get(at & !7);
        let shift = (at & 4) * 8;
        self.set(at & !7, quad & !(0xffff_ffff << shift) | u64::from(value) << shift);
    }

    fn get(&self, at: u64) -> u64 {
        self.quads.borrow().get(&at).copied().unwrap_or(0)
    }

    fn read(&self, at: GuestPhysical) -> Option<u64> {
        assert!(at.is_aligned(8), "the walk reads aligned quads only");
        (at.get() < Self::END).then(|| self.get(at.get()))
    }
}

fn long_mode() -> Paging {
    Paging {
        cr0: Cr0::PROTECTION | Cr0::PAGING | Cr0::WRITE_PROTECT,
        cr3: 0x1000,
        cr4: Cr4::PHYSICAL_ADDRESS,
        efer: Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE | Efer::NO_EXECUTE,
        privilege: 0,
        alignment_check: false,
        physical_bits: 40,
    }
}

fn pae() -> Paging {
    Paging { efer: Efer::NO_EXECUTE, ..long_mode() }
}

fn two_levels() -> Paging {
    Paging { cr4: Cr4::PAGE_SIZE, efer: Efer::empty(), ..long_mode() }
}

fn user(paging: Paging) -> Paging {
    Paging { privilege: 3, ..paging }
}

fn walk(ram: &Ram, paging: &Paging, address: u64, access: Access) -> Result<Translation, WalkFailure> {
    translate(paging, GuestLinear::new(address), access, |at| ram.read(at))
}

fn reaches(ram: &Ram, paging: &Paging, address: u64, access: Access) -> (u64, u64) {
    let translation = walk(ram, paging, address, access).unwrap();
    (translation.address.get(), translation.page_length)
}

/// The error code of the page fault.
fn code(ram: &Ram, paging: &Paging, address: u64, access: Access) -> u16 {
    match walk(ram, paging, address, access) {
        Err(WalkFailure::Fault(Fault::Page { address: reported, code })) => {
            assert_eq!(reported, address);
            code
        }
        other => panic!("{other:?} is no page fault"),
    }
}

/// A linear address with this index at each of four levels.
fn linear(fourth: u64, third: u64, second: u64, first: u64, offset: u64) -> u64 {
    let low = fourth << 39 | third << 30 | second << 21 | first << 12 | offset;
    // Canonical.
    (low << 16).cast_signed().wrapping_shr(16).cast_unsigned()
}

/// Four levels of tables for `linear(1, 2, 3, 4, …)`, the last entry as given.
fn four_levels(last: u64) -> Ram {
    Ram::of(&[
        (0x1008, 0x2000 | P | W | U),
        (0x2010, 0x3000 | P | W | U),
        (0x3018, 0x4000 | P | W | U),
        (0x4020, last),
    ])
}

#[test]
fn without_paging_addresses_are_physical() {
    let paging = Paging { cr0: Cr0::PROTECTION, efer: Efer::empty(), ..long_mode() };
    let ram = Ram::default();
    assert_eq!(reaches(&ram, &paging, 0x12_3456, Access::Write), (0x12_3456, 0xbaa));
    assert_eq!(reaches(&ram, &paging, 0x1_0000_0010, Access::Execute), (0x10, 0xff0));
}

#[test]
fn four_levels_reach_small_pages() {
    let ram = four_levels(0xab_cdef_5000 | P | W | U);
    let address = linear(1, 2, 3, 4, 0x678);
    for access in [Access::Read, Access::Write, Access::Execute] {
        assert_eq!(reaches(&ram, &long_mode(), address, access), (0xab_cdef_5678, 0x988));
        assert_eq!(reaches(&ram, &user(long_mode()), address, access), (0xab_cdef_5678, 0x988));
    }
    // Software's own bits, and what caches do with the page, do not matter; nor do CR3's low bits.
    let ram = four_levels(0x5000 | P | W | U | 0x7ff0_0000_0000_0f98);
    let paging = Paging { cr3: 0x1018, ..long_mode() };
    assert_eq!(reaches(&ram, &paging, address, Access::Read), (0x5678, 0x988));
}

#[test]
fn four_levels_reach_large_pages() {
    let ram = Ram::of(&[
        (0x1ff8, 0x2000 | P),
        (0x2008, 0x8000_0000 | P | PS | 1 << 12),
        (0x2ff0, 0x3000 | P),
        (0x3008, 0xc0_0000 | P | PS | 1 << 12),
    ]);
    let huge = linear(511, 1, 3, 4, 0x567);
    assert_eq!(reaches(&ram, &long_mode(), huge, Access::Execute), (0x8060_4567, 0x4000_0000 - 0x60_4567));
    let large = linear(511, 510, 1, 4, 0x567);
    assert_eq!(reaches(&ram, &long_mode(), large, Access::Execute), (0xc0_4567, 0x20_0000 - 0x4567));
}

#[test]
fn five_levels_reach_their_pages() {
    let paging = Paging { cr4: Cr4::PHYSICAL_ADDRESS | Cr4::LINEAR_57, cr3: 0x9000, ..long_mode() };
    let ram = four_levels(0x5000 | P);
    ram.set(0x9008, 0x1000 | P);
    let address = 1 << 48 | linear(1, 2, 3, 4, 0x10);
    assert_eq!(reaches(&ram, &paging, address, Access::Read), (0x5010, 0xff0));
    assert_eq!(walk(&ram, &long_mode(), address, Access::Read), Err(WalkFailure::Fault(Fault::GP)));
    let beyond = 1 << 57 | address;
    assert_eq!(walk(&ram, &paging, beyond, Access::Read), Err(WalkFailure::Fault(Fault::GP)));
}

#[test]
fn addresses_must_be_canonical() {
    for address in [0x0000_8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
        for access in [Access::Read, Access::Execute] {
            let failure = walk(&Ram::default(), &long_mode(), address, access);
            assert_eq!(failure, Err(WalkFailure::Fault(Fault::GP)), "{address:#x}");
        }
    }
}

#[test]
fn absent_entries_fault_at_every_level() {
    let address = linear(1, 2, 3, 4, 0);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, ram.get(at) & !P);
        assert_eq!(code(&ram, &long_mode(), address, Access::Read), 0);
        assert_eq!(code(&ram, &long_mode(), address, Access::Write), 0b0_0010);
        assert_eq!(code(&ram, &long_mode(), address, Access::Execute), 0b1_0000);
        assert_eq!(code(&ram, &user(long_mode()), address, Access::Write), 0b0_0110);
        // An absent entry may hold anything, also what is no RAM.
        ram.set(at, !P);
        assert_eq!(code(&ram, &long_mode(), address, Access::Read), 0);
    }
}

#[test]
fn a_fetch_says_so_only_where_fetches_are_judged() {
    let address = linear(1, 2, 3, 4, 0);
    let ram = Ram::default();
    let without = Paging { efer: Efer::LONG_MODE_ACTIVE, ..long_mode() };
    assert_eq!(code(&ram, &without, address, Access::Execute), 0);
    let smep = Paging { cr4: without.cr4 | Cr4::SUPERVISOR_EXECUTION, ..without };
    assert_eq!(code(&ram, &smep, address, Access::Execute), 0b1_0000);
    // NXE alone means nothing with 4-byte entries.
    let old = Paging { efer: Efer::NO_EXECUTE, ..two_levels() };
    assert_eq!(code(&ram, &old, 0x1000, Access::Execute), 0);
}

#[test]
fn a_user_needs_the_user_bit_at_every_level() {
    let address = linear(1, 2, 3, 4, 0);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, ram.get(at) & !U);
        assert_eq!(code(&ram, &user(long_mode()), address, Access::Read), 0b0_0101);
        assert_eq!(code(&ram, &user(long_mode()), address, Access::Execute), 0b1_0101);
        assert!(walk(&ram, &long_mode(), address, Access::Read).is_ok());
    }
}

#[test]
fn writes_need_the_write_bit_at_every_level() {
    let address = linear(1, 2, 3, 4, 0);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, ram.get(at) & !W);
        assert_eq!(code(&ram, &long_mode(), address, Access::Write), 0b0_0011);
        assert_eq!(code(&ram, &user(long_mode()), address, Access::Write), 0b0_0111);
        assert!(walk(&ram, &user(long_mode()), address, Access::Read).is_ok());
        // Without CR0.WP the supervisor writes all the same, the user does not.
        let open = Paging { cr0: Cr0::PROTECTION | Cr0::PAGING, ..long_mode() };
        assert!(walk(&ram, &open, address, Access::Write).is_ok());
        assert_eq!(code(&ram, &user(open), address, Access::Write), 0b0_0111);
    }
}

#[test]
fn no_execute_holds_at_every_level() {
    let address = linear(1, 2, 3, 4, 0);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, ram.get(at) | NX);
        assert_eq!(code(&ram, &long_mode(), address, Access::Execute), 0b1_0001);
        assert!(walk(&ram, &long_mode(), address, Access::Write).is_ok());
        // Without NXE the bit is reserved, for all accesses.
        let without = Paging { efer: Efer::LONG_MODE_ACTIVE, ..long_mode() };
        assert_eq!(code(&ram, &without, address, Access::Execute), 0b0_1001);
        assert_eq!(code(&ram, &without, address, Access::Read), 0b0_1001);
    }
}

#[test]
fn the_supervisor_keeps_off_user_pages() {
    let address = linear(1, 2, 3, 4, 0);
    let ram = four_levels(0x5000 | P | W | U);
    let guarded = Paging {
        cr4: Cr4::PHYSICAL_ADDRESS | Cr4::SUPERVISOR_EXECUTION | Cr4::SUPERVISOR_ACCESS,
        ..long_mode()
    };
    assert_eq!(code(&ram, &guarded, address, Access::Execute), 0b1_0001);
    assert_eq!(code(&ram, &guarded, address, Access::Read), 0b0_0001);
    assert_eq!(code(&ram, &guarded, address, Access::Write), 0b0_0011);
    // AC lifts SMAP, not SMEP.
    let lifted = Paging { alignment_check: true, ..guarded };
    assert!(walk(&ram, &lifted, address, Access::Write).is_ok());
    assert_eq!(code(&ram, &lifted, address, Access::Execute), 0b1_0001);
    // The user is not the supervisor, and a supervisor page is not a user page.
    assert!(walk(&ram, &user(guarded), address, Access::Execute).is_ok());
    ram.set(0x2010, ram.get(0x2010) & !U);
    assert!(walk(&ram, &guarded, address, Access::Execute).is_ok());
    assert!(walk(&ram, &guarded, address, Access::Write).is_ok());
}

#[test]
fn reserved_bits_fault_at_every_level() {
    let address = linear(1, 2, 3, 4, 0);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, ram.get(at) | 1 << 40);
        assert_eq!(code(&ram, &long_mode(), address, Access::Read), 0b0_1001);
        assert_eq!(code(&ram, &user(long_mode()), address, Access::Execute), 0b1_1101);
    }
    let ram = four_levels(0x5000 | P);
    ram.set(0x1008, ram.get(0x1008) | PS);
    assert_eq!(code(&ram, &long_mode(), address, Access::Read), 0b0_1001);
    let ram = four_levels(0x5000 | P);
    ram.set(0x2010, 0x8000_2000 | P | PS);
    assert_eq!(code(&ram, &long_mode(), address, Access::Write), 0b0_1011);
    let ram = four_levels(0x5000 | P);
    ram.set(0x3018, 0x80_2000 | P | PS);
    assert_eq!(code(&ram, &long_mode(), address, Access::Execute), 0b1_1001);
}

#[test]
fn tables_outside_memory_are_named() {
    let address = linear(1, 2, 3, 4, 0);
    for (at, index) in [(0x1008, 2), (0x2010, 3), (0x3018, 4)] {
        let ram = four_levels(0x5000 | P | W | U);
        ram.set(at, 0x30_0000_0000 | P);
        let table = GuestPhysical::new(0x30_0000_0000 + index * 8);
        assert_eq!(walk(&ram, &long_mode(), address, Access::Read), Err(WalkFailure::NotMemory(table)));
    }
    let lost = Paging { cr3: Ram::END, ..long_mode() };
    let table = GuestPhysical::new(Ram::END + 8);
    assert_eq!(walk(&Ram::default(), &lost, address, Access::Read), Err(WalkFailure::NotMemory(table)));
    // The page itself may lie anywhere: that is the second stage's affair.
    assert!(walk(&four_levels(0x30_0000_0000 | P), &long_mode(), address, Access::Read).is_ok());
}

#[test]
fn pae_has_four_entries_without_permissions() {
    let paging = Paging { cr3: 0x1020, ..pae() };
    let ram = Ram::of(&[
        (0x1038, 0x3000 | P),
        (0x3018, 0x4000 | P | W | U),
        (0x4020, 0xab_cdef_5000 | P | W | U | NX),
        (0x3020, 0xc0_0000 | P | PS | W),
    ]);
    let small = 3 << 30 | 3 << 21 | 4 << 12 | 0x678;
    // W and U of the highest entry are clear: it has none.
    assert_eq!(reaches(&ram, &user(paging), small, Access::Write), (0xab_cdef_5678, 0x988));
    assert_eq!(code(&ram, &user(paging), small, Access::Execute), 0b1_0101);
    // Bits above 32 of the linear address do not exist.
    assert_eq!(reaches(&ram, &paging, small | 1 << 40, Access::Read), (0xab_cdef_5678, 0x988));
    let large = 3 << 30 | 4 << 21 | 0x1234;
    assert_eq!(reaches(&ram, &paging, large, Access::Write), (0xc0_1234, 0x20_0000 - 0x1234));
    // Bit 5 is what QEMU makes of an entry that it has walked.
    ram.set(0x1038, 0x3000 | P | 1 << 5);
    assert_eq!(reaches(&ram, &paging, small, Access::Read), (0xab_cdef_5678, 0x988));
    for reserved in [1, 2, 6, 7, 8, 40, 52, 62, 63] {
        ram.set(0x1038, 0x3000 | P | 1 << reserved);
        assert_eq!(code(&ram, &paging, small, Access::Read), 0b0_1001, "bit {reserved}");
    }
    ram.set(0x1038, 0x3000 | P | 0xe18);
    ram.set(0x4020, ram.get(0x4020) | 1 << 52);
    assert_eq!(code(&ram, &paging, small, Access::Read), 0b0_1001);
}

#[test]
fn two_levels_have_short_entries() {
    let ram = Ram::default();
    // Both halves of a quad.
    ram.set_double(0x1008, 0x3003);
    ram.set_double(0x100c, 0x4007);
    ram.set_double(0x3010, 0xabcd_5001);
    ram.set_double(0x4014, 0xdcba_5fff);
    let even = 2 << 22 | 4 << 12 | 0x678;
    let odd = 3 << 22 | 5 << 12 | 0x678;
    assert_eq!(reaches(&ram, &two_levels(), even, Access::Execute), (0xabcd_5678, 0x988));
    assert_eq!(reaches(&ram, &user(two_levels()), odd, Access::Write), (0xdcba_5678, 0x988));
    assert_eq!(code(&ram, &two_levels(), even, Access::Write), 0b0_0011);
    assert_eq!(code(&ram, &user(two_levels()), even, Access::Read), 0b0_0101);
}

#[test]
fn two_levels_have_large_pages_where_pse_says_so() {
    let ram = Ram::default();
    ram.set_double(0x1008, 0xc040_0083 | 0x12 << 13);
    let address = 2 << 22 | 0x12_3456;
    assert_eq!(reaches(&ram, &two_levels(), address, Access::Write), (0x12_c052_3456, 0x40_0000 - 0x12_3456));
    // Bits 32 to 39 of the address, as far as the processor has them; bit 21 is reserved.
    let narrow = Paging { physical_bits: 36, ..two_levels() };
    assert_eq!(code(&ram, &narrow, address, Access::Read), 0b0_1001);
    ram.set_double(0x1008, 0xc040_0083 | 1 << 21);
    assert_eq!(code(&ram, &two_levels(), address, Access::Read), 0b0_1001);
    // Without PSE the bit is ignored, and a table follows.
    let without = Paging { cr4: Cr4::empty(), ..two_levels() };
    ram.set_double(0x1008, 0x3083);
    ram.set_double(0x348c, 0x7001);
    assert_eq!(reaches(&ram, &without, address, Access::Read), (0x7456, 0xbaa));
}

fn marked(ram: &Ram, paging: &Paging, address: u64, access: Access) -> Result<Translation, WalkFailure> {
    translate_and_mark(
        paging,
        GuestLinear::new(address),
        access,
        |at| ram.read(at),
        |at, old, new| {
            let equal = ram.get(at.get()) == old;
            if equal {
                ram.set(at.get(), new);
            }
            equal
        },
    )
}

#[test]
fn accessed_and_dirty_bits_are_set_where_asked() {
    let address = linear(1, 2, 3, 4, 0);
    let ram = four_levels(0x5000 | P | W | U);
    assert_eq!(marked(&ram, &long_mode(), address, Access::Read).unwrap().address.get(), 0x5000);
    for at in [0x1008, 0x2010, 0x3018, 0x4020] {
        assert_eq!(ram.get(at) & (A | D), A);
    }
    assert!(marked(&ram, &long_mode(), address, Access::Write).is_ok());
    for at in [0x1008, 0x2010, 0x3018] {
        assert_eq!(ram.get(at) & (A | D), A);
    }
    assert_eq!(ram.get(0x4020), 0x5000 | P | W | U | A | D);
    // Nothing is marked by an access that faults.
    let ram = four_levels(0x5000 | P);
    assert_eq!(code(&ram, &user(long_mode()), address, Access::Read), 0b0_0101);
    assert!(marked(&ram, &user(long_mode()), address, Access::Read).is_err());
    assert_eq!(ram.get(0x1008) & A, 0);
}

#[test]
fn short_entries_are_marked_in_their_half() {
    let ram = Ram::default();
    ram.set_double(0x100c, 0x4007);
    ram.set_double(0x4014, 0x5007);
    assert!(marked(&ram, &two_levels(), 3 << 22 | 5 << 12, Access::Write).is_ok());
    assert_eq!(ram.get(0x1008), 0x4027 << 32);
    assert_eq!(ram.get(0x4010), 0x5067 << 32);
    // The entries of PAE's highest table have no accessed bit.
    let ram = Ram::of(&[(0x1018, 0x3000 | P), (0x3018, 0xc0_0000 | P | PS | W)]);
    assert!(marked(&ram, &pae(), 3 << 30 | 3 << 21, Access::Write).is_ok());
    assert_eq!((ram.get(0x1018), ram.get(0x3018)), (0x3000 | P, 0xc0_0000 | P | PS | W | A | D));
}

#[test]
fn a_lost_race_starts_the_walk_again() {
    let address = linear(1, 2, 3, 4, 0);
    let ram = four_levels(0x5000 | P | W | U);
    let races = Cell::new(0);
    let result = translate_and_mark(
        &long_mode(),
        GuestLinear::new(address),
        Access::Write,
        |at| ram.read(at),
        |at, old, new| {
            if at.get() == 0x4020 && races.get() == 0 {
                // Another processor maps another page.
                races.set(1);
                ram.set(0x4020, 0x7000 | P | W | U);
                return false;
            }
            assert_eq!(ram.get(at.get()), old);
            ram.set(at.get(), new);
            true
        },
    );
    assert_eq!(result.unwrap().address.get(), 0x7000);
    assert_eq!(ram.get(0x4020), 0x7000 | P | W | U | A | D);
    // One who always wins cannot keep us for ever.
    let attempts = Cell::new(0);
    let ram = four_levels(0x5000 | P | W | U);
    let result = translate_and_mark(
        &long_mode(),
        GuestLinear::new(address),
        Access::Write,
        |at| ram.read(at),
        |_, _, _| {
            attempts.set(attempts.get() + 1);
            false
        },
    );
    assert_eq!((result.unwrap().address.get(), attempts.get()), (0x5000, 4));
}

#[test]
fn a_table_that_maps_itself_is_marked() {
    // The highest table as every table and as the page: one entry, four times on the way.
    let ram = Ram::of(&[(0x1008, 0x1000 | P | W)]);
    let address = linear(1, 1, 1, 1, 8);
    assert_eq!(marked(&ram, &long_mode(), address, Access::Write).unwrap().address.get(), 0x1008);
    assert_eq!(ram.get(0x1008), 0x1000 | P | W | A | D);
}
