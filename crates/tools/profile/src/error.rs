//! Mistakes, with their place and a remedy.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Why a file cannot be used. Prints as one plain sentence with its place; [`Error::help`] has the remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Where, if it is a place in a file.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its whole text.
    pub text: String,
    /// The bytes of the text that are meant.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column, both from 1, of the first byte that is meant.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.text.get(..self.span.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

impl Error {
    /// A mistake that has no place in a file.
    pub fn sentence(message: String, help: String) -> Self {
        Self { message, help, place: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let (line, column) = place.line_and_column();
            write!(formatter, "{}:{line}:{column}: ", place.file.display())?;
        }
        write!(formatter, "{}", self.message)
    }
}

impl std::error::Error for Error {}
