//! AMD-V: virtual machine control blocks and world switches.
#![no_std]
