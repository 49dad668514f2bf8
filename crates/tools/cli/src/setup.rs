//! `setup`: the entry script does it, since it has to work before this program can be built.

use std::process::Command;

use crate::tree::Tree;
use crate::words::SetupWords;
use crate::{Failure, Outcome};

/// Carries out `setup`.
pub fn command(tree: &Tree, words: &SetupWords) -> Result<Outcome, Failure> {
    let script = tree.path("ringfence");
    let mut command = Command::new(&script);
    command.arg("setup");
    if words.check {
        command.arg("--check");
    }
    if words.yes {
        command.arg("--yes");
    }
    let status = command.status().map_err(|error| {
        Failure::environment(
            format!("{} cannot be run: {error}", script.display()),
            "restore it from the tree",
        )
    })?;
    if status.success() {
        return Ok(Outcome::Holds);
    }
    Err(Failure::environment("something is missing", "the lines above say what, and what to do about it"))
}
