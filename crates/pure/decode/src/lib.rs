//! Decodes the few instructions that a hypervisor must understand: lengths, memory-mapped accesses, control registers.
#![no_std]
