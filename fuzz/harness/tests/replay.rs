//! The committed corpus again, without libFuzzer: in the test profile, which checks arithmetic.

use harness::{TARGETS, corpus};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a boundary of that name");
    for seed in (target.seeds)() {
        (target.run)(&seed);
    }
    let text = fs::read_to_string(fuzz().join("corpus").join(name).with_extension("txt")).expect("a corpus");
    let inputs = corpus::read(&text).expect("hexadecimal digits in pairs");
    assert!(inputs.len() > 1, "a corpus of {} inputs", inputs.len());
    assert_eq!(corpus::write(inputs.clone()), text, "sorted, each input once");
    for input in &inputs {
        (target.run)(input);
        // What is cut off is another input.
        (target.run)(&input[..input.len() / 2]);
    }
}

macro_rules! replay {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_boundary_is_replayed_and_has_a_fuzzer() {
            let ours: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(ours, [$(stringify!($name).to_owned()),*].into());
            let fuzzers = fs::read_dir(fuzz().join("fuzz_targets")).expect("the fuzzers").map(|entry| {
                let path = entry.expect("a file").path();
                path.file_stem().expect("a name").to_string_lossy().into_owned()
            });
            assert_eq!(ours, fuzzers.collect());
        }
    };
}

replay! {
    acpi acpi_power boot_information boot_module clock_page exit_dispatch instruction io_apic kernel local_apic manifest page_walk
    pci_host pic pit rtc uart
}

#[test]
fn a_corpus_that_was_written_is_read() {
    let inputs = vec![vec![0x00, 0xff], vec![], vec![7]];
    let text = corpus::write(inputs);
    assert_eq!(text, "\n07\n00ff\n");
    assert_eq!(corpus::read(&text), Some(vec![vec![], vec![7], vec![0x00, 0xff]]));
    assert_eq!(corpus::read("0"), None);
    assert_eq!(corpus::read("0g"), None);
}
