//! The product for both vendors: the same image on an AMD processor and on Intel ones.

use crate::system::{LIMIT, run};
use crate::{bad_input, intel};

const PROFILE: &str = "lab-any";

/// On AMD.
#[test]
fn demonstration() {
    let ran = run(&["run", PROFILE, "--timeout", LIMIT, "--json"]);
    intel::demonstrated(&ran, "multiboot 1", PROFILE, 2);
}

/// The words that run it on an Intel processor.
const ON_INTEL: [&str; 7] =
    ["run", PROFILE, "--bench-machine", "bochs-sandy", "--timeout", intel::LIMIT, "--json"];

/// On Intel, as far as a guest's first program.
#[test]
fn a_guest_starts_on_intel() {
    let ran = run(&[&ON_INTEL[..], &["--until", "Hello from office"]].concat());
    ran.expect_code(0);
    ran.find("ringfence", "profile lab-any, processor signature 0x206a7");
}

#[test]
#[ignore = "two minutes: nightly"]
fn demonstration_on_intel() {
    intel::demonstrated(&run(&ON_INTEL), "multiboot 2 by GRUB", PROFILE, 2);
}

/// A processor of one vendor that lacks something is told what; one without virtualization that it has neither.
#[test]
fn what_a_processor_lacks_is_said_by_its_own_vendor_s_part() {
    for (processor, missing) in [
        ("EPYC,-npt", "this processor has AMD-V but no nested paging, which part npt needs (processor"),
        (
            "EPYC,-svm",
            "this processor has neither AMD-V (SVM) nor VT-x, which parts svm and vmx need (processor",
        ),
    ] {
        bad_input::refused_on(PROFILE, processor, &[missing, "; no shipped profile fits"]);
    }
    intel::refused(
        PROFILE,
        "bochs-nehalem",
        "this processor cannot run guests without paging, which part unrestricted-guest needs",
        "lab-intel-nehalem",
    );
}
