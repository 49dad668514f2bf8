//! Every Rust file can be read: what cannot be read cannot be judged by the other rules.

use crate::tree::Tree;
use crate::{Outcome, Place};

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut files = 0;
    for source in tree.crates.iter().flat_map(|member| &member.sources) {
        files += 1;
        if let Some((line, why)) = &source.fault {
            places.push(Place::new(&source.path, *line, format!("this is no Rust: {why}")));
        }
    }
    Outcome {
        rule: "sources",
        summary: format!("{files} Rust files in {} crates can be read", tree.crates.len()),
        places,
        remedy: "mend the syntax; the other rules did not look at these files",
    }
}
