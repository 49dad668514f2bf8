//! Processors of the host: control registers, interrupts, local APIC, clocks, speculation controls.
#![no_std]
