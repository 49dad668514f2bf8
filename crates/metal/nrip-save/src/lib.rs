//! Hardware part: the processor saves where the next instruction begins (APM Vol. 2 §15.7.1).
//!
//! With it the back end says where an intercepted instruction ends; without it the monitor fetches and decodes the instruction.
#![no_std]

use contracts::NextInstruction;

/// CPUID 8000_000A EDX bit 3.
#[derive(Debug)]
pub struct NripSave;

impl NextInstruction for NripSave {
    const SAVED: bool = true;
}
