//! Nothing leaks: a guest searches everything that it can read for the canaries of the hypervisor and of its neighbours, on an image that
//! looks at its own mappings all the while (part `isolation-check`).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use cli::guest;

use crate::system::{LIMIT, Ran, start, tree};

/// MiB of RAM of each compartment.
const MEMORY: u64 = 32;
/// Compartments whose guest fills everything with its canary and resets.
const NEIGHBOURS: [&str; 2] = ["left", "right"];
/// Pages that are not zero at first, beside the program's own, which is what the loader puts there (`crates/tools/manifest/src/boot`): BIOS
/// data area and descriptors, start information and its lists, command line, extended BIOS data area, ACPI tables, MP table.
const LOADED: &str = "loaded 0-2000 8000-a000 10000-11000 9f000-a0000 e0000-e1000 f0000-f1000";

fn leaks(ran: &Ran, name: &str) -> Vec<String> {
    ran.console(name).filter_map(|line| line.text.strip_prefix("leak ")).map(str::to_owned).collect()
}

/// How often the hypervisor says that it looked at its mappings.
fn looks(ran: &Ran) -> u64 {
    let line = ran.find("ringfence", "looks at all mappings");
    line.text.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

#[test]
fn nothing_of_the_hypervisor_or_of_a_neighbour_can_be_found() {
    nothing_is_found("lab-amd-npt-checked", LIMIT);
}

/// Bochs executes some 90 million instructions a second, and hosts that test are busy.
#[test]
#[ignore = "several minutes: nightly"]
fn nothing_of_the_hypervisor_or_of_a_neighbour_can_be_found_on_intel() {
    nothing_is_found("lab-intel-skylake-checked", "1800");
}

/// Under a product with the part, on its own machine.
fn nothing_is_found(profile: &str, limit: &str) {
    let program = guest::program(&tree(), "hostile").unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(&program, folder.path().join("hostile")).unwrap();
    let mut text = "format = 1\n".to_owned();
    let neighbours = NEIGHBOURS.map(|name| (name, "canary", 1, "restart"));
    for (name, mode, vcpus, on_reset) in [("searcher", "search", 2, "stop")].into_iter().chain(neighbours) {
        let _ = write!(
            text,
            "\n[[compartment]]\nname = \"{name}\"\nmemory = \"{MEMORY} MiB\"\nvcpus = {vcpus}\non-reset = \"{on_reset}\"\n\
             boot = {{ kernel = \"hostile\", command-line = \"mode={mode} memory={MEMORY}\" }}\n"
        );
    }
    let manifest = folder.path().join("leaks.ringfence.toml");
    fs::write(&manifest, text).unwrap();
    let manifest = manifest.to_str().unwrap();
    let mut running = start(&["run", profile, "--manifest", manifest, "--timeout", limit, "--interactive"]);
    running.wait_for("ringfence", "report searcher ", 1);
    // A neighbour is told to end in each of its lives, until it hears it.
    for (number, name) in NEIGHBOURS.iter().enumerate() {
        while running.count(name, "canary ends") == 0 {
            let said = running.count(name, "canary ");
            running.send(format!("\x1d{}q", number + 2).as_bytes());
            running.wait_for(name, "canary ", said + 1);
        }
    }
    let ran = running.wait();
    let mut found = Vec::new();
    for name in ["searcher"].into_iter().chain(NEIGHBOURS) {
        found.extend(leaks(&ran, name).into_iter().map(|leak| format!("{name}: {leak}")));
    }
    assert!(found.is_empty(), "{}\n{}", found.join("\n"), ran.transcript());
    assert_eq!(ran.count("searcher", "search done, leaks 0"), 1, "{}", ran.transcript());
    assert_eq!(ran.count("searcher", LOADED), 1, "{}", ran.transcript());
    for name in NEIGHBOURS {
        // It searches at the beginning of each life, the first one and those behind a reset.
        let lives = ran.count(name, "canary begins, leaks 0");
        assert!(lives >= 3, "{name} lived {lives} times\n{}", ran.transcript());
        assert_eq!(lives, ran.count(name, "canary begins"), "{}", ran.transcript());
        assert_eq!(lives, ran.count(name, LOADED), "{}", ran.transcript());
    }
    let looks = looks(&ran);
    assert!(looks > 10_000, "{looks} looks at the mappings\n{}", ran.transcript());
    assert_eq!(ran.count("ringfence", "host fault"), 0, "{}", ran.transcript());
    eprintln!("{looks} looks");
}
