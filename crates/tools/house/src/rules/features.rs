//! `cfg(feature = …)` stands in one file: the table of contents of the product line.

use crate::source::{Source, Token, word};
use crate::tree::{Row, Tree};
use crate::{Outcome, Place};
use std::path::Path;

/// The one file where features may be asked for.
pub const PARTS: &str = "crates/image/src/parts.rs";

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut conditions = 0;
    for member in &tree.crates {
        for source in &member.sources {
            let found = conditions_of(source);
            if source.path == Path::new(PARTS) {
                conditions += found.len();
                continue;
            }
            places.extend(
                found.into_iter().map(|line| Place::new(&source.path, line, "a condition on a feature")),
            );
            // A build script sees the features as variables of its environment: the same thing by another door.
            let variable = concat!("CARGO_", "FEATURE_");
            if member.row != Some(Row::Image) {
                for located in &source.tokens {
                    if matches!(&located.token, Token::Literal(text) if text.contains(variable)) {
                        places.push(Place::new(
                            &source.path,
                            located.at.line,
                            format!("a build script that asks for {variable}…"),
                        ));
                    }
                }
            }
        }
        if member.row != Some(Row::Image) && !member.features().is_empty() {
            places.push(Place::new(
                member.manifest_path(),
                0,
                format!("{} has features of its own", member.name),
            ));
        }
    }
    Outcome {
        rule: "feature-conditions",
        summary: format!("{conditions} conditions on features stand in {PARTS}, none elsewhere"),
        places,
        remedy: "make the choice a type: an associated type of contracts::Image, the real or the absent one, chosen in crates/image/src/parts.rs",
    }
}

/// The lines of a file in which a condition asks for a feature: `#[cfg(…)]`, `#[cfg_attr(…)]`, `cfg!(…)`, `cfg_select!`.
fn conditions_of(source: &Source) -> Vec<usize> {
    let mut lines = Vec::new();
    for (index, located) in source.tokens.iter().enumerate() {
        let Token::Word(name) = &located.token else { continue };
        if !["cfg", "cfg_attr", "cfg_select", "cfg_if"].contains(&name.as_str()) {
            continue;
        }
        let exclamation = usize::from(source.matches(index + 1, &[Token::Sign('!')]));
        let inside = source.group(index + 1 + exclamation);
        if inside.windows(2).any(|pair| pair[0].token == word("feature") && pair[1].token.is_sign('=')) {
            lines.push(located.at.line);
        }
    }
    lines
}
