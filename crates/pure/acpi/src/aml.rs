//! The one thing that is read of AML: the sleep types of S5.
//!
//! No interpreter: a bounded scan for a definition that firmware writes as a constant. Encodings are those of §20.2.

use crate::bytes::{byte, double_word, quad_word, word};

const NAME: u8 = 0x08;
const ROOT: u8 = b'\\';
const PACKAGE: u8 = 0x12;
const ZERO: u8 = 0x00;
const ONE: u8 = 0x01;
const ONES: u8 = 0xff;
const BYTE: u8 = 0x0a;
const WORD: u8 = 0x0b;
const DOUBLE_WORD: u8 = 0x0c;
const QUAD_WORD: u8 = 0x0e;
/// `SLP_TYP` has three bits (§4.8.3.2.1).
const SLEEP_TYPE_MOST: u8 = 7;

/// The values of `SLP_TYP` that turn the machine off, for PM1a and PM1b control: the first two elements of the package `\_S5_`
/// (§7.4.2). `aml` is a DSDT or SSDT, with or without its header. `None` where no definition is found whose values are
/// constants from 0 to 7.
#[inline(never)]
pub fn s5_sleep_types(aml: &[u8]) -> Option<(u8, u8)> {
    aml.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == NAME)
        .find_map(|(offset, _)| definition(aml.get(offset.checked_add(1)?..)?))
}

/// Reads what follows a `NameOp`: the name, then `PackageOp PkgLength NumElements` and the elements.
fn definition(bytes: &[u8]) -> Option<(u8, u8)> {
    let name = bytes.strip_prefix(&[ROOT]).unwrap_or(bytes);
    let package = name.strip_prefix(b"_S5_")?.strip_prefix(&[PACKAGE])?;
    let (length_bytes, length) = package_length(package)?;
    // The length counts its own bytes (§20.2.4).
    let elements = package.get(length_bytes..length)?;
    let (count, elements) = elements.split_first()?;
    let (first, rest) = constant(elements)?;
    let (a, b) = match count {
        0 => return None,
        // Both values in one number, as the oldest firmware wrote it.
        1 => (first as u8, (first >> 8) as u8),
        _ => (u8::try_from(first).ok()?, u8::try_from(constant(rest)?.0).ok()?),
    };
    (a <= SLEEP_TYPE_MOST && b <= SLEEP_TYPE_MOST).then_some((a, b))
}

/// Decodes a `PkgLength`: how many bytes it has itself, and what it says (§20.2.4).
fn package_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let lead = byte(bytes, 0)?;
    let follow = (lead >> 6) as usize;
    if follow == 0 {
        return Some((1, (lead & 0x3f) as usize));
    }
    let mut length = (lead & 0x0f) as usize;
    for index in 0..follow {
        length |= (byte(bytes, index + 1)? as usize) << (4 + 8 * index);
    }
    Some((follow + 1, length))
}

/// Reads a constant number (§20.2.3); answers what follows it too.
fn constant(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, length) = match byte(bytes, 0)? {
        ZERO => (0, 1),
        ONE => (1, 1),
        ONES => (u64::MAX, 1),
        BYTE => (byte(bytes, 1)? as u64, 2),
        WORD => (word(bytes, 1)? as u64, 3),
        DOUBLE_WORD => (double_word(bytes, 1)? as u64, 5),
        QUAD_WORD => (quad_word(bytes, 1)?, 9),
        _ => return None,
    };
    Some((value, bytes.get(length..)?))
}
