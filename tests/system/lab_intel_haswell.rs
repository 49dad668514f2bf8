//! The product for Haswell.

use crate::intel;

const PROFILE: &str = "lab-intel-haswell";

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
