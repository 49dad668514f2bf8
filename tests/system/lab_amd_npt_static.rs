//! The product in which a vCPU owns its CPU.

use crate::system::{Guests, LIMIT, run};

const PROFILE: &str = "lab-amd-npt-static";

/// The demonstration's four vCPUs on four processors.
#[test]
fn demonstration() {
    let ran = run(&["run", PROFILE, "--bench-machine", "qemu-amd-epyc-4", "--timeout", LIMIT, "--json"]);
    ran.expect_code(0);
    assert_eq!(ran.json["profile"], PROFILE);
    for name in ["office", "banking"] {
        ran.find(name, "2 processors");
        ran.find(name, "isolation holds");
        assert_eq!(ran.count(name, "FAILED"), 0, "{}", ran.transcript());
        assert_eq!(ran.compartment(name)["state"], "shut-down");
    }
}

/// A manifest that needs more processors than the machine has is refused before anything starts.
#[test]
fn too_few_processors_are_refused() {
    let three = Guests::new(&[("office", "vcpus = 2", ""), ("banking", "vcpus = 1", "")]);
    let ran = run(&[
        "run",
        PROFILE,
        "--manifest",
        three.manifest(),
        "--bench-machine",
        "qemu-amd-epyc",
        "--timeout",
        LIMIT,
    ]);
    ran.expect_code(2);
    assert!(ran.lines.is_empty(), "{}", ran.transcript());
    assert!(ran.errors.contains("vCPU"), "{}", ran.errors);
}
