//! The rules, one function each: a tree goes in, an [`Outcome`] comes out.

mod features;
mod freestanding;
mod panics;
mod parts;
mod rows;
mod sources;
mod threats;
mod unfinished;
mod unsafety;
mod workplace;

use crate::Outcome;
use crate::tree::Tree;

/// Every rule, in the order in which they are printed.
pub const ALL: &[fn(&Tree) -> Outcome] = &[
    sources::check,
    rows::check,
    features::check,
    unsafety::rooms,
    unsafety::budget,
    unsafety::comments,
    unsafety::lints,
    parts::check,
    threats::check,
    freestanding::check,
    panics::check,
    unfinished::check,
    workplace::check,
];
