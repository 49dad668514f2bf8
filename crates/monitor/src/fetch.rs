//! Fetching the instruction that a guest has just executed, where the processor does not say what it was.
//!
//! The bytes are read through the guest's own page tables. Other vCPUs may have changed tables or bytes since; then the
//! decoder does not find what it expects, and the guest simply executes again.

use address::{GuestLinear, GuestPhysical};
use contracts::{GuestMemory, Vcpu};
use decode::{DecodeError, Intercepted, MemoryInstruction};
use walk::{Access, Paging, WalkFailure};
use x86::{CodeSize, Rflags, SegmentName};

/// Why there is no instruction.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The tables or the bytes changed under our eyes: let the guest execute again.
    Again,
    /// Raise that in the guest.
    Fault(x86::Fault),
    /// A page table or the instruction lies outside the compartment's memory.
    OutsideMemory(u64),
    /// The decoder does not cover the instruction at that address.
    Unsupported(u64),
}

/// Bytes of an instruction, as many as could be fetched.
pub struct Bytes {
    bytes: [u8; 16],
    length: usize,
}

impl Bytes {
    /// The bytes: at most 15.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Bytes that the processor fetched itself.
    pub fn given(bytes: &[u8; 15], length: u8) -> Self {
        let mut all = [0; 16];
        for (to, from) in all.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self { bytes: all, length: usize::from(length).min(15) }
    }
}

/// How the guest translates addresses now.
#[inline(always)]
pub fn paging<V: Vcpu>(vcpu: &V, physical_bits: u8) -> Paging {
    Paging {
        cr0: vcpu.cr0(),
        cr3: vcpu.cr3(),
        cr4: vcpu.cr4(),
        efer: vcpu.efer(),
        privilege: vcpu.privilege(),
        alignment_check: vcpu.flags().contains(Rflags::ALIGNMENT_CHECK),
        physical_bits,
    }
}

/// The linear address of the instruction.
#[inline]
fn linear<V: Vcpu>(vcpu: &V, code: CodeSize) -> u64 {
    let pointer = vcpu.instruction_pointer();
    match code {
        CodeSize::Bits64 => pointer,
        _ => vcpu.segment(SegmentName::Cs).base.wrapping_add(pointer) & 0xffff_ffff,
    }
}

#[inline]
fn trouble(failure: WalkFailure) -> Trouble {
    match failure {
        // It was executed a moment ago, so it was mapped: the guest executes again and takes its own fault.
        WalkFailure::Fault(_) => Trouble::Again,
        WalkFailure::NotMemory(at) => Trouble::OutsideMemory(at.get()),
    }
}

/// Translates a linear address as the guest would.
pub fn translate<M: GuestMemory>(
    paging: &Paging,
    at: u64,
    access: Access,
    memory: &M,
) -> Result<walk::Translation, WalkFailure> {
    walk::translate(paging, GuestLinear::new(at), access, |address| memory.read_quad(address).ok())
}

/// As [`translate`], for an access that the guest's processor has not made itself: marks the pages accessed, and dirty where it writes, as
/// the processor would have.
pub fn translate_and_mark<M: GuestMemory>(
    paging: &Paging,
    at: u64,
    access: Access,
    memory: &M,
) -> Result<walk::Translation, WalkFailure> {
    walk::translate_and_mark(
        paging,
        GuestLinear::new(at),
        access,
        |address| memory.read_quad(address).ok(),
        |address, old, new| memory.exchange_quad(address, old, new),
    )
}

/// Fetches the instruction's bytes: all 15 that it may have, or those up to the end of what is mapped.
#[inline(never)]
pub fn fetch<V: Vcpu, M: GuestMemory>(
    vcpu: &V,
    memory: &M,
    code: CodeSize,
    physical_bits: u8,
) -> Result<Bytes, Trouble> {
    let paging = paging(vcpu, physical_bits);
    let at = linear(vcpu, code);
    let first = translate(&paging, at, Access::Execute, memory).map_err(trouble)?;
    if first.page_length >= 16 {
        let start = first.address;
        let outside = |_| Trouble::OutsideMemory(start.get());
        let low = memory.read_quad(start).map_err(outside)?;
        let high = memory.read_quad(GuestPhysical::new(start.get().wrapping_add(8))).map_err(outside)?;
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        return Ok(Bytes { bytes, length: 15 });
    }
    fetch_across(&paging, at, &first, memory)
}

/// The rare half: the instruction may go on in the next page.
#[cold]
fn fetch_across<M: GuestMemory>(
    paging: &Paging,
    at: u64,
    first: &walk::Translation,
    memory: &M,
) -> Result<Bytes, Trouble> {
    let mut bytes = [0; 16];
    let here = (first.page_length as usize).min(15);
    let (low, high) = bytes.split_at_mut(here);
    memory.read(first.address, low).map_err(|_| Trouble::OutsideMemory(first.address.get()))?;
    let mut length = here;
    let high = high.get_mut(..15 - here).unwrap_or_default();
    // What cannot be read behind the page end does not matter unless the instruction goes on there: then the decoder says so.
    if let Ok(next) = translate(paging, at.wrapping_add(here as u64), Access::Execute, memory)
        && memory.read(next.address, high).is_ok()
    {
        length = 15;
    }
    Ok(Bytes { bytes, length })
}

/// What a decoder's refusal means for the guest.
#[inline]
pub fn refused(error: DecodeError, at: u64) -> Trouble {
    match error {
        DecodeError::NeedMoreBytes | DecodeError::Unexpected => Trouble::Again,
        DecodeError::TooLong => Trouble::Fault(x86::Fault::GP),
        DecodeError::Undefined => Trouble::Fault(x86::Fault::InvalidOpcode),
        DecodeError::Unsupported => Trouble::Unsupported(at),
    }
}

/// The instruction that accessed memory, whatever it is.
#[inline(never)]
pub fn memory_instruction<V: Vcpu, M: GuestMemory>(
    vcpu: &V,
    memory: &M,
    code: CodeSize,
    physical_bits: u8,
) -> Result<MemoryInstruction, Trouble> {
    let refused = |error| refused(error, vcpu.instruction_pointer());
    if V::DECODED {
        let (length, bytes) = vcpu.fetched_instruction();
        match decode::memory(Bytes::given(&bytes, length).as_slice(), code) {
            // None, or cut off: what was executed is there, so all of it can be fetched.
            Err(DecodeError::NeedMoreBytes) => {}
            decoded => return decoded.map_err(refused),
        }
    }
    let bytes = fetch(vcpu, memory, code, physical_bits)?;
    decode::memory(bytes.as_slice(), code).map_err(refused)
}

/// Where the instruction after the intercepted one begins, where that is easily had.
///
/// Nearly always it stands there without a prefix, in 64-bit code, away from a page's end: one read and one comparison tell.
#[inline(always)]
pub fn next_if_plain<V: Vcpu, M: GuestMemory>(
    vcpu: &V,
    memory: &M,
    expected: Intercepted,
    physical_bits: u8,
) -> Option<u64> {
    if let Some(next) = vcpu.next_instruction() {
        return Some(next);
    }
    let quad = glance(vcpu, memory, physical_bits)?;
    let length = decode::plain_length(quad as u32, expected)?;
    Some(vcpu.instruction_pointer().wrapping_add(u64::from(length)))
}

/// Where the instruction after the intercepted one begins.
pub fn next<V: Vcpu, M: GuestMemory>(
    vcpu: &V,
    memory: &M,
    expected: Intercepted,
    physical_bits: u8,
) -> Result<u64, Trouble> {
    match vcpu.next_instruction() {
        Some(next) => Ok(next),
        None => next_in_full(vcpu, memory, expected, physical_bits),
    }
}

/// Page-table entries where they are easily had.
struct Glances<'memory, M>(&'memory M);

impl<M: GuestMemory> walk::Entries for Glances<'_, M> {
    #[inline(always)]
    fn entry(&self, address: GuestPhysical) -> Option<u64> {
        self.0.glance(address)
    }
}

/// The first eight bytes of the instruction, the first in the low bits, where they are easily had: 64-bit code, ordinary page tables,
/// away from a page's end. One function for all: it is as long as it is busy.
#[inline(never)]
pub fn glance<V: Vcpu, M: GuestMemory>(vcpu: &V, memory: &M, physical_bits: u8) -> Option<u64> {
    if vcpu.code_size() != CodeSize::Bits64 {
        return None;
    }
    let at = GuestLinear::new(vcpu.instruction_pointer());
    let place = walk::quick(&paging(vcpu, physical_bits), at, Access::Execute, &Glances(memory))?;
    if place.page_length < 8 {
        return None;
    }
    memory.glance(place.address)
}

/// As [`glance`], for an instruction that accessed memory: its bytes may have come with the exit.
#[inline(always)]
pub fn glance_at_access<V: Vcpu, M: GuestMemory>(vcpu: &V, memory: &M, physical_bits: u8) -> Option<u64> {
    if V::DECODED {
        let (length, bytes) = vcpu.fetched_instruction();
        if length >= 8 && vcpu.code_size() == CodeSize::Bits64 {
            return bytes.first_chunk().map(|quad| u64::from_le_bytes(*quad));
        }
        if length > 0 {
            return None;
        }
    }
    glance(vcpu, memory, physical_bits)
}

/// As [`next_if_plain`], whatever stands there.
#[cold]
#[inline(never)]
pub fn next_in_full<V: Vcpu, M: GuestMemory>(
    vcpu: &V,
    memory: &M,
    expected: Intercepted,
    physical_bits: u8,
) -> Result<u64, Trouble> {
    let code = vcpu.code_size();
    let bytes = fetch(vcpu, memory, code, physical_bits)?;
    match decode::length(bytes.as_slice(), code, expected) {
        Ok(length) => Ok(after(vcpu, code, length)),
        Err(error) => Err(refused(error, vcpu.instruction_pointer())),
    }
}

/// The instruction pointer `length` bytes on, wrapping as the mode does.
#[inline]
pub fn after<V: Vcpu>(vcpu: &V, code: CodeSize, length: u8) -> u64 {
    let next = vcpu.instruction_pointer().wrapping_add(u64::from(length));
    match code {
        CodeSize::Bits64 => next,
        CodeSize::Bits32 | CodeSize::Bits16 => next & 0xffff_ffff,
    }
}
