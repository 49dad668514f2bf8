//! Whoever faces a guest says what it could try, what stands in the way, and which test shows it: the monitor and every device part in
//! a README, and so does whatever else of the monitor's, the parts' and the metal row has one. The tests that the table of the hostile
//! guest names exist too.

use crate::source::{Purpose, Source, Token, word};
use crate::tree::{Crate, Row, Tree};
use crate::{Outcome, Place};
use std::collections::BTreeSet;
use std::path::Path;

/// The contracts whose implementation makes a part a device.
const DEVICES: [&str; 4] = ["Device", "IoApic", "LegacyPic", "LocalApic"];
/// What the hostile guest tries.
const ATTEMPTS: &str = "tests/guests/hostile/attempts.toml";

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut tables = 0;
    let mut threats_shown = 0;
    let system = system_tests(tree);
    let sources = tree.crates.iter().flat_map(|member| &member.sources).chain(&system);
    let tests: BTreeSet<&str> = sources.flat_map(test_names).collect();
    // With or without the modules that it lies in.
    let exists = |name: &str| tests.contains(name.rsplit("::").next().unwrap_or(name));
    for row in [Row::Metal, Row::Monitor, Row::Parts] {
        for member in tree.row(row) {
            let readme = member.folder.join("README.md");
            let Some(text) = tree.texts.iter().find(|text| text.path == readme) else {
                if row == Row::Monitor || row == Row::Parts && is_device(member) {
                    places.push(Place::new(readme, 0, "is missing, and guests face this crate"));
                }
                continue;
            };
            tables += 1;
            let rows = threats(&text.text);
            if rows.is_empty() {
                places.push(Place::new(&readme, 0, "has no threat table with at least one threat"));
            }
            threats_shown += rows.len();
            for (line, test) in rows {
                let mut names = quoted(test).peekable();
                if names.peek().is_none() {
                    places.push(Place::new(&readme, line, "a threat without a test"));
                }
                for name in names.filter(|name| !exists(name)) {
                    places.push(Place::new(&readme, line, format!("no test is called {name}")));
                }
            }
        }
    }
    if let Some(attempts) = tree.texts.iter().find(|text| text.path == Path::new(ATTEMPTS)) {
        let lines = attempts.text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        for (index, line) in lines {
            for name in quoted(line).filter(|name| !exists(name)) {
                places.push(Place::new(ATTEMPTS, index + 1, format!("no test is called {name}")));
            }
        }
    }
    Outcome {
        rule: "threat-tables",
        summary: format!("{tables} tables name {threats_shown} threats, each with tests that exist"),
        places,
        remedy: "add a README.md with a table headed `| Threat | Mitigation | Test |`, a row for each thing that a hostile guest could try, and in the last column the tests' names in backticks",
    }
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_device(member: &Crate) -> bool {
    member.sources.iter().filter(|source| source.purpose == Purpose::Product).any(|source| {
        DEVICES.iter().any(|device| {
            source.find(&[word(device), word("for")]).any(|index| !source.is_test(source.tokens[index].at))
        })
    })
}

/// The tests of the whole system: they lie in no crate's folder.
fn system_tests(tree: &Tree) -> Vec<Source> {
    let texts = tree.texts.iter().filter(|text| {
        text.path.starts_with("tests/system") && text.path.extension().is_some_and(|end| end == "rs")
    });
    texts.map(|text| Source::new(text.path.clone(), text.text.clone(), Purpose::Test)).collect()
}

/// The names of a file's tests: a threat may be shown by another crate's.
fn test_names(source: &Source) -> impl Iterator<Item = &str> {
    let attribute = |index: usize| {
        let begins =
            |at: usize| matches!(source.tokens.get(at).map(|found| &found.token), Some(Token::Open(_)));
        // `#[test]` stands in front, other attributes between.
        let mut end = index;
        while let Some(before) = end.checked_sub(1)
            && matches!(source.tokens[before].token, Token::Close(_))
        {
            let Some(open) =
                (0..before).rev().find(|&at| begins(at) && source.group(at).len() == before - at - 1)
            else {
                return false;
            };
            if matches!(source.group(open), [only] if only.token.is_word("test")) {
                return true;
            }
            end = open.saturating_sub(1);
        }
        false
    };
    source.tokens.windows(2).enumerate().filter_map(move |(index, pair)| match &pair[1].token {
        Token::Word(name) if pair[0].token.is_word("fn") && attribute(index) => Some(name.as_str()),
        _ => None,
    })
}

/// The rows of the tables whose headings name threats, mitigations and tests: line and last column of each.
fn threats(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_heading = |two: &[&str]| {
        let heading = two[0].to_lowercase();
        two.iter().all(|line| line.starts_with('|'))
            && ["threat", "mitigation", "test"].iter().all(|column| heading.contains(column))
            && two[1].chars().all(|letter| "|-: ".contains(letter))
    };
    let headings = lines.windows(2).enumerate().filter(|(_, two)| is_heading(two));
    headings
        .flat_map(|(heading, _)| {
            lines.iter().enumerate().skip(heading + 2).take_while(|(_, line)| line.starts_with('|'))
        })
        .map(|(number, line)| (number + 1, line.trim_end_matches('|').rsplit('|').next().unwrap_or_default()))
        .collect()
}
