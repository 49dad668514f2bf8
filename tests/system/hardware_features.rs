//! Parts for features of the hardware: each alone, all and none run where an emulator has them. docs/hardware-features.md says what each buys.
//! `decode-assists` is in no emulator at hand.

use std::fs;
use std::os::unix::fs::symlink;

use cli::guest;
use profile::Profile;
use tempfile::TempDir;

use crate::intel::{LIMIT, refused};
use crate::system::{Guests, Ran, run, tree};

const OF_VMX: [&str; 6] =
    ["unrestricted-guest", "vpid", "preemption-timer", "apic-virtualization", "ept-large-pages", "xsaves"];
const OF_SVM: [&str; 3] = ["nrip-save", "flush-by-asid", "pause-filter"];

/// None of the features, each alone, and all of them.
fn cuts<'features>(features: &[&'features str]) -> Vec<Vec<&'features str>> {
    let alone = features.iter().map(|feature| vec![*feature]);
    [Vec::new()].into_iter().chain(alone).chain([features.to_vec()]).collect()
}

/// The profile `base` with `chosen` of its hardware's `features`, as a file in `folder`.
fn cut(base: &str, features: &[&str], chosen: &[&str], folder: &TempDir) -> String {
    let mut profile = tree().profile(base).unwrap();
    profile.parts.retain(|part| !features.contains(&part.as_str()));
    profile.parts.extend(chosen.iter().map(|part| (*part).to_owned()));
    let profile = Profile { name: "cut".to_owned(), requires: Vec::new(), ..profile };
    let path = folder.path().join("cut.toml");
    fs::write(&path, profile.to_toml()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Two guests that come through real mode and back cannot be had with every cut; one that measures what it does can.
#[test]
#[ignore = "a boot for each of eight products: nightly"]
fn each_of_vmx_alone_all_and_none() {
    let folder = tempfile::tempdir().unwrap();
    symlink(guest::program(&tree(), "friendly").unwrap(), folder.path().join("friendly")).unwrap();
    let manifest = folder.path().join("friendly.ringfence.toml");
    let boot = "boot = { kernel = \"friendly\" }";
    let text = format!(
        "format = 1\n\n[[compartment]]\nname = \"friendly\"\nmemory = \"64 MiB\"\nvcpus = 1\n{boot}\n"
    );
    fs::write(&manifest, text).unwrap();
    for chosen in cuts(&OF_VMX) {
        let profile = cut("lab-intel-skylake", &OF_VMX, &chosen, &folder);
        let ran = on(&profile, manifest.to_str().unwrap(), "bochs-skylake-1");
        ran.find("friendly", "friendly done");
        // The end of an interrupt exits unless the processor holds the local APIC.
        let end = &ran.find("friendly", "bench x2apic-eoi ").text;
        let ticks: u32 = end.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(ticks < 20, chosen.contains(&"apic-virtualization"), "{chosen:?}: {end}");
    }
}

#[test]
#[ignore = "an image of its own: nightly"]
fn a_processor_that_delivers_no_interrupts_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let profile = cut("lab-intel-sandy", &[], &["apic-virtualization"], &folder);
    let missing =
        "this processor does not deliver interrupts by itself, which part apic-virtualization needs";
    refused(&profile, "bochs-sandy", missing, "lab-intel-sandy");
}

/// Linux with one vCPU, which owns its CPU: see `lab_amd_nrip`.
#[test]
#[ignore = "a boot for each of five products: nightly"]
fn each_of_svm_alone_all_and_none() {
    let folder = tempfile::tempdir().unwrap();
    let guests = Guests::new(&[("office", "vcpus = 1", "")]);
    for chosen in cuts(&OF_SVM) {
        let profile = cut("lab-amd-nrip", &OF_SVM, &chosen, &folder);
        let ran = on(&profile, guests.manifest(), "bochs-ryzen");
        ran.find("office", "isolation holds");
    }
}

fn on(profile: &str, manifest: &str, machine: &str) -> Ran {
    let words =
        ["run", profile, "--manifest", manifest, "--bench-machine", machine, "--timeout", LIMIT, "--json"];
    let ran = run(&words);
    ran.expect_code(0);
    ran
}
