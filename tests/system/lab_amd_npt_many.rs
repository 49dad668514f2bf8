//! The product for more compartments than the demonstration has.

use crate::system::{Guests, LIMIT, run};

const PROFILE: &str = "lab-amd-npt-many";

/// Eight Linux guests of 96 MiB at once on two processors, half of them with two vCPUs: each boots, sees its own memory and time, and ends.
#[test]
fn eight_compartments_at_once() {
    let names = (1..=8).map(|number| format!("guest-{number}")).collect::<Vec<_>>();
    let settings = |number: usize| if number.is_multiple_of(2) { "vcpus = 2" } else { "vcpus = 1" };
    let guests = names
        .iter()
        .enumerate()
        .map(|(number, name)| (name.as_str(), settings(number), "ringfence.mode=uptime ringfence.seconds=20"))
        .collect::<Vec<_>>();
    let guests = Guests::with_memory("96 MiB", &guests);
    let ran = run(&["run", PROFILE, "--manifest", guests.manifest(), "--timeout", LIMIT, "--json"]);
    ran.expect_code(0);
    assert_eq!(ran.json["profile"], PROFILE);
    assert_eq!(ran.json["compartments"].as_array().unwrap().len(), 8);
    for (number, name) in names.iter().enumerate() {
        let processors = if number.is_multiple_of(2) { 2 } else { 1 };
        ran.find(name, &format!("Hello from {name}: Linux 6.1"));
        ran.find(name, &format!("{processors} processors, 96 MiB"));
        assert_eq!(ran.compartment(name)["state"], "shut-down", "{}", ran.transcript());
        assert_eq!(ran.compartment(name)["audit"]["malformed"], 0, "{}", ran.transcript());
    }
    // At the same time: the last has greeted before the first has ended.
    let last_greeting = names.iter().map(|name| ran.find(name, "Hello").at).max().unwrap();
    let first_end = names.iter().map(|name| ran.find(name, "switching the power off").at).min().unwrap();
    assert!(last_greeting < first_end, "{}", ran.transcript());
}
