//! A crate depends only on rows below its own; docs/rows.md has the table.

use crate::tree::{Row, Tree};
use crate::{Outcome, Place};
use cargo_metadata::DependencyKind;
use std::path::Path;

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    let mut edges = 0;
    for member in &tree.crates {
        let manifest = member.manifest_path();
        let Some(row) = member.row else {
            places.push(Place::new(&manifest, 0, format!("{} lies in no room of the house", member.name)));
            continue;
        };
        if member.folder.file_name().is_none_or(|folder| folder != member.name.as_str()) {
            places.push(Place::new(
                &manifest,
                0,
                format!("the crate {} is not called as its folder", member.name),
            ));
        }
        for dependency in &member.dependencies {
            edges += 1;
            let target = tree.crate_in(&dependency.folder).and_then(|target| target.row);
            let fault = match target {
                None => Some(format!(
                    "{} depends on {}, which is no crate of the workspace",
                    member.name, dependency.name
                )),
                Some(Row::Image) => Some(format!("{} depends on the image, and nobody may", member.name)),
                Some(target) => {
                    let free = dependency.kind == DependencyKind::Development && row != Row::Image;
                    let profile = row == Row::Image
                        && dependency.kind == DependencyKind::Build
                        && dependency.folder == Path::new("crates/tools/profile");
                    (!free && !profile && !row.below().contains(&target))
                        .then(|| format!("{} ({row}) depends on {} ({target})", member.name, dependency.name))
                }
            };
            places.extend(fault.map(|fault| Place::new(&manifest, 0, fault)));
        }
    }
    Outcome {
        rule: "rows",
        summary: format!("{edges} dependencies among {} crates lead downwards", tree.crates.len()),
        places,
        remedy: "move what is shared down to a row below both (contracts for a promise, pure for an algorithm), or into one of the folders named in docs/rows.md",
    }
}
