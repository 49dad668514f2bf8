//! The committed corpus: a text file for each boundary, in each line an input in hexadecimal digits, sorted by length. Text, so that a
//! change of it can be read and merged.

use std::fmt::Write;

/// The inputs that a file holds. `None`: a line has something else than digits in pairs.
pub fn read(text: &str) -> Option<Vec<Vec<u8>>> {
    text.lines().map(line).collect()
}

fn line(line: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = line.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// A file that holds these inputs, each once.
pub fn write(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    inputs.dedup();
    let mut text = String::new();
    for input in inputs {
        for byte in input {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}
