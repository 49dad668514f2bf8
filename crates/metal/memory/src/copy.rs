//! Copies to and from memory that guests write at the same time. Never a Rust reference, never a compiler's idea of a copy: what is
//! read is read by the instructions here, and what was read is what the caller sees from then on.

use core::arch::asm;

/// Copies `length` bytes.
///
/// # Safety
///
/// Both ranges are mapped, `to` is writable and not borrowed by anybody, and they do not overlap.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    if (8..=16).contains(&length) {
        // An instruction's bytes, a descriptor, a table entry: two quads, which may overlap.
        let last = length - 8;
        // SAFETY: The caller's promise; both quads lie within `length`.
        unsafe {
            let (low, high) = (load_quad(from), load_quad(from.add(last)));
            store_quad(to, low);
            store_quad(to.add(last), high);
        }
        return;
    }
    // SAFETY: The caller's promise. DF is clear as the ABI has it.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) length & 7,
            inout("rcx") length >> 3 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Sets `length` bytes, a multiple of 8, to zero.
///
/// # Safety
///
/// The range is mapped, writable and not borrowed by anybody.
#[inline]
pub unsafe fn clear(to: *mut u8, length: usize) {
    // SAFETY: The caller's promise. DF is clear as the ABI has it.
    unsafe {
        asm!("rep stosq", inout("rcx") length >> 3 => _, inout("rdi") to => _, in("rax") 0u64,
            options(nostack, preserves_flags));
    }
}

/// Reads eight bytes at any alignment in one instruction.
///
/// # Safety
///
/// They are mapped.
#[inline(always)]
pub unsafe fn load_quad(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: The caller's promise.
    unsafe {
        asm!("mov {}, [{}]", out(reg) value, in(reg) from, options(nostack, preserves_flags, readonly));
    }
    value
}

/// Replaces eight bytes by `new` if they are `old`, in one locked access; answers whether they were.
///
/// # Safety
///
/// They are aligned, mapped, writable and not borrowed by anybody.
pub unsafe fn exchange_quad(place: *mut u8, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: The caller's promise.
    unsafe {
        asm!("lock cmpxchg [{}], {}", in(reg) place, in(reg) new, inout("rax") old => found, options(nostack));
    }
    found == old
}

/// Writes eight bytes at any alignment in one instruction.
///
/// # Safety
///
/// They are mapped, writable and not borrowed by anybody.
#[inline(always)]
unsafe fn store_quad(to: *mut u8, value: u64) {
    // SAFETY: The caller's promise.
    unsafe { asm!("mov [{}], {}", in(reg) to, in(reg) value, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_no_byte_more() {
        let from: Vec<u8> = (1..=64).collect();
        for length in 0..=40 {
            let mut to = [0u8; 48];
            // SAFETY: Both are longer than `length`.
            unsafe { copy(from.as_ptr(), to.as_mut_ptr(), length) };
            assert_eq!(to[..length], from[..length]);
            assert!(to[length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn clearing_stops_where_it_should() {
        let mut bytes = [0xffu8; 32];
        // SAFETY: 24 bytes are there.
        unsafe { clear(bytes.as_mut_ptr(), 24) };
        assert!(bytes[..24].iter().all(|byte| *byte == 0) && bytes[24..].iter().all(|byte| *byte == 0xff));
    }
}
