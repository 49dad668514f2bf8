//! The walk against a slow model of it, written from the manual's figures (APM Vol. 2 §5.2, §5.3, §5.6) table by table and
//! sharing nothing with the walk but its types, over random tables that lead somewhere often enough.

use address::{GuestLinear, GuestPhysical};
use proptest::prelude::*;
use std::collections::BTreeMap;
use walk::{Access, Paging, Translation, WalkFailure, translate, translate_and_mark};
use x86::{Cr0, Cr4, Efer, Fault};

/// Bits of a number as the manual writes them: from `high` down to `low`.
fn bits(value: u64, high: u32, low: u32) -> u64 {
    (value >> low) & (u64::MAX >> (63 - (high - low)))
}

/// What the model knows of the access.
struct Model<'a> {
    paging: &'a Paging,
    linear: u64,
    access: Access,
    ram: &'a BTreeMap<u64, u64>,
    read_only: bool,
    supervisor: bool,
    no_execute: bool,
}

impl Model<'_> {
    fn on(&self, flag: Cr4) -> bool {
        self.paging.cr4.contains(flag)
    }

    fn nxe(&self) -> bool {
        self.paging.efer.contains(Efer::NO_EXECUTE)
    }

    fn fault(&self, present: bool, reserved: bool) -> WalkFailure {
        let mut code = 0;
        if present {
            code += 1;
        }
        if self.access == Access::Write {
            code += 2;
        }
        if self.paging.privilege == 3 {
            code += 4;
        }
        if reserved {
            code += 8;
        }
        let judged = self.nxe() && self.on(Cr4::PHYSICAL_ADDRESS) || self.on(Cr4::SUPERVISOR_EXECUTION);
        if self.access == Access::Execute && judged {
            code += 16;
        }
        WalkFailure::Fault(Fault::Page { address: self.linear, code })
    }

    fn entry8(&self, at: u64) -> Result<u64, WalkFailure> {
        let entry = *self.ram.get(&at).ok_or(WalkFailure::NotMemory(GuestPhysical::new(at)))?;
        if bits(entry, 0, 0) == 0 { Err(self.fault(false, false)) } else { Ok(entry) }
    }

    fn entry4(&self, at: u64) -> Result<u64, WalkFailure> {
        let quad_at = at - at % 8;
        let quad = *self.ram.get(&quad_at).ok_or(WalkFailure::NotMemory(GuestPhysical::new(quad_at)))?;
        let entry = if at.is_multiple_of(8) { bits(quad, 31, 0) } else { bits(quad, 63, 32) };
        if bits(entry, 0, 0) == 0 { Err(self.fault(false, false)) } else { Ok(entry) }
    }

    fn require(&self, allowed: bool) -> Result<(), WalkFailure> {
        if allowed { Ok(()) } else { Err(self.fault(true, true)) }
    }

    fn note(&mut self, entry: u64) {
        self.read_only |= bits(entry, 1, 1) == 0;
        self.supervisor |= bits(entry, 2, 2) == 0;
        self.no_execute |= bits(entry, 63, 63) == 1;
    }

    /// Bits that every 8-byte entry must have clear.
    fn address_fits(&self, entry: u64) -> bool {
        let width = u32::from(self.paging.physical_bits);
        (width >= 52 || bits(entry, 51, width) == 0) && (self.nxe() || bits(entry, 63, 63) == 0)
    }

    fn finish(&self, page: u64, size: u64) -> Result<Translation, WalkFailure> {
        let user = self.paging.privilege == 3;
        let refused = match self.access {
            _ if user && self.supervisor => true,
            Access::Execute => {
                self.no_execute || !user && !self.supervisor && self.on(Cr4::SUPERVISOR_EXECUTION)
            }
            _ if !user
                && !self.supervisor
                && self.on(Cr4::SUPERVISOR_ACCESS)
                && !self.paging.alignment_check =>
            {
                true
            }
            Access::Read => false,
            Access::Write => self.read_only && (user || self.paging.cr0.contains(Cr0::WRITE_PROTECT)),
        };
        if refused {
            return Err(self.fault(true, false));
        }
        let offset = self.linear % size;
        Ok(Translation { address: GuestPhysical::new(page + offset), page_length: size - offset })
    }

    fn long(&mut self) -> Result<Translation, WalkFailure> {
        let linear = self.linear;
        let top = if self.on(Cr4::LINEAR_57) { 56 } else { 47 };
        if bits(linear, 63, top) != 0 && bits(linear, 63, top) != u64::MAX >> top {
            return Err(WalkFailure::Fault(Fault::GeneralProtection(0)));
        }
        let mut table = bits(self.paging.cr3, 51, 12) << 12;
        if self.on(Cr4::LINEAR_57) {
            let entry = self.entry8(table + bits(linear, 56, 48) * 8)?;
            self.require(self.address_fits(entry) && bits(entry, 7, 7) == 0)?;
            self.note(entry);
            table = bits(entry, 51, 12) << 12;
        }
        let entry = self.entry8(table + bits(linear, 47, 39) * 8)?;
        self.require(self.address_fits(entry) && bits(entry, 7, 7) == 0)?;
        self.note(entry);
        let entry = self.entry8((bits(entry, 51, 12) << 12) + bits(linear, 38, 30) * 8)?;
        self.require(self.address_fits(entry))?;
        self.note(entry);
        if bits(entry, 7, 7) == 1 {
            self.require(bits(entry, 29, 13) == 0)?;
            return self.finish(bits(entry, 51, 30) << 30, 1 << 30);
        }
        self.directory(bits(entry, 51, 12) << 12)
    }

    /// The two lower levels of long mode and PAE.
    fn directory(&mut self, table: u64) -> Result<Translation, WalkFailure> {
        let long = self.paging.efer.contains(Efer::LONG_MODE_ACTIVE);
        let fits = |model: &Self, entry: u64| model.address_fits(entry) && (long || bits(entry, 62, 52) == 0);
        let entry = self.entry8(table + bits(self.linear, 29, 21) * 8)?;
        self.require(fits(self, entry))?;
        self.note(entry);
        if bits(entry, 7, 7) == 1 {
            self.require(bits(entry, 20, 13) == 0)?;
            return self.finish(bits(entry, 51, 21) << 21, 1 << 21);
        }
        let entry = self.entry8((bits(entry, 51, 12) << 12) + bits(self.linear, 20, 12) * 8)?;
        self.require(fits(self, entry))?;
        self.note(entry);
        self.finish(bits(entry, 51, 12) << 12, 1 << 12)
    }

    fn physical_address_extension(&mut self) -> Result<Translation, WalkFailure> {
        let table = bits(self.paging.cr3, 31, 5) << 5;
        let entry = self.entry8(table + bits(self.linear, 31, 30) * 8)?;
        let width = u32::from(self.paging.physical_bits);
        self.require(bits(entry, 2, 1) == 0 && bits(entry, 8, 6) == 0 && bits(entry, 63, width) == 0)?;
        self.directory(bits(entry, 51, 12) << 12)
    }

    fn legacy(&mut self) -> Result<Translation, WalkFailure> {
        let entry = self.entry4((bits(self.paging.cr3, 31, 12) << 12) + bits(self.linear, 31, 22) * 4)?;
        if self.on(Cr4::PAGE_SIZE) && bits(entry, 7, 7) == 1 {
            let high = bits(entry, 20, 13);
            let width = u32::from(self.paging.physical_bits).min(40);
            self.require(bits(entry, 21, 21) == 0 && high >> (width - 32) == 0)?;
            self.note(entry);
            return self.finish((high << 32) + (bits(entry, 31, 22) << 22), 1 << 22);
        }
        self.note(entry);
        let entry = self.entry4((bits(entry, 31, 12) << 12) + bits(self.linear, 21, 12) * 4)?;
        self.note(entry);
        self.finish(bits(entry, 31, 12) << 12, 1 << 12)
    }
}

fn model(
    paging: &Paging,
    address: u64,
    access: Access,
    ram: &BTreeMap<u64, u64>,
) -> Result<Translation, WalkFailure> {
    let long = paging.efer.contains(Efer::LONG_MODE_ACTIVE);
    let linear = if long { address } else { bits(address, 31, 0) };
    let mut model =
        Model { paging, linear, access, ram, read_only: false, supervisor: false, no_execute: false };
    if long {
        model.long()
    } else if !paging.cr0.contains(Cr0::PAGING) {
        Ok(Translation { address: GuestPhysical::new(linear), page_length: 0x1000 - linear % 0x1000 })
    } else if paging.cr4.contains(Cr4::PHYSICAL_ADDRESS) {
        model.physical_address_extension()
    } else {
        model.legacy()
    }
}

/// Pages of tables, from 0 up; higher ones are not memory.
const PAGES: u64 = 8;

/// An entry that is mostly present, mostly leads to a table, and mostly has no reserved bit.
fn entry() -> impl Strategy<Value = u64> {
    let sometimes =
        |bit: u32, percent: u32| (0..100_u32).prop_map(move |roll| u64::from(roll < percent) << bit);
    let flags =
        (sometimes(0, 96), sometimes(1, 75), sometimes(2, 75), 0..16_u64, sometimes(7, 25), sometimes(8, 10));
    let high = (sometimes(12, 30), sometimes(30, 20), sometimes(63, 12), sometimes(45, 3), sometimes(55, 5));
    let stray = (sometimes(21, 8), sometimes(18, 8));
    (flags, high, stray, 0..PAGES + 1, 0..100_u32, any::<u64>()).prop_map(
        |(flags, high, stray, page, wild, noise)| {
            let (present, write, user, cache, large, global) = flags;
            let (pat, huge, no_execute, beyond, software) = high;
            let low = present | write | user | cache << 3 | large | global;
            if wild == 0 {
                return noise;
            }
            // A large page begins at a multiple of 1 GiB mostly; a table is one of the pages.
            let target = if large != 0 && wild > 5 { pat | huge | stray.0 | stray.1 } else { page << 12 };
            // Half of all entries have what PAE's highest level wants.
            let low = if wild.is_multiple_of(4) && large == 0 { low & 0x19 } else { low };
            low | target | no_execute | beyond | software
        },
    )
}

fn ram() -> impl Strategy<Value = BTreeMap<u64, u64>> {
    // Each page repeats eight quads, so that any index leads somewhere.
    proptest::collection::vec(proptest::array::uniform8(entry()), PAGES as usize).prop_map(|pages| {
        let quads = pages.iter().flat_map(|quads| (0..512).map(|index| quads[index % 8]));
        quads.enumerate().map(|(index, quad)| (index as u64 * 8, quad)).collect()
    })
}

fn paging() -> impl Strategy<Value = Paging> {
    let mode = 0..10_u32;
    (mode, any::<u64>(), 0..4_u8, any::<bool>(), prop_oneof![Just(40_u8), Just(36), Just(52)], 0..PAGES)
        .prop_map(|(mode, random, privilege, alignment_check, physical_bits, table)| {
            let mut cr0 = Cr0::PROTECTION | Cr0::PAGING;
            cr0.set(Cr0::WRITE_PROTECT, random & 1 != 0);
            let mut cr4 = Cr4::empty();
            cr4.set(Cr4::SUPERVISOR_EXECUTION, random & 2 != 0);
            cr4.set(Cr4::SUPERVISOR_ACCESS, random & 4 != 0);
            cr4.set(Cr4::PAGE_SIZE, random & 8 != 0);
            let mut efer = Efer::empty();
            efer.set(Efer::NO_EXECUTE, random & 16 != 0);
            match mode {
                0 => cr0.remove(Cr0::PAGING),
                1 | 8 => {}
                2 | 9 => cr4.insert(Cr4::PHYSICAL_ADDRESS),
                _ => {
                    cr4.insert(Cr4::PHYSICAL_ADDRESS);
                    cr4.set(Cr4::LINEAR_57, mode == 3);
                    efer.insert(Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE);
                }
            }
            let cr3 = table << 12 | (random >> 32 & 0xfff);
            Paging { cr0, cr3, cr4, efer, privilege, alignment_check, physical_bits }
        })
}

fn linear() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..10_u32).prop_map(|(address, kind)| match kind {
        0 => address,
        1..=6 => address & 0x7fff_ffff_ffff,
        7 => address | 0xffff_8000_0000_0000,
        _ => address & 0xff_ffff_ffff_ffff,
    })
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Execute)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_agrees_with_the_model(
        ram in ram(),
        trials in proptest::collection::vec((paging(), linear(), access()), 64),
    ) {
        for (paging, address, access) in trials {
            let expected = model(&paging, address, access, &ram);
            let read = |at: GuestPhysical| ram.get(&at.get()).copied();
            let walked = translate(&paging, GuestLinear::new(address), access, read);
            prop_assert_eq!(walked, expected, "{:?} {:#x} {:?}", paging, address, access);
            let marked = translate_and_mark(&paging, GuestLinear::new(address), access, read, |_, _, _| true);
            prop_assert_eq!(marked, expected, "{:?} {:#x} {:?}", paging, address, access);
        }
    }
}

/// The random tables are worth something only if every outcome is met.
#[test]
fn the_random_tables_lead_everywhere() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        let ram = ram().new_tree(&mut runner).unwrap().current();
        for _ in 0..64 {
            let paging = paging().new_tree(&mut runner).unwrap().current();
            let address = linear().new_tree(&mut runner).unwrap().current();
            let access = access().new_tree(&mut runner).unwrap().current();
            let mode = match (
                paging.efer.contains(Efer::LONG_MODE_ACTIVE),
                paging.cr4.contains(Cr4::PHYSICAL_ADDRESS),
            ) {
                (true, _) => "long",
                (_, true) => "pae",
                _ => "legacy",
            };
            let outcome = match model(&paging, address, access, &ram) {
                Ok(translation) => match translation.address.get() % 0x1000 + translation.page_length {
                    0x1000 => "small".to_owned(),
                    _ => "large".to_owned(),
                },
                Err(WalkFailure::Fault(Fault::Page { code, .. })) => format!("fault {:#b}", code & 0b1001),
                Err(WalkFailure::Fault(_)) => "general protection".to_owned(),
                Err(WalkFailure::NotMemory(_)) => "not memory".to_owned(),
            };
            *outcomes.entry(format!("{mode} {outcome}")).or_default() += 1;
        }
    }
    for mode in ["long", "pae", "legacy"] {
        for outcome in ["small", "large", "fault 0b0", "fault 0b1", "fault 0b1001", "not memory"] {
            let name = format!("{mode} {outcome}");
            // With 4-byte entries only bit 21 and the high address bits of large pages are reserved.
            let least = 5;
            assert!(outcomes.get(&name).copied().unwrap_or(0) >= least, "{name} is too rare: {outcomes:#?}");
        }
    }
}
