//! The 8254 interval timer.
#![no_std]
