//! This decoder against iced-x86: the long run.
//!
//! `differential COUNT [FILE]` compares at COUNT positions: at each byte of the executable sections of FILE, a 64-bit ELF
//! file such as a kernel's vmlinux (without FILE: of this program), and then on generated instructions of all code
//! sizes, which are at least half of COUNT. It exits with 0 where both agree, 1 where they do not, 2 where the words or the
//! file are wrong, 3 where some covered instruction was never met (COUNT is too small: 100000 is enough).

#[path = "../tests/oracle/mod.rs"]
mod oracle;

use oracle::{Tally, compare_generated, compare_text, executable_parts};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(count) = arguments.next().and_then(|word| word.to_str()?.parse::<u64>().ok()) else {
        eprintln!("usage: differential COUNT [FILE]: COUNT is a number of positions, FILE a 64-bit ELF file");
        return ExitCode::from(2);
    };
    let path = match arguments.next() {
        Some(path) => path.into(),
        None => match std::env::current_exe() {
            Ok(path) => path,
            Err(error) => {
                eprintln!("this program does not find its own file ({error}): name a 64-bit ELF file");
                return ExitCode::from(2);
            }
        },
    };
    let file = match std::fs::read(&path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("{} cannot be read: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let Some(parts) = executable_parts(&file) else {
        eprintln!("{} is not a 64-bit little-endian ELF file", path.display());
        return ExitCode::from(2);
    };
    let mut tally = Tally::default();
    for part in parts {
        let left = (count / 2).saturating_sub(tally.positions);
        compare_text(&mut tally, part, left);
    }
    let from_file = tally.positions;
    compare_generated(&mut tally, 0x494e_4746_454e_4345, count.saturating_sub(from_file));
    report(&tally, from_file)
}

/// Prints what was compared, and says with what code to end.
fn report(tally: &Tally, from_file: u64) -> ExitCode {
    let agreed: u64 = tally.agreed.values().sum();
    let lengths: u64 = tally.lengths.values().sum();
    println!(
        "{} positions ({from_file} from the file): {agreed} covered instructions and {lengths} lengths agree, {} do not",
        tally.positions, tally.disagreed
    );
    for (name, count) in tally.agreed.iter().chain(&tally.lengths) {
        println!("  {name}: {count}");
    }
    for disagreement in &tally.disagreements {
        println!("{disagreement}");
    }
    let missed = tally.missed();
    if !missed.is_empty() {
        println!("never met, so that this run says nothing about them: {}", missed.join(", "));
    }
    match (tally.disagreed, missed.is_empty()) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(3),
        _ => ExitCode::from(1),
    }
}
