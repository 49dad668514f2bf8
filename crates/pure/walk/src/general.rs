//! The walk of every mode, told why it fails.

use crate::{ADDRESS, Access, LARGE, NO_EXECUTE, PRESENT, Paging, Translation, WalkFailure, is_canonical};
use address::{GuestLinear, GuestPhysical, PAGE_4K};
use x86::{Cr0, Cr4, Efer, Fault};

/// A.
const ACCESSED: u64 = 1 << 5;
/// D.
const DIRTY: u64 = 1 << 6;
/// How often a walk starts again because the guest changed an entry that was to be marked.
const ATTEMPTS: u32 = 4;
/// Most levels: five.
const LEVELS: usize = 5;

/// The bits of a page fault's error code (APM Vol. 2 §8.4.2).
mod code {
    pub const PRESENT: u16 = 1 << 0;
    pub const WRITE: u16 = 1 << 1;
    pub const USER: u16 = 1 << 2;
    pub const RESERVED: u16 = 1 << 3;
    pub const EXECUTE: u16 = 1 << 4;
}

/// An entry that was read: where its quad lies, the quad, and how far up in it the entry begins (32 for the upper of two
/// 4-byte entries, else 0).
#[derive(Copy, Clone)]
struct Visited {
    at: GuestPhysical,
    quad: u64,
    shift: u32,
}

/// How the entries of a mode look.
struct Format {
    /// The highest level.
    levels: u32,
    /// Bits of the linear address that each level uses: 9, or 10 with 4-byte entries.
    index_bits: u32,
    /// Where the highest table is.
    table: u64,
    /// Bits that must be 0 in all entries (but those of [`Self::top_is_short`]).
    reserved: u64,
    /// PAE: the highest table has four entries without permissions, and most of their bits must be 0.
    top_is_short: bool,
    /// Levels at which PS means a page, one bit each; at other levels above the first it is reserved, or ignored.
    large_levels: u32,
    /// Whether PS is ignored where it means no page.
    ignores_large: bool,
}

impl Format {
    fn of(paging: &Paging) -> Self {
        if paging.efer.contains(Efer::LONG_MODE_ACTIVE) {
            Self {
                levels: if paging.cr4.contains(Cr4::LINEAR_57) { 5 } else { 4 },
                index_bits: 9,
                table: paging.cr3 & ADDRESS,
                reserved: paging.reserved(),
                top_is_short: false,
                large_levels: 1 << 2 | 1 << 3,
                ignores_large: false,
            }
        } else if paging.cr4.contains(Cr4::PHYSICAL_ADDRESS) {
            Self {
                levels: 3,
                index_bits: 9,
                table: paging.cr3 & 0xffff_ffe0,
                // Bits 52 to 62, which long mode leaves to software, must be 0 (APM Vol. 2 §5.2.3).
                reserved: paging.reserved() | 0x7ff0_0000_0000_0000,
                top_is_short: true,
                large_levels: 1 << 2,
                ignores_large: false,
            }
        } else {
            let large = paging.cr4.contains(Cr4::PAGE_SIZE);
            Self {
                levels: 2,
                index_bits: 10,
                table: paging.cr3 & 0xffff_f000,
                reserved: 0,
                top_is_short: false,
                large_levels: if large { 1 << 2 } else { 0 },
                ignores_large: !large,
            }
        }
    }

    /// Bytes of an entry.
    fn entry_bytes(&self) -> u64 {
        if self.index_bits == 10 { 4 } else { 8 }
    }

    /// The address of a large page and the bits that must be 0 in its entry; `size` is the page's.
    fn large_page(&self, paging: &Paging, entry: u64, size: u64) -> (u64, u64) {
        if self.index_bits == 10 {
            // Bits 13 to 20 are bits 32 to 39 of the address, as far as the processor has them; 21 is reserved
            // (APM Vol. 2 §5.2.2, §5.2.5).
            let high = (entry >> 13) & 0xff;
            let above =
                0xff_u64.checked_shl(u32::from(paging.physical_bits).saturating_sub(32)).unwrap_or(0) & 0xff;
            let reserved = above << 13 | 1 << 21;
            ((high << 32) | (entry & 0xffc0_0000), reserved)
        } else {
            // Bit 12 is PAT.
            (entry & ADDRESS & !(size - 1), (size - 1) & ADDRESS & !PAGE_4K)
        }
    }
}

/// The error code of an access, apart from P and RSV.
fn error_code(paging: &Paging, access: Access) -> u16 {
    let mut bits = 0;
    if access == Access::Write {
        bits |= code::WRITE;
    }
    if paging.is_user() {
        bits |= code::USER;
    }
    // I/D is told only where fetches are judged apart: NX (with 8-byte entries) or SMEP.
    let no_execute = paging.efer.contains(Efer::NO_EXECUTE) && paging.cr4.contains(Cr4::PHYSICAL_ADDRESS);
    if access == Access::Execute && (no_execute || paging.cr4.contains(Cr4::SUPERVISOR_EXECUTION)) {
        bits |= code::EXECUTE;
    }
    bits
}

/// Translates in any mode; see [`crate::translate`] and [`crate::translate_and_mark`].
#[cold]
#[inline(never)]
pub fn walk(
    paging: &Paging,
    address: GuestLinear,
    access: Access,
    read_quad: &dyn Fn(GuestPhysical) -> Option<u64>,
    exchange: &mut dyn FnMut(GuestPhysical, u64, u64) -> bool,
) -> Result<Translation, WalkFailure> {
    let long = paging.efer.contains(Efer::LONG_MODE_ACTIVE);
    let linear = if long { address.get() } else { address.get() & 0xffff_ffff };
    if !long && !paging.cr0.contains(Cr0::PAGING) {
        let offset = linear & (PAGE_4K - 1);
        return Ok(Translation { address: GuestPhysical::new(linear), page_length: PAGE_4K - offset });
    }
    let format = Format::of(paging);
    if long && !is_canonical(linear, if format.levels == 5 { 57 } else { 48 }) {
        return Err(WalkFailure::Fault(Fault::GP));
    }
    for _ in 1..ATTEMPTS {
        let (translation, visited) = descend(paging, &format, linear, access, read_quad)?;
        if mark(&visited, access, exchange) {
            return Ok(translation);
        }
    }
    let (translation, visited) = descend(paging, &format, linear, access, read_quad)?;
    mark(&visited, access, exchange);
    Ok(translation)
}

/// One walk from the highest table down: the translation, and the entries that led to it, the last one last.
fn descend(
    paging: &Paging,
    format: &Format,
    linear: u64,
    access: Access,
    read_quad: &dyn Fn(GuestPhysical) -> Option<u64>,
) -> Result<(Translation, [Option<Visited>; LEVELS]), WalkFailure> {
    let fault = |bits: u16| {
        WalkFailure::Fault(Fault::Page { address: linear, code: error_code(paging, access) | bits })
    };
    let mut visited = [None; LEVELS];
    let mut table = format.table;
    let mut all = u64::MAX;
    let mut any = 0;
    let mut level = format.levels;
    for place in &mut visited {
        // The bits below the index of this level: 12, and so many for each level below.
        let shift = 12 + format.index_bits * level.saturating_sub(1);
        let size = 1_u64 << shift;
        let index = (linear >> shift) & ((1 << format.index_bits) - 1);
        let entry_at = table | (index * format.entry_bytes());
        let at = GuestPhysical::new(entry_at & !7);
        let quad = read_quad(at).ok_or(WalkFailure::NotMemory(at))?;
        let within = if format.index_bits == 10 && entry_at & 4 != 0 { 32 } else { 0 };
        let entry = if format.index_bits == 10 { (quad >> within) & 0xffff_ffff } else { quad };
        if entry & PRESENT == 0 {
            return Err(fault(0));
        }
        let short = format.top_is_short && level == format.levels;
        let is_page = level == 1 || entry & LARGE != 0 && format.large_levels & (1 << level) != 0;
        let mut reserved = format.reserved;
        if short {
            // The four entries of PAE have neither permissions nor NX, and MBZ bits where others have them
            // (APM Vol. 2 figure 5-9).
            // Bit 5 is let through: QEMU 7.2 sets it, as the accessed bit that it is elsewhere, and who walks behind such a processor
            // must not be stricter than it, or the guest would execute again for ever.
            reserved |= NO_EXECUTE | 0x1c6;
        } else if !is_page && !format.ignores_large {
            // Only levels that cannot hold pages come here with PS set.
            reserved |= LARGE;
        }
        let mut page = entry & ADDRESS;
        if is_page && level > 1 {
            let (large, below) = format.large_page(paging, entry, size);
            page = large;
            reserved |= below;
        }
        if entry & reserved != 0 {
            return Err(fault(code::PRESENT | code::RESERVED));
        }
        if !short {
            all &= entry;
            any |= entry;
            *place = Some(Visited { at, quad, shift: within });
        }
        if is_page {
            // Without NXE the bit is reserved, and was refused as such.
            let no_execute = access == Access::Execute && any & NO_EXECUTE != 0;
            if no_execute || !paging.allows(access, all) {
                return Err(fault(code::PRESENT));
            }
            let offset = linear & (size - 1);
            let address = GuestPhysical::new(page | offset);
            return Ok((Translation { address, page_length: size - offset }, visited));
        }
        table = page;
        level = level.saturating_sub(1);
    }
    // No mode has more than five levels, and the lowest one ends the walk.
    Err(fault(0))
}

/// Marks what a walk used. False where an entry was no longer what the walk had read.
fn mark(
    visited: &[Option<Visited>; LEVELS],
    access: Access,
    exchange: &mut dyn FnMut(GuestPhysical, u64, u64) -> bool,
) -> bool {
    let mut used = visited.iter().flatten().peekable();
    while let Some(entry) = used.next() {
        let last = used.peek().is_none();
        let bits = if last && access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
        let marked = entry.quad | (bits << entry.shift);
        if marked != entry.quad && !exchange(entry.at, entry.quad, marked) {
            return false;
        }
    }
    true
}
