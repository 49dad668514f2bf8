//! The product for Nehalem, whose processors run no guest without paging: a compartment has one vCPU, which no real mode starts.

use std::fs;
use std::os::unix::fs::symlink;

use crate::intel;
use crate::system::{run, tree};
use cli::guest;

const PROFILE: &str = "lab-intel-nehalem";

#[test]
fn two_guests_with_one_processor_each() {
    intel::one_processor_each(PROFILE);
}

/// The hostile guest goes to real mode, and is stopped there with the reason.
#[test]
fn real_mode_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    symlink(guest::program(&tree(), "hostile").unwrap(), folder.path().join("hostile")).unwrap();
    let manifest = folder.path().join("real.ringfence.toml");
    let text = "format = 1\n\n[[compartment]]\nname = \"hostile\"\nmemory = \"64 MiB\"\nvcpus = 1\non-reset = \"stop\"\n\
                boot = { kernel = \"hostile\", command-line = \"mode=triple-fault-in-real-mode\" }\n";
    fs::write(&manifest, text).unwrap();
    let ran = run(&["run", PROFILE, "--manifest", manifest.to_str().unwrap(), "--timeout", "300", "--json"]);
    ran.expect_code(1);
    let hostile = ran.compartment("hostile");
    assert_eq!(hostile["state"], "stopped", "{}", ran.transcript());
    let reason = hostile["reason"].as_str().unwrap();
    assert!(reason.contains("real mode needs part real-mode"), "{reason}");
    assert_eq!(ran.count("ringfence", "host fault"), 0, "{}", ran.transcript());
}
