//! Instructions that read and write memory-mapped registers (APM Vol. 3 chapter 3).

use crate::DecodeError;
use crate::address::{EffectiveAddress, Scale};
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
    fn of(number: u8, width: Width, prefixes: Prefixes) -> Self {
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

    /// Whether it has, or can have, a second operand in memory: strings, PUSH and POP. [`Self::effect`] does not say what these do.
    pub const fn has_two_addresses(&self) -> bool {
        matches!(self.operation, Operation::String { .. } | Operation::Push | Operation::Pop)
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

/// The register that the middle bits of a ModRM byte name.
#[inline(always)]
fn register_operand(prefixes: Prefixes, modrm: u8, width: Width) -> Register {
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
    if code == CodeSize::Bits64
        && let Some(first) = bytes.first_chunk::<8>()
        && let Some(instruction) = plain_move(u64::from_le_bytes(*first))
    {
        return Ok(instruction);
    }
    any(bytes, code)
}

/// As [`memory`], of the first eight bytes of 64-bit code, the first in the low bits: MOV of 32 or 64 bits between memory and a register
/// or from an immediate, with no prefix but REX, all of it in those bytes. Nearly all that is ever asked, so it has a way of its own,
/// which [`memory`] would go too. `None` for everything else: ask [`memory`].
#[inline(always)]
pub fn plain_move(first: u64) -> Option<MemoryInstruction> {
    // The bytes that are left, the next one lowest.
    let mut rest = first;
    let mut length = 2;
    let mut rex = 0;
    if rest & 0xf0 == 0x40 {
        rex = rest as u8 & 0xf;
        rest >>= 8;
        length = 3;
    }
    let opcode = rest as u8;
    let modrm = (rest >> 8) as u8;
    let immediate = opcode == 0xc7 && modrm & 0x38 == 0;
    if !immediate && opcode & 0xfd != 0x89 || modrm >= 0xc0 {
        return None;
    }
    rest >>= 16;
    let width = if rex & 8 == 0 { Width::Double } else { Width::Quad };
    let mut index = None;
    let mut scale = Scale::One;
    let mut base = modrm & 7;
    let with_sib = base == 4;
    if with_sib {
        let sib = rest as u8;
        rest >>= 8;
        length += 1;
        let number = ((sib >> 3) & 7) | (rex & 2) << 2;
        if number != 4 {
            index = Some(General::from_number(number));
            scale = Scale::from_sib(sib);
        }
        base = sib & 7;
    }
    let without_base = modrm < 0x40 && base == 5;
    let mut displacement = 0;
    if modrm >= 0x80 || without_base {
        displacement = sign_extended(Width::Double, rest);
        rest >>= 32;
        length += 4;
    } else if modrm >= 0x40 {
        displacement = sign_extended(Width::Byte, rest);
        rest >>= 8;
        length += 1;
    }
    let base = if without_base { None } else { Some(General::from_number(base | (rex & 1) << 3)) };
    let on_stack = matches!(base, Some(General::Rsp | General::Rbp));
    let address = EffectiveAddress {
        displacement,
        base,
        index,
        scale,
        segment: if on_stack { SegmentName::Ss } else { SegmentName::Ds },
        size: Width::Quad,
        instruction_relative: without_base && !with_sib,
    };
    let general = General::from_number(((modrm >> 3) & 7) | (rex & 4) << 1);
    let register = Register { general, width, high: false };
    let operation = if immediate {
        length += 4;
        if length > 8 {
            return None;
        }
        let value = sign_extended(Width::Double, rest) & width.mask();
        Operation::Store { value: Source::Immediate(value) }
    } else if opcode & 2 == 0 {
        Operation::Store { value: Source::Register(register) }
    } else {
        Operation::Load { register, extension: Extension::Zero }
    };
    Some(MemoryInstruction { length, locked: false, width, address, operation })
}

/// How an opcode's operands are written.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Form {
    Unsupported,
    Undefined,
    /// MOV, register to memory.
    Store,
    /// MOV, memory to register.
    Load,
    /// C6 and C7.
    StoreImmediate,
    /// A0 to A3.
    Absolute,
    /// 00 to 3F, register to memory.
    ToMemory,
    /// 00 to 3F, memory to register.
    ToRegister,
    /// 80 to 83.
    Group1,
    Test,
    Exchange,
    Pop,
    /// F6 and F7.
    Group3,
    /// FE.
    Group4,
    /// FF.
    Group5,
    SignExtendDouble,
    String(StringFunction),
    /// MOVZX.
    ZeroExtend,
    /// MOVSX.
    SignExtend,
    /// BT and its kin with a register.
    Bit,
    /// BT and its kin with an immediate.
    Group8,
    CompareExchange,
    ExchangeAdd,
    NonTemporal,
    /// 0F C7.
    Group9,
    LoadReversed,
    StoreReversed,
}

impl Form {
    fn of_one_byte(opcode: u8, code: CodeSize) -> Self {
        match opcode {
            0x00..=0x3f if opcode & 6 == 0 => Self::ToMemory,
            0x00..=0x3f if opcode & 6 == 2 => Self::ToRegister,
            0x63 if code == CodeSize::Bits64 => Self::SignExtendDouble,
            // A second name of 80, gone in 64-bit mode.
            0x82 if code == CodeSize::Bits64 => Self::Undefined,
            0x80..=0x83 => Self::Group1,
            0x84 | 0x85 => Self::Test,
            0x86 | 0x87 => Self::Exchange,
            0x88 | 0x89 => Self::Store,
            0x8a | 0x8b => Self::Load,
            0x8f => Self::Pop,
            0xa0..=0xa3 => Self::Absolute,
            0xa4 | 0xa5 => Self::String(StringFunction::Move),
            0xa6 | 0xa7 => Self::String(StringFunction::Compare),
            0xaa | 0xab => Self::String(StringFunction::Store),
            0xac | 0xad => Self::String(StringFunction::Load),
            0xae | 0xaf => Self::String(StringFunction::Scan),
            0xc6 | 0xc7 => Self::StoreImmediate,
            0xf6 | 0xf7 => Self::Group3,
            0xfe => Self::Group4,
            0xff => Self::Group5,
            _ => Self::Unsupported,
        }
    }

    fn of_two_byte(opcode: u8) -> Self {
        match opcode {
            0xa3 | 0xab | 0xb3 | 0xbb => Self::Bit,
            0xb0 | 0xb1 => Self::CompareExchange,
            0xb6 | 0xb7 => Self::ZeroExtend,
            0xba => Self::Group8,
            0xbe | 0xbf => Self::SignExtend,
            0xc0 | 0xc1 => Self::ExchangeAdd,
            0xc3 => Self::NonTemporal,
            0xc7 => Self::Group9,
            _ => Self::Unsupported,
        }
    }

    /// 0F 38 and then `opcode`: MOVBE. With F2 it is CRC32; the rest are vector instructions.
    fn of_three_byte(opcode: u8, prefixes: Prefixes) -> Self {
        match opcode {
            0xf0 if prefixes.repeat() == RepeatPrefix::None => Self::LoadReversed,
            0xf1 if prefixes.repeat() == RepeatPrefix::None => Self::StoreReversed,
            _ => Self::Unsupported,
        }
    }
}

/// Any covered instruction.
#[inline(never)]
fn any(bytes: &[u8], code: CodeSize) -> Result<MemoryInstruction, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, first) = Prefixes::read(&mut cursor, code)?;
    let mut opcode = first;
    let mut form = Form::of_one_byte(first, prefixes.code());
    if first == 0x0f {
        opcode = cursor.byte()?;
        form = Form::of_two_byte(opcode);
        if opcode == 0x38 {
            opcode = cursor.byte()?;
            form = Form::of_three_byte(opcode, prefixes);
        }
    }
    let operand_width = prefixes.operand_width();
    let (width, address, operation) = match form {
        Form::Unsupported => return Err(DecodeError::Unsupported),
        Form::Undefined => return Err(DecodeError::Undefined),
        Form::String(function) => {
            let (address, operation) = string(prefixes, function);
            (prefixes.opcode_width(opcode), address, operation)
        }
        Form::Absolute => {
            let width = prefixes.opcode_width(opcode);
            let register = Register::accumulator(width);
            let operation = if opcode & 2 == 0 {
                Operation::Load { register, extension: Extension::Zero }
            } else {
                Operation::Store { value: Source::Register(register) }
            };
            (width, EffectiveAddress::absolute(&mut cursor, prefixes)?, operation)
        }
        _ => {
            let modrm = cursor.byte()?;
            let member = (modrm >> 3) & 7;
            // Members of groups that are not ours, whether in memory or not.
            match (form, member) {
                // XABORT and XBEGIN.
                (Form::StoreImmediate, 7) if modrm == 0xf8 => return Err(DecodeError::Unsupported),
                (Form::StoreImmediate, 1..)
                | (Form::Group4, 2..)
                | (Form::Group5, 7)
                | (Form::Group8, 0..4) => {
                    return Err(DecodeError::Undefined);
                }
                // XOP; MUL to IDIV; CALL and JMP.
                (Form::Pop, 1..) | (Form::Group3, 4..) | (Form::Group5, 2..=5) => {
                    return Err(DecodeError::Unsupported);
                }
                // XSAVEC, RDRAND, CMPXCHG16B and others.
                (Form::Group9, _) if member != 1 || modrm >= 0xc0 || prefixes.wide() => {
                    return Err(DecodeError::Unsupported);
                }
                // 66, F2 and F3 would select other instructions of its row, of which there are none.
                (Form::NonTemporal, _)
                    if prefixes.operand_size() || prefixes.repeat() != RepeatPrefix::None =>
                {
                    return Err(DecodeError::Undefined);
                }
                _ => {}
            }
            if modrm >= 0xc0 {
                // A register there is not what touched memory. LOCK with it never was an instruction; some have no such form.
                let never = matches!(form, Form::NonTemporal | Form::LoadReversed | Form::StoreReversed);
                return Err(if prefixes.lock() || never {
                    DecodeError::Undefined
                } else {
                    DecodeError::Unexpected
                });
            }
            let width = match form {
                Form::ZeroExtend | Form::SignExtend if opcode & 1 == 0 => Width::Byte,
                Form::ZeroExtend | Form::SignExtend => Width::Word,
                // Without REX.W nothing is extended: MOV with the operand size.
                Form::SignExtendDouble if prefixes.wide() => Width::Double,
                Form::NonTemporal if prefixes.wide() => Width::Quad,
                Form::NonTemporal => Width::Double,
                Form::Group9 => Width::Quad,
                Form::Pop => stack_width(prefixes),
                Form::Group5 if member == 6 => stack_width(prefixes),
                Form::Bit
                | Form::Group8
                | Form::LoadReversed
                | Form::StoreReversed
                | Form::SignExtendDouble => operand_width,
                _ => prefixes.opcode_width(opcode),
            };
            let register_width = match form {
                Form::ZeroExtend | Form::SignExtend | Form::SignExtendDouble => operand_width,
                _ => width,
            };
            let register = register_operand(prefixes, modrm, register_width);
            let address = EffectiveAddress::read(&mut cursor, prefixes, modrm)?;
            let operation = match form {
                Form::Store | Form::NonTemporal => Operation::Store { value: Source::Register(register) },
                Form::Load | Form::ZeroExtend => Operation::Load { register, extension: Extension::Zero },
                Form::SignExtend | Form::SignExtendDouble => {
                    Operation::Load { register, extension: Extension::Sign }
                }
                Form::StoreImmediate => Operation::Store { value: immediate(&mut cursor, width)? },
                Form::ToMemory => Operation::ToMemory {
                    function: Binary::of_group(opcode >> 3),
                    source: Source::Register(register),
                },
                Form::ToRegister => {
                    Operation::ToRegister { function: Binary::of_group(opcode >> 3), register }
                }
                Form::Group1 => {
                    let source = if opcode == 0x83 {
                        Source::Immediate(cursor.signed_byte()? & width.mask())
                    } else {
                        immediate(&mut cursor, width)?
                    };
                    Operation::ToMemory { function: Binary::of_group(member), source }
                }
                Form::Test => {
                    Operation::ToMemory { function: Binary::Test, source: Source::Register(register) }
                }
                Form::Exchange => Operation::Exchange { register },
                Form::ExchangeAdd => Operation::ExchangeAdd { register },
                Form::CompareExchange => Operation::CompareExchange { register },
                Form::Group9 => Operation::CompareExchangePair,
                Form::Pop => Operation::Pop,
                Form::Group3 => match member {
                    2 => Operation::Unary(Unary::Not),
                    3 => Operation::Unary(Unary::Negate),
                    // Member 1 is a second name of TEST, member 0.
                    _ => {
                        Operation::ToMemory { function: Binary::Test, source: immediate(&mut cursor, width)? }
                    }
                },
                Form::Group4 | Form::Group5 => match member {
                    0 => Operation::Unary(Unary::Increment),
                    1 => Operation::Unary(Unary::Decrement),
                    _ => Operation::Push,
                },
                Form::Bit => Operation::Bit {
                    function: BitFunction::of_group(opcode >> 3),
                    number: Source::Register(register),
                },
                Form::Group8 => Operation::Bit {
                    function: BitFunction::of_group(member),
                    number: Source::Immediate(cursor.byte()? as u64),
                },
                Form::LoadReversed => Operation::LoadReversed { register },
                Form::StoreReversed => Operation::StoreReversed { register },
                // These were dealt with above.
                Form::Unsupported | Form::Undefined | Form::String(_) | Form::Absolute => {
                    return Err(DecodeError::Unsupported);
                }
            };
            (width, address, operation)
        }
    };
    if prefixes.lock() && !may_lock(operation) {
        return Err(DecodeError::Undefined);
    }
    let locked = prefixes.lock() || matches!(operation, Operation::Exchange { .. });
    Ok(MemoryInstruction { length: cursor.length(), locked, width, address, operation })
}

/// An immediate operand of the operand width.
fn immediate(cursor: &mut Cursor<'_>, width: Width) -> Result<Source, DecodeError> {
    Ok(Source::Immediate(cursor.immediate(width)?))
}

/// The width that PUSH and POP move: never 32 bits in 64-bit mode (APM Vol. 3 §1.2.2).
fn stack_width(prefixes: Prefixes) -> Width {
    match prefixes.operand_width() {
        Width::Double if prefixes.code() == CodeSize::Bits64 => Width::Quad,
        width => width,
    }
}

fn string(prefixes: Prefixes, function: StringFunction) -> (EffectiveAddress, Operation) {
    let source_segment = prefixes.segment.unwrap_or(SegmentName::Ds);
    let conditional = matches!(function, StringFunction::Compare | StringFunction::Scan);
    let repeat = match prefixes.repeat() {
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
    (address, Operation::String { function, repeat, source_segment })
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
