//! The product for Skylake: everything of VT-x that is used.

use crate::intel;
use crate::lab_amd_npt::foreign::{WITHOUT_BIT_FADE, memtest};

const PROFILE: &str = "lab-intel-skylake";

#[test]
fn demonstration() {
    intel::demonstration(PROFILE);
}

/// The local APIC in memory, and one processor.
#[test]
#[ignore = "a minute and a half: nightly"]
fn linux_without_x2apic_on_one_vcpu() {
    let ran = intel::linux(PROFILE, "vcpus = 1", "nox2apic");
    ran.find("office", "1 processor");
}

/// On two vCPUs, whose threads wait for each other with HLT and NMI, interrupts off.
#[test]
#[ignore = "some minutes: nightly"]
fn memtest_completes_a_pass() {
    memtest(PROFILE, "memtest86+x64", WITHOUT_BIT_FADE);
}

#[test]
fn a_processor_without_huge_pages_is_named() {
    intel::refused(
        PROFILE,
        "bochs-sandy",
        "this processor's extended page tables have no pages of 1 GiB, which part ept-large-pages needs",
        "lab-intel-sandy",
    );
}

#[test]
fn a_haswell_is_named_by_what_it_lacks() {
    intel::refused(
        PROFILE,
        "bochs-haswell",
        "this processor has no supervisor state in XSAVE areas (XSAVES), which profile lab-intel-skylake requires",
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
