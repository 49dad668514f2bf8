//! Every device part says what a guest could try against it, what stands in the way, and which test shows it.

use crate::source::{Purpose, word};
use crate::tree::{Crate, Row, Tree};
use crate::{Outcome, Place};

/// The contracts whose implementation makes a part a device.
const DEVICES: [&str; 4] = ["Device", "IoApic", "LegacyPic", "LocalApic"];

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut devices = 0;
    for member in tree.row(Row::Parts).filter(|member| is_device(member)) {
        devices += 1;
        let readme = member.folder.join("README.md");
        let Some(text) = tree.texts.iter().find(|text| text.path == readme) else {
            places.push(Place::new(readme, 0, "is missing, and this part is a device"));
            continue;
        };
        if !has_threat_table(&text.text) {
            places.push(Place::new(readme, 0, "has no threat table with at least one threat"));
        }
    }
    Outcome {
        rule: "threat-tables",
        summary: format!("{devices} device parts have a README with a threat table"),
        places,
        remedy: "add a README.md with a table headed `| Threat | Mitigation | Test |` and a row for each thing that a hostile guest could try",
    }
}

fn is_device(member: &Crate) -> bool {
    member.sources.iter().filter(|source| source.purpose == Purpose::Product).any(|source| {
        DEVICES.iter().any(|device| {
            source.find(&[word(device), word("for")]).any(|index| !source.is_test(source.tokens[index].at))
        })
    })
}

/// A table whose heading names threats and mitigations, with at least one row.
fn has_threat_table(text: &str) -> bool {
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_lowercase()).collect();
    lines.windows(3).any(|three| {
        three.iter().all(|line| line.starts_with('|'))
            && three[0].contains("threat")
            && three[0].contains("mitigation")
            && three[0].contains("test")
            && three[1].chars().all(|letter| "|-: ".contains(letter))
    })
}
