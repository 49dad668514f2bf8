//! The local APIC, xAPIC and x2APIC.
#![no_std]
