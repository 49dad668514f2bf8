//! From the boot loader to Rust: entry points, boot protocols, start of the other processors.
#![no_std]
