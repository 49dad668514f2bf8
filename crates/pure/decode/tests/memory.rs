//! What [`decode::memory`] says of instructions that real software uses, and of those that it must refuse.
#![allow(clippy::panic, clippy::unwrap_used)] // A test: what surprises it stops it.

use decode::arithmetic::{Binary, BitFunction};
use decode::{
    DecodeError, EffectiveAddress, Extension, MemoryInstruction, Operation, Register, Repeat, Scale, Source,
    StringFunction, advance, memory,
};
use x86::CodeSize::{Bits16, Bits32, Bits64};
use x86::{CodeSize, General, SegmentName, Width};

fn decoded(bytes: &[u8], code: CodeSize) -> MemoryInstruction {
    let instruction = memory(bytes, code).unwrap();
    assert_eq!(instruction.length as usize, bytes.len(), "{bytes:02x?}");
    // With 15 bytes at hand another way leads to the same.
    let mut window = [0xcc; 15];
    window[..bytes.len()].copy_from_slice(bytes);
    assert_eq!(memory(&window, code), Ok(instruction), "{bytes:02x?}");
    instruction
}

const fn register(general: General, width: Width) -> Register {
    Register { general, width, high: false }
}

const fn at(base: General, displacement: u64, size: Width) -> EffectiveAddress {
    EffectiveAddress {
        displacement,
        base: Some(base),
        index: None,
        scale: Scale::One,
        segment: SegmentName::Ds,
        size,
        instruction_relative: false,
    }
}

#[test]
fn linux_writes_its_local_apic() {
    // mov dword [0xffffffffff5fd0b0], 0
    let instruction = decoded(&[0xc7, 0x04, 0x25, 0xb0, 0xd0, 0x5f, 0xff, 0, 0, 0, 0], Bits64);
    assert_eq!(instruction.width, Width::Double);
    assert_eq!(instruction.operation, Operation::Store { value: Source::Immediate(0) });
    assert_eq!(instruction.address.base, None);
    assert!(!instruction.address.instruction_relative);
    assert_eq!(instruction.address.offset(|_| 1, 1), 0xffff_ffff_ff5f_d0b0);
    // mov [rdi - 0xa03000], esi
    let instruction = decoded(&[0x89, 0xb7, 0x00, 0xd0, 0x5f, 0xff], Bits64);
    let value = Source::Register(register(General::Rsi, Width::Double));
    assert_eq!(instruction.operation, Operation::Store { value });
    assert_eq!(instruction.address, at(General::Rdi, 0xffff_ffff_ff5f_d000, Width::Quad));
    // xchg [rdi], esi, which old local APICs needed, and a locked read-modify-write
    assert!(decoded(&[0x87, 0x37], Bits64).locked);
    assert!(!decoded(&[0x09, 0x37], Bits64).locked);
    assert!(decoded(&[0xf0, 0x09, 0x37], Bits64).locked);
}

#[test]
fn addresses_have_all_their_parts() {
    // mov r12, gs:[r13 + r9*8 + 0x10]
    let instruction = decoded(&[0x65, 0x4f, 0x8b, 0x64, 0xcd, 0x10], Bits64);
    let to = register(General::R12, Width::Quad);
    assert_eq!(instruction.operation, Operation::Load { register: to, extension: Extension::Zero });
    assert_eq!(
        instruction.address,
        EffectiveAddress {
            index: Some(General::R9),
            scale: Scale::Eight,
            segment: SegmentName::Gs,
            ..at(General::R13, 0x10, Width::Quad)
        }
    );
    // mov eax, [rip + 0x100]; in 32-bit code the same bytes are an absolute address
    let bytes = [0x8b, 0x05, 0x00, 0x01, 0x00, 0x00];
    assert!(decoded(&bytes, Bits64).address.instruction_relative);
    assert!(!decoded(&bytes, Bits32).address.instruction_relative);
    // mov ax, [bp + si - 2]
    let instruction = decoded(&[0x8b, 0x42, 0xfe], Bits16);
    assert_eq!(
        instruction.address,
        EffectiveAddress {
            index: Some(General::Rsi),
            segment: SegmentName::Ss,
            ..at(General::Rbp, 2_u64.wrapping_neg(), Width::Word)
        }
    );
    // mov al, es:[0x1234]
    let instruction = decoded(&[0x26, 0xa0, 0x34, 0x12], Bits16);
    assert_eq!((instruction.address.segment, instruction.address.displacement), (SegmentName::Es, 0x1234));
    // 64-bit mode ignores ES to DS, also after FS: mov al, [rax]; mov al, fs:[rax]
    assert_eq!(decoded(&[0x2e, 0x8a, 0x00], Bits64).address.segment, SegmentName::Ds);
    assert_eq!(decoded(&[0x64, 0x2e, 0x8a, 0x00], Bits64).address.segment, SegmentName::Fs);
    assert_eq!(decoded(&[0x2e, 0x8a, 0x00], Bits32).address.segment, SegmentName::Cs);
}

#[test]
fn sizes_follow_mode_and_prefixes() {
    let sizes = |bytes: &[u8], code| {
        let instruction = decoded(bytes, code);
        (instruction.width, instruction.address.size)
    };
    assert_eq!(sizes(&[0x89, 0x07], Bits16), (Width::Word, Width::Word));
    assert_eq!(sizes(&[0x66, 0x67, 0x89, 0x07], Bits16), (Width::Double, Width::Double));
    assert_eq!(sizes(&[0x89, 0x07], Bits32), (Width::Double, Width::Double));
    assert_eq!(sizes(&[0x66, 0x67, 0x89, 0x07], Bits32), (Width::Word, Width::Word));
    assert_eq!(sizes(&[0x89, 0x07], Bits64), (Width::Double, Width::Quad));
    assert_eq!(sizes(&[0x67, 0x48, 0x89, 0x07], Bits64), (Width::Quad, Width::Double));
    // REX.W wins over 66; a REX before another prefix is lost.
    assert_eq!(sizes(&[0x66, 0x48, 0x89, 0x07], Bits64), (Width::Quad, Width::Quad));
    assert_eq!(sizes(&[0x48, 0x66, 0x89, 0x07], Bits64), (Width::Word, Width::Quad));
    assert_eq!(sizes(&[0xff, 0x37], Bits64), (Width::Quad, Width::Quad));
    assert_eq!(sizes(&[0xff, 0x37], Bits32), (Width::Double, Width::Double));
}

#[test]
fn byte_registers_depend_on_rex() {
    let source = |bytes: &[u8]| match decoded(bytes, Bits64).operation {
        Operation::Store { value: Source::Register(register) } => (register.general, register.high),
        other => panic!("{other:?}"),
    };
    assert_eq!(source(&[0x88, 0x38]), (General::Rbx, true));
    assert_eq!(source(&[0x40, 0x88, 0x38]), (General::Rdi, false));
    assert_eq!(source(&[0x44, 0x88, 0x38]), (General::R15, false));
    assert_eq!(source(&[0x88, 0x18]), (General::Rbx, false));
}

#[test]
fn strings_say_both_ends_and_how_often() {
    // rep movsd from fs:[esi]
    let instruction = decoded(&[0x64, 0xf3, 0xa5], Bits32);
    let source_segment = SegmentName::Fs;
    let function = StringFunction::Move;
    assert_eq!(
        instruction.operation,
        Operation::String { function, repeat: Repeat::Counted, source_segment }
    );
    assert_eq!(
        instruction.address,
        EffectiveAddress { segment: SegmentName::Es, ..at(General::Rdi, 0, Width::Double) }
    );
    assert_eq!(
        instruction.source(),
        Some(EffectiveAddress { segment: SegmentName::Fs, ..at(General::Rsi, 0, Width::Double) })
    );
    assert!(instruction.writes() && !instruction.reads());
    let repeat = |bytes: &[u8]| match decoded(bytes, Bits64).operation {
        Operation::String { repeat, .. } => repeat,
        other => panic!("{other:?}"),
    };
    assert_eq!(repeat(&[0xae]), Repeat::Once);
    assert_eq!(repeat(&[0xf3, 0xa6]), Repeat::WhileEqual);
    assert_eq!(repeat(&[0xf2, 0xae]), Repeat::WhileNotEqual);
    assert_eq!(repeat(&[0xf2, 0xaa]), Repeat::Counted);
    assert_eq!(decoded(&[0xac], Bits64).source(), Some(decoded(&[0xac], Bits64).address));
    assert_eq!(decoded(&[0xaa], Bits64).source(), None);
}

#[test]
fn index_registers_advance_within_the_address_size() {
    assert_eq!(advance(Width::Quad, 0x1000, Width::Double, false, 3), 0x100c);
    assert_eq!(advance(Width::Quad, 0, Width::Byte, true, 1), u64::MAX);
    assert_eq!(advance(Width::Double, 0xffff_fffe, Width::Word, false, 1), 0);
    assert_eq!(advance(Width::Word, 0x1234_0001, Width::Word, true, 1), 0x1234_ffff);
}

#[test]
fn arithmetic_knows_its_direction() {
    let operation = |bytes: &[u8]| decoded(bytes, Bits64).operation;
    let source = Source::Register(register(General::Rcx, Width::Double));
    assert_eq!(operation(&[0x21, 0x0f]), Operation::ToMemory { function: Binary::And, source });
    let destination = register(General::Rcx, Width::Double);
    assert_eq!(
        operation(&[0x23, 0x0f]),
        Operation::ToRegister { function: Binary::And, register: destination }
    );
    assert_eq!(
        operation(&[0x83, 0x27, 0xfe]),
        Operation::ToMemory { function: Binary::And, source: Source::Immediate(0xffff_fffe) }
    );
    assert_eq!(
        operation(&[0x0f, 0xba, 0x2f, 0x07]),
        Operation::Bit { function: BitFunction::Set, number: Source::Immediate(7) }
    );
}

#[test]
fn what_is_not_covered_is_unsupported() {
    for bytes in [
        &[0x0f, 0x6f, 0x07][..],         // movq mm0, [rdi]
        &[0xc5, 0xf8, 0x10, 0x07],       // vmovups xmm0, [rdi]
        &[0x48, 0x0f, 0xc7, 0x0f],       // cmpxchg16b [rdi]
        &[0xff, 0x17],                   // call [rdi]
        &[0xd9, 0x07],                   // fld dword [rdi]
        &[0xf7, 0x27],                   // mul dword [rdi]
        &[0x8c, 0x07],                   // mov [rdi], es
        &[0xf2, 0x0f, 0x38, 0xf1, 0x07], // crc32 eax, dword [rdi]
        &[0x8f, 0xe9, 0x78, 0x12, 0xc0], // an XOP instruction
        &[0x90],                         // nop
    ] {
        assert_eq!(memory(bytes, Bits64), Err(DecodeError::Unsupported), "{bytes:02x?}");
    }
}

#[test]
fn what_no_processor_executes_is_undefined() {
    for bytes in [
        &[0xf0, 0x89, 0x07][..],         // lock mov
        &[0xf0, 0xc7, 0x07, 0, 0, 0, 0], // lock mov
        &[0xf0, 0x3b, 0x07],             // lock cmp
        &[0xf0, 0x39, 0x07],             // lock cmp
        &[0xf0, 0x03, 0x07],             // lock add to a register
        &[0xf0, 0x01, 0xc7],             // lock add to a register
        &[0xf0, 0x0f, 0xa3, 0x07],       // lock bt
        &[0xf0, 0xa4],                   // lock movsb
        &[0x82, 0x07, 0x01],             // gone in 64-bit mode
        &[0xc7, 0x0f, 0, 0, 0, 0],       // C7 /1
        &[0xfe, 0x17],                   // FE /2
        &[0xff, 0x3f],                   // FF /7
        &[0x0f, 0xba, 0x07, 0x01],       // 0F BA /0
        &[0x66, 0x0f, 0xc3, 0x07],       // movnti with 66
        &[0x0f, 0xc3, 0xc7],             // movnti to a register
    ] {
        assert_eq!(memory(bytes, Bits64), Err(DecodeError::Undefined), "{bytes:02x?}");
    }
}

#[test]
fn register_forms_touch_no_memory() {
    for bytes in [&[0x89, 0xc7][..], &[0x83, 0xc7, 0x01], &[0x0f, 0xb6, 0xc7], &[0x87, 0xc7], &[0xff, 0xf7]] {
        assert_eq!(memory(bytes, Bits64), Err(DecodeError::Unexpected), "{bytes:02x?}");
    }
}

#[test]
fn length_is_judged_at_fifteen_bytes() {
    // Prefixes, then 89 84 24 and four bytes of displacement.
    let mut bytes = [0x2e; 24];
    bytes[8..15].copy_from_slice(&[0x89, 0x84, 0x24, 1, 2, 3, 4]);
    assert_eq!(memory(&bytes, Bits64).unwrap().length, 15);
    for shorter in 0..15 {
        assert_eq!(memory(&bytes[..shorter], Bits64), Err(DecodeError::NeedMoreBytes));
    }
    bytes[8..16].copy_from_slice(&[0x2e, 0x89, 0x84, 0x24, 1, 2, 3, 4]);
    assert_eq!(memory(&bytes, Bits64), Err(DecodeError::TooLong));
    assert_eq!(memory(&bytes[..15], Bits64), Err(DecodeError::TooLong));
    assert_eq!(memory(&[], Bits64), Err(DecodeError::NeedMoreBytes));
}
