//! The hostile guest: what it tries, what came of it, and that nobody else noticed.
//!
//! `tests/guests/hostile/attempts.toml` says what is expected of each attempt, and by which manual. Each boot has a witness beside it, which
//! checks its own memory, registers and time all along, and has to be as far as its numbers say when everything is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bench::{Event, Media, Session, Start};
use cli::guest;
use serde::Deserialize;
use tempfile::TempDir;

use crate::system::{LIMIT, Ran, start, tree};

#[path = "../guests/hostile/src/chain.rs"]
mod chain;

/// Where the attempts are made.
struct Place {
    profile: &'static str,
    /// A processor of Intel's: some answers differ.
    intel: bool,
    /// Seconds that a run has.
    limit: &'static str,
}

const AMD: Place = Place { profile: "lab-amd-npt", intel: false, limit: LIMIT };
/// The machine on which the attempts are made without a hypervisor: the same processor.
const BARE: &str = "qemu-amd-epyc-1";
/// What a bare machine says that it is not asked for.
const NOT_TRIED: &str = "not tried";
/// How many attempts that end their compartment fit in one machine, beside the witness.
const AT_ONCE: usize = 3;

/// What is expected, and what not every place has.
#[derive(Debug, Deserialize)]
struct Table {
    /// By what attempts need.
    absent: BTreeMap<String, Absent>,
    /// By their names.
    #[serde(flatten)]
    attempts: BTreeMap<String, Expected>,
}

/// What some profiles do not have, or their processors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Absent {
    /// Those that do not have it.
    profiles: Vec<String>,
    /// Why, and where that stands.
    because: String,
}

/// What is expected of an attempt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Expected {
    /// What the manual says: the words that the guest prints, or, where it ends its compartment, how.
    verdict: String,
    /// Which manual, and where.
    manual: String,
    /// What comes of it below Ringfence on this emulator, where that is something else.
    below: Option<String>,
    /// What comes of it on the bare emulator, where that is something else.
    bare: Option<String>,
    /// Why it is something else.
    because: Option<String>,
    /// What comes of it on Intel's processors, below Ringfence, where that is not the verdict.
    intel: Option<String>,
    /// By which manual.
    intel_manual: Option<String>,
    /// What it needs that not every place has: the name of one of [`Table::absent`].
    needs: Option<String>,
    /// What comes of it in a place without that; nothing: it is left out there.
    without: Option<String>,
    /// Whether it needs a compartment of its own.
    #[serde(default)]
    ends: bool,
    /// With how many processors.
    #[serde(default = "one")]
    processors: u32,
}

impl Table {
    /// The table, with a reason for whatever departs.
    fn read() -> Self {
        let text = fs::read_to_string(tree().path("tests/guests/hostile/attempts.toml")).unwrap();
        let table: Self = toml::from_str(&text).unwrap();
        for (name, absent) in &table.absent {
            assert!(!absent.because.is_empty(), "{name}: why is it absent?");
            for profile in &absent.profiles {
                assert!(
                    tree().profile(profile).is_ok(),
                    "{name} is absent in {profile}, which is no profile"
                );
            }
        }
        for (name, expected) in &table.attempts {
            assert!(!expected.manual.is_empty(), "{name}: by which manual?");
            let departs = expected.below.is_some() || expected.bare.is_some();
            assert_eq!(
                departs,
                expected.because.is_some(),
                "{name}: a departure has a reason, and nothing else has"
            );
            assert_eq!(expected.intel.is_some(), expected.intel_manual.is_some(), "{name}: by which manual?");
            let known = expected.needs.as_ref().is_none_or(|needs| table.absent.contains_key(needs));
            assert!(known, "{name}: what it needs is absent nowhere");
            assert!(expected.without.is_none() || expected.needs.is_some(), "{name}: without what?");
            assert!(
                expected.ends || expected.needs.is_some() == expected.without.is_some(),
                "{name}: the guest makes it everywhere, and says something"
            );
        }
        table
    }

    /// Whether `what` is absent there.
    fn lacks(&self, what: &str, place: &Place) -> bool {
        self.absent[what].profiles.iter().any(|profile| profile == place.profile)
    }

    /// What is expected of an attempt below Ringfence there; nothing: it is left out.
    fn below(&self, expected: &Expected, place: &Place) -> Option<String> {
        if expected.needs.as_ref().is_some_and(|needs| self.lacks(needs, place)) {
            return expected.without.clone();
        }
        let other = if place.intel { &expected.intel } else { &expected.below };
        let words = other.as_ref().unwrap_or(&expected.verdict);
        Some(if self.lacks("real-mode", place) { without_real_mode(words) } else { words.clone() })
    }
}

/// A verdict in whose lists of modes real mode does not stand.
fn without_real_mode(words: &str) -> String {
    let other = |word: &str| {
        let Some((modes, end)) = word.split_once('=') else { return Some(word.to_owned()) };
        let modes = modes.split(',').filter(|mode| *mode != "real").collect::<Vec<_>>();
        (!modes.is_empty()).then(|| format!("{}={end}", modes.join(",")))
    };
    words.split(' ').filter_map(other).collect::<Vec<_>>().join(" ")
}

fn one() -> u32 {
    1
}

/// The verdicts among the lines of a console: `attempt NAME WORDS`.
fn verdicts<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut verdicts = BTreeMap::new();
    for line in lines.filter_map(|line| line.strip_prefix("attempt ")) {
        let (name, words) = line.split_once(' ').unwrap_or((line, ""));
        let before = verdicts.insert(name.to_owned(), words.to_owned());
        assert_eq!(before, None, "{name} was tried twice");
    }
    verdicts
}

/// Compares what was found with what is expected, and names each attempt that differs.
fn compare<'a>(
    expected: impl Iterator<Item = (&'a String, String)>,
    found: &BTreeMap<String, String>,
    transcript: &str,
) {
    let mut complaint = String::new();
    let mut known = BTreeSet::new();
    for (name, verdict) in expected {
        known.insert(name.as_str());
        let found = found.get(name).map_or("nothing was said", String::as_str);
        if found != verdict {
            let _ = writeln!(complaint, "{name}:\n    expected {verdict}\n    found    {found}");
        }
    }
    for (name, verdict) in found.iter().filter(|(name, _)| !known.contains(name.as_str())) {
        let _ = writeln!(complaint, "{name}: is not in the table; found {verdict}");
    }
    assert!(complaint.is_empty(), "{complaint}\n{transcript}");
    eprintln!("{} attempts ended as expected", known.len());
}

/// A manifest with the guest in these compartments (name, words of the command line, processors), and the witness.
struct Guests {
    _folder: TempDir,
    manifest: PathBuf,
}

impl Guests {
    fn new(program: &Path, compartments: &[(&str, String, u32)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(program, folder.path().join("hostile")).unwrap();
        let mut text = "format = 1\n".to_owned();
        let witness = ("witness", "mode=witness".to_owned(), 1);
        for (name, words, processors) in compartments.iter().chain([&witness]) {
            let _ = write!(
                text,
                "\n[[compartment]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nvcpus = {processors}\non-reset = \"stop\"\nboot = {{ \
                 kernel = \"hostile\", command-line = \"{words}\" }}\n"
            );
        }
        let manifest = folder.path().join("hostile.ringfence.toml");
        fs::write(&manifest, text).unwrap();
        Self { _folder: folder, manifest }
    }

    /// Runs until all compartments but the witness have ended, and the witness has come further. What it says is checked here.
    fn run(&self, table: &Table, place: &Place, names: &[&str]) -> Ran {
        let manifest = self.manifest.to_str().unwrap();
        let words = ["run", place.profile, "--manifest", manifest, "--timeout", place.limit, "--json"];
        let running = start(&words);
        for name in names {
            running.wait_for("ringfence", &format!("report {name} "), 1);
        }
        running.wait_for("witness", "witness ", running.count("witness", "witness ") + 2);
        running.interrupt();
        let ran = running.wait();
        // 1: the run does not hold, since a compartment was stopped.
        assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.transcript());
        let witness = ran.compartment("witness");
        assert_eq!(witness["state"], "running", "{}", ran.transcript());
        assert_eq!(ran.count("witness", "FAILED"), 0, "{}", ran.transcript());
        // Ringfence shows AVX where the machine has it.
        let vectors = if table.lacks("avx", place) { "vectors without AVX" } else { "vectors with AVX" };
        ran.find("witness", vectors);
        for line in ran.console("witness").filter_map(|line| line.text.strip_prefix("witness ")) {
            let Some((round, number)) = line.split_once(' ') else { continue };
            let said = chain::said(round.parse().unwrap());
            assert_eq!(u64::from_str_radix(number, 16).unwrap(), said, "{line}\n{}", ran.transcript());
        }
        assert_eq!(ran.count("ringfence", "host fault"), 0, "{}", ran.transcript());
        ran
    }
}

/// Everything that ends nothing, one attempt after the other in one compartment. Where an instruction does to the guest what it would do without
/// its exit, the counts of exits and the log show that there is one: `logged` instructions, and hypercalls (one of each number, and one in each
/// mode), RDPMC, WBINVD and INVD.
fn attempts_that_end_nothing(place: &Place, logged: &[&str]) {
    let program = guest::program(&tree(), "hostile").unwrap();
    let table = Table::read();
    let words = if table.lacks("real-mode", place) { "without=real-mode" } else { "" };
    let ran = Guests::new(&program, &[("hostile", words.to_owned(), 1)]).run(&table, place, &["hostile"]);
    let expected = table.attempts.iter().filter(|(_, expected)| !expected.ends);
    let expected = expected.filter_map(|(name, expected)| Some((name, table.below(expected, place)?)));
    let found = verdicts(ran.console("hostile").map(|line| line.text.as_str()));
    compare(expected, &found, &ran.transcript());
    ran.find("hostile", "hostile done");
    let hostile = ran.compartment("hostile");
    assert_eq!(hostile["state"], "shut-down", "{}", ran.transcript());
    // What exists and was denied, what made no sense, and what does not exist were told apart and counted.
    for kind in ["denied", "malformed", "unknown"] {
        assert!(hostile["audit"][kind].as_u64().unwrap() > 0, "{kind}: {hostile}");
    }
    for (kind, least) in [("hypercall", 65_653 + 6), ("pmc-read", 6), ("cache", 18)] {
        assert!(hostile["exits"][kind].as_u64().unwrap() >= least, "{kind}: {hostile}");
    }
    for what in logged {
        ran.find("ringfence", &format!("instruction for {what}"));
    }
}

#[test]
fn attempts_end_as_the_manual_says() {
    let logged = ["virtualization", "a secure launch", "MONITOR/MWAIT", "system management mode"];
    attempts_that_end_nothing(&AMD, &logged);
}

/// What ends its compartment ends no other.
fn attempts_that_end(place: &Place) {
    let program = guest::program(&tree(), "hostile").unwrap();
    let table = Table::read();
    let all = table.attempts.iter().filter(|(_, expected)| expected.ends);
    let all = all
        .filter_map(|(name, expected)| Some((name, expected.processors, table.below(expected, place)?)))
        .collect::<Vec<_>>();
    let mut found = BTreeMap::new();
    let mut transcripts = String::new();
    for batch in all.chunks(AT_ONCE) {
        let names = ["first", "second", "third"].map(str::to_owned);
        let compartments = names
            .iter()
            .zip(batch)
            .map(|(name, (attempt, processors, _))| (name.as_str(), format!("mode={attempt}"), *processors))
            .collect::<Vec<_>>();
        let names = compartments.iter().map(|(name, ..)| *name).collect::<Vec<_>>();
        let ran = Guests::new(&program, &compartments).run(&table, place, &names);
        for (name, (attempt, ..)) in names.iter().zip(batch) {
            let compartment = ran.compartment(name);
            let said = verdicts(ran.console(name).map(|line| line.text.as_str())).remove(*attempt);
            let state = compartment["state"].as_str().unwrap();
            // One that was not ended has said something and switched itself off.
            let verdict = match (said.filter(|said| !said.is_empty()), compartment["reason"].as_str()) {
                (Some(said), _) => said,
                (None, Some(reason)) => format!("{state}: {reason}"),
                (None, None) => state.to_owned(),
            };
            found.insert((*attempt).clone(), verdict);
        }
        transcripts.push_str(&ran.transcript());
    }
    compare(all.into_iter().map(|(name, _, words)| (name, words)), &found, &transcripts);
}

#[test]
fn attempts_that_end_their_compartment_end_it_alone() {
    attempts_that_end(&AMD);
}

/// Bochs executes some 90 million instructions a second, and checks every VM entry by the manual.
const fn bochs(profile: &'static str) -> Place {
    Place { profile, intel: true, limit: "900" }
}

/// GETSEC and RSM raise #UD by themselves.
const LOGGED_BY_VMX: [&str; 2] = ["virtualization", "MONITOR/MWAIT"];

#[test]
fn attempts_on_a_skylake() {
    attempts_that_end_nothing(&bochs("lab-intel-skylake"), &LOGGED_BY_VMX);
}

#[test]
#[ignore = "a minute, and much as on the Skylake: nightly"]
fn attempts_on_a_haswell() {
    attempts_that_end_nothing(&bochs("lab-intel-haswell"), &LOGGED_BY_VMX);
}

#[test]
#[ignore = "a minute, and much as on the Skylake: nightly"]
fn attempts_on_a_sandy_bridge() {
    attempts_that_end_nothing(&bochs("lab-intel-sandy"), &LOGGED_BY_VMX);
}

/// Without real mode, which needs a part.
#[test]
#[ignore = "a minute, and much as on the Skylake: nightly"]
fn attempts_on_a_nehalem() {
    attempts_that_end_nothing(&bochs("lab-intel-nehalem"), &LOGGED_BY_VMX);
}

#[test]
#[ignore = "a dozen boots: nightly"]
fn attempts_that_end_their_compartment_on_a_skylake() {
    attempts_that_end(&bochs("lab-intel-skylake"));
}

#[test]
#[ignore = "a dozen boots: nightly"]
fn attempts_that_end_their_compartment_on_a_nehalem() {
    attempts_that_end(&bochs("lab-intel-nehalem"));
}

/// Boots the guest on the bare emulator, with these words, and gives what it said until it ended.
fn bare(program: &Path, words: &str) -> String {
    let media = Media::Kernel { image: program.to_owned(), module: None, command_line: words.to_owned() };
    let (sender, events) = sync_channel::<Event>(256);
    let _session = Session::start(&tree().bench_machine(BARE).unwrap(), &Start::new(media), sender).unwrap();
    let mut said = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_mins(5)) {
            Ok(Event::Console(bytes)) => said.extend(bytes),
            Ok(Event::Ended(_)) => return String::from_utf8_lossy(&said).replace('\r', ""),
            Err(error) => panic!("{words:?}: {error}, and it said:\n{}", String::from_utf8_lossy(&said)),
        }
    }
}

/// The same attempts without a hypervisor show where the emulator itself departs from the manual.
#[test]
fn attempts_on_the_bare_emulator() {
    let program = guest::program(&tree(), "hostile").unwrap();
    let table = Table::read();
    let said = bare(&program, "");
    let mut found = verdicts(said.lines());
    assert!(said.contains("hostile done"), "{said}");
    let tried = |expected: &Expected| expected.bare.as_deref() != Some(NOT_TRIED);
    for (name, _) in table.attempts.iter().filter(|(_, expected)| expected.ends && tried(expected)) {
        let said = bare(&program, &format!("mode={name}"));
        let verdict = verdicts(said.lines())
            .remove(name)
            .filter(|words| !words.is_empty() && said.contains("hostile done"));
        found.insert(name.clone(), verdict.unwrap_or_else(|| "ended".to_owned()));
    }
    let expected = table.attempts.iter().filter(|(_, expected)| tried(expected));
    let expected =
        expected.map(|(name, expected)| (name, expected.bare.as_ref().unwrap_or(&expected.verdict).clone()));
    compare(expected, &found, &said);
}
