//! What the fuzzers do with bytes: a function `run` for each boundary that takes bytes from outside. It panics where the code behind the
//! boundary breaks a promise, and never for any other reason. libFuzzer calls it from `fuzz_targets/`, and `tests/replay.rs` with the
//! committed corpus; `docs/fuzzing.md` lists the boundaries.

pub mod acpi;
pub mod boot_information;
pub mod boot_module;
pub mod clock_page;
#[path = "../../../crates/tools/manifest/tests/common/mod.rs"]
mod common;
pub mod corpus;
pub mod devices;
pub mod exit_dispatch;
pub mod instruction;
pub mod kernel;
pub mod local_apic;
pub mod manifest;
pub mod page_walk;
mod tape;

pub use devices::{acpi_power, io_apic, pci_host, pic, pit, rtc, uart};

/// A boundary.
pub struct Target {
    /// The fuzzer's name.
    pub name: &'static str,
    /// What it does with bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made by the tree's own encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident,)*) => {
        &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds },)*]
    };
}

/// All boundaries, by name.
pub const TARGETS: &[Target] = targets![
    acpi,
    acpi_power,
    boot_information,
    boot_module,
    clock_page,
    exit_dispatch,
    instruction,
    io_apic,
    kernel,
    local_apic,
    manifest,
    page_walk,
    pci_host,
    pic,
    pit,
    rtc,
    uart,
];
