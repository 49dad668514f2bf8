//! Physical memory of the host: frames, host page tables, one private space a compartment.
#![no_std]
