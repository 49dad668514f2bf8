//! The parts of this tree.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{Error, Source};

/// Names of all parts, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    parts: BTreeSet<String>,
}

impl Catalogue {
    /// The parts of the tree that this code was built in.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn of_this_tree() -> Result<Self, Error> {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image/Cargo.toml"))
    }

    /// The parts of the tree whose root is `root`.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn of_tree(root: &Path) -> Result<Self, Error> {
        Self::read(&root.join("crates/image/Cargo.toml"))
    }

    /// Reads the features of the image's `Cargo.toml`: part name = feature name = crate name.
    ///
    /// # Errors
    /// The file cannot be read, or is no TOML.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let source = Source::read(path)?;
        let table = source.table()?;
        let features = table.get_ref().get("features").and_then(|features| features.get_ref().as_table());
        Ok(Self::new(features.into_iter().flatten().map(|(name, _)| name.get_ref().to_string())))
    }

    /// The parts with these names.
    pub fn new(parts: impl IntoIterator<Item = String>) -> Self {
        Self { parts: parts.into_iter().filter(|name| name != "default").collect() }
    }

    /// Whether there is a part of that name.
    pub fn has(&self, part: &str) -> bool {
        self.parts.contains(part)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(String::as_str)
    }
}
