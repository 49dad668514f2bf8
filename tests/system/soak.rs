//! Eight compartments that compute, storm and reset at random, for as long as one likes.
//!
//! The guests (`tests/guests/soak`) print what they computed and what they did. What must have come out is computed here anew, in
//! another way; what they did is compared with what the hypervisor counted: exactly, in all lives together.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cli::guest;

use crate::system::{Ran, start, tree};

const PROFILE: &str = "lab-amd-npt-many";
const COMPARTMENTS: u64 = 8;
/// KiB of RAM of each.
const MEMORY: u64 = 96 << 10;

/// Words of memory that a guest computes with.
const WORDS: u64 = (32 << 20) / 8;
/// A step of everything that is computed: the value times this,
const FACTOR: u64 = 6_364_136_223_846_793_005;
/// and this more.
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// What the hypervisor counts of a guest's exits, by exactly what the guest did.
const EXITS: [&str; 7] = ["port", "port-string", "msr-read", "msr-write", "memory", "cpuid", "hypercall"];
/// What its audit log counts.
const AUDIT: [&str; 3] = ["unknown", "denied", "malformed"];

/// splitmix64's scattering of bits.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Many steps at once. After them a value is `factor * value + increment`, and the values on the way, the first but not the last among
/// them, have the sum `sum_factor * value + sum_increment`.
#[derive(Copy, Clone)]
struct Steps {
    factor: u64,
    increment: u64,
    sum_factor: u64,
    sum_increment: u64,
}

impl Steps {
    const NONE: Self = Self { factor: 1, increment: 0, sum_factor: 0, sum_increment: 0 };
    const ONE: Self = Self { factor: FACTOR, increment: INCREMENT, sum_factor: 1, sum_increment: 0 };

    /// These, and then those.
    const fn then(self, then: Self) -> Self {
        Self {
            factor: then.factor.wrapping_mul(self.factor),
            increment: then.factor.wrapping_mul(self.increment).wrapping_add(then.increment),
            sum_factor: self.sum_factor.wrapping_add(then.sum_factor.wrapping_mul(self.factor)),
            sum_increment: self
                .sum_increment
                .wrapping_add(then.sum_factor.wrapping_mul(self.increment))
                .wrapping_add(then.sum_increment),
        }
    }

    /// `count` steps, by squaring.
    fn many(mut count: u64) -> Self {
        let (mut all, mut power) = (Self::NONE, Self::ONE);
        while count > 0 {
            if count & 1 == 1 {
                all = all.then(power);
            }
            power = power.then(power);
            count >>= 1;
        }
        all
    }

    fn value(self, from: u64) -> u64 {
        self.factor.wrapping_mul(from).wrapping_add(self.increment)
    }

    fn sum(self, from: u64) -> u64 {
        self.sum_factor.wrapping_mul(from).wrapping_add(self.sum_increment)
    }
}

/// The value of a processor's chain after so many steps, and its vector and debug registers as one number.
fn chain(salt: u64, side: u64, steps: u64) -> (u64, u64) {
    let begin = |index: u64| mix(salt ^ (side + 1 + index));
    let vectors = (0..16).flat_map(|index| {
        let half = match index % 2 {
            0 => begin(index).wrapping_add(begin(index + 1).wrapping_mul(steps)),
            _ => begin(index),
        };
        [half, half]
    });
    let lanes = vectors.chain((16..20).map(begin)).fold(0, |sum, value| mix(sum ^ value));
    (Steps::many(steps).value(mix(salt ^ side)), lanes)
}

/// The sum of a guest's memory after so many passes.
fn memory(salt: u64, passes: u64) -> u64 {
    Steps::many(WORDS).sum(Steps::many(passes).value(mix(salt ^ 0x300)))
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// `NAME=VALUE …` behind the first word.
fn values(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ').skip(1).filter_map(|word| word.split_once('=')).collect()
}

/// A compartment's lives, all told.
#[derive(Default)]
struct Lives {
    count: u64,
    steps: u64,
    passes: u64,
    interrupts: u64,
    counts: BTreeMap<String, u64>,
}

/// Reads what a compartment printed, and checks what it computed. Answers an account of it, or what is wrong.
fn account(name: &str, lines: &[&str]) -> Result<Lives, String> {
    let mut all = Lives::default();
    let mut over = false;
    for life in lines.chunks(4) {
        let [begins, result, heard, count] = life else {
            return Err(format!("{name} has ended in the midst of a life: {life:?}"));
        };
        let wrong = |what: &str| format!("{name}: {what}\n{}", life.join("\n"));
        if over {
            return Err(wrong("a life after the last"));
        }
        let words = [("begins ", begins), ("result ", result), ("heard ", heard), ("count ", count)];
        if words.iter().any(|(word, line)| !line.starts_with(word)) {
            return Err(wrong("not the four lines of a life"));
        }
        let salt = values(begins)["salt"];
        if values(result)["salt"] != salt || values(count)["salt"] != salt {
            return Err(wrong("lines of two lives"));
        }
        let salt = hexadecimal(salt);
        let results = values(result);
        for (processor, side) in [("first", 0x100), ("second", 0x200)] {
            let numbers = results[processor].split(':').map(hexadecimal).collect::<Vec<_>>();
            let expected = chain(salt, side, numbers[0]);
            if (numbers[1], numbers[2]) != expected {
                return Err(wrong(&format!("the {processor} processor's result is {expected:x?}")));
            }
            all.steps += numbers[0];
        }
        let numbers = results["memory"].split(':').map(hexadecimal).collect::<Vec<_>>();
        let expected = memory(salt, numbers[0]);
        if numbers[1] != expected {
            return Err(wrong(&format!("the sum of its memory is {expected:x}")));
        }
        all.passes += numbers[0];
        all.interrupts += values(heard).values().copied().map(hexadecimal).sum::<u64>();
        let counted = values(count);
        for what in EXITS.iter().chain(&AUDIT) {
            *all.counts.entry((*what).to_owned()).or_default() += hexadecimal(counted[what]);
        }
        over = counted["over"] == "1";
        all.count += 1;
    }
    if over { Ok(all) } else { Err(format!("{name} has not come to its end")) }
}

/// KiB of memory: the hypervisor's own, of each compartment RAM and what is beside, free at the start, free at the end, and all.
fn memory_accounts(ran: &Ran) -> Result<String, String> {
    let number =
        |text: &str, unit: &str| -> Option<u64> { text.split_once(unit)?.0.rsplit(' ').next()?.parse().ok() };
    let lines = ran.console("ringfence").map(|line| line.text.as_str()).collect::<Vec<_>>();
    let start = lines
        .iter()
        .find(|line| line.contains(" KiB of the hypervisor's own"))
        .ok_or("no memory at the start")?;
    let end = lines.iter().find(|line| line.ends_with(" KiB free")).ok_or("no memory at the end")?;
    let own = number(start, " KiB of the hypervisor's own").ok_or("own memory")?;
    let free = number(start, " KiB free").ok_or("free memory")?;
    let left = number(end, " KiB free").ok_or("free memory at the end")?;
    let total = lines.iter().find_map(|line| number(line, " KiB usable")).ok_or("all memory")?;
    let beside = lines
        .iter()
        .filter(|line| line.starts_with("compartment ") && line.ends_with(" KiB beside"))
        .filter_map(|line| number(line, " KiB beside"))
        .collect::<Vec<_>>();
    let told = own + beside.iter().map(|beside| MEMORY + beside).sum::<u64>() + free;
    let sentence = format!(
        "{total} KiB: {own} of the hypervisor's own, {} compartments of {MEMORY} with {beside:?} beside, {free} free at the \
         start, {left} at the end",
        beside.len()
    );
    let holds = beside.len() as u64 == COMPARTMENTS && told == total && free == left;
    if holds { Ok(sentence) } else { Err(format!("memory does not add up: {sentence}")) }
}

fn soak(seed: u64, seconds: u64) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    symlink(guest::program(&tree(), "soak").unwrap(), folder.path().join("soak")).unwrap();
    let mut manifest = "format = 1\n".to_owned();
    let names = (0..COMPARTMENTS).map(|number| format!("soak{number}")).collect::<Vec<_>>();
    for (number, name) in names.iter().enumerate() {
        let seed = mix(seed ^ number as u64);
        let _ = write!(
            manifest,
            "\n[[compartment]]\nname = \"{name}\"\nmemory = \"{MEMORY} KiB\"\nvcpus = 2\non-reset = \"restart\"\nboot = {{ \
             kernel = \"soak\", protocol = \"pvh\", command-line = \"seed={seed:x} seconds={seconds}\" }}\n"
        );
    }
    let path = folder.path().join("soak.ringfence.toml");
    fs::write(&path, manifest).unwrap();
    // A life is finished when its time is over, however long that takes on a busy host.
    let limit = (2 * seconds + 600).to_string();
    let running =
        start(&["run", PROFILE, "--manifest", path.to_str().unwrap(), "--timeout", &limit, "--json"]);
    let kept = tree().target().join(format!("soak-{seed:016x}.txt"));
    let mut report = File::create(&kept).unwrap();
    writeln!(report, "seed {seed:016x}, {seconds} s").unwrap();
    // Line by line: whoever looks on sees how far it is, and an end before its time leaves what was said.
    let begin = Instant::now();
    running.follow(|line| writeln!(report, "{:8.1} {line}", begin.elapsed().as_secs_f64()).unwrap());
    let ran = running.wait();
    writeln!(report, "exit code {:?}\n{}", ran.code, ran.errors).unwrap();
    if ran.code != Some(0) {
        return Err(format!("exit code {:?}: see {}", ran.code, kept.display()));
    }

    let mut summary = String::new();
    for name in &names {
        let lines = ran.console(name).map(|line| line.text.as_str()).collect::<Vec<_>>();
        let lives = account(name, &lines)?;
        let compartment = ran.compartment(name);
        if compartment["state"] != "shut-down" || compartment["restarts"] != lives.count - 1 {
            return Err(format!("{name} had {} lives: {compartment}", lives.count));
        }
        for (list, whats) in [("exits", &EXITS[..]), ("audit", &AUDIT)] {
            for what in whats {
                let counted = compartment[list][what].as_u64().unwrap_or(0);
                if counted != lives.counts[*what] {
                    return Err(format!(
                        "{name} did {} things of the kind {what}, and {counted} were counted",
                        lives.counts[*what]
                    ));
                }
            }
        }
        let exits = compartment["exits"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64);
        let _ = writeln!(
            summary,
            "{name}: {} lives, {} steps, {} passes over memory, {} interrupts, {} exits, {:?}",
            lives.count,
            lives.steps,
            lives.passes,
            lives.interrupts,
            exits.sum::<u64>(),
            lives.counts
        );
    }
    let _ = writeln!(summary, "{}", memory_accounts(&ran)?);
    writeln!(report, "\n{summary}").unwrap();
    Ok(summary)
}

/// A minute and a half, or `RINGFENCE_SOAK_SECONDS`; by a seed of the moment, or `RINGFENCE_SOAK_SEED` (hexadecimal). The report goes to
/// `target/soak-SEED.txt`.
#[test]
#[ignore = "two minutes: nightly; for hours by hand, with RINGFENCE_SOAK_SECONDS"]
fn eight_compartments_compute_storm_and_reset() {
    let seconds = env::var("RINGFENCE_SOAK_SECONDS").map_or(90, |seconds| seconds.parse().unwrap());
    let seed = env::var("RINGFENCE_SOAK_SEED").map_or_else(
        |_| mix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64),
        |seed| hexadecimal(&seed),
    );
    match soak(seed, seconds) {
        Ok(summary) => eprintln!("seed {seed:016x}, {seconds} s\n{summary}"),
        Err(wrong) => panic!("seed {seed:016x}, {seconds} s: {wrong}"),
    }
}

/// The short way to a result is the long way's.
#[test]
fn many_steps_at_once_are_many_steps() {
    let (mut value, mut sum) = (mix(1), 0_u64);
    for count in 0..1000 {
        assert_eq!((Steps::many(count).value(mix(1)), Steps::many(count).sum(mix(1))), (value, sum));
        sum = sum.wrapping_add(value);
        value = value.wrapping_mul(FACTOR).wrapping_add(INCREMENT);
    }
}

/// A life whose numbers are right is accepted, and with any one of its digits changed it is not.
#[test]
fn no_wrong_result_is_accepted() {
    let salt = mix(7);
    let ((first, lanes), (second, second_lanes)) = (chain(salt, 0x100, 0x1234), chain(salt, 0x200, 0x4321));
    let result = format!(
        "result salt={salt:016x} first=1234:{first:016x}:{lanes:016x} second=4321:{second:016x}:{second_lanes:016x} \
         memory=3:{:016x}",
        memory(salt, 3)
    );
    let begins = format!("begins salt={salt:016x} at=0");
    let counts = EXITS.iter().chain(&AUDIT).map(|what| format!("{what}=5")).collect::<Vec<_>>().join(" ");
    let count = format!("count salt={salt:016x} {counts} over=1");
    let told = |result: &str| account("a", &[&begins, result, "heard timer=1 other=2", &count]);
    assert_eq!(
        told(&result).ok().map(|lives| (lives.count, lives.passes, lives.interrupts)),
        Some((1, 3, 3))
    );
    let digits =
        result.char_indices().skip("result salt=".len()).filter(|(_, letter)| letter.is_ascii_digit());
    for (at, letter) in digits {
        let mut broken = result.clone();
        broken.replace_range(at..=at, if letter == '0' { "1" } else { "0" });
        assert!(told(&broken).is_err(), "{broken}");
    }
    assert!(account("a", &[&begins, &result]).is_err());
    assert!(account("a", &[]).is_err());
}
