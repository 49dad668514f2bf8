//! What the products for Intel's generations have in common. Bochs has a processor of each, and checks every VM entry by the manual.

use crate::system::{Guests, Ran, run};

/// Bochs executes some 90 million instructions a second, and hosts that test are busy.
pub const LIMIT: &str = "900";

/// The demonstration on the profile's own machine: two Linux guests at the same time.
pub fn demonstration(profile: &str) -> Ran {
    let ran = run(&["run", profile, "--timeout", LIMIT, "--json"]);
    demonstrated(&ran, "multiboot 2 by GRUB", profile, 2);
    ran
}

/// Two Linux guests at the same time, with one processor each.
pub fn one_processor_each(profile: &str) {
    let guests = Guests::new(&[("office", "vcpus = 1", ""), ("banking", "vcpus = 1", "")]);
    let ran = run(&["run", profile, "--manifest", guests.manifest(), "--timeout", LIMIT, "--json"]);
    demonstrated(&ran, "multiboot 2 by GRUB", profile, 1);
}

/// One Linux by itself, with these lines of the manifest and these words on its command line.
pub fn linux(profile: &str, settings: &str, words: &str) -> Ran {
    let guests = Guests::new(&[("office", settings, words)]);
    let ran = run(&["run", profile, "--manifest", guests.manifest(), "--timeout", LIMIT, "--json"]);
    ran.expect_code(0);
    ran.find("office", "isolation holds");
    assert_eq!(ran.count("office", "unstable"), 0, "{}", ran.transcript());
    assert_eq!(ran.compartment("office")["state"], "shut-down", "{}", ran.transcript());
    ran
}

/// Two Linux guests ran at the same time, with so many processors each, by an image that was booted over `boot`.
pub fn demonstrated(ran: &Ran, boot: &str, profile: &str, processors: u8) {
    ran.expect_code(0);
    ran.find("ringfence", boot);
    ran.find("ringfence", &format!("profile {profile}"));
    for name in ["office", "banking"] {
        ran.find(name, &format!("Hello from {name}: Linux 6.1"));
        ran.find(name, &format!("{processors} processor"));
        ran.find(name, "isolation holds");
        assert_eq!(ran.count(name, "FAILED"), 0, "{}", ran.transcript());
        assert_eq!(ran.count(name, "unstable"), 0, "{}", ran.transcript());
        let compartment = ran.compartment(name);
        assert_eq!(compartment["state"], "shut-down", "{}", ran.transcript());
        assert_eq!(compartment["audit"]["malformed"], 0, "{}", ran.transcript());
        assert!(
            ran.find(name, "Hello").at
                < ran.find(if name == "office" { "banking" } else { "office" }, "switching the power off").at,
            "{}",
            ran.transcript()
        );
    }
}

/// An image on a machine that it was not built for says what is missing, on which processor and that the profile `fitting` would fit, and
/// turns the machine off.
pub fn refused(profile: &str, bench_machine: &str, sentence: &str, fitting: &str) {
    let ran = run(&["run", profile, "--bench-machine", bench_machine, "--timeout", LIMIT, "--json"]);
    ran.expect_code(1);
    let said = &ran.find("ringfence", &format!("refused: {sentence} (processor signature 0x")).text;
    assert!(said.ends_with(&format!("; profile {fitting} would fit")), "{}", ran.transcript());
    assert_eq!(ran.count("ringfence", "compartment"), 0, "{}", ran.transcript());
    assert_eq!(ran.count("ringfence", "host fault"), 0, "{}", ran.transcript());
}
