//! Reads ACPI tables out of untrusted byte slices, bounded.
#![no_std]
