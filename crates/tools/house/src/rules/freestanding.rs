//! Rows 1 to 6 need neither an operating system nor a heap.

use crate::source::{Purpose, Token};
use crate::tree::{Row, Tree};
use crate::{Outcome, Place};
use std::path::Path;

/// The two ways of saying it: always, or in everything but tests.
const NO_STD: [&str; 2] = ["#![no_std]", "#![cfg_attr(not(test), no_std)]"];
/// How the image says it: plain cargo builds it for the host too, where it has nothing to boot.
const NO_STD_IMAGE: &str = "#![cfg_attr(target_os = \"none\", no_std, no_main)]";

fn says_so(line: &str, row: Option<Row>) -> bool {
    NO_STD.contains(&line.trim()) || row == Some(Row::Image) && line.trim() == NO_STD_IMAGE
}

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut crates = 0;
    for member in tree.crates.iter().filter(|member| member.row.is_some_and(Row::is_linked)) {
        crates += 1;
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = member.folder.join(root);
            if let Some(source) = member.sources.iter().find(|source| source.path == path)
                && !source.text.lines().any(|line| says_so(line, member.row))
            {
                places.push(Place::new(path, 0, "`#![no_std]` is missing"));
            }
        }
        for source in &member.sources {
            if source.purpose != Purpose::Product {
                continue;
            }
            for (index, located) in source.tokens.iter().enumerate() {
                let Token::Word(name) = &located.token else { continue };
                if (name != "alloc" && name != "std") || source.is_test(located.at) {
                    continue;
                }
                let before = |back: usize| {
                    index.checked_sub(back).and_then(|at| source.tokens.get(at)).map(|located| &located.token)
                };
                // `alloc` may be a name of ours; a path begins with it only behind neither `::` nor a dot.
                let is_crate = before(1).is_some_and(|token| token.is_word("crate"))
                    && before(2).is_some_and(|token| token.is_word("extern"));
                let begins_path = source.matches(index + 1, &[Token::Sign(':'), Token::Sign(':')])
                    && !(before(1).is_some_and(|token| token.is_sign(':'))
                        && before(3).is_some_and(|token| matches!(token, Token::Word(_))));
                let is_used = before(1).is_some_and(|token| token.is_word("use"));
                if is_crate || begins_path || is_used {
                    places.push(Place::new(&source.path, located.at.line, format!("uses `{name}`")));
                }
            }
        }
    }
    let image =
        if tree.crate_in(Path::new("crates/image")).is_some() { ", the image among them" } else { "" };
    Outcome {
        rule: "freestanding",
        summary: format!("{crates} crates of rows 1 to 6 need neither an operating system nor a heap{image}"),
        places,
        remedy: "use core, and collections of fixed capacity (heapless, arrays) sized by the profile's limits; tests may use std inside `#[cfg(test)]`",
    }
}
