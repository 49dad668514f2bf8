//! Whether an image is made of its profile's parts and of no other: an image of one vendor has nothing of the other's.
//!
//! A part is a crate of its own. It leaves its crate's name behind in three places: at the head of the paths of its functions (symbols) and of
//! its types (names in the debug information; a part that is one constant is the argument of a generic type there), and in the name of its unit of
//! debug information. A part that a profile names has to be seen, so that the search is not blind; a part that it does not name must not be.

use std::collections::BTreeSet;

use object::{Object, ObjectSection, ObjectSymbol};

use crate::Failure;

/// Judges `image`, an ELF with its symbols and debug information: `has` says of each of `parts` whether its profile names it. Gives the number of
/// parts that are absent.
///
/// # Errors
/// The image has something of a part that it should not have, or nothing of one that it should have, or is no ELF.
pub fn check<'a>(
    image: &[u8],
    parts: impl Iterator<Item = &'a str>,
    has: impl Fn(&str) -> bool,
) -> Result<usize, Failure> {
    let seen = crates(image)?;
    let (mut absent, mut wrong) = (0, Vec::new());
    for part in parts {
        match (has(part), seen.contains(&part.replace('-', "_"))) {
            (false, false) => absent += 1,
            (false, true) => {
                wrong.push(format!("it has something of part {part}, which its profile leaves out"));
            }
            (true, false) => wrong.push(format!("nothing in it names part {part}, which its profile has")),
            (true, true) => {}
        }
    }
    if wrong.is_empty() {
        return Ok(absent);
    }
    Err(Failure::does_not_hold(
        wrong.join("; "),
        "`nm --demangle` and `strings` on ringfence.debug show where; a part is named in parts.rs alone",
    ))
}

/// The crates that an image names.
fn crates(image: &[u8]) -> Result<BTreeSet<String>, Failure> {
    let unreadable =
        |why: &str| Failure::environment(format!("the image cannot be read: {why}"), "build it again");
    let file = object::File::parse(image).map_err(|error| unreadable(&error.to_string()))?;
    let mut crates = BTreeSet::new();
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        note(&format!("{:#}", rustc_demangle::demangle(name)), &mut crates);
    }
    let names = file.section_by_name(".debug_str").and_then(|section| section.data().ok());
    let names = names.ok_or_else(|| unreadable("it has no debug information"))?;
    for name in names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        note(name, &mut crates);
    }
    Ok(crates)
}

/// Notes the crates that a name has paths of, as `cpu::vmx::Capabilities` has one of `cpu` and none of `vmx`, and the one whose unit it is
/// the name of: `…/lib.rs/@/vmx.0123456789abcdef-cgu.0`.
fn note(name: &str, crates: &mut BTreeSet<String>) {
    let inside = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if let Some((_, unit)) = name.split_once("/@/") {
        crates.extend(unit.split('.').next().map(str::to_owned));
    }
    for (at, _) in name.match_indices("::") {
        let before = &name[..at];
        let path = before.trim_end_matches(inside);
        if path.len() < before.len() && !path.ends_with(':') {
            crates.insert(before[path.len()..].to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::{Object as Writer, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

    /// An image with one function and these names in its debug information.
    fn image(function: &str, names: &[&str]) -> Vec<u8> {
        let mut writer = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let strings = writer.add_section(Vec::new(), b".debug_str".to_vec(), SectionKind::Debug);
        writer.append_section_data(strings, format!("{}\0", names.join("\0")).as_bytes(), 1);
        writer.add_symbol(Symbol {
            name: function.as_bytes().to_vec(),
            value: 0,
            size: 1,
            kind: SymbolKind::Text,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Absolute,
            flags: SymbolFlags::None,
        });
        writer.write().unwrap()
    }

    fn judged(image: &[u8], has: &[&str]) -> Result<usize, String> {
        let parts = ["nrip-save", "svm", "vmx", "vpid"].into_iter();
        check(image, parts, |part| has.contains(&part)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_part_is_seen_wherever_its_crate_is_named() {
        // A function, mangled; an argument of a generic type; a unit.
        for (function, name) in [
            ("_RNvCs0_3vmx5enter", "u8"),
            ("start", "Option<vmx::vcpu::VmxVcpu>"),
            ("start", "&mut vmx::Vmx<u8>"),
            ("start", "crates/metal/vmx/src/lib.rs/@/vmx.ddc5159fd2b23d05-cgu.0"),
        ] {
            let image = image(function, &["core::fmt", name]);
            assert_eq!(judged(&image, &["vmx"]), Ok(3), "{function} {name}");
            let error = judged(&image, &[]).unwrap_err();
            assert!(error.contains("it has something of part vmx"), "{error}");
        }
    }

    #[test]
    fn a_module_of_a_part_s_name_is_not_the_part() {
        let image = image(
            "_RNvNtCs0_3cpu3vmx2on",
            &["cpu::vmx::Capabilities", "vmx", "xvmx::on", "Result<nrip_save::NripSave>"],
        );
        assert_eq!(judged(&image, &["nrip-save"]), Ok(3));
    }

    #[test]
    fn a_part_of_which_nothing_is_seen_is_an_error_too() {
        let error = judged(&image("start", &["svm::Svm<u8>"]), &["svm", "vpid"]).unwrap_err();
        assert!(error.contains("nothing in it names part vpid"), "{error}");
    }
}
