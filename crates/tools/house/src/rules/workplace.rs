//! The tree says nothing of the machine it was written on, nor of where packages come from.

use crate::tree::Tree;
use crate::{Outcome, Place};

/// Beginnings of absolute paths that only one machine has. In two halves, so that this file does not break its own rule.
const PATHS: [&str; 6] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "target"),
    concat!("C:\\Us", "ers"),
];

/// Hosts that packages come from: which one is used is the user's own configuration.
const REGISTRIES: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("static.rust-lang", ".org"),
    concat!("docker", ".io"),
    concat!("gh", "cr.io"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("proxy.golang", ".org"),
];

/// The one mention that cargo itself writes: the name of the default registry, in its lock files.
const LOCKED: &str = concat!("registry+https://github.com/rust-lang/", "crates", ".io-index");

pub fn check(tree: &Tree) -> Outcome {
    let mut places = Vec::new();
    // The folder that the tree lies in is a path of this machine too; a short one such as `/src` is a word of its own.
    let here = tree.root.to_string_lossy().into_owned();
    let here = (tree.root.iter().count() > 2).then_some(here);
    for text in &tree.texts {
        let lock = text.path.file_name().is_some_and(|name| name == "Cargo.lock");
        for (number, line) in text.text.lines().enumerate() {
            let line = if lock { line.replace(LOCKED, "") } else { line.to_owned() };
            for path in PATHS.iter().copied().chain(here.as_deref()) {
                if line.match_indices(path).any(|(at, _)| begins_path(&line, at)) {
                    places.push(Place::new(&text.path, number + 1, format!("a path of one machine: {path}")));
                }
            }
            for host in REGISTRIES {
                if line.contains(host) {
                    places.push(Place::new(
                        &text.path,
                        number + 1,
                        format!("the host of a registry: {host}"),
                    ));
                }
            }
        }
    }
    Outcome {
        rule: "workplace",
        summary: format!("{} files name no path of a machine and no host of a registry", tree.texts.len()),
        places,
        remedy: "use a path relative to the tree or a variable; leave the choice of registries to the user's own configuration",
    }
}

/// Whether an absolute path begins at that byte, and not the middle of a relative one.
fn begins_path(line: &str, at: usize) -> bool {
    !line[..at]
        .chars()
        .next_back()
        .is_some_and(|before| before.is_alphanumeric() || "._-})]>*~".contains(before))
}

#[cfg(test)]
mod tests {
    use super::begins_path;

    #[test]
    fn a_relative_path_is_none_of_a_machine() {
        assert!(begins_path("see /a/b", 4));
        assert!(begins_path("\"/a/b\"", 1));
        assert!(begins_path("/a/b", 0));
        assert!(!begins_path("build/a/b", 5));
        assert!(!begins_path("$(HERE)/a/b", 7));
    }
}
