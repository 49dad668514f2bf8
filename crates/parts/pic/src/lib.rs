//! The 8259A pair of interrupt controllers.
#![no_std]
