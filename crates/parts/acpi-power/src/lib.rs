//! The ACPI fixed hardware: PM timer, power-off, reset.
#![no_std]
