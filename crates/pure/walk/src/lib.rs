//! Walks a guest's page tables as its processor would (APM Vol. 2 chapter 5).
//!
//! Row 1 (pure). The tables are the guest's: every entry is an allegation, and its other processors may change any of
//! them while they are read. Each entry is read once; what comes out is a guest-physical address, as much of an
//! allegation as what went in.
//!
//! [`translate`] reads tables and leaves them as they are. That is right for the instruction that just caused an exit,
//! and for the memory operand whose access caused it: to get that far the processor has walked the same tables, and has
//! set the accessed bits, and the dirty bit of a write, itself (APM Vol. 2 §5.4.2, §15.25.6). Where the hypervisor makes an
//! access to the guest's RAM that the processor has not tried (INS, the RAM side of MOVS, a push), software would lose
//! what was written if the dirty bit stayed clear: [`translate_and_mark`] sets the bits.
#![no_std]

mod general;

use address::{GuestLinear, GuestPhysical, PAGE_1G, PAGE_2M, PAGE_4K};
use x86::{Cr0, Cr4, Efer, Fault};

/// What decides how linear addresses are translated, and for whom.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Paging {
    /// CR0: PG, WP. In long mode PG is taken for granted.
    pub cr0: Cr0,
    /// CR3: where the highest table is. Reserved bits are ignored.
    pub cr3: u64,
    /// CR4: PSE, PAE, LA57, SMEP, SMAP.
    pub cr4: Cr4,
    /// EFER: LMA, NXE.
    pub efer: Efer,
    /// The current privilege level, 0 to 3; 3 is the user, all others are the supervisor. The processor's own accesses
    /// (descriptor tables, TSS) have level 0 whatever runs.
    pub privilege: u8,
    /// RFLAGS.AC, which lifts SMAP. Clear for the processor's own accesses.
    pub alignment_check: bool,
    /// How many bits a guest-physical address has, 32 to 52 (CPUID 8000_0008 EAX): higher ones are reserved in tables.
    pub physical_bits: u8,
}

/// What the access wants.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read data.
    Read,
    /// To write data.
    Write,
    /// To fetch an instruction.
    Execute,
}

/// Where a linear address leads.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The guest-physical address.
    pub address: GuestPhysical,
    /// Bytes from there to the end of its page, at least 1: so many are translated alike. Without paging, to the end of
    /// 4 KiB.
    pub page_length: u64,
}

/// Why a linear address leads nowhere.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WalkFailure {
    /// What the access earns: #PF with its error code (APM Vol. 2 §8.4.2), or #GP(0) where the address is not
    /// canonical; an access through SS earns #SS(0) there instead, which only the caller knows.
    Fault(Fault),
    /// A table would lie at an address that is not RAM. A processor would read there all the same; what it would find
    /// is nobody's business.
    NotMemory(GuestPhysical),
}

/// P.
const PRESENT: u64 = 1 << 0;
/// R/W.
const WRITABLE: u64 = 1 << 1;
/// U/S.
const USER: u64 = 1 << 2;
/// PS.
const LARGE: u64 = 1 << 7;
/// NX.
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 12 to 51: where a table or a page begins.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Paging {
    /// Bits that no 8-byte entry may have: above the physical address, and NX without NXE.
    fn reserved(&self) -> u64 {
        let above = u64::MAX.checked_shl(u32::from(self.physical_bits)).unwrap_or(0) & ADDRESS;
        if self.efer.contains(Efer::NO_EXECUTE) { above } else { above | NO_EXECUTE }
    }

    /// Whether the privilege level is the user's.
    #[inline(always)]
    fn is_user(&self) -> bool {
        self.privilege == 3
    }

    /// Whether an access is allowed to a page, NX apart; `all` has the bits that all entries on the way have
    /// (APM Vol. 2 §5.6).
    #[inline(always)]
    fn allows(&self, access: Access, all: u64) -> bool {
        if access == Access::Write
            && all & WRITABLE == 0
            && (self.is_user() || self.cr0.contains(Cr0::WRITE_PROTECT))
        {
            return false;
        }
        if all & USER == 0 {
            return !self.is_user();
        }
        // The supervisor may use a user's page unless SMEP or SMAP forbids it.
        self.is_user()
            || match access {
                Access::Execute => !self.cr4.contains(Cr4::SUPERVISOR_EXECUTION),
                Access::Read | Access::Write => {
                    self.alignment_check || !self.cr4.contains(Cr4::SUPERVISOR_ACCESS)
                }
            }
    }
}

/// Translates `address` for `access`. `read_quad` reads eight bytes of the compartment's RAM, little-endian, at an
/// aligned address, as one access; `None` where there is no RAM.
///
/// In modes other than long mode only the low 32 bits of `address` count.
///
/// # Errors
/// See [`WalkFailure`].
#[inline]
pub fn translate<M: Fn(GuestPhysical) -> Option<u64>>(
    paging: &Paging,
    address: GuestLinear,
    access: Access,
    read_quad: M,
) -> Result<Translation, WalkFailure> {
    match quick(paging, address, access, &read_quad) {
        Some(translation) => Ok(translation),
        None => general::walk(paging, address, access, &read_quad, &mut |_, _, _| true),
    }
}

/// As [`translate`], and sets the accessed bit of every entry on the way and, for a write, the dirty bit of the last
/// (APM Vol. 2 §5.4.2), where they are clear. `exchange` compares the aligned eight bytes at an address with the second
/// argument and, where they are equal, replaces them by the third, all in one access; it says whether they were equal.
///
/// The guest's other processors may win a race for an entry: then the walk starts again, three times at most, after which
/// it goes on as if it had won.
///
/// # Errors
/// See [`WalkFailure`]; nothing is marked then.
pub fn translate_and_mark<M, X>(
    paging: &Paging,
    address: GuestLinear,
    access: Access,
    read_quad: M,
    mut exchange: X,
) -> Result<Translation, WalkFailure>
where
    M: Fn(GuestPhysical) -> Option<u64>,
    X: FnMut(GuestPhysical, u64, u64) -> bool,
{
    general::walk(paging, address, access, &read_quad, &mut exchange)
}

/// Where [`quick`] finds page-table entries. A trait and not a closure: its one function can say that it is to be compiled into the walk,
/// where it is shorter than a call, five times at each exit.
pub trait Entries {
    /// The eight bytes at `address`; `None` where there is no RAM, or where they are not easily had.
    fn entry(&self, address: GuestPhysical) -> Option<u64>;
}

impl<R: Fn(GuestPhysical) -> Option<u64>> Entries for R {
    fn entry(&self, address: GuestPhysical) -> Option<u64> {
        self(address)
    }
}

/// The common case of [`translate`]: four levels, and the access succeeds. Anything else is `None`, and left to [`translate`], which
/// starts again and finds out what is the matter.
///
/// This runs at every exit whose instruction must be read, so it judges all entries at once at the end. Until then it may
/// follow an entry that is not present or has reserved bits; that reads RAM of the compartment, or none, and is harmless.
#[inline(always)]
pub fn quick<M: Entries>(
    paging: &Paging,
    address: GuestLinear,
    access: Access,
    entries: &M,
) -> Option<Translation> {
    let linear = address.get();
    if !paging.efer.contains(Efer::LONG_MODE_ACTIVE)
        || paging.cr4.contains(Cr4::LINEAR_57)
        || !is_canonical(linear, 48)
    {
        return None;
    }
    let fourth = entries.entry(entry_of(paging.cr3, linear, 36))?;
    let third = entries.entry(entry_of(fourth, linear, 27))?;
    let (all, any) = (fourth & third, fourth | third);
    if any & LARGE != 0 {
        // The highest level has no pages.
        return if fourth & LARGE == 0 {
            leaf(PAGE_1G, paging, linear, access, third, all, any)
        } else {
            None
        };
    }
    let second = entries.entry(entry_of(third, linear, 18))?;
    let (all, any) = (all & second, any | second);
    if second & LARGE != 0 {
        return leaf(PAGE_2M, paging, linear, access, second, all, any);
    }
    let first = entries.entry(entry_of(second, linear, 9))?;
    leaf(PAGE_4K, paging, linear, access, first, all & first, any | first)
}

/// The translation by `entry` of a page with `size` bytes; `all` and `any` are the AND and the OR of all entries on the way.
#[inline(always)]
fn leaf(
    size: u64,
    paging: &Paging,
    linear: u64,
    access: Access,
    entry: u64,
    all: u64,
    any: u64,
) -> Option<Translation> {
    if all & PRESENT == 0 {
        return None;
    }
    // Bits between bit 12 of a large page, which is PAT, and its address are reserved; a small page has none there.
    if entry & (size - 1) & ADDRESS & !PAGE_4K != 0 {
        return None;
    }
    // So are those above the physical address: to shift costs less than to make a mask. NX forbids a fetch, and comes along;
    // without NXE it is reserved, and forbids all.
    let forbidden = if access == Access::Execute { ADDRESS | NO_EXECUTE } else { ADDRESS };
    if (any & forbidden).wrapping_shr(u32::from(paging.physical_bits)) != 0
        || access != Access::Execute && any & NO_EXECUTE != 0 && !paging.efer.contains(Efer::NO_EXECUTE)
    {
        return None;
    }
    if !paging.allows(access, all) {
        return None;
    }
    let offset = linear & (size - 1);
    Some(Translation {
        address: GuestPhysical::new((entry & ADDRESS & !(size - 1)) | offset),
        page_length: size - offset,
    })
}

/// Where the table at `table` (an entry, or CR3) has its entry for `linear`; `shift` leaves the index three bits up.
#[inline(always)]
fn entry_of(table: u64, linear: u64, shift: u32) -> GuestPhysical {
    GuestPhysical::new((table & ADDRESS) | ((linear >> shift) & 0xff8))
}

/// Whether all bits of `linear` from `bits - 1` on are alike; `bits` is 48 or 57.
#[inline]
fn is_canonical(linear: u64, bits: u32) -> bool {
    let unused = 64_u32.wrapping_sub(bits);
    let extended = (linear.wrapping_shl(unused).cast_signed()).wrapping_shr(unused).cast_unsigned();
    extended == linear
}
