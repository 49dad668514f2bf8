//! The rules of the house, checked by machine: the rows of the workspace, where `cfg(feature)` and `unsafe` may stand, what
//! a part must bring along, and what the image's rooms must not contain.
//!
//! [`check`] reads a tree and gives one [`Outcome`] per rule, in a fixed order. Nothing is written, nothing is built, and no
//! network is used: `cargo metadata` is asked for the workspace's own packages only.

mod rules;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

pub use tree::TreeError;

/// Where a rule is broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file, relative to the root of the tree.
    pub file: PathBuf,
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What stands there, as a sentence's end.
    pub what: String,
}

impl Place {
    fn new(file: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.file.display(), self.what),
            line => write!(formatter, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}

/// What became of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The rule's name: one or a few words with dashes.
    pub rule: &'static str,
    /// What was looked at, with numbers.
    pub summary: String,
    /// Where it is broken; empty if it holds.
    pub places: Vec<Place>,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Outcome {
    /// Whether the rule holds.
    pub fn holds(&self) -> bool {
        self.places.is_empty()
    }
}

impl fmt::Display for Outcome {
    /// One line if the rule holds; otherwise that line, one for each place, and the remedy.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds() {
            return write!(formatter, "ok   {}: {}", self.rule, self.summary);
        }
        write!(formatter, "FAIL {}: {}", self.rule, self.summary)?;
        for place in &self.places {
            write!(formatter, "\n       {place}")?;
        }
        write!(formatter, "\n       remedy: {}", self.remedy)
    }
}

/// Checks every rule on the tree whose root manifest lies in `root`.
///
/// # Errors
/// When the tree cannot be read at all: no manifest, `cargo metadata` fails, a file cannot be opened. A file that is no Rust
/// is not such an error: the rule `sources` names it.
pub fn check(root: &Path) -> Result<Vec<Outcome>, TreeError> {
    let tree = tree::Tree::read(root)?;
    Ok(rules::ALL.iter().map(|rule| rule(&tree)).collect())
}
