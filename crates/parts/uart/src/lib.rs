//! The 16550A serial port.
#![no_std]
