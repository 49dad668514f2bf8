//! `panics`: prints one line per image, and fails if one can panic.

use std::fs;
use std::process::ExitCode;

const HELP: &str = "\
Looks for panics in linked images.

Usage: panics IMAGE...

IMAGE is a linked image with its symbols: ringfence.debug. Prints `ok` or `FAIL` for each, with each place that panics and the
chain of calls that leads there, then the numbers. Ends with 0 if no image can panic, 1 if one can, 2 if one cannot be read.

Example: panics target/ringfence/lab-amd-npt/ringfence.debug
";

fn main() -> ExitCode {
    let images: Vec<_> = std::env::args_os().skip(1).collect();
    if images.is_empty() || images.iter().any(|word| word.to_string_lossy().starts_with('-')) {
        print!("{HELP}");
        return ExitCode::from(if images.is_empty() { 2 } else { 0 });
    }
    let (mut passed, mut failed) = (0, 0);
    for image in &images {
        let name = image.display();
        let findings = fs::read(image)
            .map_err(|error| error.to_string())
            .and_then(|bytes| panics::examine(&bytes).map_err(|error| error.to_string()));
        match findings {
            Ok(findings) if findings.panics.is_empty() => {
                passed += 1;
                println!(
                    "ok    {name}: {} instructions of {} functions, none panics",
                    findings.instructions, findings.functions
                );
            }
            Ok(findings) => {
                failed += 1;
                println!("FAIL  {name}: {} places panic", findings.panics.len());
                for panic in &findings.panics {
                    println!("  {panic}");
                }
                println!(
                    "  remedy: a checked access, a mask, or a type that says what holds; see docs/fuzzing.md"
                );
            }
            Err(error) => {
                eprintln!("panics: {name}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
