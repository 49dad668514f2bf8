//! A part has one name everywhere, and its two lines in the table of contents.

use crate::rules::features::PARTS;
use crate::source::{Source, Token, word};
use crate::tree::{Crate, Row, Tree};
use crate::{Outcome, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let image = tree.crate_in(Path::new("crates/image"));
    let contents =
        image.and_then(|image| image.sources.iter().find(|source| source.path == Path::new(PARTS)));
    let manifest = Path::new("crates/image/Cargo.toml");
    let features = image.map(part_features).unwrap_or_default();

    // What lies in crates/parts is a part; what lies in metal is one if the image can leave it out.
    let mut parts: BTreeSet<&str> = tree.row(Row::Parts).map(|member| member.name.as_str()).collect();
    for name in &features {
        match tree.crates.iter().find(|member| member.name == *name) {
            Some(member) if matches!(member.row, Some(Row::Parts | Row::Metal)) => {
                parts.insert(name);
            }
            _ => places.push(Place::new(
                manifest,
                0,
                format!("the feature {name} is no crate of crates/parts or crates/metal"),
            )),
        }
    }
    let complete = image.is_some() && contents.is_some();
    if image.is_some_and(|image| image.sources.iter().any(|source| source.path.ends_with("src/main.rs")))
        && contents.is_none()
    {
        places.push(Place::new(PARTS, 0, "is missing, and the image has a program"));
    }
    if let (Some(image), Some(contents)) = (image, contents) {
        let conditions = conditions(contents);
        for name in &parts {
            if !features.contains(*name) {
                places.push(Place::new(manifest, 0, format!("has no feature {name} for the part {name}")));
            }
            let is_optional = image
                .manifest
                .get("dependencies")
                .and_then(|table| table.get(*name))
                .and_then(|dependency| dependency.get("optional"))
                .and_then(toml::Value::as_bool)
                == Some(true);
            if !is_optional {
                places.push(Place::new(
                    manifest,
                    0,
                    format!("{name} is no optional dependency of the image"),
                ));
            }
            let found = conditions.get(*name).copied().unwrap_or_default();
            if found.with == 0 {
                places.push(Place::new(PARTS, 0, format!("the part {name} has no condition with it")));
            }
        }
        for name in conditions.keys() {
            if !features.contains(name) {
                places.push(Place::new(
                    PARTS,
                    0,
                    format!("asks for the feature {name}, which the image does not have"),
                ));
            }
        }
    }
    Outcome {
        rule: "parts",
        summary: if complete {
            format!(
                "{} parts have one name as crate, folder and feature, and their lines in {PARTS}",
                parts.len()
            )
        } else {
            format!("{} parts; {PARTS} is not there to be compared", parts.len())
        },
        places,
        remedy: "give the crate, its folder and the image's feature the same name, make it an optional dependency of the image, and give it its two lines, the condition and the real type; docs/add-a-part.md shows each step",
    }
}

/// The image's features but `default`: those that it lists, and those that its optional dependencies make.
fn part_features(image: &Crate) -> BTreeSet<String> {
    let mut features = image.features();
    let dependencies = image.manifest.get("dependencies").and_then(toml::Value::as_table);
    for (name, dependency) in dependencies.into_iter().flatten() {
        if dependency.get("optional").and_then(toml::Value::as_bool) == Some(true) {
            features.insert(name.clone());
        }
    }
    features
}

/// How often a feature is asked for: outside `not(…)`.
#[derive(Copy, Clone, Default, Debug)]
struct Conditions {
    with: usize,
}

/// The features that a file's conditions ask for, inside `not(…)` and outside.
fn conditions(source: &Source) -> BTreeMap<String, Conditions> {
    let mut found: BTreeMap<String, Conditions> = BTreeMap::new();
    let mut negations: Vec<bool> = Vec::new();
    for (index, located) in source.tokens.iter().enumerate() {
        match &located.token {
            Token::Open(_) => {
                let before = index.checked_sub(1).and_then(|at| source.tokens.get(at));
                negations.push(before.is_some_and(|before| before.token.is_word("not")));
            }
            Token::Close(_) => {
                negations.pop();
            }
            Token::Literal(name)
                if index >= 2 && source.matches(index - 2, &[word("feature"), Token::Sign('=')]) =>
            {
                let entry = found.entry(name.trim_matches('"').to_owned()).or_default();
                if negations.iter().filter(|negation| **negation).count() % 2 == 0 {
                    entry.with += 1;
                }
            }
            _ => {}
        }
    }
    found
}
