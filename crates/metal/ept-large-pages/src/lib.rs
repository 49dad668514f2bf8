//! Hardware part: extended page tables have pages of 1 GiB (SDM Vol. 3C §29.3.2).
//!
//! Without it the largest page is 2 MiB.
#![no_std]

use contracts::HugePages;

/// IA32_VMX_EPT_VPID_CAP bit 17.
#[derive(Debug)]
pub struct EptLargePages;

impl HugePages for EptLargePages {
    const USED: bool = true;
}
