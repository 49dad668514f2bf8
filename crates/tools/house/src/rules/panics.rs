//! Nothing that a guest can reach may panic: the words for it do not stand in rows 1 to 6.

use crate::source::{Purpose, Token, word};
use crate::tree::{Row, Tree};
use crate::{Outcome, Place};

pub fn check(tree: &Tree) -> Outcome {
    let method = |name: &str| vec![Token::Sign('.'), word(name), Token::Open('(')];
    let macro_call = |name: &str| vec![word(name), Token::Sign('!')];
    let patterns: Vec<(Vec<Token>, String)> = ["unwrap", "expect", "unwrap_err", "expect_err"]
        .map(|name| (method(name), format!("`.{name}(`")))
        .into_iter()
        .chain(["panic", "unreachable"].map(|name| (macro_call(name), format!("`{name}!`"))))
        .collect();
    let mut places = Vec::new();
    let mut files = 0;
    for source in tree
        .crates
        .iter()
        .filter(|member| member.row.is_some_and(Row::is_linked))
        .flat_map(|member| &member.sources)
        .filter(|source| source.purpose == Purpose::Product)
    {
        files += 1;
        for (pattern, name) in &patterns {
            for index in source.find(pattern) {
                let at = source.tokens[index].at;
                if !source.is_test(at) && !source.is_constant(at) {
                    places.push(Place::new(&source.path, at.line, format!("{name} outside tests")));
                }
            }
        }
    }
    places.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    Outcome {
        rule: "panics",
        summary: format!("{files} files of rows 1 to 6 neither unwrap nor panic"),
        places,
        remedy: "answer with an error or a value that stops the compartment; where it cannot happen, let a type say so",
    }
}
