//! One suite for every second stage: what `contracts::SecondStage` promises, asked of the fake, of nested and of extended page tables, with pages
//! of 1 GiB and without.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use address::{GuestPhysical, HostPhysical, HostRange};
use backend::{Owned, StageTables};
use contracts::absent::Absent;
use contracts::fake::{FakeFrames, FakeStage};
use contracts::{HugePages, MapError, MapMode, SecondStage};
use tables::{ENTRIES, Format, TableFrames};

const OWNER: u8 = 3;
/// Read and write, no execution.
const DATA: MapMode = MapMode { write: true, execute: false };

/// What the suite asks of a second stage.
trait Stage: SecondStage {
    /// Compartment [`OWNER`]'s, empty.
    fn empty() -> Self;
    /// Frames of some compartment.
    fn frames(owner: u8, start: u64, length: u64) -> Self::Frames;
}

impl Stage for FakeStage<2048> {
    fn empty() -> Self {
        Self::new(OWNER)
    }

    fn frames(owner: u8, start: u64, length: u64) -> FakeFrames {
        frames(owner, start, length)
    }
}

fn frames(owner: u8, start: u64, length: u64) -> FakeFrames {
    FakeFrames { owner, range: HostRange::new(HostPhysical::new(start), length).unwrap() }
}

/// Frames that the tables map, in place of those that only the machine can make.
struct Tried(FakeFrames);

impl Owned for Tried {
    fn owner(&self) -> u8 {
        self.0.owner
    }

    fn range(&self) -> HostRange {
        self.0.range
    }
}

/// Frames for tables, in arrays.
struct Arrays<const HUGE: bool>(Vec<[u64; ENTRIES]>);

impl<const HUGE: bool> TableFrames for Arrays<HUGE> {
    fn largest_leaf(&self) -> u8 {
        if HUGE { 3 } else { 2 }
    }

    fn allocate(&mut self) -> Option<u64> {
        self.0.push([0; ENTRIES]);
        Some(self.0.len() as u64 * 0x1000)
    }

    fn get(&self, table: u64, index: usize) -> u64 {
        self.0[(table / 0x1000) as usize - 1][index]
    }

    fn set(&mut self, table: u64, index: usize, entry: u64) {
        self.0[(table / 0x1000) as usize - 1][index] = entry;
    }
}

impl<F: Format, const HUGE: bool> Stage for StageTables<F, Arrays<HUGE>, Tried> {
    fn empty() -> Self {
        Self::in_frames(OWNER, 0x1000, Arrays(vec![[0; ENTRIES]]))
    }

    fn frames(owner: u8, start: u64, length: u64) -> Tried {
        Tried(frames(owner, start, length))
    }
}

struct Present;

impl HugePages for Present {
    const USED: bool = true;
}

fn at(value: u64) -> GuestPhysical {
    GuestPhysical::new(value)
}

fn found<S: SecondStage>(stage: &S, guest: u64) -> Option<(u64, MapMode)> {
    stage.translate(at(guest)).map(|(host, mode)| (host.get(), mode))
}

fn only_the_compartment_s_own_frames_are_mapped<S: Stage>() {
    let mut stage = S::empty();
    for other in [0, OWNER - 1, OWNER + 1, u8::MAX] {
        let refused = stage.map(at(0), &S::frames(other, 0x10_0000, 0x1000), MapMode::RAM);
        assert_eq!(refused, Err(MapError::NotOwned));
    }
    assert_eq!(found(&stage, 0), None);
    stage.map(at(0), &S::frames(OWNER, 0x10_0000, 0x1000), MapMode::RAM).unwrap();
    assert_eq!(found(&stage, 0xfff), Some((0x10_0fff, MapMode::RAM)));
    assert_eq!(found(&stage, 0x1000), None);
}

fn what_is_mapped_is_found_where_it_was_put<S: Stage>() {
    let mut stage = S::empty();
    // Two large pages and a bit, with a start that is large on both sides.
    stage.map(at(0x4000_0000), &S::frames(OWNER, 0x8000_0000, 0x40_3000), MapMode::RAM).unwrap();
    stage.map(at(0x1000), &S::frames(OWNER, 0x9000_0000, 0x2000), MapMode::ROM).unwrap();
    for (guest, expected) in [
        (0x4000_0000, Some((0x8000_0000, MapMode::RAM))),
        (0x401f_ffff, Some((0x801f_ffff, MapMode::RAM))),
        (0x4040_2fff, Some((0x8040_2fff, MapMode::RAM))),
        (0x4040_3000, None),
        (0x3fff_ffff, None),
        (0x1fff, Some((0x9000_0fff, MapMode::ROM))),
        (0x0fff, None),
        (0x3000, None),
    ] {
        assert_eq!(found(&stage, guest), expected, "{guest:#x}");
    }
}

fn nothing_is_mapped_twice_or_crookedly<S: Stage>() {
    let mut stage = S::empty();
    stage.map(at(0x20_0000), &S::frames(OWNER, 0x60_0000, 0x20_0000), MapMode::RAM).unwrap();
    let mut attempt = |guest, start, length| {
        stage.map(at(guest), &S::frames(OWNER, start, length), MapMode::RAM).unwrap_err()
    };
    assert_eq!(attempt(0x3f_f000, 0, 0x1000), MapError::Occupied);
    assert_eq!(attempt(0x1f_f000, 0, 0x2000), MapError::Occupied);
    assert_eq!(attempt(0x123, 0, 0x1000), MapError::Unaligned);
    assert_eq!(attempt(0, 0, 0x123), MapError::Unaligned);
    assert_eq!(attempt(1 << 48, 0, 0x1000), MapError::OutOfRange);
    assert_eq!(attempt(0xffff_ffff_ffff_f000, 0, 0x2000), MapError::OutOfRange);
    assert_eq!(found(&stage, 0x1f_f000), None);
    assert_eq!(found(&stage, 0x20_0000), Some((0x60_0000, MapMode::RAM)));
}

fn what_is_narrowed_or_taken_away_leaves_the_rest<S: Stage>() {
    let mut stage = S::empty();
    stage.map(at(0), &S::frames(OWNER, 0x4000_0000, 0x40_0000), MapMode::RAM).unwrap();
    stage.protect(at(0x3000), 0x2000, MapMode::ROM).unwrap().flushed();
    stage.protect(at(0x20_0000), 0x20_0000, DATA).unwrap().flushed();
    stage.unmap(at(0x1f_f000), 0x2000).unwrap().flushed();
    for (guest, mode) in [
        (0x2fff, Some(MapMode::RAM)),
        (0x3000, Some(MapMode::ROM)),
        (0x4fff, Some(MapMode::ROM)),
        (0x5000, Some(MapMode::RAM)),
        (0x1f_efff, Some(MapMode::RAM)),
        (0x1f_f000, None),
        (0x20_0fff, None),
        (0x20_1000, Some(DATA)),
        (0x3f_ffff, Some(DATA)),
    ] {
        assert_eq!(found(&stage, guest), mode.map(|mode| (0x4000_0000 + guest, mode)), "{guest:#x}");
    }
    // What was taken away can be mapped again; what never was is passed over.
    stage.map(at(0x1f_f000), &S::frames(OWNER, 0x7000_0000, 0x1000), MapMode::RAM).unwrap();
    assert_eq!(found(&stage, 0x1f_f123), Some((0x7000_0123, MapMode::RAM)));
    stage.unmap(at(0x100_0000), 0x1000).unwrap().flushed();
    assert_eq!(stage.unmap(at(1), 0x1000).unwrap_err(), MapError::Unaligned);
    assert_eq!(stage.protect(at(0), 0, DATA).unwrap_err(), MapError::Unaligned);
}

fn every_mode_is_kept<S: Stage>() {
    let mut stage = S::empty();
    let modes = [MapMode::RAM, MapMode::ROM, DATA, MapMode { write: false, execute: false }];
    for (place, mode) in (0u64..).step_by(0x20_0000).zip(modes) {
        stage.map(at(place), &S::frames(OWNER, place, 0x20_0000), mode).unwrap();
        stage.protect(at(place + 0x1000), 0x1000, mode).unwrap().flushed();
        for guest in [place, place + 0x1000, place + 0x1f_f000] {
            assert_eq!(found(&stage, guest), Some((guest, mode)));
        }
    }
}

macro_rules! suites {
    ($($name:ident: $stage:ty;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn only_the_compartment_s_own_frames_are_mapped() {
                super::only_the_compartment_s_own_frames_are_mapped::<$stage>();
            }

            #[test]
            fn what_is_mapped_is_found_where_it_was_put() {
                super::what_is_mapped_is_found_where_it_was_put::<$stage>();
            }

            #[test]
            fn nothing_is_mapped_twice_or_crookedly() {
                super::nothing_is_mapped_twice_or_crookedly::<$stage>();
            }

            #[test]
            fn what_is_narrowed_or_taken_away_leaves_the_rest() {
                super::what_is_narrowed_or_taken_away_leaves_the_rest::<$stage>();
            }

            #[test]
            fn every_mode_is_kept() {
                super::every_mode_is_kept::<$stage>();
            }
        }
    )*};
}

suites! {
    fake: FakeStage<2048>;
    nested: StageTables<npt::Nested, Arrays<false>, Tried>;
    nested_huge: StageTables<npt::Nested, Arrays<true>, Tried>;
    extended: StageTables<ept::Extended<Absent>, Arrays<false>, Tried>;
    extended_huge: StageTables<ept::Extended<Present>, Arrays<true>, Tried>;
}
