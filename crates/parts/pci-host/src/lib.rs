//! The PCI host bridge's configuration ports.
#![no_std]
