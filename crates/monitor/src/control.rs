//! Which values a guest may give its control registers. What the manual forbids raises #GP, whatever an emulator or a processor
//! would let through.

use x86::{Cr0, Cr4, Efer, Xcr0};

/// CR0 after a write of `new` by a guest with `old`, and EFER after it; `None`: #GP (APM Vol. 2 §3.1.1, §14.6).
///
/// `long_code` says that the guest executes 64-bit code.
pub fn cr0(new: u64, old: Cr0, cr4: Cr4, efer: Efer, long_code: bool) -> Option<(Cr0, Efer)> {
    if new >> 32 != 0 {
        return None;
    }
    // Undefined bits are ignored and read as zero; ET reads as one.
    let new = Cr0::from_bits_truncate(new) | Cr0::EXTENSION_TYPE;
    if new.contains(Cr0::PAGING) && !new.contains(Cr0::PROTECTION) {
        return None;
    }
    if new.contains(Cr0::NOT_WRITETHROUGH) && !new.contains(Cr0::CACHE_DISABLE) {
        return None;
    }
    let mut efer = efer;
    match (old.contains(Cr0::PAGING), new.contains(Cr0::PAGING)) {
        (false, true) if efer.contains(Efer::LONG_MODE_ENABLE) => {
            if !cr4.contains(Cr4::PHYSICAL_ADDRESS) {
                return None;
            }
            efer |= Efer::LONG_MODE_ACTIVE;
        }
        (true, false) => {
            if long_code || cr4.contains(Cr4::PROCESS_CONTEXT) {
                return None;
            }
            efer -= Efer::LONG_MODE_ACTIVE;
        }
        _ => {}
    }
    Some((new, efer))
}

/// CR4 after a write of `new`; `None`: #GP. `allowed` are the bits that this virtual processor has.
pub fn cr4(new: u64, old: Cr4, allowed: Cr4, efer: Efer) -> Option<Cr4> {
    let new = Cr4::from_bits(new)?;
    if !allowed.contains(new) {
        return None;
    }
    let active = efer.contains(Efer::LONG_MODE_ACTIVE);
    if active && !new.contains(Cr4::PHYSICAL_ADDRESS) {
        return None;
    }
    // Five-level paging cannot change while long mode is on; PCIDE needs it.
    if active && (new ^ old).contains(Cr4::LINEAR_57) {
        return None;
    }
    if !active && new.contains(Cr4::PROCESS_CONTEXT) {
        return None;
    }
    Some(new)
}

/// EFER after a write of `new`; `None`: #GP. SVM does not exist here.
pub fn efer(new: u64, old: Efer, cr0: Cr0, has_no_execute: bool) -> Option<Efer> {
    let mut allowed = Efer::SYSTEM_CALL | Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE;
    if has_no_execute {
        allowed |= Efer::NO_EXECUTE;
    }
    let new = Efer::from_bits(new)?;
    if !allowed.contains(new) {
        return None;
    }
    if (new ^ old).contains(Efer::LONG_MODE_ENABLE) && cr0.contains(Cr0::PAGING) {
        return None;
    }
    // LMA is the processor's to set; a write leaves it as it is.
    Some((new - Efer::LONG_MODE_ACTIVE) | (old & Efer::LONG_MODE_ACTIVE))
}

/// XCR0 after XSETBV of register `number`; `None`: #GP (APM Vol. 2 §11.5.2).
pub fn xcr0(number: u32, new: u64, allowed: Xcr0, privilege: u8) -> Option<Xcr0> {
    if number != 0 || privilege != 0 {
        return None;
    }
    let new = Xcr0::from_bits(new)?;
    let consistent = new.contains(Xcr0::X87) && (!new.contains(Xcr0::AVX) || new.contains(Xcr0::SSE));
    (consistent && allowed.contains(new)).then_some(new)
}

/// Whether a page attribute table holds only types that exist (APM Vol. 2 §7.8.1).
pub fn page_attributes(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Cr4 = Cr4::all();

    #[test]
    fn paging_needs_protection_and_long_mode_needs_physical_address_extension() {
        let off = Cr0::EXTENSION_TYPE | Cr0::PROTECTION;
        let on = (off | Cr0::PAGING).bits();
        assert_eq!(cr0(Cr0::PAGING.bits(), off, Cr4::empty(), Efer::empty(), false), None);
        assert_eq!(cr0(on, off, Cr4::empty(), Efer::LONG_MODE_ENABLE, false), None);
        let (_, efer) = cr0(on, off, Cr4::PHYSICAL_ADDRESS, Efer::LONG_MODE_ENABLE, false).unwrap();
        assert!(efer.contains(Efer::LONG_MODE_ACTIVE));
        let (_, efer) = cr0(off.bits(), off | Cr0::PAGING, Cr4::PHYSICAL_ADDRESS, efer, false).unwrap();
        assert!(!efer.contains(Efer::LONG_MODE_ACTIVE));
        assert_eq!(cr0(off.bits(), off | Cr0::PAGING, Cr4::PHYSICAL_ADDRESS, efer, true), None);
    }

    #[test]
    fn reserved_bits_raise_a_fault() {
        let old = Cr0::EXTENSION_TYPE;
        assert_eq!(cr0(1 << 32, old, Cr4::empty(), Efer::empty(), false), None);
        assert_eq!(cr0(Cr0::NOT_WRITETHROUGH.bits(), old, Cr4::empty(), Efer::empty(), false), None);
        assert_eq!(cr4(1 << 31, Cr4::empty(), ALL, Efer::empty()), None);
        assert_eq!(cr4(Cr4::XSAVE.bits(), Cr4::empty(), Cr4::PAGE_SIZE, Efer::empty()), None);
        assert_eq!(cr4(0, Cr4::PHYSICAL_ADDRESS, ALL, Efer::LONG_MODE_ACTIVE), None);
        assert_eq!(efer(1 << 1, Efer::empty(), Cr0::empty(), true), None);
        assert_eq!(efer(Efer::SECURE_VIRTUAL_MACHINE.bits(), Efer::empty(), Cr0::empty(), true), None);
        assert_eq!(efer(Efer::NO_EXECUTE.bits(), Efer::empty(), Cr0::empty(), false), None);
        assert_eq!(efer(Efer::LONG_MODE_ENABLE.bits(), Efer::empty(), Cr0::PAGING, true), None);
    }

    #[test]
    fn long_mode_active_is_not_the_guest_s_to_set() {
        assert_eq!(
            efer(Efer::LONG_MODE_ACTIVE.bits(), Efer::empty(), Cr0::empty(), true),
            Some(Efer::empty())
        );
    }

    #[test]
    fn vector_state_is_consistent() {
        assert_eq!(xcr0(0, 0, Xcr0::all(), 0), None);
        assert_eq!(xcr0(0, 0b101, Xcr0::all(), 0), None);
        assert_eq!(xcr0(0, 0b111, Xcr0::X87 | Xcr0::SSE, 0), None);
        assert_eq!(xcr0(1, 1, Xcr0::all(), 0), None);
        assert_eq!(xcr0(0, 1, Xcr0::all(), 3), None);
        assert_eq!(xcr0(0, 0b111, Xcr0::all(), 0), Some(Xcr0::all()));
    }

    #[test]
    fn page_attributes_have_no_reserved_types() {
        assert!(page_attributes(0x0007_0406_0007_0406));
        assert!(!page_attributes(2));
        assert!(!page_attributes(8 << 56));
    }
}
