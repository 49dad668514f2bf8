//! `unsafe` stands in the metal room only, counted against a committed budget, and every block says what it rests on.

use crate::source::{Source, Token, word};
use crate::tree::{Crate, Row, Tree};
use crate::{Outcome, Place};
use std::collections::BTreeMap;
use std::path::Path;

/// Where the budget is committed.
const BUDGET: &str = "crates/tools/house/unsafe-budget.toml";

/// What an `unsafe` stands before.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// `unsafe { … }`
    Block,
    /// `unsafe fn name`
    Function,
    /// `unsafe impl`
    Implementation,
    /// `unsafe trait`
    Trait,
    /// `unsafe extern { … }`
    Foreign,
    /// `#[unsafe(…)]`
    Attribute,
    /// `global_asm!`: machine code that needs no such keyword, and is as dangerous.
    Assembly,
    /// The type of a pointer to an unsafe function: dangerous only where it is called.
    Type,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Block => "an unsafe block",
            Self::Function => "an unsafe function",
            Self::Implementation => "an unsafe implementation",
            Self::Trait => "an unsafe trait",
            Self::Foreign => "an unsafe foreign block",
            Self::Attribute => "an unsafe attribute",
            Self::Assembly => "assembly of the whole file",
            Self::Type => "an unsafe function's type",
        }
    }
}

/// Every use in a file, tests included: its kind and its index in the list of tokens.
fn uses(source: &Source) -> Vec<(Kind, usize)> {
    let token = |index: usize| source.tokens.get(index).map(|located| &located.token);
    let function = |index: usize| match token(index) {
        Some(Token::Word(_)) => Kind::Function,
        _ => Kind::Type,
    };
    let mut uses = Vec::new();
    for (index, located) in source.tokens.iter().enumerate() {
        if located.token.is_word("global_asm") && source.matches(index + 1, &[Token::Sign('!')]) {
            uses.push((Kind::Assembly, index));
        }
        if !located.token.is_word("unsafe") {
            continue;
        }
        let kind = match token(index + 1) {
            Some(Token::Word(next)) => match next.as_str() {
                "fn" => function(index + 2),
                "impl" => Kind::Implementation,
                "trait" => Kind::Trait,
                "extern" => {
                    let after = index + 2 + usize::from(matches!(token(index + 2), Some(Token::Literal(_))));
                    if token(after).is_some_and(|token| token.is_word("fn")) {
                        function(after + 1)
                    } else {
                        Kind::Foreign
                    }
                }
                _ => Kind::Block,
            },
            Some(Token::Open('(')) => Kind::Attribute,
            _ => Kind::Block,
        };
        uses.push((kind, index));
    }
    uses
}

/// `unsafe` outside metal, but for the image's one entry symbol.
pub fn rooms(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut symbols = 0;
    for member in tree.crates.iter().filter(|member| member.row != Some(Row::Metal)) {
        for source in &member.sources {
            for (kind, index) in uses(source) {
                let entry = member.row == Some(Row::Image)
                    && kind == Kind::Attribute
                    && source.matches(index + 1, &[Token::Open('('), word("no_mangle"), Token::Close('(')]);
                symbols += usize::from(entry);
                if !entry || symbols > 1 {
                    let what = match (entry, kind) {
                        (true, _) => "a second entry symbol",
                        (false, kind) => kind.name(),
                    };
                    places.push(Place::new(&source.path, source.tokens[index].at.line, what));
                }
            }
        }
    }
    Outcome {
        rule: "unsafe-rooms",
        summary: format!("no unsafe code outside crates/metal; {symbols} entry symbol in the image"),
        places,
        remedy: "let a metal crate do it behind a safe function or a contract, whose wrong use can harm a guest but never the host",
    }
}

/// Uses of a crate's product code, by kind.
fn count(member: &Crate) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for source in &member.sources {
        for (kind, index) in uses(source) {
            if kind != Kind::Type && !source.is_test(source.tokens[index].at) {
                *counts.entry(kind).or_default() += 1;
            }
        }
    }
    counts
}

/// The counts of the metal crates against the budget file.
pub fn budget(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut summaries = Vec::new();
    let text = tree.texts.iter().find(|text| text.path == Path::new(BUDGET));
    let table = text.and_then(|text| text.text.parse::<toml::Table>().ok());
    if table.is_none() {
        places.push(Place::new(BUDGET, 0, "the budget is missing, or is no TOML"));
    }
    let table = table.unwrap_or_default();
    for member in tree.row(Row::Metal) {
        let counts = count(member);
        let used: usize = counts.values().sum();
        let of = |kinds: &[Kind]| kinds.iter().filter_map(|kind| counts.get(kind)).sum::<usize>();
        let blocks = of(&[Kind::Block]);
        let functions = of(&[Kind::Function]);
        let implementations = of(&[Kind::Implementation]);
        let detail = format!(
            "{used} ({blocks} blocks, {functions} functions, {implementations} implementations, {} others)",
            used - blocks - functions - implementations
        );
        match table.get(&member.name).and_then(toml::Value::as_integer) {
            None => places.push(Place::new(
                BUDGET,
                0,
                format!("no number for {}, which uses {detail}", member.name),
            )),
            Some(maximum) => match usize::try_from(maximum) {
                Ok(maximum) if used <= maximum => summaries.push(match maximum - used {
                    0 => format!("{} {used} of {maximum}", member.name),
                    spare => format!("{} {used} of {maximum} ({spare} below: lower it)", member.name),
                }),
                _ => places.push(Place::new(
                    BUDGET,
                    0,
                    format!("{} uses {detail}, and the budget is {maximum}", member.name),
                )),
            },
        }
    }
    for name in table.keys() {
        if !tree.row(Row::Metal).any(|member| member.name == *name) {
            places.push(Place::new(BUDGET, 0, format!("{name} is no crate of the metal room")));
        }
    }
    Outcome {
        rule: "unsafe-budget",
        summary: if summaries.is_empty() { "nothing to count".to_owned() } else { summaries.join(", ") },
        places,
        remedy: "first try to do without; to raise the budget consciously, change that crate's number in the file and say in the commit's message what the new unsafe code is for and why no safe code can do it",
    }
}

/// Every unsafe block and implementation has its comment, every unsafe function its section.
pub fn comments(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut looked_at = 0;
    for source in tree.row(Row::Metal).flat_map(|member| &member.sources) {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (kind, index) in uses(source) {
            let line = source.tokens[index].at.line;
            let wanted = match kind {
                Kind::Block | Kind::Implementation => {
                    "a `// SAFETY:` comment directly above or in its first line"
                }
                Kind::Function | Kind::Trait => "a `# Safety` section in its documentation",
                _ => continue,
            };
            looked_at += 1;
            if !is_documented(&lines, line) {
                places.push(Place::new(&source.path, line, format!("{} without {wanted}", kind.name())));
            }
        }
    }
    Outcome {
        rule: "safety-comments",
        summary: format!("{looked_at} unsafe blocks, functions and implementations say what they rest on"),
        places,
        remedy: "list the facts that make it sound, each with where it was checked: `// SAFETY: …`; for a function, what its caller must see to: `/// # Safety`",
    }
}

/// Whether the `unsafe` in `line` (counted from 1) has its comment: above, with attributes and the beginning of the same
/// statement between, or in the line after.
fn is_documented(lines: &[&str], line: usize) -> bool {
    let says = |text: &str| text.starts_with("//") && (text.contains("SAFETY:") || text.contains("# Safety"));
    if lines.get(line).is_some_and(|inside| inside.starts_with("//") && inside.contains("SAFETY:")) {
        return true;
    }
    let mut statement = 0;
    for text in lines[..line.saturating_sub(1)].iter().rev() {
        if says(text) {
            return true;
        }
        if text.starts_with("//") || text.starts_with("#[") {
            continue;
        }
        // The beginning of a statement or of a match's arm that goes on in the next line; at most four lines of it.
        let ends = text.is_empty() || text.ends_with([';', '{', '}', ',']) && !text.ends_with("=> {");
        statement += 1;
        if ends || statement > 4 {
            return false;
        }
    }
    false
}

/// The compiler's own lints say the same: this rule sees that nobody turns them off.
pub fn lints(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let workspace = tree
        .texts
        .iter()
        .find(|text| text.path == Path::new("Cargo.toml"))
        .and_then(|text| text.text.parse::<toml::Table>().ok())
        .unwrap_or_default();
    let root = workspace.get("workspace").and_then(|table| table.get("lints"));
    if level(root, "rust", "unsafe_code") != Some("forbid") {
        places.push(Place::new("Cargo.toml", 0, "workspace.lints.rust.unsafe_code is not \"forbid\""));
    }
    for member in &tree.crates {
        let own = member.manifest.get("lints");
        let inherits =
            own.and_then(|table| table.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
        let wrong = match member.row {
            Some(Row::Metal) => {
                level(own, "clippy", "undocumented_unsafe_blocks") != Some("deny")
                    || level(own, "rust", "unsafe_op_in_unsafe_fn") != Some("deny")
            }
            // Its entry symbol needs an allowance at one place, which "forbid" would not grant.
            Some(Row::Image) => !inherits && level(own, "rust", "unsafe_code") != Some("deny"),
            _ => !inherits,
        };
        if wrong {
            places.push(Place::new(
                member.manifest_path(),
                0,
                match member.row {
                    Some(Row::Metal) => {
                        "lints.rust.unsafe_op_in_unsafe_fn and lints.clippy.undocumented_unsafe_blocks are not both \"deny\""
                    }
                    Some(Row::Image) => "neither inherits the workspace's lints nor denies unsafe_code",
                    _ => "does not inherit the workspace's lints",
                },
            ));
        }
    }
    Outcome {
        rule: "lints",
        summary: format!("{} crates have the lints of their room", tree.crates.len()),
        places,
        remedy: "outside metal: `[lints] workspace = true`; in metal: copy the lint tables of a neighbour",
    }
}

/// The level of a lint in a table of lints, written short or as a table.
fn level<'table>(lints: Option<&'table toml::Value>, tool: &str, name: &str) -> Option<&'table str> {
    let lint = lints?.get(tool)?.get(name)?;
    lint.as_str().or_else(|| lint.get("level")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Purpose;

    fn kinds(text: &str) -> Vec<Kind> {
        let source = Source::new("a.rs".into(), text.into(), Purpose::Product);
        assert_eq!(source.fault, None);
        uses(&source).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(kinds("fn a() { unsafe { b() } }"), [Kind::Block]);
        assert_eq!(kinds("unsafe fn a() {}"), [Kind::Function]);
        assert_eq!(kinds("pub unsafe extern \"C\" fn a() {}"), [Kind::Function]);
        assert_eq!(kinds("unsafe impl Send for A {}"), [Kind::Implementation]);
        assert_eq!(kinds("unsafe trait A {}"), [Kind::Trait]);
        assert_eq!(kinds("unsafe extern \"C\" { fn a(); }"), [Kind::Foreign]);
        assert_eq!(kinds("#[unsafe(no_mangle)] fn a() {}"), [Kind::Attribute]);
        assert_eq!(
            kinds("type A = unsafe extern \"C\" fn(u8);\ntype B = unsafe fn();"),
            [Kind::Type, Kind::Type]
        );
        assert_eq!(kinds("core::arch::global_asm!(\"nop\");"), [Kind::Assembly]);
        assert_eq!(kinds("// unsafe\nfn a() { b(\"unsafe {\") }"), []);
    }

    fn documented(text: &str) -> bool {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = lines.iter().position(|line| line.contains("unsafe")).unwrap() + 1;
        is_documented(&lines, line)
    }

    #[test]
    fn comments_are_found_where_they_belong() {
        assert!(documented("// SAFETY: a fact\nunsafe { a() }"));
        assert!(documented("unsafe {\n// SAFETY: a fact\na() }"));
        assert!(documented("// SAFETY: a fact,\n// and another\nlet a =\n  unsafe { b() };"));
        assert!(documented(
            "/// Does.\n///\n/// # Safety\n/// Nobody else does.\n#[inline]\npub unsafe fn a() {}"
        ));
        assert!(!documented("// A fact\nunsafe { a() }"));
        assert!(!documented("// SAFETY: a fact\na();\nunsafe { b() }"));
        assert!(!documented("// SAFETY: a fact\n\nunsafe { b() }"));
        assert!(!documented("unsafe { a() }"));
    }
}
