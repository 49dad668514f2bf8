//! Fills the symbol table of a linked image, so that the hypervisor can name the place of a fault of its own.
//!
//! The image keeps [`symbols::CAPACITY`] bytes of constants for it. They are filled after linking, in the file: no address changes.

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
    let mut functions: Vec<(u32, &str)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0)
        .filter_map(|symbol| Some((u32::try_from(symbol.address()).ok()?, symbol.name().ok()?)))
        .collect();
    functions.sort_unstable();
    functions.dedup_by_key(|(address, _)| *address);
    (8..=LONGEST).rev().step_by(4).find_map(|limit| {
        let names: Vec<(u32, String)> =
            functions.iter().map(|(address, name)| (*address, short(name, limit))).collect();
        let names: Vec<(u32, &str)> = names.iter().map(|(address, name)| (*address, name.as_str())).collect();
        let mut table = vec![0; symbols::length(&names).filter(|length| *length <= symbols::CAPACITY)?];
        symbols::write(&names, &mut table).then_some(table)
    })
}

/// A symbol's name without its generic arguments and its hash; of a path that is longer than `limit`, the end.
fn short(name: &str, limit: usize) -> String {
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
        let implementer = full.trim_start_matches('<');
        let end = implementer.find(['<', '>', ' ']).unwrap_or(implementer.len());
        plain = format!("{}::{method}", &implementer[..end]);
    }
    // What stood before the arguments of a function keeps no trace of them.
    let plain = plain.replace("::::", "::").trim_end_matches(':').to_owned();
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
        assert_eq!(short("console::Console::partial::<boot::Machine>", 64), "console::Console::partial");
        assert_eq!(short("ringfence_entry", 64), "ringfence_entry");
        assert_eq!(short("ringfence_entry", 5), "entry");
    }

    #[test]
    fn an_implementation_keeps_its_type() {
        let name = "_RNvXs_NtCs1234_4uart6deviceNtB4_4UartNtB4_6Device10write_port";
        assert!(short(name, 64).ends_with("write_port"));
    }
}
