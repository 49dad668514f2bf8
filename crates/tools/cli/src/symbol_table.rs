//! Fills the symbol table of a linked image, so that the hypervisor can name the place of a fault of its own.
//!
//! The image keeps [`symbols::CAPACITY`] bytes of constants for it. They are filled after linking, in the file: no address changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::Failure;

/// The name of the place that the image keeps.
const PLACE: &str = "SYMBOL_TABLE";
/// The longest name first tried; names are shortened until all fit.
const LONGEST: usize = 64;

/// Fills the table of the image at `path`.
pub fn install(path: &Path) -> Result<(), Failure> {
    let broken = |why: &str| {
        let message = format!("the symbol table of {} cannot be filled: {why}", path.display());
        Failure::environment(
            message,
            "build again; if it stays so, the linker has made something else than an image",
        )
    };
    let mut bytes = fs::read(path)?;
    let (offset, table) = {
        let file = object::File::parse(&*bytes).map_err(|error| broken(&error.to_string()))?;
        let place = file
            .symbols()
            .find(|symbol| symbol.name().is_ok_and(|name| short(name, usize::MAX).ends_with(PLACE)))
            .ok_or_else(|| broken("it keeps no place for one"))?
            .address();
        let offset = file
            .segments()
            .find_map(|segment| {
                let (start, size) = segment.file_range();
                let inside = place.checked_sub(segment.address())?;
                (inside.checked_add(symbols::CAPACITY as u64)? <= size).then_some(start + inside)
            })
            .ok_or_else(|| broken("its place is not in the file"))?;
        (offset as usize, table(&file).ok_or_else(|| broken("there are too many symbols"))?)
    };
    bytes
        .get_mut(offset..offset + table.len())
        .ok_or_else(|| broken("its place is cut off"))?
        .copy_from_slice(&table);
    fs::write(path, bytes)?;
    Ok(())
}

/// The table of a file's functions, with names as long as fit.
fn table(file: &object::File<'_>) -> Option<Vec<u8>> {
    let mut functions: Vec<(u64, &str)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0)
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .collect();
    functions.sort_unstable();
    functions.dedup_by_key(|(address, _)| *address);
    (8..=LONGEST).rev().step_by(4).find_map(|limit| {
        let mut names: Vec<(u64, String)> =
            functions.iter().map(|(address, name)| (*address, short(name, limit))).collect();
        // What is called alike and lies together is one: closures beside each other, and what the compiler took out of functions.
        names.dedup_by(|next, name| next.1 == name.1);
        encode(&names).filter(|table| table.len() <= symbols::CAPACITY)
    })
}

/// The bytes of a table of these symbols, by rising address; `None` if they are too many.
fn encode(symbols: &[(u64, String)]) -> Option<Vec<u8>> {
    let mut ends: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut last, mut before) = (0, Vec::new());
    for (address, name) in symbols {
        let path = name.split("::").map(str::as_bytes).collect::<Vec<_>>();
        // The last component is told anyhow.
        let known = path.iter().zip(&before).take_while(|(new, old)| new == old).count();
        let shared = known.min(path.len() - 1).min(before.len().saturating_sub(1)).min(symbols::SHARED);
        let end = path[shared..].join(&b':');
        let ascii = end.into_iter().map(|byte| if byte.is_ascii_graphic() { byte } else { b'?' });
        let ascii = ascii.chain([0]).collect();
        ends.push((address.checked_sub(last)?.checked_mul(8)? | shared as u64, ascii));
        (last, before) = (*address, path);
    }
    let letters: Vec<u8> =
        ends.iter().flat_map(|(_, end)| end).copied().collect::<BTreeSet<u8>>().into_iter().collect();
    for byte in ends.iter_mut().flat_map(|(_, end)| end) {
        *byte = letters.binary_search(byte).ok()? as u8;
    }
    let mut pairs: Vec<[u8; 2]> = Vec::new();
    // How many pairs stand in each other in what a code stands for.
    let mut depths = vec![0; letters.len()];
    while let Ok(code) = u8::try_from(depths.len()) {
        let mut counts: BTreeMap<[u8; 2], usize> = BTreeMap::new();
        for pair in ends.iter().flat_map(|(_, end)| end.windows(2)) {
            *counts.entry([pair[0], pair[1]]).or_default() += 1;
        }
        let depth =
            |pair: &[u8; 2]| pair.iter().map(|code| depths[usize::from(*code)]).max().unwrap_or(0) + 1;
        counts.retain(|pair, _| depth(pair) < symbols::DEPTH);
        // The first of those that are as frequent, so that two builds make the same table.
        let Some((pair, count)) = counts.into_iter().rev().max_by_key(|(_, count)| *count) else { break };
        // Fewer would not pay for the pair's own two bytes.
        if count < 3 {
            break;
        }
        depths.push(depth(&pair));
        pairs.push(pair);
        for (_, end) in &mut ends {
            replace(end, pair, code);
        }
    }
    let mut table = symbols::MAGIC.to_vec();
    table.extend_from_slice(&u16::try_from(symbols.len()).ok()?.to_le_bytes());
    table.extend([u8::try_from(letters.len()).ok()?, u8::try_from(pairs.len()).ok()?]);
    table.extend(letters);
    table.extend(pairs.concat());
    for (mut number, end) in ends {
        while number >= 0x80 {
            table.push(number as u8 | 0x80);
            number >>= 7;
        }
        table.push(number as u8);
        table.extend(end);
    }
    Some(table)
}

/// Puts `code` where `pair` stands.
fn replace(name: &mut Vec<u8>, pair: [u8; 2], code: u8) {
    let mut kept = 0;
    let mut next = 0;
    while next < name.len() {
        let is_pair = name.get(next..next + 2) == Some(&pair);
        name[kept] = if is_pair { code } else { name[next] };
        kept += 1;
        next += if is_pair { 2 } else { 1 };
    }
    name.truncate(kept);
}

/// What the machine outliner has made of instructions that several functions have in common. The callers say who was there.
const OUTLINED: &str = "OUTLINED_FUNCTION";

/// A symbol's name without its generic arguments and its hash, a closure's that of its function; of a path that is longer than `limit`,
/// the end.
fn short(name: &str, limit: usize) -> String {
    if name.starts_with(OUTLINED) {
        return OUTLINED.to_owned();
    }
    let full = format!("{:#}", rustc_demangle::demangle(name));
    let mut plain = String::new();
    let mut depth = 0u32;
    let mut characters = full.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // The arrow of a function type is no bracket.
            '-' if characters.peek() == Some(&'>') => {
                characters.next();
            }
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    // What was `<Type as Trait>::method` has lost its beginning: the type's name is what helps.
    if let Some(method) = plain.strip_prefix("::") {
        let implementer = full.trim_start_matches(['<', '(', '&']);
        let end = implementer.find(['<', '>', ' ']).unwrap_or(implementer.len());
        plain = format!("{}::{method}", &implementer[..end]);
    }
    // What stood before the arguments of a function keeps no trace of them.
    let plain = plain.replace("::::", "::");
    let path = plain.split("::").filter(|component| !component.starts_with('{') && !component.is_empty());
    let mut path = path.collect::<Vec<_>>();
    // Crate, type and method say it; modules between them, or all but the last where there is no type, do not help.
    let last = path.len().saturating_sub(2);
    let of_type =
        path.iter().position(|component| component.starts_with(|letter: char| letter.is_ascii_uppercase()));
    let kept = of_type.unwrap_or(last).min(last);
    if kept > 1 {
        path.drain(1..kept);
    }
    let plain = path.join("::");
    match plain.char_indices().rev().nth(limit.saturating_sub(1)) {
        Some((start, _)) if limit > 0 => plain[start..].trim_start_matches(':').to_owned(),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_does_not_help() {
        assert_eq!(short("_ZN7monitor5serve4turn17h0123456789abcdefE", 64), "monitor::serve::turn");
        assert_eq!(short("monitor::serve::Serving::turn::{closure#0}", 64), "monitor::Serving::turn");
        assert_eq!(short("cpu::interrupt::stubs::kick", 64), "cpu::stubs::kick");
        assert_eq!(short("OUTLINED_FUNCTION_12", 64), "OUTLINED_FUNCTION");
        assert_eq!(short("console::Console::partial::<boot::Machine>", 64), "console::Console::partial");
        assert_eq!(short("ringfence_entry", 64), "ringfence_entry");
        assert_eq!(short("ringfence_entry", 5), "entry");
    }

    #[test]
    fn what_is_encoded_is_found() {
        let named = |(address, name): &(u64, &str)| (*address, (*name).to_owned());
        let some =
            [(0x10_0000, "entry"), (0x10_0040, "boot::start"), (0x10_2000, ""), (0x10_3000, "cpu::halt")];
        let many: Vec<(u64, String)> = (0..500)
            .map(|number| (0x10_0000 + number * 300, format!("monitor::serve::turn_{number}")))
            .collect();
        for symbols in [some.iter().map(named).collect(), many] {
            let table = encode(&symbols).unwrap();
            let read = symbols::Symbols::parse(&table).unwrap();
            assert!(read.find(0xf_ffff).is_none());
            for (address, name) in &symbols {
                for offset in [0, 0x3f] {
                    let (found, behind) = read.find(address + offset).unwrap();
                    assert_eq!((found.to_string(), behind), (name.clone(), offset));
                }
            }
        }
        assert!(encode(&[(2, "b".to_owned()), (1, "a".to_owned())]).is_none(), "unsorted");
    }

    #[test]
    fn what_names_have_in_common_takes_little() {
        let names: Vec<(u64, String)> =
            (0..256).map(|number| (number, format!("monitor::serve::Serving::turn_{number:03}"))).collect();
        let plain: usize = names.iter().map(|(_, name)| name.len()).sum();
        assert!(encode(&names).unwrap().len() < plain / 3);
    }

    #[test]
    fn an_implementation_keeps_its_type() {
        let name = "_RNvXs_NtCs1234_4uart6deviceNtB4_4UartNtB4_6Device10write_port";
        assert!(short(name, 64).ends_with("write_port"));
    }
}
