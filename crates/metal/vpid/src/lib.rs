//! Hardware part: translations are tagged with the virtual processor that they belong to (SDM Vol. 3C §29.1, "virtual-processor
//! identifiers").
//!
//! With it translations outlive the way into a guest and back; without it the processor forgets them both times.
#![no_std]

use contracts::TranslationTags;

/// Secondary processor-based control bit 5.
#[derive(Debug)]
pub struct Vpid;

impl TranslationTags for Vpid {
    const TAGGED: bool = true;
}
