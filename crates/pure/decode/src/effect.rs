//! What an instruction does with the value that its memory operand had.

use crate::arithmetic::{self, Binary};
use crate::memory::{Extension, MemoryInstruction, Operation, Register, Source};
use x86::{General, Rflags, Width};

/// What is left to do after an instruction saw its memory operand: everything that it changes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// What is written to the memory operand, if anything is; no bit above the width is set.
    pub store: Option<u64>,
    /// General registers with their new values, all 64 bits of each.
    pub registers: [Option<(General, u64)>; 2],
    /// RFLAGS.
    pub flags: Rflags,
}

/// `value`, `width` wide, with its bytes in the opposite order.
const fn reversed(width: Width, value: u64) -> u64 {
    // What is wanted sits in the upper bytes; 8, 16, 32 or 64 bits.
    value.swap_bytes() >> (64 - 8 * width.bytes() as u32)
}

/// The value of an operand beside the memory operand.
#[inline]
fn value_of(source: Source, general: impl Fn(General) -> u64) -> u64 {
    match source {
        Source::Register(register) => register.value(general(register.general)),
        Source::Immediate(value) => value,
    }
}

impl MemoryInstruction {
    /// What the instruction does, given its memory operand's value (ignored where [`Self::reads`] says no), the general
    /// registers and RFLAGS before it. `None` for PUSH, POP and the string instructions, which touch more memory than one
    /// operand.
    #[inline]
    pub fn effect(&self, memory: u64, general: impl Fn(General) -> u64, flags: Rflags) -> Option<Effect> {
        // Inlined where it is called: MOV. All else is a call away.
        match self.operation {
            Operation::Load { register, extension } => {
                let value = match extension {
                    Extension::Zero => memory & self.width.mask(),
                    Extension::Sign => arithmetic::sign_extended(self.width, memory),
                };
                let whole = register.merge(general(register.general), value);
                Some(Effect { store: None, registers: [Some((register.general, whole)), None], flags })
            }
            Operation::Store { value } => {
                let store = Some(value_of(value, &general) & self.width.mask());
                Some(Effect { store, registers: [None, None], flags })
            }
            _ => self.other_effect(memory, general, flags),
        }
    }

    /// [`Self::effect`] of all but MOV.
    #[inline(never)]
    fn other_effect(&self, memory: u64, general: impl Fn(General) -> u64, flags: Rflags) -> Option<Effect> {
        let width = self.width;
        let memory = memory & width.mask();
        let write = |register: Register, value: u64| {
            Some((register.general, register.merge(general(register.general), value)))
        };
        let mut effect = Effect { store: None, registers: [None, None], flags };
        match self.operation {
            Operation::LoadReversed { register } => {
                effect.registers[0] = write(register, reversed(width, memory));
            }
            Operation::StoreReversed { register } => {
                effect.store = Some(reversed(width, register.value(general(register.general))));
            }
            Operation::ToMemory { function, source } => {
                let (result, flags) =
                    arithmetic::binary(function, width, memory, value_of(source, &general), flags);
                effect.store = function.writes().then_some(result);
                effect.flags = flags;
            }
            Operation::ToRegister { function, register } => {
                let old = register.value(general(register.general));
                let (result, flags) = arithmetic::binary(function, width, old, memory, flags);
                if function.writes() {
                    effect.registers[0] = write(register, result);
                }
                effect.flags = flags;
            }
            Operation::Unary(function) => {
                let (result, flags) = arithmetic::unary(function, width, memory, flags);
                effect.store = Some(result);
                effect.flags = flags;
            }
            Operation::Exchange { register } => {
                effect.store = Some(register.value(general(register.general)));
                effect.registers[0] = write(register, memory);
            }
            Operation::ExchangeAdd { register } => {
                let added = register.value(general(register.general));
                let (result, flags) = arithmetic::binary(Binary::Add, width, memory, added, flags);
                effect.store = Some(result);
                effect.registers[0] = write(register, memory);
                effect.flags = flags;
            }
            Operation::CompareExchange { register } => {
                let accumulator = Register::accumulator(width);
                let expected = accumulator.value(general(General::Rax));
                effect.flags = arithmetic::binary(Binary::Compare, width, expected, memory, flags).1;
                if expected == memory {
                    effect.store = Some(register.value(general(register.general)));
                } else {
                    // The old value is written back (APM Vol. 3 "CMPXCHG").
                    effect.store = Some(memory);
                    effect.registers[0] = write(accumulator, memory);
                }
            }
            Operation::CompareExchangePair => {
                let pair = |high: General, low: General| (general(high) << 32) | (general(low) & 0xffff_ffff);
                let equal = pair(General::Rdx, General::Rax) == memory;
                // Only ZF changes.
                effect.flags.set(Rflags::ZERO, equal);
                if equal {
                    effect.store = Some(pair(General::Rcx, General::Rbx));
                } else {
                    effect.store = Some(memory);
                    effect.registers =
                        [Some((General::Rax, memory & 0xffff_ffff)), Some((General::Rdx, memory >> 32))];
                }
            }
            Operation::Bit { function, number } => {
                let (result, flags) =
                    arithmetic::bit(function, width, memory, value_of(number, &general), flags);
                effect.store = function.writes().then_some(result);
                effect.flags = flags;
            }
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::Push
            | Operation::Pop
            | Operation::String { .. } => return None,
        }
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use x86::CodeSize::{Bits32, Bits64};

    /// Registers whose values name them: RAX = 0xa0a0…a0, RCX = 0xa1a1…a1 and so on.
    fn general(register: General) -> u64 {
        (0xa0 + register as u64) * 0x0101_0101_0101_0101
    }

    fn effect(bytes: &[u8], memory_value: u64) -> Effect {
        let instruction = memory(bytes, Bits64).unwrap();
        assert_eq!(instruction.length as usize, bytes.len());
        instruction.effect(memory_value, general, Rflags::ALWAYS_ONE).unwrap()
    }

    fn register(effect: &Effect) -> (General, u64) {
        assert_eq!(effect.registers[1], None);
        effect.registers[0].unwrap()
    }

    #[test]
    fn loads_fill_registers() {
        let value = 0x1122_3344_8566_7788;
        assert_eq!(register(&effect(&[0x48, 0x8b, 0x18], value)), (General::Rbx, value));
        assert_eq!(register(&effect(&[0x8b, 0x18], value)), (General::Rbx, 0x8566_7788));
        assert_eq!(register(&effect(&[0x66, 0x8b, 0x18], value)), (General::Rbx, 0xa3a3_a3a3_a3a3_7788));
        assert_eq!(register(&effect(&[0x8a, 0x18], value)), (General::Rbx, 0xa3a3_a3a3_a3a3_a388));
        assert_eq!(register(&effect(&[0x8a, 0x38], value)), (General::Rbx, 0xa3a3_a3a3_a3a3_88a3)); // BH
        assert_eq!(register(&effect(&[0x40, 0x8a, 0x38], value)), (General::Rdi, 0xa7a7_a7a7_a7a7_a788));
        assert_eq!(register(&effect(&[0x0f, 0xb6, 0x18], value)), (General::Rbx, 0x88));
        assert_eq!(register(&effect(&[0x0f, 0xbe, 0x18], value)), (General::Rbx, 0xffff_ff88));
        assert_eq!(
            register(&effect(&[0x48, 0x0f, 0xbe, 0x18], value)),
            (General::Rbx, 0xffff_ffff_ffff_ff88)
        );
        assert_eq!(register(&effect(&[0x48, 0x63, 0x18], value)), (General::Rbx, 0xffff_ffff_8566_7788));
        assert_eq!(register(&effect(&[0x0f, 0x38, 0xf0, 0x18], value)), (General::Rbx, 0x8877_6685));
        assert_eq!(
            register(&effect(&[0x66, 0x0f, 0x38, 0xf0, 0x18], value)),
            (General::Rbx, 0xa3a3_a3a3_a3a3_8877)
        );
    }

    #[test]
    fn stores_take_their_width() {
        assert_eq!(effect(&[0x48, 0x89, 0x18], 0).store, Some(0xa3a3_a3a3_a3a3_a3a3));
        assert_eq!(effect(&[0x89, 0x18], 0).store, Some(0xa3a3_a3a3));
        assert_eq!(effect(&[0xc6, 0x00, 0x85], 0).store, Some(0x85));
        assert_eq!(effect(&[0xc7, 0x00, 0, 0, 0, 0x80], 0).store, Some(0x8000_0000));
        assert_eq!(effect(&[0x48, 0xc7, 0x00, 0, 0, 0, 0x80], 0).store, Some(0xffff_ffff_8000_0000));
        assert_eq!(effect(&[0x48, 0x0f, 0x38, 0xf1, 0x18], 0).store, Some(0xa3a3_a3a3_a3a3_a3a3));
    }

    #[test]
    fn arithmetic_reaches_memory_and_register() {
        let or = effect(&[0x83, 0x08, 0x80], 1); // OR dword [rax], −128
        assert_eq!((or.store, or.registers), (Some(0xffff_ff81), [None, None]));
        assert!(or.flags.contains(Rflags::SIGN | Rflags::ALWAYS_ONE));
        let compare = effect(&[0x3b, 0x18], 0xa3a3_a3a3); // CMP ebx, [rax]
        assert_eq!((compare.store, compare.registers), (None, [None, None]));
        assert!(compare.flags.contains(Rflags::ZERO));
        let test = effect(&[0xf6, 0x00, 0x10], 0x20); // TEST byte [rax], 0x10
        assert_eq!(test.store, None);
        assert!(test.flags.contains(Rflags::ZERO));
        // SUB bl, [rax]; then SUB byte [rax], bl: the operands change places.
        assert_eq!(register(&effect(&[0x2a, 0x18], 3)), (General::Rbx, 0xa3a3_a3a3_a3a3_a3a0));
        assert_eq!(effect(&[0x28, 0x18], 0xa4).store, Some(1));
    }

    #[test]
    fn exchanges_keep_both_values() {
        let exchange = effect(&[0x87, 0x18], 5);
        assert_eq!((exchange.store, register(&exchange)), (Some(0xa3a3_a3a3), (General::Rbx, 5)));
        let add = effect(&[0xf0, 0x0f, 0xc1, 0x18], 5);
        assert_eq!((add.store, register(&add)), (Some(0xa3a3_a3a8), (General::Rbx, 5)));
    }

    #[test]
    fn compare_and_exchange_writes_in_either_case() {
        let equal = effect(&[0xf0, 0x0f, 0xb1, 0x18], 0xa0a0_a0a0);
        assert_eq!((equal.store, equal.registers), (Some(0xa3a3_a3a3), [None, None]));
        assert!(equal.flags.contains(Rflags::ZERO));
        let different = effect(&[0xf0, 0x0f, 0xb1, 0x18], 7);
        assert_eq!((different.store, register(&different)), (Some(7), (General::Rax, 7)));
        assert!(!different.flags.contains(Rflags::ZERO));
        let equal = effect(&[0x0f, 0xc7, 0x08], 0xa2a2_a2a2_a0a0_a0a0);
        assert_eq!((equal.store, equal.registers), (Some(0xa1a1_a1a1_a3a3_a3a3), [None, None]));
        let different = effect(&[0x0f, 0xc7, 0x08], 0x1_0000_0002);
        assert_eq!(different.store, Some(0x1_0000_0002));
        assert_eq!(different.registers, [Some((General::Rax, 2)), Some((General::Rdx, 1))]);
    }

    #[test]
    fn bits_are_tested_and_changed() {
        let set = effect(&[0x0f, 0xba, 0x28, 0x24], 0); // BTS dword [rax], 36
        assert_eq!(set.store, Some(0x10));
        assert!(!set.flags.contains(Rflags::CARRY));
        let test = effect(&[0x0f, 0xa3, 0x18], 0x8); // BT [rax], ebx: bit 3 of its operand
        assert_eq!(test.store, None);
        assert!(test.flags.contains(Rflags::CARRY));
    }

    #[test]
    fn a_bit_in_a_register_moves_the_address() {
        let offset = |bytes: &[u8], number: u64| {
            memory(bytes, Bits64)
                .unwrap()
                .offset(|register| if register == General::Rbx { number } else { 0x1000 }, 0)
        };
        assert_eq!(offset(&[0x0f, 0xa3, 0x18], 31), 0x1000);
        assert_eq!(offset(&[0x0f, 0xa3, 0x18], 32), 0x1004);
        assert_eq!(offset(&[0x0f, 0xa3, 0x18], 0xffff_ffff), 0xffc); // −1
        assert_eq!(offset(&[0x66, 0x0f, 0xa3, 0x18], 0x1_8000), 0);
        assert_eq!(offset(&[0x48, 0x0f, 0xa3, 0x18], 65), 0x1008);
        assert_eq!(offset(&[0x0f, 0xba, 0x20, 0xff], 0), 0x1000); // an immediate does not
    }

    #[test]
    fn pop_counts_the_stack_pointer_after_itself() {
        let offset = |bytes: &[u8], code| memory(bytes, code).unwrap().offset(|_| 0x1000, 0);
        assert_eq!(offset(&[0x8f, 0x04, 0x24], Bits64), 0x1008);
        assert_eq!(offset(&[0x8f, 0x04, 0x24], Bits32), 0x1004);
        assert_eq!(offset(&[0x8f, 0x00], Bits64), 0x1000);
        assert_eq!(offset(&[0xff, 0x34, 0x24], Bits64), 0x1000);
    }

    #[test]
    fn what_is_stored_agrees_with_what_is_said_to_be_written() {
        // Every opcode of both maps with [rax]: an effect stores exactly where `writes` says so.
        for opcode in 0..=0xff {
            for bytes in [
                [opcode, 0, 0, 0, 0, 0, 0, 0],
                [0x0f, opcode, 0x08, 0, 0, 0, 0, 0],
                [opcode, 0x18, 0, 0, 0, 0, 0, 0],
            ] {
                let Ok(instruction) = memory(&bytes, Bits64) else { continue };
                if let Some(effect) = instruction.effect(0x5a, general, Rflags::ALWAYS_ONE) {
                    assert_eq!(effect.store.is_some(), instruction.writes(), "{instruction:?}");
                    assert!(effect.store.unwrap_or(0) & !instruction.width.mask() == 0, "{instruction:?}");
                }
            }
        }
    }
}
