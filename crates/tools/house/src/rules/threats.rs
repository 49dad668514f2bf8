//! Every device part says what a guest could try against it, what stands in the way, and which test shows it.

use crate::source::{Purpose, Token, word};
use crate::tree::{Crate, Row, Tree};
use crate::{Outcome, Place};
use std::collections::BTreeSet;

/// The contracts whose implementation makes a part a device.
const DEVICES: [&str; 4] = ["Device", "IoApic", "LegacyPic", "LocalApic"];

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut devices = 0;
    let mut threats_shown = 0;
    let tests = test_names(tree);
    for member in tree.row(Row::Parts).filter(|member| is_device(member)) {
        devices += 1;
        let readme = member.folder.join("README.md");
        let Some(text) = tree.texts.iter().find(|text| text.path == readme) else {
            places.push(Place::new(readme, 0, "is missing, and this part is a device"));
            continue;
        };
        let rows = threats(&text.text);
        if rows.is_empty() {
            places.push(Place::new(&readme, 0, "has no threat table with at least one threat"));
        }
        threats_shown += rows.len();
        for (line, test) in rows {
            let names: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
            if names.is_empty() {
                places.push(Place::new(&readme, line, "a threat without a test"));
            }
            for name in names {
                // With or without the modules that it lies in.
                if tests.contains(name.rsplit("::").next().unwrap_or(name)) {
                    continue;
                }
                places.push(Place::new(&readme, line, format!("no test is called {name}")));
            }
        }
    }
    Outcome {
        rule: "threat-tables",
        summary: format!("{devices} device parts name {threats_shown} threats, each with tests that exist"),
        places,
        remedy: "add a README.md with a table headed `| Threat | Mitigation | Test |`, a row for each thing that a hostile guest could try, and in the last column the tests' names in backticks",
    }
}

fn is_device(member: &Crate) -> bool {
    member.sources.iter().filter(|source| source.purpose == Purpose::Product).any(|source| {
        DEVICES.iter().any(|device| {
            source.find(&[word(device), word("for")]).any(|index| !source.is_test(source.tokens[index].at))
        })
    })
}

/// The names of all functions that are compiled for tests only: a threat may be shown by another crate's test.
fn test_names(tree: &Tree) -> BTreeSet<&str> {
    let sources = tree.crates.iter().flat_map(|member| &member.sources);
    sources
        .flat_map(|source| {
            source.tokens.windows(2).filter_map(|pair| match &pair[1].token {
                Token::Word(name) if pair[0].token.is_word("fn") && source.is_test(pair[1].at) => {
                    Some(name.as_str())
                }
                _ => None,
            })
        })
        .collect()
}

/// The rows of the table whose heading names threats, mitigations and tests: line and last column of each.
fn threats(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let heading = lines.windows(2).position(|two| {
        let heading = two[0].to_lowercase();
        two.iter().all(|line| line.starts_with('|'))
            && ["threat", "mitigation", "test"].iter().all(|column| heading.contains(column))
            && two[1].chars().all(|letter| "|-: ".contains(letter))
    });
    let Some(heading) = heading else { return Vec::new() };
    lines
        .iter()
        .enumerate()
        .skip(heading + 2)
        .take_while(|(_, line)| line.starts_with('|'))
        .map(|(number, line)| (number + 1, line.trim_end_matches('|').rsplit('|').next().unwrap_or_default()))
        .collect()
}
