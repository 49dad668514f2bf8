//! `fuzz`: bytes that nobody thought of, at every boundary that takes bytes from outside. `docs/fuzzing.md` lists the boundaries.
//!
//! The fuzzers are libFuzzer's, built by plain cargo and the stable compiler. What they begin with is the committed corpus, a text file for
//! each: an input a line, in hexadecimal digits.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::progress::{Progress, watch};
use crate::tree::Tree;
use crate::words::FuzzWords;
use crate::{Failure, Outcome};

/// With another target than the host's own words, flags do not reach what builds the build.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Seconds for one input; the slowest takes some milliseconds.
const INPUT_TIMEOUT: u32 = 20;
/// The longest input.
const LENGTH: u32 = 4096;
/// Bytes of a committed corpus, as inputs.
const CORPUS_LIMIT: usize = 9 << 10;

/// Carries out `fuzz`.
pub fn command(tree: &Tree, words: &FuzzWords) -> Result<Outcome, Failure> {
    let fuzzers = Fuzzers::of_tree(tree)?;
    let names = fuzzers.chosen(&words.targets)?;
    run("building the fuzzers", &mut fuzzers.build())?;
    for name in names {
        // What was found stays, and is what the next run begins with. It lies where cargo-fuzz would look for it.
        let folder = fuzzers.folder.join("corpus").join(name);
        fuzzers.unpack(name, &folder)?;
        if words.minimise {
            let (before, after) = fuzzers.minimise(name, &folder)?;
            println!("{name}: {before} inputs, {after} of them in its corpus");
            continue;
        }
        let said = run(&format!("fuzzing {name}"), &mut fuzzers.run(name, &folder, words.seconds)?)?;
        let Found { runs, coverage, features } = Found::read(&said);
        println!(
            "{name}: {runs} executions in {} s, coverage {coverage}, features {features}",
            words.seconds
        );
    }
    Ok(Outcome::Holds)
}

/// Runs a command that has to succeed.
fn run(title: &str, command: &mut Command) -> Result<String, Failure> {
    let progress = Progress::begin(title);
    let (status, said) = watch(&progress, command)?;
    progress.done();
    if status.success() {
        return Ok(said);
    }
    Err(Failure::does_not_hold(
        format!("{title} failed"),
        "the last lines say what broke, and which file in fuzz/artifacts holds the input: give it to the fuzzer to see it again",
    )
    .with_words(said))
}

/// The fuzzers of a tree.
pub struct Fuzzers {
    folder: PathBuf,
    target: PathBuf,
    /// Their names, sorted.
    pub names: Vec<String>,
}

impl Fuzzers {
    /// Those that the tree has.
    pub fn of_tree(tree: &Tree) -> Result<Self, Failure> {
        let folder = tree.path("fuzz");
        let mut names = Vec::new();
        for entry in fs::read_dir(folder.join("fuzz_targets"))? {
            let path = entry?.path();
            if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(Self { folder, target: tree.target().join("fuzz"), names })
    }

    /// Those with these names; all, if there are none.
    fn chosen<'a>(&'a self, names: &'a [String]) -> Result<&'a [String], Failure> {
        match names.iter().find(|name| !self.names.contains(name)) {
            Some(unknown) => Err(Failure::wrong_input(
                format!("there is no fuzzer \"{unknown}\""),
                format!("there are {}", self.names.join(", ")),
            )),
            None if names.is_empty() => Ok(&self.names),
            None => Ok(names),
        }
    }

    /// Builds all of them, with the counters that libFuzzer looks at and all checks on.
    pub fn build(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.folder).args(["build", "--release", "--locked", "--quiet"]);
        command.args(["--target", TARGET, "--target-dir"]).arg(&self.target);
        let flags = [
            "-Cpasses=sancov-module",
            "-Cllvm-args=-sanitizer-coverage-level=4",
            "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
            "-Cllvm-args=-sanitizer-coverage-pc-table",
            "-Cllvm-args=-sanitizer-coverage-trace-compares",
            "--cfg=fuzzing",
            "-Ccodegen-units=1",
            "-Coverflow-checks=on",
            "-Cdebug-assertions=on",
        ];
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.target.join(TARGET).join("release").join(name));
        command.arg(format!("-timeout={INPUT_TIMEOUT}")).arg(format!("-max_len={LENGTH}"));
        command
    }

    /// Runs one of them for so long, from the inputs in `corpus`, where it leaves what it finds.
    pub fn run(&self, name: &str, corpus: &Path, seconds: u32) -> Result<Command, Failure> {
        let artifacts = self.folder.join("artifacts").join(name);
        fs::create_dir_all(&artifacts)?;
        let mut command = self.program(name);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(corpus);
        Ok(command)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("corpus").join(format!("{name}.txt"))
    }

    /// Puts the committed corpus into a folder, a file for each input.
    pub fn unpack(&self, name: &str, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        let file = self.file(name);
        let inputs = read_corpus(&fs::read_to_string(&file)?).ok_or_else(|| {
            Failure::wrong_input(
                format!("{} has a line that is no input", file.display()),
                "each line has hexadecimal digits in pairs, and nothing else",
            )
        })?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("committed-{number}")), input)?;
        }
        Ok(())
    }

    /// An empty folder for a run whose inputs are not kept, with the committed corpus in it.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.target.join("corpus").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        self.unpack(name, &folder)?;
        Ok(folder)
    }

    /// Makes the committed corpus of the inputs in `folder`: those that are needed to cover what all cover, the shortest first, as far
    /// as there is room. Answers how many there were, and how many are left.
    fn minimise(&self, name: &str, folder: &Path) -> Result<(usize, usize), Failure> {
        let merged = tempfile::tempdir()?;
        let mut merge = self.program(name);
        merge.arg("-set_cover_merge=1").arg(merged.path()).arg(folder);
        run(&format!("minimising {name}"), &mut merge)?;
        let mut inputs = Vec::new();
        for entry in fs::read_dir(merged.path())? {
            inputs.push(fs::read(entry?.path())?);
        }
        let before = fs::read_dir(folder)?.count();
        let text = write_corpus(inputs);
        fs::write(self.file(name), &text)?;
        Ok((before, text.lines().count()))
    }
}

/// The inputs that a corpus' file holds. `None`: a line has something else than digits in pairs.
fn read_corpus(text: &str) -> Option<Vec<Vec<u8>>> {
    let line = |line: &str| {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (pairs, rest) = line.as_bytes().as_chunks::<2>();
        rest.is_empty().then_some(())?;
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
    };
    text.lines().map(line).collect()
}

/// The file of a corpus: each input once, the shortest first, as far as there is room.
fn write_corpus(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    inputs.dedup();
    let mut text = String::new();
    let mut length = 0;
    for input in inputs {
        length += input.len();
        if length > CORPUS_LIMIT {
            break;
        }
        for byte in input {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// What a fuzzer says at its end.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
struct Found {
    /// Inputs tried.
    runs: u64,
    /// Edges of the code that were taken.
    coverage: u64,
    /// Edges with how often, and comparisons with how near: libFuzzer's features.
    features: u64,
}

impl Found {
    /// Reads the line `#RUNS DONE cov: … ft: …`, which the last input is followed by.
    fn read(said: &str) -> Self {
        let done = said.lines().rev().find(|line| line.contains("DONE")).unwrap_or_default();
        let words = done.split_whitespace().collect::<Vec<_>>();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let runs = words.first().and_then(|word| word.strip_prefix('#')?.parse().ok());
        Self {
            runs: runs.unwrap_or_default(),
            coverage: after("cov:").unwrap_or_default(),
            features: after("ft:").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_is_read_as_it_was_written() {
        let text = write_corpus(vec![vec![0, 0xff], vec![], vec![7], vec![7]]);
        assert_eq!(text, "\n07\n00ff\n");
        assert_eq!(read_corpus(&text), Some(vec![vec![], vec![7], vec![0, 0xff]]));
        assert_eq!(read_corpus("0"), None);
        assert_eq!(read_corpus("0g"), None);
    }

    #[test]
    fn a_corpus_has_the_shortest_inputs() {
        let text = write_corpus(vec![vec![1; CORPUS_LIMIT - 1], vec![2], vec![3; 2]]);
        assert_eq!(text, "02\n0303\n");
    }

    #[test]
    fn the_last_line_is_what_was_found() {
        let said = "#9\tINITED cov: 682 ft: 1078\n#41180\tDONE   cov: 1723 ft: 7579 corp: 1390/1426Kb lim: 1986\nDone 41180 runs";
        assert_eq!(Found::read(said), Found { runs: 41180, coverage: 1723, features: 7579 });
        assert_eq!(Found::read(""), Found::default());
    }
}
