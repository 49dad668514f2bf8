//! The MC146818 real-time clock and its CMOS memory.
#![no_std]
