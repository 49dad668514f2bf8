//! Nested page tables of AMD-V.
#![no_std]
