//! Whole systems on bench machines: boot a profile, drive it, judge it from the consoles, the JSON and the exit code.
//!
//! `./ringfence test` runs these; so does `cargo test -p cli --test system`, where the emulators are. Tests stand in a module
//! named after their profile, so that `./ringfence test --profile P` finds them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod bad_input;
mod complaints;
mod costs;
mod hardware_features;
mod hostile;
mod intel;
mod lab_amd_npt;
mod lab_amd_npt_many;
mod lab_amd_npt_static;
mod lab_amd_nrip;
mod lab_any;
mod lab_intel_haswell;
mod lab_intel_nehalem;
mod lab_intel_sandy;
mod lab_intel_skylake;
mod leaks;
mod soak;
mod system;
