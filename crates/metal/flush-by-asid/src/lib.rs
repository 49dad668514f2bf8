//! Hardware part: the processor forgets the translations of one address space identifier alone (APM Vol. 2 §15.16.2).
//!
//! With it a guest whose translations have to be forgotten costs nobody else any; without it the processor forgets all that it has.
#![no_std]

use contracts::TranslationFlush;

/// CPUID 8000_000A EDX bit 6.
#[derive(Debug)]
pub struct FlushByAsid;

impl TranslationFlush for FlushByAsid {
    const OWN: bool = true;
}
