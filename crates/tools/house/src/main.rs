//! `house`: prints one line per rule, and fails if one is broken.

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Checks the rules of the house on a source tree.

Usage: house [ROOT]

ROOT is the folder of the workspace; without it, the nearest folder upwards that has a `crates` folder.
Prints `ok` or `FAIL` per rule, then the numbers. Ends with 0 if all rules hold, 1 if one is broken, 2 if the words or the
tree are wrong, 4 if `cargo metadata` cannot be run.

Example: house .
";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let root = match (words.next(), words.next()) {
        (Some(word), None) if word == "--help" || word == "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        (Some(word), None) if !word.to_string_lossy().starts_with('-') => PathBuf::from(word),
        (None, None) => {
            let Some(root) = nearest_root() else {
                eprintln!(
                    "house: no folder upwards from here has a `crates` folder. Name the root: house ROOT"
                );
                return ExitCode::from(2);
            };
            root
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match house::check(&root) {
        Ok(outcomes) => {
            for outcome in &outcomes {
                println!("{outcome}");
            }
            let passed = outcomes.iter().filter(|outcome| outcome.holds()).count();
            let failed = outcomes.len() - passed;
            println!("{passed} passed, {failed} failed");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("house: {error}");
            ExitCode::from(if error.is_environment() { 4 } else { 2 })
        }
    }
}

/// The nearest folder, from the current one upwards, that has both a manifest and a `crates` folder.
fn nearest_root() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .find(|folder| folder.join("crates").is_dir() && folder.join("Cargo.toml").is_file())
        .map(PathBuf::from)
}
