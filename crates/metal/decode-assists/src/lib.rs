//! Hardware part: the processor says what an intercepted instruction was (APM Vol. 2 §15.8, §15.10.2, Appendix B offset 0D0h).
//!
//! With it the back end hands on the bytes of an instruction that touched device registers, the general register of a MOV to or from a
//! control register, and the operand of INS and OUTS; without it the monitor fetches and decodes the instruction. What else the
//! feature tells, the operands of INVLPG, INTn and debug registers, is of no use: these do not exit.
#![no_std]

use contracts::DecodedInstruction;

/// CPUID 8000_000A EDX bit 7.
#[derive(Debug)]
pub struct DecodeAssists;

impl DecodedInstruction for DecodeAssists {
    const GIVEN: bool = true;
}
