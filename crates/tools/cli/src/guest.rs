//! The bare-metal guests of `tests/guests`, built when they are needed.

use std::path::PathBuf;

use crate::Failure;
use crate::progress::{Progress, watch};
use crate::toolchain::{TARGET, Toolchain};
use crate::tree::Tree;

/// Builds the guest of that name, and gives its program's path.
///
/// # Errors
/// There is no toolchain for bare metal, or the guest cannot be built.
pub fn program(tree: &Tree, name: &str) -> Result<PathBuf, Failure> {
    let target_folder = tree.target().join("guests");
    let progress = Progress::begin(format!("building the {name} guest"));
    let folder = tree.path("tests/guests").join(name);
    let (status, words) = watch(&progress, &mut Toolchain::find()?.cargo(&folder, "build", &target_folder))?;
    progress.done();
    if !status.success() {
        let message = format!("the {name} guest cannot be built");
        return Err(Failure::does_not_hold(message, "the compiler says why, above").with_words(words));
    }
    Ok(target_folder.join(TARGET).join("release").join(name))
}
