//! This decoder against iced-x86: the short run. `examples/differential.rs` makes the long one.

mod oracle;

use oracle::{Tally, compare_generated, compare_text, executable_parts};

/// Fails with what was found, unless both decoders agreed on enough.
fn judge(tally: &Tally, positions: u64) {
    assert_eq!(tally.disagreed, 0, "{:#?}", tally.disagreements);
    assert_eq!(tally.positions, positions);
}

#[test]
fn generated_instructions_are_understood_alike() {
    let mut tally = Tally::default();
    compare_generated(&mut tally, 0x494e_4746_454e_4345, 200_000);
    judge(&tally, 200_000);
    assert_eq!(tally.missed(), Vec::<String>::new(), "the run says nothing about these");
}

#[test]
fn compiled_code_is_understood_alike() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let parts = executable_parts(&file).unwrap();
    let text = parts.iter().max_by_key(|part| part.len()).unwrap();
    let mut tally = Tally::default();
    compare_text(&mut tally, text, 100_000);
    judge(&tally, 100_000);
    assert!(tally.agreed["Mov"] > 5_000, "{:?}", tally.agreed);
}
