//! The product for Skylake: everything of VT-x that is used.

use crate::intel;
use crate::lab_amd_npt::foreign::{WITHOUT_BIT_FADE, memtest};

const PROFILE: &str = "lab-intel-skylake";

/// With part `xsaves`: Linux keeps its vector state by that.
#[test]
fn demonstration() {
    let ran = intel::demonstration(PROFILE);
    for name in ["office", "banking"] {
        ran.find(name, "vector state: saved by xsaves");
    }
}

/// The local APIC in memory, which the processor does not hold.
#[test]
#[ignore = "a minute and a half: nightly"]
fn linux_without_x2apic_on_one_vcpu() {
    let ran = intel::linux(PROFILE, "vcpus = 1", "nox2apic");
    ran.find("office", "1 processor");
}

#[test]
#[ignore = "two minutes: nightly"]
fn linux_without_x2apic_on_two_vcpus() {
    let ran = intel::linux(PROFILE, "vcpus = 2", "nox2apic");
    ran.find("office", "2 processors");
}

/// On two vCPUs, whose threads wait for each other with HLT and NMI, interrupts off.
#[test]
#[ignore = "three minutes: nightly"]
fn memtest_completes_a_pass() {
    memtest(PROFILE, "memtest86+x64", WITHOUT_BIT_FADE);
}

#[test]
fn a_processor_without_xsaves_is_named() {
    intel::refused(
        PROFILE,
        "bochs-haswell",
        "this processor has no XSAVES that guests could execute, which part xsaves needs",
        "lab-intel-haswell",
    );
}

#[test]
fn a_processor_without_unrestricted_guests_is_named() {
    intel::refused(
        PROFILE,
        "bochs-nehalem",
        "this processor cannot run guests without paging, which part unrestricted-guest needs",
        "lab-intel-nehalem",
    );
}

#[test]
fn another_vendor_s_processor_is_named() {
    let missing = "this processor has no VT-x (VMX), which part vmx needs";
    intel::refused(PROFILE, "bochs-ryzen", missing, "lab-amd-npt");
    let missing = "this processor has no AMD-V (SVM), which part svm needs";
    intel::refused("lab-amd-npt", "bochs-skylake", missing, PROFILE);
}
