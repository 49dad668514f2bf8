//! Hardware part: guests run in real mode, and in protected mode without paging, by themselves (SDM Vol. 3C §25.6.2, "unrestricted guest").
//!
//! Without it a guest has paging and protection on in the processor always, and a part has to make the difference up.
#![no_std]

use contracts::UnpagedModes;

/// Secondary processor-based control bit 7.
#[derive(Debug)]
pub struct UnrestrictedGuest;

impl UnpagedModes for UnrestrictedGuest {
    const UNRESTRICTED: bool = true;
}
