//! The vector and floating-point state of a virtual processor, in one area of its own: by XSAVE where the processor has it, else
//! by FXSAVE.

use crate::{Features, vector};
use core::ptr::NonNull;
use x86::{Xcr0, msr};

/// Offset of MXCSR, and its value after reset (APM Vol. 1 §11.4.9; Vol. 2 §14.1.3).
const MXCSR: (usize, u32) = (24, 0x1f80);
/// Offset of the x87 control word, and its value after FNINIT, which software does anyway.
const CONTROL_WORD: (usize, u16) = (0, 0x037f);

/// The area of one virtual processor.
#[derive(Debug)]
pub struct VectorState {
    area: NonNull<u8>,
    length: usize,
    /// What XSAVE handles here; `None` where the processor has only FXSAVE.
    supported: Option<Xcr0>,
}

impl VectorState {
    /// Bytes of the area.
    pub const fn area(features: &Features) -> usize {
        if features.xsave && features.vector_area > 512 { features.vector_area as usize } else { 512 }
    }

    /// State in the pages at `area`, which hold at least [`Self::area`] bytes.
    pub fn new(area: NonNull<u8>, features: &Features) -> Self {
        Self { area, length: Self::area(features), supported: features.xsave.then_some(features.xcr0) }
    }

    /// The state after reset.
    ///
    /// # Safety
    /// The area is mapped, and this virtual processor's own.
    pub unsafe fn reset(&mut self) {
        let area = self.area.as_ptr();
        // SAFETY: the area is mapped and ours (this function's contract), `length` bytes long (`new`), and page-aligned, so the
        // two fields, which lie in its first 32 bytes, are aligned. An XSAVE header of zeros means: everything in its initial
        // state, but MXCSR, which is always loaded.
        unsafe {
            core::ptr::write_bytes(area, 0, self.length);
            area.add(CONTROL_WORD.0).cast::<u16>().write(CONTROL_WORD.1);
            area.add(MXCSR.0).cast::<u32>().write(MXCSR.1);
        }
    }

    /// Loads the state into this processor, and `control` into XCR0.
    ///
    /// # Safety
    /// The area is mapped, ours, and holds what [`Self::reset`] or [`Self::save`] wrote; nobody uses vector registers now.
    pub unsafe fn restore(&mut self, control: Xcr0) {
        // SAFETY: this function's contract; `supported` are bits that the processor has, and CR4.OSXSAVE was set where it has
        // XSAVE when it was prepared.
        unsafe {
            match self.supported {
                Some(supported) => {
                    vector::set_xcr0(supported.bits());
                    vector::xrstor(self.area.as_ptr(), supported.bits());
                    vector::set_xcr0(control.bits());
                }
                None => vector::fxrstor(self.area.as_ptr()),
            }
        }
    }

    /// Stores this processor's state.
    ///
    /// # Safety
    /// The area is mapped and ours; the processor holds this virtual processor's state.
    pub unsafe fn save(&mut self) {
        // SAFETY: as in `restore`.
        unsafe {
            match self.supported {
                Some(supported) => {
                    vector::set_xcr0(supported.bits());
                    vector::xsave(self.area.as_ptr(), supported.bits());
                }
                None => vector::fxsave(self.area.as_ptr()),
            }
        }
    }

    /// XCR0 of this processor, of the bits that are switched; `None` where it has none.
    pub fn extended_control(&self) -> Option<Xcr0> {
        // SAFETY: CR4.OSXSAVE is set where the processor has XSAVE.
        self.supported.map(|supported| Xcr0::from_bits_truncate(unsafe { vector::xcr0() }) & supported)
    }

    /// Sets XCR0 on this processor.
    ///
    /// # Safety
    /// The processor holds this virtual processor's state, and `control` was checked against what it supports.
    pub unsafe fn set_extended_control(&mut self, control: Xcr0) {
        if self.supported.is_some() {
            // SAFETY: this function's contract.
            unsafe { vector::set_xcr0(control.bits()) };
        }
    }
}

/// Whether this processor has XSAVES, and so IA32_XSS (CPUID leaf 0Dh, which exists where XSAVE does, subleaf 1 EAX bit 3).
pub fn has_xsaves(features: &Features) -> bool {
    features.xsave && crate::cpuid(0xd, 1)[0] >> 3 & 1 == 1
}

/// Sets IA32_XSS to 0, whatever firmware left there: guests have no supervisor state, and their XSAVES and XRSTORS none of the host's. False:
/// this processor has no such register.
pub fn clear_supervisor_state(features: &Features) -> bool {
    let exists = has_xsaves(features);
    if exists {
        // SAFETY: the register exists where XSAVES does (SDM Vol. 4, table 2-2; APM Vol. 2 §18.13); the hypervisor uses no supervisor state.
        unsafe { crate::msr::write(msr::XSS, 0) };
    }
    exists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_register_is_written_that_is_not_there() {
        assert!(!clear_supervisor_state(&Features::default()));
    }
}
