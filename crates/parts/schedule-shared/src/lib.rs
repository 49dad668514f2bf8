//! Sharing scheduler: weighted time slices.
#![no_std]
