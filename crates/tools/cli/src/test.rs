//! `test`: everything that CI runs, in one command, with one closing line of true counts.

mod count;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use profile::{Catalogue, Profile};

use crate::fuzz::Fuzzers;
use crate::progress::{Progress, watch};
use crate::toolchain::{Toolchain, on_path};
use crate::tree::Tree;
use crate::words::TestWords;
use crate::{Failure, Outcome, absence, build, demonstration};

pub use count::{Counts, Reading};

/// Positions at which the decoder is compared with iced-x86.
const POSITIONS: u64 = 10_000_000;
/// The same in the nightly run.
const NIGHTLY_POSITIONS: u64 = 400_000_000;

/// Seconds for which each boundary is fuzzed.
const FUZZ_SECONDS: u32 = 2;
/// The same in the nightly run.
const NIGHTLY_FUZZ_SECONDS: u32 = 18;

/// One thing that is tried.
struct Step {
    name: String,
    command: Command,
    reading: Reading,
}

/// Carries out `test`.
pub fn command(tree: &Tree, words: &TestWords) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let mut tester = Tester { tree, counts: Counts::default() };
    let profiles = profiles(tree, words.profile.as_deref())?;

    tester.sources();
    tester.host_tests();
    if !words.quick {
        tester.images(&profiles);
        tester.decoder(words.nightly);
        tester.fuzzers(words.nightly);
    }
    tester.emulators(words);

    let seconds = begun.elapsed().as_secs();
    println!("tested for {} min {} s", seconds / 60, seconds % 60);
    println!("{}", tester.counts);
    if tester.counts.failed == 0 {
        return Ok(Outcome::Holds);
    }
    let failed = tester.counts.failed;
    Err(Failure::does_not_hold(
        format!("{failed} of the tests failed"),
        "what they said is above, after FAILED",
    ))
}

/// The profiles that images are built of: one, or all that are products.
fn profiles(tree: &Tree, only: Option<&str>) -> Result<Vec<Profile>, Failure> {
    if let Some(name) = only {
        return Ok(vec![tree.profile(name)?]);
    }
    let catalogue = Catalogue::of_tree(tree.root())?;
    let mut profiles = Vec::new();
    for name in tree.profile_names()? {
        let path = tree.profile_file(&name)?;
        // What is only there to be inherited from is read all the same: a mistake in it is one.
        let fragment = Profile::load_fragment(&path, &catalogue)?;
        if fragment.is_product(&catalogue) {
            profiles.push(fragment);
        }
    }
    Ok(profiles)
}

struct Tester<'a> {
    tree: &'a Tree,
    counts: Counts,
}

impl Tester<'_> {
    /// Runs a step and counts what it says.
    fn try_step(&mut self, mut step: Step) {
        let begun = Instant::now();
        let progress = Progress::begin_quietly(&step.name);
        let result = watch(&progress, &mut step.command);
        drop(progress);
        let seconds = begun.elapsed().as_secs();
        let counts = match result {
            Ok((status, words)) => {
                let counts = step.reading.counts(status.success(), &words);
                if counts.failed > 0 {
                    println!("{}", words.trim_end());
                } else {
                    // Libtest gives a reason for each test that it leaves out.
                    for line in words.lines().filter(|line| line.contains(" ... ignored")) {
                        println!("skip   {}", line.trim_start_matches("test "));
                    }
                }
                counts
            }
            Err(failure) => {
                println!("{failure}");
                Counts::one(false)
            }
        };
        let verdict = if counts.failed == 0 { "ok" } else { "FAILED" };
        println!("{verdict:<6} {} ({counts}; {seconds} s)", step.name);
        self.counts += counts;
    }

    /// Counts something that was tried here.
    fn tried(&mut self, name: &str, result: Result<String, Failure>) {
        match result {
            Ok(words) => {
                println!("ok     {name}{words}");
                self.counts += Counts::one(true);
            }
            Err(failure) => {
                failure.print();
                println!("FAILED {name}: {failure}");
                self.counts += Counts::one(false);
            }
        }
    }

    /// What cannot be tried here, and why.
    fn skip(&mut self, name: &str, reason: &str) {
        println!("skip   {name}: {reason}");
        self.counts.skipped += 1;
    }

    /// `cargo` on the host, in the tree's own target folder.
    fn cargo(&self, words: &[&str]) -> Command {
        self.cargo_in(self.tree.root(), words)
    }

    fn cargo_in(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(folder).args(words).env("CARGO_TARGET_DIR", self.tree.target());
        command.env("CARGO_TERM_COLOR", "never").env("RINGFENCE_TARGET_DIR", self.tree.target());
        command.env("RINGFENCE_ROOT", self.tree.root());
        command
    }

    /// Layout, lints, the rules of the house.
    fn sources(&mut self) {
        if on_path("rustfmt") && on_path("cargo-fmt") {
            let command = self.cargo(&["fmt", "--all", "--check"]);
            self.try_step(Step { name: "rustfmt: the workspace".into(), command, reading: Reading::Status });
            for guest in self.guests().into_iter().chain([self.tree.path("fuzz")]) {
                let command = self.cargo_in(&guest, &["fmt", "--all", "--check"]);
                let name = format!("rustfmt: {}", self.short(&guest));
                self.try_step(Step { name, command, reading: Reading::Status });
            }
        } else {
            self.skip("rustfmt", "there is no rustfmt here; `./ringfence setup` installs it");
        }
        let house = self.cargo(&["run", "--quiet", "--locked", "--package", "house", "--", "."]);
        self.try_step(Step {
            name: "the rules of the house".into(),
            command: house,
            reading: Reading::Closing,
        });
        if self.cargo(&["clippy", "--version"]).output().is_ok_and(|output| output.status.success()) {
            let all = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
            let command = self.cargo(&all);
            self.try_step(Step { name: "clippy: the workspace".into(), command, reading: Reading::Status });
            let mut command = self.cargo(&["clippy", "--locked", "--package", "cli", "--package", "bench"]);
            command.args(["--test", "system", "--test", "emulator", "--", "-D", "warnings"]);
            self.try_step(Step {
                name: "clippy: tests with emulators".into(),
                command,
                reading: Reading::Status,
            });
            let harness =
                ["clippy", "--locked", "--package", "harness", "--all-targets", "--", "-D", "warnings"];
            let command = self.cargo_in(&self.tree.path("fuzz"), &harness);
            self.try_step(Step { name: "clippy: fuzz".into(), command, reading: Reading::Status });
        } else {
            self.skip("clippy", "there is no clippy here; `./ringfence setup` installs it");
        }
    }

    /// Everything that needs neither emulator nor bare metal.
    fn host_tests(&mut self) {
        let command = self.cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
        self.try_step(Step { name: "tests on the host".into(), command, reading: Reading::Libtest });
        let command = self.cargo_in(
            &self.tree.path("fuzz"),
            &["test", "--locked", "--package", "harness", "--no-fail-fast"],
        );
        self.try_step(Step { name: "the fuzzers' corpora".into(), command, reading: Reading::Libtest });
    }

    /// The image of each profile, which has its parts and nothing of others; images with no part, each part alone and all of them. The lints
    /// see what is compiled for bare metal only.
    fn images(&mut self, profiles: &[Profile]) {
        let toolchain = match Toolchain::find() {
            Ok(toolchain) => toolchain,
            Err(failure) => return self.tried("a toolchain for bare metal", Err(failure)),
        };
        let catalogue = match Catalogue::of_tree(self.tree.root()) {
            Ok(catalogue) => catalogue,
            Err(error) => return self.tried("the list of parts", Err(error.into())),
        };
        let mut panics = self.cargo(&["run", "--quiet", "--locked", "--package", "panics", "--"]);
        for profile in profiles {
            let built = build::profile_image(self.tree, profile).and_then(|folder| {
                let size = fs::metadata(folder.join(build::ELF))?.len();
                let debug = folder.join(build::DEBUG);
                let absent = absence::check(&fs::read(&debug)?, catalogue.names(), |part| profile.has(part))?;
                panics.arg(debug);
                Ok(format!(" ({size} bytes, nothing in it of {absent} other parts)"))
            });
            self.tried(&format!("image of {}", profile.name), built);
        }
        self.try_step(Step { name: "no image can panic".into(), command: panics, reading: Reading::Closing });
        // A folder of its own: the lints' results and the images' are not of one kind.
        let folder = self.tree.target().join("image-check");
        if toolchain.has_clippy() {
            for profile in profiles {
                let mut command = toolchain.image(self.tree, "clippy", &folder, &profile.parts);
                if let Some(file) = profile.files.first() {
                    command.env("RINGFENCE_PROFILE", file);
                }
                command.args(["--", "-D", "warnings"]);
                let name = format!("clippy: image of {}", profile.name);
                self.try_step(Step { name, command, reading: Reading::Status });
            }
        } else {
            self.skip(
                "clippy: images",
                "the toolchain for bare metal has no clippy; `./ringfence setup` installs it",
            );
        }
        let all = catalogue.names().map(str::to_owned).collect::<Vec<_>>();
        let alone = all.iter().map(|part| (format!("{part} alone"), std::slice::from_ref(part)));
        let none_and_all = [("no part".to_owned(), &[][..]), ("every part".to_owned(), &all[..])];
        for (what, parts) in none_and_all.into_iter().chain(alone) {
            let command = toolchain.image(self.tree, "check", &folder, parts);
            let name = format!("image with {what}");
            self.try_step(Step { name, command, reading: Reading::Status });
        }
        for guest in self.guests() {
            let folder = self.tree.target().join("guests");
            let command = toolchain.cargo(&guest, "build", &folder);
            let name = format!("guest {}", self.short(&guest));
            self.try_step(Step { name, command, reading: Reading::Status });
        }
    }

    /// The decoder against iced-x86, on a real kernel's code and on generated instructions.
    fn decoder(&mut self, nightly: bool) {
        let positions = if nightly { NIGHTLY_POSITIONS } else { POSITIONS };
        let kernel = self.kernel_text();
        let mut command = self.cargo(&["run", "--quiet", "--release", "--locked", "--package", "decode"]);
        // The comparison is what takes time here, not the linking of the whole into one.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command.args(["--example", "differential", "--", &positions.to_string()]);
        match kernel {
            Ok(path) => {
                command.arg(path);
            }
            Err(failure) => self.skip("the decoder on a kernel's own code", &failure.to_string()),
        }
        let name = format!("the decoder against iced-x86 at {positions} positions");
        self.try_step(Step { name, command, reading: Reading::Status });
    }

    /// Every boundary that takes bytes from outside, for a while, from its committed corpus on.
    fn fuzzers(&mut self, nightly: bool) {
        let seconds = if nightly { NIGHTLY_FUZZ_SECONDS } else { FUZZ_SECONDS };
        let fuzzers = match Fuzzers::of_tree(self.tree) {
            Ok(fuzzers) => fuzzers,
            Err(failure) => return self.tried("the fuzzers", Err(failure)),
        };
        let build = fuzzers.build();
        self.try_step(Step {
            name: "the fuzzers are built".into(),
            command: build,
            reading: Reading::Status,
        });
        for target in &fuzzers.names {
            let name = format!("fuzzing {target} for {seconds} s");
            match fuzzers.fresh(target).and_then(|corpus| fuzzers.run(target, &corpus, seconds)) {
                Ok(command) => self.try_step(Step { name, command, reading: Reading::Status }),
                Err(failure) => self.tried(&name, Err(failure)),
            }
        }
    }

    /// The cloud kernel as an ELF.
    fn kernel_text(&self) -> Result<PathBuf, Failure> {
        let compressed = fs::read(demonstration::kernel(self.tree)?)?;
        let elf = manifest::boot::extract_vmlinux(&compressed).map_err(|error| {
            Failure::environment(format!("the guests' kernel cannot be unpacked: {error}"), "")
        })?;
        let folder = self.tree.target().join("guests");
        fs::create_dir_all(&folder)?;
        let path = folder.join("vmlinux-cloud");
        fs::write(&path, elf)?;
        Ok(path)
    }

    /// Bench machines, and whole systems on them.
    fn emulators(&mut self, words: &TestWords) {
        // A system keeps one processor of the host busy, whatever the number of its own.
        let threads = thread::available_parallelism().map_or(1, usize::from).to_string();
        if !words.quick {
            let mut command = self.cargo(&["test", "--locked", "--package", "bench", "--test", "emulator"]);
            command.args(["--no-fail-fast", "--", "--test-threads", &threads]);
            self.try_step(Step { name: "bench machines".into(), command, reading: Reading::Libtest });
        }
        let mut command =
            self.cargo(&["test", "--locked", "--package", "cli", "--test", "system", "--no-fail-fast"]);
        command.args(["--", "--test-threads", &threads]);
        if let Ok(tool) = env::current_exe() {
            command.env("RINGFENCE_TOOL", tool);
        }
        if words.quick {
            // The demonstration on its own profile says most in the least time.
            command.args(["--exact", "lab_amd_npt::demonstration"]);
        } else if let Some(profile) = &words.profile {
            command.arg(format!("{}::", profile.replace('-', "_")));
        }
        if words.nightly {
            command.arg("--include-ignored");
        }
        // The entry script has said why it could not be fetched.
        if !words.quick && !self.tree.emulators().join("qemu-10.0").is_dir() {
            command.args(["--skip", "qemu_10"]);
            self.skip(
                "whole systems on QEMU 10.0",
                "it comes from Debian's backports, which cannot be read here",
            );
        }
        self.try_step(Step { name: "whole systems".into(), command, reading: Reading::Libtest });
    }

    /// The folders of the bare-metal guests.
    fn guests(&self) -> Vec<PathBuf> {
        let mut folders = fs::read_dir(self.tree.path("tests/guests"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.join("Cargo.toml").is_file()))
            .collect::<Vec<_>>();
        folders.sort();
        folders
    }

    fn short(&self, path: &Path) -> String {
        path.strip_prefix(self.tree.root()).unwrap_or(path).display().to_string()
    }
}
