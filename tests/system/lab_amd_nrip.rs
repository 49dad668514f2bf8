//! The product for processors that save the address of the next instruction, on the emulator that has such processors.
//!
//! Bochs interrupts no guest that was entered with interrupts off until it changes that itself; where every vCPU owns its CPU, that harms
//! nobody.

use crate::system::{Guests, run};

const PROFILE: &str = "lab-amd-nrip";

/// Bochs executes some 90 million instructions a second, and hosts that test are busy.
const LIMIT: &str = "900";

/// A Linux boots from a CD through GRUB, looks around, and switches its power off.
fn linux_runs(bench_machine: &str) {
    let one = Guests::new(&[("office", "vcpus = 1", "")]);
    let words = ["run", PROFILE, "--manifest", one.manifest(), "--bench-machine", bench_machine];
    let ran = run(&[&words[..], &["--timeout", LIMIT, "--json"]].concat());
    ran.expect_code(0);
    ran.find("ringfence", "multiboot 2 by GRUB");
    ran.find("ringfence", &format!("profile {PROFILE}"));
    ran.find("office", "isolation holds");
    // XSAVES is a part of Intel's products: where an AMD processor has it, it stays hidden.
    ran.find("office", "vector state: saved by ");
    assert_eq!(ran.count("office", "saved by xsaves"), 0, "{}", ran.transcript());
    assert_eq!(ran.count("office", "unstable"), 0, "{}", ran.transcript());
    assert_eq!(ran.compartment("office")["state"], "shut-down");
}

#[test]
fn linux_on_a_ryzen() {
    linux_runs("bochs-ryzen");
}

#[test]
fn linux_on_a_zambezi() {
    linux_runs("bochs-zambezi");
}
