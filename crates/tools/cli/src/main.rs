//! The `ringfence` command.

use std::process::ExitCode;

use clap::Parser;

use cli::words::{Command, Words};
use cli::{Failure, build, fuzz, measure, run, setup, test, tree::Tree};

fn main() -> ExitCode {
    let words = Words::parse();
    match dispatch(words) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            failure.print();
            failure.outcome().into()
        }
    }
}

fn dispatch(words: Words) -> Result<cli::Outcome, Failure> {
    let tree = Tree::find()?;
    match words.command {
        Command::Build(words) => build::command(&tree, &words),
        Command::Run(words) => run::command(&tree, &words),
        Command::Test(words) => test::command(&tree, &words),
        Command::Fuzz(words) => fuzz::command(&tree, &words),
        Command::Bench(words) => measure::command(&tree, &words),
        Command::Setup(words) => setup::command(&tree, &words),
    }
}
