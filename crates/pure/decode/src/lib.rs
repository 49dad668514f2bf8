//! Decodes the few instructions that a hypervisor must understand: lengths, memory-mapped accesses, control registers.
//!
//! Row 1 (pure). Every byte that comes in was written by a guest, and may have changed since its processor executed it:
//! nothing here trusts that the bytes are the instruction that caused an exit, and no byte string makes it fail
//! otherwise than by a [`DecodeError`]. Encodings are those of the AMD64 Architecture Programmer's Manual (APM)
//! Vol. 3, chapter 1 and appendix A; a processor of either vendor agrees where the APM and Intel's SDM Vol. 2 do.
//!
//! * [`length`]: how long is the CPUID, RDMSR, HLT … that was intercepted;
//! * [`control`]: which control register is moved, and how;
//! * [`string_port`]: what INS and OUTS say beyond what an exit says;
//! * [`memory`]: the instruction that touched a memory-mapped register, as data, and [`MemoryInstruction::effect`],
//!   what it does with what the device answered; [`arithmetic`] computes its flags.
#![no_std]

#[cfg(test)]
extern crate std;

mod address;
pub mod arithmetic;
mod control;
mod cursor;
mod effect;
mod length;
mod memory;
mod port;

pub use address::{EffectiveAddress, Scale};
pub use control::{ControlInstruction, ControlKind, ControlRegister, StatusWordOperand, control};
pub use effect::Effect;
pub use length::{Intercepted, length, plain_length};
pub use memory::{
    Extension, MemoryInstruction, Operation, Register, Repeat, Source, StringFunction, advance, memory,
    plain_move,
};
pub use port::{PortDirection, StringPort, string_port};

/// The most bytes that an instruction can have (APM Vol. 3 §1.1).
pub const LONGEST: usize = 15;

/// Why bytes are not the instruction that was asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The instruction goes on behind the bytes given, of which there were fewer than 15: fetch more.
    NeedMoreBytes,
    /// The instruction would be longer than 15 bytes: the processor raises #GP(0).
    TooLong,
    /// No processor executes it: #UD.
    Undefined,
    /// A valid instruction, or at least one that this decoder does not know to be invalid, outside what it covers.
    Unsupported,
    /// An instruction other than the expected one, or a form of it that touches no memory: the guest changed its
    /// code between execution and now, or never executed these bytes.
    Unexpected,
}
