//! Small programs by hand: which panic, and who calls whom.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};
use panics::{Findings, examine};

const RET: &[u8] = &[0xc3];
const UD2: &[u8] = &[0x0f, 0x0b];
const INT3: &[u8] = &[0xcc];
const VMRUN: &[u8] = &[0x0f, 0x01, 0xd8];

/// A program of these functions, 16 bytes each.
fn program(functions: &[(&str, &[&[u8]])]) -> Object<'static> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.section_id(StandardSection::Text);
    for (name, code) in functions {
        let mut bytes = code.concat();
        assert!(bytes.len() <= 16);
        bytes.resize(16, 0x90);
        let value = object.append_section_data(text, &bytes, 16);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: 16,
            kind: SymbolKind::Text,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    object
}

fn look(functions: &[(&str, &[&[u8]])]) -> Findings {
    examine(&program(functions).write().unwrap()).unwrap()
}

/// CALL or JMP, as the first instruction of function `from`, to function `to`.
fn branch(opcode: u8, from: i32, to: i32) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(((to - from) * 16 - 5).to_le_bytes());
    bytes
}

fn call(from: i32, to: i32) -> Vec<u8> {
    branch(0xe8, from, to)
}

/// The only panic's chain.
fn chain(findings: &Findings) -> (Vec<&str>, bool) {
    let [panic] = findings.panics.as_slice() else { panic!("{findings:?}") };
    (panic.callers.iter().map(|caller| caller.function.as_str()).collect(), panic.from_run_loop)
}

#[test]
fn a_program_without_ud2_does_not_panic() {
    let findings = look(&[("entry", &[&call(0, 1), RET]), ("helper", &[RET])]);
    assert_eq!((findings.functions, findings.panics.len()), (2, 0));
}

#[test]
fn the_chain_begins_where_guests_are_entered() {
    // `boot` is nearer, but what is asked is whether a guest gets there.
    let findings = look(&[
        ("turn", &[&call(0, 1), VMRUN, RET]),
        ("dispatch", &[&call(1, 2), RET]),
        ("check", &[UD2]),
        ("boot", &[&call(3, 2), RET]),
    ]);
    assert_eq!(chain(&findings), (vec!["turn", "dispatch", "check"], true));
    let text = findings.panics[0].to_string();
    assert!(text.starts_with("0x20 panics, reached from the run loop:\n    turn"), "{text}");
}

#[test]
fn what_only_boot_reaches_says_so() {
    let findings = look(&[("boot", &[&call(0, 2), RET]), ("turn", &[VMRUN, RET]), ("check", &[UD2])]);
    assert_eq!(chain(&findings), (vec!["boot", "check"], false));
}

#[test]
fn a_jump_to_another_function_is_a_call() {
    let findings = look(&[("turn", &[VMRUN, RET]), ("tail", &[&branch(0xe9, 1, 2)]), ("check", &[UD2])]);
    assert_eq!(chain(&findings), (vec!["tail", "check"], false));
}

#[test]
fn a_function_whose_address_is_taken_is_called() {
    // MOV EDI, 20h: the address of the third.
    let findings =
        look(&[("turn", &[VMRUN, &[0xbf, 0x20, 0, 0, 0], RET]), ("other", &[RET]), ("check", &[UD2])]);
    assert_eq!(chain(&findings), (vec!["turn", "check"], true));
}

#[test]
fn who_calls_the_core_library_is_named_each_time() {
    let findings = look(&[
        ("dispatch", &[&call(0, 3), RET]),
        ("boot", &[&call(1, 2), RET]),
        ("core::panicking::panic_bounds_check", &[&call(2, 3)]),
        ("core::panicking::panic_fmt", &[UD2, UD2]),
    ]);
    let named: Vec<_> =
        findings.panics.iter().map(|panic| (panic.at, panic.callers[0].function.as_str())).collect();
    assert_eq!(named, [(0, "dispatch"), (0x10, "boot")]);
}

#[test]
fn a_circle_of_calls_comes_to_an_end() {
    let findings = look(&[("ping", &[&call(0, 1), UD2]), ("pong", &[&call(1, 0), RET])]);
    let (names, from_run_loop) = chain(&findings);
    assert_eq!((names.last(), from_run_loop), (Some(&"ping"), false));
}

#[test]
fn the_end_of_assembly_is_no_panic() {
    assert_eq!(look(&[("start", &[&call(0, 1), INT3, UD2]), ("work", &[RET])]).panics.len(), 0);
    assert_eq!(look(&[("start", &[INT3, RET, UD2])]).panics.len(), 1);
}

#[test]
fn bytes_of_a_value_are_no_instruction() {
    // MOV EAX, 0B0F0B0Fh.
    assert_eq!(look(&[("constant", &[&[0xb8, 0x0f, 0x0b, 0x0f, 0x0b], RET])]).panics.len(), 0);
}

#[test]
fn an_image_without_names_is_refused() {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, UD2, 16);
    assert!(examine(&object.write().unwrap()).unwrap_err().to_string().contains("no names"));
    assert!(examine(b"no image").is_err());
}
