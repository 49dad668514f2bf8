//! Manifests: any text. What the tool accepts, the hypervisor accepts.

use crate::common;
use ::manifest::{Environment, Limits, Manifest};
use std::fs;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder with a kernel of each kind, for manifests to name.
fn folder() -> &'static TempDir {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = TempDir::new().expect("a folder for kernels");
        for (name, bytes) in [
            ("bz", common::BzImage { code: vec![0x90; 512], ..common::BzImage::default() }.build()),
            ("pvh", common::pvh()),
            ("mb", common::multiboot(false)),
            ("rd", vec![0x5a; 64]),
        ] {
            fs::write(folder.path().join(name), bytes).expect("a kernel");
        }
        folder
    })
}

/// Reads, checks and compiles the text behind the first byte, which says what the profile has.
pub fn run(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A file of the host, or none: what it holds is not the input's.
    if text.contains("..") || text.contains("\"/") || text.contains("'/") || text.contains('\\') {
        return;
    }
    let schedule = if choice & 1 == 0 { "schedule-shared" } else { "schedule-static" };
    let environment = Environment {
        profile_name: "lab".to_owned(),
        limits: Limits { compartments: 4, vcpus_per_compartment: 4, cpus: 8 },
        parts: vec!["svm".to_owned(), schedule.to_owned()],
        machine_memory: (choice & 2 == 0).then_some(2 << 30),
        machine_cpus: (choice & 4 == 0).then_some(4),
    };
    let checked =
        Manifest::parse("fuzz", text, folder().path()).and_then(|manifest| manifest.check(&environment));
    match checked {
        Ok(checked) => {
            let summaries = checked.compartments().len();
            let plan = plan::read_whole(&checked.into_module()).expect("what the tool compiles is accepted");
            assert_eq!(plan.compartments.len(), summaries);
            assert!(plan.compartments.len() <= 4);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            let lines = text.split('\n').count();
            for mistake in mistakes.iter() {
                assert!((1..=lines).contains(&mistake.line()) && mistake.column() >= 1);
                assert!(!mistake.sentence().is_empty());
            }
        }
    }
}

/// Manifests that hold, and some that do not.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "format = 1\n[[compartment]]\nname = \"office\"\nmemory = \"64 MiB\"\nvcpus = 2\nshare = 50\n\
         boot = { kernel = \"bz\", initrd = \"rd\", command-line = \"quiet\" }\non-reset = \"restart\"\n\
         on-unclaimed = \"stop\"\nlabel = { text = \"OFFICE\", colour = \"#1e6fd9\" }\n",
        "format = 1\n[[compartment]]\nname = \"a\"\nmemory = \"64 MiB\"\nvcpus = 1\nboot = { kernel = \"pvh\" }\n\
         [[compartment]]\nname = \"b\"\nmemory = \"32 MiB\"\nvcpus = 1\ncpus = [1]\n\
         boot = { kernel = \"mb\", protocol = \"multiboot\", modules = [\"rd\"] }\n",
        "format = 1\n[[compartment]]\nname = \"a\"\nmemory = \"2 MiB\"\nboot = { kernel = \"none\" }\n\
         [[compartment.interface]]\nnetwork = \"wan\"\naddresses = [\"10.0.2.20/24\"]\n\
         allow = [{ to = \"10.0.2.3\", udp = 53 }]\naccept = []\n[[network]]\nname = \"wan\"\nuplink = \"nic0\"\n\
         [[channel]]\nname = \"c\"\nfrom = \"a\"\nto = \"a\"\nsize = \"64 KiB\"\n",
        "",
        "format = 2",
    ];
    (0..8)
        .zip(texts.into_iter().cycle())
        .map(|(choice, text)| [&[choice][..], text.as_bytes()].concat())
        .collect()
}
