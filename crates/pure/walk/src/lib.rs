//! Walks a guest's page tables as its processor would.
#![no_std]
