//! Nothing in the crates stands for something that is not there.

use crate::source::{Token, word};
use crate::tree::Tree;
use crate::{Outcome, Place};

pub fn check(tree: &Tree) -> Outcome {
    // In two halves, so that this file does not break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let macros = [concat!("to", "do"), concat!("unimple", "mented")];
    let mut places = Vec::new();
    let mut files = 0;
    for text in tree.texts.iter().filter(|text| text.path.starts_with("crates")) {
        files += 1;
        for (number, line) in text.text.lines().enumerate() {
            for mark in marks {
                if line.split(|letter: char| !letter.is_alphanumeric()).any(|found| found == mark) {
                    places.push(Place::new(&text.path, number + 1, format!("`{mark}`")));
                }
            }
        }
    }
    for source in tree.crates.iter().flat_map(|member| &member.sources) {
        for name in macros {
            for index in source.find(&[word(name), Token::Sign('!')]) {
                places.push(Place::new(&source.path, source.tokens[index].at.line, format!("`{name}!`")));
            }
        }
    }
    Outcome {
        rule: "unfinished",
        summary: format!("{files} files in crates hold no promise of later work"),
        places,
        remedy: "do it now, or leave it out and say in the issue's note that it is missing",
    }
}
