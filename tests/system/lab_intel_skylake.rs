//! The product for Skylake: everything of VT-x that is used.

use crate::intel;

const PROFILE: &str = "lab-intel-skylake";

#[test]
fn demonstration() {
    intel::demonstration(PROFILE);
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
