//! The I/O APIC.
#![no_std]
