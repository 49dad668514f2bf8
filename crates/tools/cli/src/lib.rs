//! The `ringfence` command: builds a profile's image, boots it on a bench machine, judges what it says.
//!
//! Tools row. The words are in [`words`], one module for each command; everything that a command prints for a program to
//! read goes to standard output, everything for a person to standard error.

pub mod absence;
pub mod build;
pub mod console;
pub mod demonstration;
pub mod failure;
pub mod fuzz;
pub mod guest;
pub mod measure;
pub mod progress;
pub mod report;
pub mod run;
pub mod setup;
pub mod symbol_table;
pub mod test;
pub mod toolchain;
pub mod tree;
pub mod until;
pub mod words;

pub use failure::{Failure, Outcome};
