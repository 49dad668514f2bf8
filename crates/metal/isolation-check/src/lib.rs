//! Part of test profiles: it looks at run time at what is mapped while a compartment is served, and lays out canaries for guests that
//! search for what is not theirs.
//!
//! Row 3 (metal): it walks the active page tables. Where a vCPU comes to a processor, and at each [`INTERVAL`]th exit of the machine, it
//! looks at all that the processor could reach: no frame of another compartment is mapped, be it RAM, private area or highest table; what
//! is the served one's is mapped in its window alone; nested tables lie in its private area and lead to its RAM alone. Otherwise the
//! machine is stopped with a sentence. Who owns what is noted when spaces are made, from the frames that were carved and not from tables.
//!
//! Where a processor refuses an entry without saying why (VT-x), the back end looks for the rule that was broken.
#![cfg_attr(not(test), no_std)]

mod canary;
mod tables;

use address::{HostPhysical, HostRange, PAGE_4K};
use backend::Watch;
use core::sync::atomic::{AtomicU64, Ordering};
use cpu::Features;
use heapless::Vec;
use memory::{BOOT_WINDOW, Frames, PRIVATE_OFFSET, PrivateArea, Space, window};
use spin::Mutex;
use tables::{Owned, SELF, Wrong};

/// Every so many exits, of all processors together, the tables are looked at, besides whenever a vCPU comes to a processor.
pub const INTERVAL: u64 = 64;
/// Most compartments: as many as a profile can have.
const MOST: usize = 64;

static OWNED: Mutex<Vec<Owned, MOST>> = Mutex::new(Vec::new());
static EXITS: AtomicU64 = AtomicU64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// The part.
pub struct IsolationCheck;

fn stop(wrong: Wrong) -> ! {
    cpu::fatal(format_args!("isolation: {wrong}"))
}

/// The entry that maps `linear`, of the active tables' level `level`, seen through [`SELF`].
fn active_entry(level: u32, linear: u64, _: u64) -> Result<u64, Wrong> {
    let mut at = 0;
    for upper in 0..=level {
        at |= SELF << (39 - 9 * upper);
    }
    let offset = (linear & 0xffff_ffff_ffff) >> (12 + 9 * level) << 3;
    // SAFETY: the active tables are a compartment's (`check_host` looks for their root first), whose entry `SELF` leads to its
    // highest table (`made`); the walk asks only for entries of tables that are present. The processor may change accessed bits at the same
    // time: one access, whole.
    Ok(unsafe { core::ptr::read_volatile((at | offset) as *const u64) })
}

/// Looks at everything that is mapped here and now.
#[inline(never)]
fn look(nested: HostPhysical) {
    let owned = OWNED.lock();
    let looked = tables::check_host(&owned, cpu::control::page_tables(), &active_entry).and_then(|served| {
        let area = window(served.index) + PRIVATE_OFFSET;
        let read = |table: u64, index: u64| {
            let at = area as u64 + (table - served.private.start().get()) + index * 8;
            // SAFETY: `check_nested` asks for tables in the private area alone, which is mapped there as one piece while its compartment
            // is served, and `check_host` has just seen that it is.
            unsafe { core::ptr::read_volatile(at as *const u64) }
        };
        tables::check_nested(served, nested.get(), &read)
    });
    if let Err(wrong) = looked {
        stop(wrong);
    }
    LOOKS.fetch_add(1, Ordering::Relaxed);
}

impl Watch for IsolationCheck {
    const PAGES: usize = 1;
    const NAMES_RULES: bool = true;

    fn begin(frames: &Frames, features: &Features) {
        let filled = canary::fill_free(frames, features);
        cpu::serial::line(format_args!("isolation: canaries in {} KiB of free memory", filled >> 10));
    }

    fn made(space: &Space) {
        let root = space.root();
        let entry = (BOOT_WINDOW + root.get() as usize + SELF as usize * 8) as *mut u64;
        // SAFETY: the table was carved for this space, below `BOOT_REACH`, the boot window is mapped (`Watch::made`), and the entry is
        // empty: slots of windows and of the hypervisor are others. It lets tables be read and not written.
        unsafe { entry.write_volatile(root.get() | tables::READ_ONLY) };
        let ranges = space.ram().extents().iter().map(|extent| extent.frames.range());
        let mut ram = Vec::new();
        for range in ranges {
            // There are no more extents than that.
            let _ = ram.push(range);
        }
        let page = HostRange::new(root, PAGE_4K);
        let (Some(private), Some(root)) = (space.private(), page) else { return };
        let noted = OWNED.lock().push(Owned { index: space.index(), ram, private, root, nested: 0 });
        if noted.is_err() {
            cpu::fatal(format_args!("isolation: more compartments than can be noted"));
        }
    }

    fn built(index: u8, root: HostPhysical, area: &mut PrivateArea) {
        if let Some(owned) = OWNED.lock().iter_mut().find(|owned| owned.index == index) {
            owned.nested = root.get();
        }
        if let Some(page) = area.page() {
            // SAFETY: the page was just handed out, and its space is loaded (`Watch::built`).
            unsafe { canary::fill(page.virtual_address(), PAGE_4K as usize) };
        }
    }

    fn enabled() {
        canary::in_system_call_registers();
    }

    fn attached(root: HostPhysical) {
        canary::in_switched_registers();
        canary::on_stack();
        look(root);
    }

    fn exited(root: HostPhysical) {
        if EXITS.fetch_add(1, Ordering::Relaxed).is_multiple_of(INTERVAL) {
            look(root);
            canary::on_stack();
        }
    }

    fn looks() -> Option<u64> {
        Some(LOOKS.load(Ordering::Relaxed))
    }
}
