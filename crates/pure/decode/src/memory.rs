//! Instructions that read and write memory-mapped registers (APM Vol. 3 chapter 3).

use crate::DecodeError;
use crate::address::EffectiveAddress;
use crate::arithmetic::{Binary, BitFunction, Unary, sign_extended};
use crate::cursor::{Cursor, Prefixes, RepeatPrefix};
use x86::{CodeSize, General, SegmentName, Width};

/// A general register, or a part of one, as an operand.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Register {
    /// The whole register.
    pub general: General,
    /// How much of it.
    pub width: Width,
    /// Whether it is the second byte: AH, CH, DH, BH. The width is a byte then.
    pub high: bool,
}

impl Register {
    /// The operand's value, given the whole register's.
    #[inline]
    pub const fn value(self, whole: u64) -> u64 {
        if self.high { (whole >> 8) & 0xff } else { whole & self.width.mask() }
    }

    /// The whole register after a write of `value` to the operand: 32-bit writes clear the upper half, narrower ones keep
    /// what they do not name (APM Vol. 1 §3.1.2.3).
    #[inline]
    pub const fn merge(self, whole: u64, value: u64) -> u64 {
        if self.high { (whole & !0xff00) | ((value & 0xff) << 8) } else { self.width.merge(whole, value) }
    }

    /// The register with this number, 0 to 15, for an instruction with these prefixes.
    #[inline]
    fn of(number: u8, width: Width, prefixes: &Prefixes) -> Self {
        // Numbers 4 to 7 are AH, CH, DH and BH, unless a REX makes them SPL, BPL, SIL and DIL.
        if width as u8 == Width::Byte as u8 && number & 0xc == 4 && !prefixes.has_rex() {
            Self { general: General::from_number(number & 3), width, high: true }
        } else {
            Self { general: General::from_number(number), width, high: false }
        }
    }

    /// AL, AX, EAX or RAX.
    #[inline]
    pub(crate) const fn accumulator(width: Width) -> Self {
        Self { general: General::Rax, width, high: false }
    }
}

/// How a narrow value fills a wide register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Extension {
    /// With zeros (MOVZX; and MOV, where there is nothing to fill).
    Zero,
    /// With copies of its highest bit (MOVSX, MOVSXD).
    Sign,
}

/// An operand beside the memory operand.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register.
    Register(Register),
    /// A number from the instruction, sign-extended to the operand width and cut to it.
    Immediate(u64),
}

/// What a string instruction does with each element (APM Vol. 3 §3, under the instructions' names).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StringFunction {
    /// MOVS: from segment:rSI to ES:rDI.
    Move,
    /// CMPS: compares segment:rSI with ES:rDI, that is, subtracts the latter from the former.
    Compare,
    /// STOS: from the accumulator to ES:rDI.
    Store,
    /// LODS: from segment:rSI to the accumulator.
    Load,
    /// SCAS: compares the accumulator with ES:rDI.
    Scan,
}

/// Whether, and how long, a string instruction goes on; rCX, of the address's size, counts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Once; rCX does not count.
    Once,
    /// While rCX is not 0: REP with MOVS, STOS, LODS, whether written F3 or F2.
    Counted,
    /// REPE with CMPS and SCAS: while rCX is not 0, until ZF is 0.
    WhileEqual,
    /// REPNE with CMPS and SCAS: while rCX is not 0, until ZF is 1.
    WhileNotEqual,
}

/// What an instruction does with its memory operand, "memory" below.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// MOV, MOVZX, MOVSX, MOVSXD: register ← memory.
    Load {
        /// The destination, at least as wide as the memory operand.
        register: Register,
        /// How the rest of it is filled.
        extension: Extension,
    },
    /// MOV, MOVNTI: memory ← value.
    Store {
        /// The value.
        value: Source,
    },
    /// MOVBE: register ← memory with its bytes reversed.
    LoadReversed {
        /// The destination.
        register: Register,
    },
    /// MOVBE: memory ← register with its bytes reversed.
    StoreReversed {
        /// The source.
        register: Register,
    },
    /// memory ← memory `function` source; CMP and TEST only set flags.
    ToMemory {
        /// ADD to XOR, CMP, TEST.
        function: Binary,
        /// The other operand.
        source: Source,
    },
    /// register ← register `function` memory; CMP only sets flags.
    ToRegister {
        /// ADD to XOR, CMP.
        function: Binary,
        /// The other operand, and destination.
        register: Register,
    },
    /// NOT, NEG, INC, DEC: memory ← `function` memory.
    Unary(Unary),
    /// XCHG: memory ↔ register; locked with or without the prefix.
    Exchange {
        /// The register.
        register: Register,
    },
    /// XADD: memory ← memory + register, register ← old memory.
    ExchangeAdd {
        /// The register.
        register: Register,
    },
    /// CMPXCHG: where memory equals the accumulator, memory ← register, else accumulator ← memory.
    CompareExchange {
        /// What may be written.
        register: Register,
    },
    /// CMPXCHG8B: where memory equals EDX:EAX, memory ← ECX:EBX, else EDX:EAX ← memory.
    CompareExchangePair,
    /// BT, BTS, BTR, BTC.
    Bit {
        /// What happens to the bit once CF has it.
        function: BitFunction,
        /// Its number. A register's may lie outside the operand: see [`MemoryInstruction::offset`].
        number: Source,
    },
    /// PUSH: the stack gets memory.
    Push,
    /// POP: memory gets the stack's top.
    Pop,
    /// MOVS, CMPS, STOS, LODS, SCAS.
    String {
        /// Which.
        function: StringFunction,
        /// How often.
        repeat: Repeat,
        /// The segment of rSI.
        source_segment: SegmentName,
    },
}

/// An instruction with a memory operand.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MemoryInstruction {
    /// Bytes, 1 to 15.
    pub length: u8,
    /// Whether the access is locked: by prefix, or because it is XCHG.
    pub locked: bool,
    /// The width of the memory operand, and of the other one unless it says otherwise.
    pub width: Width,
    /// The memory operand. Of MOVS and CMPS, which have two, the one at ES:rDI; the other is [`Self::source`].
    pub address: EffectiveAddress,
    /// What is done with it.
    pub operation: Operation,
}

impl MemoryInstruction {
    /// The offset in its segment of the first byte accessed, wrapped at the address size. `general` reads a register;
    /// `next` is the address of the instruction that follows in memory.
    ///
    /// Two instructions use another address than they describe: BT and its kin with a register reach the operand in which
    /// that bit lies, before or behind; POP counts rSP after the pop (APM Vol. 3, under their names). The latter is
    /// exact for stacks whose pointer is as wide as the address.
    #[inline]
    pub fn offset(&self, general: impl Fn(General) -> u64, next: u64) -> u64 {
        let offset = self.address.offset(&general, next);
        match self.operation {
            Operation::Bit { number: Source::Register(register), .. } => {
                let number = register.value(general(register.general));
                // The number is signed; the operand's bits are a power of two: 16, 32 or 64.
                let bits = self.width.bytes() as i64 * 8;
                let signed = sign_extended(self.width, number).cast_signed();
                let elements = (signed >> bits.trailing_zeros()).cast_unsigned();
                offset.wrapping_add(elements.wrapping_mul(self.width.bytes() as u64))
                    & self.address.size.mask()
            }
            Operation::Pop if self.address.base == Some(General::Rsp) => {
                offset.wrapping_add(self.width.bytes() as u64) & self.address.size.mask()
            }
            _ => offset,
        }
    }

    /// The second memory operand of MOVS and CMPS, and the only one of LODS: segment:rSI.
    pub fn source(&self) -> Option<EffectiveAddress> {
        match self.operation {
            Operation::String {
                function: StringFunction::Move | StringFunction::Compare | StringFunction::Load,
                source_segment,
                ..
            } => Some(EffectiveAddress::of_string(General::Rsi, source_segment, self.address.size)),
            _ => None,
        }
    }

    /// Whether the operand at [`Self::address`] is read.
    pub const fn reads(&self) -> bool {
        match self.operation {
            Operation::Store { .. } | Operation::StoreReversed { .. } | Operation::Pop => false,
            Operation::String { function, .. } => {
                !matches!(function, StringFunction::Store | StringFunction::Move)
            }
            _ => true,
        }
    }

    /// Whether the operand at [`Self::address`] is written. CMPXCHG and CMPXCHG8B write in either case.
    pub const fn writes(&self) -> bool {
        match self.operation {
            Operation::Load { .. }
            | Operation::LoadReversed { .. }
            | Operation::ToRegister { .. }
            | Operation::Push => false,
            Operation::ToMemory { function, .. } => function.writes(),
            Operation::Bit { function, .. } => function.writes(),
            Operation::String { function, .. } => {
                matches!(function, StringFunction::Store | StringFunction::Move)
            }
            _ => true,
        }
    }
}

/// The index or count register after `times` elements of a string instruction with this address size, given the whole
/// register: rSI and rDI step by the width, down where `backwards` (RFLAGS.DF). For rCX, give a width of one byte and
/// `backwards`.
#[inline]
pub const fn advance(size: Width, register: u64, width: Width, backwards: bool, times: u64) -> u64 {
    let distance = times.wrapping_mul(width.bytes() as u64);
    let moved = if backwards { register.wrapping_sub(distance) } else { register.wrapping_add(distance) };
    size.merge(register, moved)
}

/// The operand in memory that a ModRM byte names; a register there is not what touched memory.
#[inline]
fn memory_operand(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    modrm: u8,
) -> Result<EffectiveAddress, DecodeError> {
    if modrm >> 6 == 3 {
        // LOCK with a register as destination never was an instruction.
        return Err(if prefixes.lock { DecodeError::Undefined } else { DecodeError::Unexpected });
    }
    EffectiveAddress::read(cursor, prefixes, modrm)
}

/// The register that the middle bits of a ModRM byte name.
#[inline]
fn register_operand(prefixes: &Prefixes, modrm: u8, width: Width) -> Register {
    Register::of(((modrm >> 3) & 7) | prefixes.register_high_bit(), width, prefixes)
}

/// Decodes an instruction with a memory operand.
///
/// Covered is what software uses on device registers: MOV in all forms with general registers and immediates, MOVZX, MOVSX,
/// MOVSXD, MOVNTI, MOVBE, ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, NOT, NEG, INC, DEC, XCHG, XADD, CMPXCHG, CMPXCHG8B,
/// BT, BTS, BTR, BTC, PUSH, POP, and the string instructions with their repeat prefixes.
///
/// # Errors
/// [`DecodeError::Unsupported`] for what is not covered (vector and floating-point moves, CMPXCHG16B, branches …);
/// [`DecodeError::Undefined`] for LOCK where it is not allowed and for the undefined members of covered groups;
/// [`DecodeError::Unexpected`] for forms of covered instructions that touch no memory.
pub fn memory(bytes: &[u8], code: CodeSize) -> Result<MemoryInstruction, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, opcode) = Prefixes::read(&mut cursor, code)?;
    let (width, address, operation) = match opcode {
        // MOV, by far the most common.
        0x88..=0x8b => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let register = register_operand(&prefixes, modrm, width);
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            let operation = if opcode & 2 == 0 {
                Operation::Store { value: Source::Register(register) }
            } else {
                Operation::Load { register, extension: Extension::Zero }
            };
            (width, address, operation)
        }
        0xc6 | 0xc7 => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            if modrm & 0x38 != 0 {
                // C6 F8 and C7 F8 are XABORT and XBEGIN.
                return Err(if modrm == 0xf8 { DecodeError::Unsupported } else { DecodeError::Undefined });
            }
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            let value = Source::Immediate(cursor.immediate(width)?);
            (width, address, Operation::Store { value })
        }
        0x0f => two_byte(&mut cursor, &prefixes)?,
        0xa0..=0xa3 => {
            let width = prefixes.opcode_width(opcode);
            let address = EffectiveAddress::absolute(&mut cursor, &prefixes)?;
            let register = Register::accumulator(width);
            let operation = if opcode & 2 == 0 {
                Operation::Load { register, extension: Extension::Zero }
            } else {
                Operation::Store { value: Source::Register(register) }
            };
            (width, address, operation)
        }
        // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP.
        0x00..=0x3f if opcode & 4 == 0 => {
            let function = Binary::of_group(opcode >> 3);
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let register = register_operand(&prefixes, modrm, width);
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            let operation = if opcode & 2 == 0 {
                Operation::ToMemory { function, source: Source::Register(register) }
            } else {
                Operation::ToRegister { function, register }
            };
            (width, address, operation)
        }
        0x80 | 0x81 | 0x83 => group_1(&mut cursor, &prefixes, opcode)?,
        // A second name of 80, gone in 64-bit mode.
        0x82 if code != CodeSize::Bits64 => group_1(&mut cursor, &prefixes, opcode)?,
        0x82 => return Err(DecodeError::Undefined),
        0x84 | 0x85 => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let source = Source::Register(register_operand(&prefixes, modrm, width));
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            (width, address, Operation::ToMemory { function: Binary::Test, source })
        }
        0x86 | 0x87 => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let register = register_operand(&prefixes, modrm, width);
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            (width, address, Operation::Exchange { register })
        }
        0xf6 | 0xf7 => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let member = (modrm >> 3) & 7;
            if member >= 4 {
                // MUL, IMUL, DIV, IDIV.
                return Err(DecodeError::Unsupported);
            }
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            let operation = match member {
                2 => Operation::Unary(Unary::Not),
                3 => Operation::Unary(Unary::Negate),
                // Member 1 is a second name of TEST, member 0.
                _ => {
                    let source = Source::Immediate(cursor.immediate(width)?);
                    Operation::ToMemory { function: Binary::Test, source }
                }
            };
            (width, address, operation)
        }
        0xfe | 0xff => {
            let modrm = cursor.byte()?;
            let member = (modrm >> 3) & 7;
            let (width, operation) = match member {
                0 => (prefixes.opcode_width(opcode), Operation::Unary(Unary::Increment)),
                1 => (prefixes.opcode_width(opcode), Operation::Unary(Unary::Decrement)),
                6 if opcode == 0xff => (stack_width(&prefixes), Operation::Push),
                // CALL and JMP.
                2..=5 if opcode == 0xff => return Err(DecodeError::Unsupported),
                _ => return Err(DecodeError::Undefined),
            };
            (width, memory_operand(&mut cursor, &prefixes, modrm)?, operation)
        }
        0x8f => {
            let modrm = cursor.byte()?;
            if modrm & 0x38 != 0 {
                // XOP, AMD's vector extension.
                return Err(DecodeError::Unsupported);
            }
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            (stack_width(&prefixes), address, Operation::Pop)
        }
        0x63 if code == CodeSize::Bits64 => {
            // Without REX.W nothing is extended: MOV with the operand size.
            let width = if prefixes.wide() { Width::Double } else { prefixes.operand_width() };
            let modrm = cursor.byte()?;
            let register = register_operand(&prefixes, modrm, prefixes.operand_width());
            let address = memory_operand(&mut cursor, &prefixes, modrm)?;
            (width, address, Operation::Load { register, extension: Extension::Sign })
        }
        0xa4 | 0xa5 => string(&prefixes, opcode, StringFunction::Move),
        0xa6 | 0xa7 => string(&prefixes, opcode, StringFunction::Compare),
        0xaa | 0xab => string(&prefixes, opcode, StringFunction::Store),
        0xac | 0xad => string(&prefixes, opcode, StringFunction::Load),
        0xae | 0xaf => string(&prefixes, opcode, StringFunction::Scan),
        _ => return Err(DecodeError::Unsupported),
    };
    if prefixes.lock && !may_lock(operation) {
        return Err(DecodeError::Undefined);
    }
    let locked = prefixes.lock || matches!(operation, Operation::Exchange { .. });
    Ok(MemoryInstruction { length: cursor.length(), locked, width, address, operation })
}

/// 0F and what follows.
fn two_byte(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
) -> Result<(Width, EffectiveAddress, Operation), DecodeError> {
    let opcode = cursor.byte()?;
    match opcode {
        0xb6 | 0xb7 | 0xbe | 0xbf => {
            let width = if opcode & 1 == 0 { Width::Byte } else { Width::Word };
            let extension = if opcode & 8 == 0 { Extension::Zero } else { Extension::Sign };
            let modrm = cursor.byte()?;
            let register = register_operand(prefixes, modrm, prefixes.operand_width());
            let address = memory_operand(cursor, prefixes, modrm)?;
            Ok((width, address, Operation::Load { register, extension }))
        }
        0xa3 | 0xab | 0xb3 | 0xbb => {
            let width = prefixes.operand_width();
            let modrm = cursor.byte()?;
            let number = Source::Register(register_operand(prefixes, modrm, width));
            let address = memory_operand(cursor, prefixes, modrm)?;
            Ok((width, address, Operation::Bit { function: BitFunction::of_group(opcode >> 3), number }))
        }
        0xba => {
            let width = prefixes.operand_width();
            let modrm = cursor.byte()?;
            let member = (modrm >> 3) & 7;
            if member < 4 {
                return Err(DecodeError::Undefined);
            }
            let address = memory_operand(cursor, prefixes, modrm)?;
            let number = Source::Immediate(cursor.byte()? as u64);
            Ok((width, address, Operation::Bit { function: BitFunction::of_group(member), number }))
        }
        0xb0 | 0xb1 | 0xc0 | 0xc1 => {
            let width = prefixes.opcode_width(opcode);
            let modrm = cursor.byte()?;
            let register = register_operand(prefixes, modrm, width);
            let address = memory_operand(cursor, prefixes, modrm)?;
            let operation = if opcode < 0xc0 {
                Operation::CompareExchange { register }
            } else {
                Operation::ExchangeAdd { register }
            };
            Ok((width, address, operation))
        }
        0xc3 => {
            // MOVNTI: 66, F2 and F3 would select other instructions of its row, of which there are none.
            if prefixes.operand_size || prefixes.repeat != RepeatPrefix::None {
                return Err(DecodeError::Undefined);
            }
            let width = if prefixes.wide() { Width::Quad } else { Width::Double };
            let modrm = cursor.byte()?;
            let register = register_operand(prefixes, modrm, width);
            if modrm >> 6 == 3 {
                return Err(DecodeError::Undefined);
            }
            let address = memory_operand(cursor, prefixes, modrm)?;
            Ok((width, address, Operation::Store { value: Source::Register(register) }))
        }
        0xc7 => {
            let modrm = cursor.byte()?;
            if modrm & 0x38 != 8 || modrm >> 6 == 3 || prefixes.wide() {
                // XSAVEC, RDRAND, CMPXCHG16B and others.
                return Err(DecodeError::Unsupported);
            }
            let address = memory_operand(cursor, prefixes, modrm)?;
            Ok((Width::Quad, address, Operation::CompareExchangePair))
        }
        0x38 => {
            let opcode = cursor.byte()?;
            if !matches!(opcode, 0xf0 | 0xf1) || prefixes.repeat != RepeatPrefix::None {
                // With F2 it is CRC32; the rest are vector instructions.
                return Err(DecodeError::Unsupported);
            }
            let width = prefixes.operand_width();
            let modrm = cursor.byte()?;
            let register = register_operand(prefixes, modrm, width);
            if modrm >> 6 == 3 {
                return Err(DecodeError::Undefined);
            }
            let address = memory_operand(cursor, prefixes, modrm)?;
            let operation = if opcode == 0xf0 {
                Operation::LoadReversed { register }
            } else {
                Operation::StoreReversed { register }
            };
            Ok((width, address, operation))
        }
        _ => Err(DecodeError::Unsupported),
    }
}

/// ADD to CMP with an immediate.
fn group_1(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    opcode: u8,
) -> Result<(Width, EffectiveAddress, Operation), DecodeError> {
    let width = prefixes.opcode_width(opcode);
    let modrm = cursor.byte()?;
    let address = memory_operand(cursor, prefixes, modrm)?;
    let immediate =
        if opcode == 0x83 { cursor.signed_byte()? & width.mask() } else { cursor.immediate(width)? };
    let function = Binary::of_group(modrm >> 3);
    Ok((width, address, Operation::ToMemory { function, source: Source::Immediate(immediate) }))
}

/// The width that PUSH and POP move: never 32 bits in 64-bit mode (APM Vol. 3 §1.2.2).
fn stack_width(prefixes: &Prefixes) -> Width {
    match prefixes.operand_width() {
        Width::Double if prefixes.code() == CodeSize::Bits64 => Width::Quad,
        width => width,
    }
}

fn string(prefixes: &Prefixes, opcode: u8, function: StringFunction) -> (Width, EffectiveAddress, Operation) {
    let source_segment = prefixes.segment.unwrap_or(SegmentName::Ds);
    let conditional = matches!(function, StringFunction::Compare | StringFunction::Scan);
    let repeat = match prefixes.repeat {
        RepeatPrefix::None => Repeat::Once,
        RepeatPrefix::Equal if conditional => Repeat::WhileEqual,
        RepeatPrefix::NotEqual if conditional => Repeat::WhileNotEqual,
        RepeatPrefix::Equal | RepeatPrefix::NotEqual => Repeat::Counted,
    };
    let size = prefixes.address_width();
    let address = if function == StringFunction::Load {
        EffectiveAddress::of_string(General::Rsi, source_segment, size)
    } else {
        EffectiveAddress::of_string(General::Rdi, SegmentName::Es, size)
    };
    (prefixes.opcode_width(opcode), address, Operation::String { function, repeat, source_segment })
}

/// Whether the LOCK prefix is allowed (APM Vol. 3 §1.2.5).
fn may_lock(operation: Operation) -> bool {
    match operation {
        Operation::ToMemory { function, .. } => function.writes(),
        Operation::Bit { function, .. } => function.writes(),
        Operation::Unary(_)
        | Operation::Exchange { .. }
        | Operation::ExchangeAdd { .. }
        | Operation::CompareExchange { .. }
        | Operation::CompareExchangePair => true,
        _ => false,
    }
}
