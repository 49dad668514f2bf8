//! Hardware part: the processor saves where the next instruction begins.
#![no_std]
