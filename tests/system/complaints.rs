//! What guests complain of in their logs, against what docs/guests.md explains.

use std::fs;

use crate::system::{Line, Ran, tree};

/// Words that begin a complaint, wherever a word begins.
const WORDS: [&str; 8] =
    ["unexpected", "bug", "warning", "unable", "calibration failed", "invalid rate", "unstable", "spurious"];

/// Whether a line of a guest's log complains.
fn complains(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| {
        text.match_indices(word)
            .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric()))
    })
}

/// A row of the table: which guest, which text of its log.
struct Explained {
    guests: String,
    text: String,
}

/// The rows of docs/guests.md: `| guests | `text` | why | whether it matters |`.
fn explained() -> Vec<Explained> {
    let page = fs::read_to_string(tree().path("docs/guests.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let guests = cells.next()?.to_owned();
        let text = cells.next()?.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        let explanation = cells.next()?;
        assert!(explanation.len() > 10 && cells.next().is_some(), "this row explains nothing: {line}");
        Some(Explained { guests, text })
    });
    let rows = rows.collect::<Vec<_>>();
    assert!(!rows.is_empty(), "docs/guests.md has no table of complaints");
    rows
}

/// Fails if `guest`, as docs/guests.md calls it, complains on the console of `name` of what is not explained there.
pub fn expect_explained(ran: &Ran, name: &str, guest: &str) {
    let rows = explained();
    let known = |line: &Line| {
        rows.iter().any(|row| {
            line.text.contains(&row.text) && row.guests.split(", ").any(|one| one == guest || one == "all")
        })
    };
    let new = ran.console(name).filter(|line| complains(&line.text) && !known(line)).collect::<Vec<_>>();
    assert!(
        new.is_empty(),
        "{guest} complains of what docs/guests.md does not explain: {:#?}\n{}",
        new.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
        ran.transcript()
    );
}

#[test]
fn a_complaint_is_known_by_its_words() {
    assert!(complains("[    0.1] WARNING: CPU: 0 PID: 1 at kernel/time.c"));
    assert!(complains("[Firmware Bug]: TSC_DEADLINE disabled"));
    assert!(complains("BUG: soft lockup") && complains("tsc: Fast TSC calibration failed"));
    assert!(!complains("printk: debug: ignoring loglevel setting."));
    assert!(!complains("Mount-cache hash table entries: 512"));
}
