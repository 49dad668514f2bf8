//! Compares this decoder with iced-x86, position by position. Shared by `tests/differential.rs` (short, in every
//! `cargo test`) and `examples/differential.rs` (long, over a kernel's code).
#![allow(clippy::panic, clippy::unwrap_used)] // A test's instrument: what surprises it stops it.

use decode::arithmetic::{Binary, BitFunction, Unary};
use decode::{
    ControlInstruction, ControlKind, ControlRegister, DecodeError, EffectiveAddress, Extension, Intercepted,
    MemoryInstruction, Operation, PortDirection, Register, Repeat, Scale, Source, StatusWordOperand,
    StringFunction, StringPort,
};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register as IcedRegister};
use std::collections::BTreeMap;
use x86::{CodeSize, General, SegmentName, Width};

/// Bytes compared at each position: one more than an instruction can have.
pub const WINDOW: usize = 16;

/// The mnemonics that [`decode::memory`] covers, with those of string instructions under their common name.
pub const COVERED: [&str; 37] = [
    "Adc",
    "Add",
    "And",
    "Bt",
    "Btc",
    "Btr",
    "Bts",
    "Cmp",
    "Cmpxchg",
    "Cmpxchg8b",
    "Dec",
    "Inc",
    "Mov",
    "Movbe",
    "Movnti",
    "Movsx",
    "Movsxd",
    "Movzx",
    "Neg",
    "Not",
    "Or",
    "Pop",
    "Push",
    "Sbb",
    "Sub",
    "Test",
    "Xadd",
    "Xchg",
    "Xor",
    "String Move",
    "String Compare",
    "String Store",
    "String Load",
    "String Scan",
    "Port In",
    "Port Out",
    "Control",
];

/// What was compared.
#[derive(Default)]
pub struct Tally {
    /// Positions looked at.
    pub positions: u64,
    /// Instructions that both decoders understood, and in the same way, by mnemonic.
    pub agreed: BTreeMap<String, u64>,
    /// Instructions of which both said the same length, by the name of the interception.
    pub lengths: BTreeMap<String, u64>,
    /// Disagreements in plain words; the first twenty.
    pub disagreements: Vec<String>,
    /// How many disagreements there were.
    pub disagreed: u64,
}

impl Tally {
    fn disagree(&mut self, bytes: &[u8; WINDOW], code: CodeSize, what: &str) {
        self.disagreed += 1;
        if self.disagreements.len() < 20 {
            self.disagreements.push(format!("{bytes:02x?} as {code:?}: {what}"));
        }
    }

    /// Covered mnemonics and interceptions that were never met: what this run says nothing about.
    pub fn missed(&self) -> Vec<String> {
        let mnemonics =
            COVERED.iter().filter(|name| !self.agreed.contains_key(**name)).map(ToString::to_string);
        let lengths = Intercepted::ALL.iter().map(|kind| format!("{kind:?}"));
        mnemonics.chain(lengths.filter(|name| !self.lengths.contains_key(name))).collect()
    }

    /// Compares both decoders on one instruction.
    pub fn compare(&mut self, bytes: &[u8; WINDOW], code: CodeSize) {
        self.positions += 1;
        let bitness = match code {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
            CodeSize::Bits64 => 64,
        };
        // AMD's option allows LOCK MOV CR0, which names CR8.
        let mut decoder = Decoder::with_ip(bitness, bytes, 0, DecoderOptions::AMD);
        let iced = decoder.decode();

        let expected = memory_of(&iced, code);
        let ours = decode::memory(bytes, code);
        let agreed =
            self.judge(bytes, code, &iced, ours.map(|ours| normal_memory(ours, code)), expected, |slice| {
                decode::memory(slice, code).map(|ours| normal_memory(ours, code))
            });
        if let (true, Some(expected)) = (agreed, expected) {
            let name = match expected.operation {
                Operation::String { function, .. } => format!("String {function:?}"),
                _ => format!("{:?}", iced.mnemonic()),
            };
            *self.agreed.entry(name).or_default() += 1;
        }

        let expected = string_port_of(&iced, code);
        let port = |slice: &[u8]| {
            decode::string_port(slice, code)
                .map(|ours| StringPort { address: normal_address(ours.address, code), ..ours })
        };
        let agreed = self.judge(bytes, code, &iced, port(bytes), expected, port);
        if let (true, Some(expected)) = (agreed, expected) {
            *self.agreed.entry(format!("Port {:?}", expected.direction)).or_default() += 1;
        }

        let expected = control_of(&iced, code);
        let control = |slice: &[u8]| decode::control(slice, code).map(|ours| normal_control(ours, code));
        let agreed = self.judge(bytes, code, &iced, control(bytes), expected, control);
        if agreed && expected.is_some() {
            *self.agreed.entry("Control".to_owned()).or_default() += 1;
        }

        let intercepted = intercepted_of(&iced);
        for kind in Intercepted::ALL {
            let ours = decode::length(bytes, code, kind);
            if intercepted == Some(kind) {
                let length = Some(iced.len() as u8);
                if self.judge(bytes, code, &iced, ours, length, |slice| decode::length(slice, code, kind)) {
                    *self.lengths.entry(format!("{kind:?}")).or_default() += 1;
                }
            } else if let Ok(ours) = ours {
                // Prefixes that a processor ignores make other, or no, instructions in iced's tables; the opcode's bytes are
                // there nevertheless. An exit says that the processor did execute it.
                let prefixed =
                    bytes.iter().take(ours as usize).any(|byte| matches!(byte, 0x66 | 0xf2 | 0xf3));
                if !prefixed {
                    self.disagree(bytes, code, &format!("we say {kind:?}, iced {:?}", iced.code()));
                }
            }
        }
    }

    /// What we say of an instruction against what iced says of it, where it is one of those that we cover. Returns
    /// whether there is nothing to complain of.
    fn judge<T: Copy + PartialEq + core::fmt::Debug + Sized>(
        &mut self,
        bytes: &[u8; WINDOW],
        code: CodeSize,
        iced: &Instruction,
        ours: Result<T, DecodeError>,
        expected: Option<T>,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> bool {
        let before = self.disagreed;
        match (ours, expected) {
            (Ok(ours), Some(expected)) if ours == expected => {
                // The bytes behind the instruction do not matter, and with any fewer we ask for more.
                if decode(&bytes[..iced.len()]) != Ok(ours) {
                    self.disagree(bytes, code, "bytes behind the instruction matter");
                }
                for shorter in 0..iced.len() {
                    if decode(&bytes[..shorter]) != Err(DecodeError::NeedMoreBytes) {
                        self.disagree(bytes, code, &format!("{shorter} bytes ask for no more"));
                    }
                }
            }
            (Err(DecodeError::NeedMoreBytes), _) => {
                self.disagree(bytes, code, "sixteen bytes are not enough for us");
            }
            (Err(DecodeError::Undefined | DecodeError::TooLong), None) if !iced.is_invalid() => {
                self.disagree(bytes, code, &format!("we say {ours:?}, iced {:?}", iced.code()));
            }
            (Err(_), None) => {}
            _ => {
                let iced = iced.code();
                self.disagree(bytes, code, &format!("we say {ours:?}, iced {expected:?} ({iced:?})"));
            }
        }
        self.disagreed == before
    }
}

/// In 64-bit mode all segments but FS and GS have base 0: which of them iced names does not matter. Displacements count
/// within the address size, and a scale means nothing without an index.
fn normal_address(mut address: EffectiveAddress, code: CodeSize) -> EffectiveAddress {
    address.segment = normal_segment(address.segment, code);
    address.displacement &= address.size.mask();
    if address.index.is_none() {
        address.scale = Scale::One;
    }
    address
}

fn normal_segment(segment: SegmentName, code: CodeSize) -> SegmentName {
    match segment {
        SegmentName::Fs | SegmentName::Gs => segment,
        _ if code == CodeSize::Bits64 => SegmentName::Ds,
        _ => segment,
    }
}

fn normal_memory(mut instruction: MemoryInstruction, code: CodeSize) -> MemoryInstruction {
    instruction.address = normal_address(instruction.address, code);
    if let Operation::String { source_segment, function, .. } = &mut instruction.operation {
        *source_segment = normal_segment(*source_segment, code);
        // Without rSI its segment means nothing.
        if matches!(function, StringFunction::Store | StringFunction::Scan) {
            *source_segment = SegmentName::Ds;
        }
    }
    instruction
}

fn normal_control(mut instruction: ControlInstruction, code: CodeSize) -> ControlInstruction {
    if let ControlKind::LoadStatusWord(StatusWordOperand::Memory(address))
    | ControlKind::StoreStatusWord(StatusWordOperand::Memory(address)) = &mut instruction.kind
    {
        *address = normal_address(*address, code);
    }
    instruction
}

fn width_of(bytes: usize) -> Width {
    Width::from_bytes(bytes as u8).unwrap_or_else(|| panic!("iced: an operand of {bytes} bytes"))
}

fn general_of(register: IcedRegister) -> General {
    General::from_number(register.full_register().number() as u8)
}

fn register_of(register: IcedRegister) -> Register {
    use IcedRegister::{AH, BH, CH, DH};
    Register {
        general: general_of(register),
        width: width_of(register.size()),
        high: matches!(register, AH | CH | DH | BH),
    }
}

fn segment_of(register: IcedRegister) -> SegmentName {
    match register {
        IcedRegister::ES => SegmentName::Es,
        IcedRegister::CS => SegmentName::Cs,
        IcedRegister::SS => SegmentName::Ss,
        IcedRegister::DS => SegmentName::Ds,
        IcedRegister::FS => SegmentName::Fs,
        IcedRegister::GS => SegmentName::Gs,
        _ => panic!("iced: {register:?} as a segment"),
    }
}

/// The operand that ModRM or a moffset describes.
fn address_of(iced: &Instruction, code: CodeSize) -> EffectiveAddress {
    let (base, index) = (iced.memory_base(), iced.memory_index());
    let size = if base != IcedRegister::None {
        base.size()
    } else if index != IcedRegister::None {
        index.size()
    } else {
        iced.memory_displ_size() as usize
    };
    let relative = iced.is_ip_rel_memory_operand();
    let mut displacement = iced.memory_displacement64();
    if relative {
        // iced adds the next instruction's address, which is the length, because the first is 0.
        displacement = displacement.wrapping_sub(iced.len() as u64);
    }
    let address = EffectiveAddress {
        displacement,
        base: (base != IcedRegister::None && !relative).then(|| general_of(base)),
        index: (index != IcedRegister::None).then(|| general_of(index)),
        scale: match iced.memory_index_scale() {
            1 => Scale::One,
            2 => Scale::Two,
            4 => Scale::Four,
            _ => Scale::Eight,
        },
        segment: segment_of(iced.memory_segment()),
        size: width_of(size),
        instruction_relative: relative,
    };
    normal_address(address, code)
}

/// The operand of a string instruction with this kind.
fn string_address(iced: &Instruction, kind: OpKind, code: CodeSize) -> EffectiveAddress {
    let (base, size) = match kind {
        OpKind::MemorySegSI => (General::Rsi, Width::Word),
        OpKind::MemorySegESI => (General::Rsi, Width::Double),
        OpKind::MemorySegRSI => (General::Rsi, Width::Quad),
        OpKind::MemoryESDI => (General::Rdi, Width::Word),
        OpKind::MemoryESEDI => (General::Rdi, Width::Double),
        OpKind::MemoryESRDI => (General::Rdi, Width::Quad),
        _ => panic!("iced: {kind:?} in a string instruction"),
    };
    let segment = if base == General::Rdi { SegmentName::Es } else { segment_of(iced.memory_segment()) };
    let address = EffectiveAddress {
        displacement: 0,
        base: Some(base),
        index: None,
        scale: Scale::One,
        segment,
        size,
        instruction_relative: false,
    };
    normal_address(address, code)
}

fn string_of(iced: &Instruction, code: CodeSize) -> Option<MemoryInstruction> {
    let function = match iced.code() {
        Code::Movsb_m8_m8 | Code::Movsw_m16_m16 | Code::Movsd_m32_m32 | Code::Movsq_m64_m64 => {
            StringFunction::Move
        }
        Code::Cmpsb_m8_m8 | Code::Cmpsw_m16_m16 | Code::Cmpsd_m32_m32 | Code::Cmpsq_m64_m64 => {
            StringFunction::Compare
        }
        Code::Stosb_m8_AL | Code::Stosw_m16_AX | Code::Stosd_m32_EAX | Code::Stosq_m64_RAX => {
            StringFunction::Store
        }
        Code::Lodsb_AL_m8 | Code::Lodsw_AX_m16 | Code::Lodsd_EAX_m32 | Code::Lodsq_RAX_m64 => {
            StringFunction::Load
        }
        Code::Scasb_AL_m8 | Code::Scasw_AX_m16 | Code::Scasd_EAX_m32 | Code::Scasq_RAX_m64 => {
            StringFunction::Scan
        }
        _ => return None,
    };
    // Which operand is the one at ES:rDI, or, of LODS, the only one.
    let operand = match function {
        StringFunction::Move | StringFunction::Store => 0,
        StringFunction::Compare | StringFunction::Load | StringFunction::Scan => 1,
    };
    let repeat = match (iced.has_rep_prefix(), iced.has_repne_prefix(), function) {
        (false, false, _) => Repeat::Once,
        (true, _, StringFunction::Compare | StringFunction::Scan) => Repeat::WhileEqual,
        (_, _, StringFunction::Compare | StringFunction::Scan) => Repeat::WhileNotEqual,
        _ => Repeat::Counted,
    };
    let source_segment = match function {
        StringFunction::Store | StringFunction::Scan => SegmentName::Ds,
        _ => normal_segment(segment_of(iced.memory_segment()), code),
    };
    Some(MemoryInstruction {
        length: iced.len() as u8,
        locked: false,
        width: width_of(iced.memory_size().size()),
        address: string_address(iced, iced.op_kind(operand), code),
        operation: Operation::String { function, repeat, source_segment },
    })
}

/// What [`decode::memory`] should say of an instruction; `None` where it should refuse.
fn memory_of(iced: &Instruction, code: CodeSize) -> Option<MemoryInstruction> {
    if iced.is_invalid() {
        return None;
    }
    if let Some(string) = string_of(iced, code) {
        return Some(string);
    }
    let place = (0..iced.op_count()).find(|operand| iced.op_kind(*operand) == OpKind::Memory)?;
    if matches!(iced.mnemonic(), Mnemonic::Cmpxchg8b) {
        return Some(MemoryInstruction {
            length: iced.len() as u8,
            locked: iced.has_lock_prefix(),
            width: Width::Quad,
            address: address_of(iced, code),
            operation: Operation::CompareExchangePair,
        });
    }
    let supported = matches!(
        iced.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Movnti
            | Mnemonic::Movbe
            | Mnemonic::Add
            | Mnemonic::Or
            | Mnemonic::Adc
            | Mnemonic::Sbb
            | Mnemonic::And
            | Mnemonic::Sub
            | Mnemonic::Xor
            | Mnemonic::Cmp
            | Mnemonic::Test
            | Mnemonic::Not
            | Mnemonic::Neg
            | Mnemonic::Inc
            | Mnemonic::Dec
            | Mnemonic::Xchg
            | Mnemonic::Xadd
            | Mnemonic::Cmpxchg
            | Mnemonic::Bt
            | Mnemonic::Bts
            | Mnemonic::Btr
            | Mnemonic::Btc
            | Mnemonic::Push
            | Mnemonic::Pop
    );
    if !supported {
        return None;
    }
    let width = width_of(iced.memory_size().size());
    // The other operand, where there is one.
    let other = (iced.op_count() == 2).then(|| 1 - place);
    if other.is_some_and(|other| {
        iced.op_kind(other) == OpKind::Register && iced.op_register(other).is_segment_register()
    }) {
        return None;
    }
    let register = || register_of(iced.op_register(other.unwrap()));
    let source = |width: Width| {
        let other = other.unwrap();
        if iced.op_kind(other) == OpKind::Register {
            Source::Register(register())
        } else {
            Source::Immediate(iced.immediate(other) & width.mask())
        }
    };
    let binary = |function| {
        if place == 0 {
            Operation::ToMemory { function, source: source(width) }
        } else {
            Operation::ToRegister { function, register: register() }
        }
    };
    // The number of a bit is a byte that is not extended.
    let bit = |function| {
        let number = match source(Width::Byte) {
            Source::Immediate(number) => Source::Immediate(number),
            Source::Register(_) => Source::Register(register()),
        };
        Operation::Bit { function, number }
    };
    let operation = match iced.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movnti if place == 0 => Operation::Store { value: source(width) },
        Mnemonic::Mov | Mnemonic::Movzx => {
            Operation::Load { register: register(), extension: Extension::Zero }
        }
        Mnemonic::Movsx | Mnemonic::Movsxd => {
            Operation::Load { register: register(), extension: Extension::Sign }
        }
        Mnemonic::Movbe if place == 0 => Operation::StoreReversed { register: register() },
        Mnemonic::Movbe => Operation::LoadReversed { register: register() },
        Mnemonic::Add => binary(Binary::Add),
        Mnemonic::Or => binary(Binary::Or),
        Mnemonic::Adc => binary(Binary::AddCarry),
        Mnemonic::Sbb => binary(Binary::SubtractBorrow),
        Mnemonic::And => binary(Binary::And),
        Mnemonic::Sub => binary(Binary::Subtract),
        Mnemonic::Xor => binary(Binary::ExclusiveOr),
        Mnemonic::Cmp => binary(Binary::Compare),
        Mnemonic::Test => Operation::ToMemory { function: Binary::Test, source: source(width) },
        Mnemonic::Not => Operation::Unary(Unary::Not),
        Mnemonic::Neg => Operation::Unary(Unary::Negate),
        Mnemonic::Inc => Operation::Unary(Unary::Increment),
        Mnemonic::Dec => Operation::Unary(Unary::Decrement),
        Mnemonic::Xchg => Operation::Exchange { register: register() },
        Mnemonic::Xadd => Operation::ExchangeAdd { register: register() },
        Mnemonic::Cmpxchg => Operation::CompareExchange { register: register() },
        Mnemonic::Bt => bit(BitFunction::Test),
        Mnemonic::Bts => bit(BitFunction::Set),
        Mnemonic::Btr => bit(BitFunction::Reset),
        Mnemonic::Btc => bit(BitFunction::Complement),
        Mnemonic::Push => Operation::Push,
        Mnemonic::Pop => Operation::Pop,
        other => panic!("{other:?} has a memory operand and no expectation"),
    };
    Some(MemoryInstruction {
        length: iced.len() as u8,
        locked: iced.has_lock_prefix() || iced.mnemonic() == Mnemonic::Xchg,
        width,
        address: address_of(iced, code),
        operation,
    })
}

/// What [`decode::string_port`] should say.
fn string_port_of(iced: &Instruction, code: CodeSize) -> Option<StringPort> {
    let (direction, operand) = match iced.mnemonic() {
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => (PortDirection::In, 0),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => (PortDirection::Out, 1),
        _ => return None,
    };
    Some(StringPort {
        length: iced.len() as u8,
        direction,
        width: width_of(iced.memory_size().size()),
        repeat: iced.has_rep_prefix() || iced.has_repne_prefix(),
        address: string_address(iced, iced.op_kind(operand), code),
    })
}

/// What [`decode::control`] should say.
fn control_of(iced: &Instruction, code: CodeSize) -> Option<ControlInstruction> {
    let control = |register: IcedRegister| match register {
        IcedRegister::CR0 => Some(ControlRegister::Cr0),
        IcedRegister::CR2 => Some(ControlRegister::Cr2),
        IcedRegister::CR3 => Some(ControlRegister::Cr3),
        IcedRegister::CR4 => Some(ControlRegister::Cr4),
        IcedRegister::CR8 => Some(ControlRegister::Cr8),
        _ => None,
    };
    let operand = |load: bool| {
        if iced.op_kind(0) == OpKind::Memory {
            StatusWordOperand::Memory(address_of(iced, code))
        } else {
            let width = if load { Width::Word } else { width_of(iced.op_register(0).size()) };
            StatusWordOperand::Register(general_of(iced.op_register(0)), width)
        }
    };
    let kind = match iced.code() {
        Code::Mov_r32_cr | Code::Mov_r64_cr => ControlKind::MoveFrom {
            control: control(iced.op_register(1))?,
            general: general_of(iced.op_register(0)),
        },
        Code::Mov_cr_r32 | Code::Mov_cr_r64 => ControlKind::MoveTo {
            control: control(iced.op_register(0))?,
            general: general_of(iced.op_register(1)),
        },
        Code::Clts => ControlKind::ClearTaskSwitched,
        _ => match iced.mnemonic() {
            Mnemonic::Lmsw => ControlKind::LoadStatusWord(operand(true)),
            Mnemonic::Smsw => ControlKind::StoreStatusWord(operand(false)),
            _ => return None,
        },
    };
    Some(ControlInstruction { length: iced.len() as u8, kind })
}

/// The interception whose length [`decode::length`] should know.
fn intercepted_of(iced: &Instruction) -> Option<Intercepted> {
    Some(match iced.mnemonic() {
        Mnemonic::Cpuid => Intercepted::Cpuid,
        Mnemonic::Rdmsr => Intercepted::ReadMsr,
        Mnemonic::Wrmsr => Intercepted::WriteMsr,
        Mnemonic::Rdpmc => Intercepted::ReadPerformanceCounter,
        Mnemonic::Hlt => Intercepted::Halt,
        Mnemonic::Vmmcall | Mnemonic::Vmgexit => Intercepted::Vmmcall,
        Mnemonic::Vmcall => Intercepted::Vmcall,
        Mnemonic::Xsetbv => Intercepted::SetExtendedControl,
        Mnemonic::Invd => Intercepted::Invd,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => Intercepted::Wbinvd,
        Mnemonic::Pause => Intercepted::Pause,
        Mnemonic::Rdtsc => Intercepted::Rdtsc,
        Mnemonic::Rdtscp => Intercepted::Rdtscp,
        Mnemonic::Monitor => Intercepted::Monitor,
        Mnemonic::Mwait => Intercepted::Mwait,
        Mnemonic::Invlpg => Intercepted::InvalidatePage,
        _ => return None,
    })
}

/// A source of bytes that is the same in every run with the same seed (xorshift64*).
pub struct Generator(u64);

impl Generator {
    /// `seed` is not 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 32) % bound
    }

    /// Random bytes; two times in three with some prefixes and an opcode that the decoder covers in front of them.
    pub fn instruction(&mut self) -> ([u8; WINDOW], CodeSize) {
        const OPCODES: [u8; 83] = [
            0x00, 0x01, 0x02, 0x03, 0x08, 0x0b, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33,
            0x38, 0x39, 0x3a, 0x3b, 0x63, 0x6c, 0x6d, 0x6e, 0x6f, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86,
            0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8e, 0x8f, 0x90, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6,
            0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xc6, 0xc7, 0xf4, 0xf6, 0xf7, 0xfe, 0xff,
            0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f,
            0x0f, 0x0f, 0x0f,
        ];
        const TWO_BYTE: [u8; 36] = [
            0x01, 0x01, 0x01, 0x06, 0x08, 0x09, 0x20, 0x22, 0x30, 0x31, 0x32, 0x33, 0x38, 0x38, 0xa2, 0xa3,
            0xab, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xba, 0xba, 0xbb, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3, 0xc7, 0xc7,
            0x05, 0x21, 0xb8, 0xc2,
        ];
        const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
        // Third bytes behind 0F 01 that matter, beside random ones.
        const SYSTEM: [u8; 10] = [0xd9, 0xc1, 0xd1, 0xf9, 0xc8, 0xc9, 0x38, 0x78, 0xf0, 0xe0];
        let mut bytes = [0; WINDOW];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        let code =
            [CodeSize::Bits64, CodeSize::Bits32, CodeSize::Bits16, CodeSize::Bits64][self.below(4) as usize];
        if self.below(3) == 0 {
            return (bytes, code);
        }
        let mut place = 0;
        // Few prefixes mostly, but sometimes so many that the instruction becomes too long.
        let prefixes = match self.below(16) {
            0 => self.below(14),
            1..=5 => self.below(4),
            6..=8 => 1,
            _ => 0,
        };
        for _ in 0..prefixes {
            bytes[place] = if self.below(8) == 0 {
                0x40 | self.below(16) as u8
            } else {
                PREFIXES[self.below(PREFIXES.len() as u64) as usize]
            };
            place += 1;
        }
        if code == CodeSize::Bits64 && self.below(2) == 0 && place < WINDOW - 4 {
            bytes[place] = 0x40 | self.below(16) as u8;
            place += 1;
        }
        if place < WINDOW {
            bytes[place] = OPCODES[self.below(OPCODES.len() as u64) as usize];
            if bytes[place] == 0x0f && place + 2 < WINDOW {
                bytes[place + 1] = TWO_BYTE[self.below(TWO_BYTE.len() as u64) as usize];
                if bytes[place + 1] == 0x01 {
                    bytes[place + 2] = SYSTEM[self.below(SYSTEM.len() as u64) as usize];
                } else if bytes[place + 1] == 0x38 && self.below(4) != 0 {
                    bytes[place + 2] = 0xf0 | self.below(2) as u8;
                }
            }
        }
        (bytes, code)
    }
}

/// Compares the bytes of `text` as 64-bit code, from each of its first `positions` bytes on.
pub fn compare_text(tally: &mut Tally, text: &[u8], positions: u64) {
    for window in text.windows(WINDOW).take(usize::try_from(positions).unwrap_or(usize::MAX)) {
        tally.compare(window.try_into().unwrap(), CodeSize::Bits64);
    }
}

/// Compares `positions` generated instructions of all code sizes.
pub fn compare_generated(tally: &mut Tally, seed: u64, positions: u64) {
    let mut generator = Generator::new(seed);
    for _ in 0..positions {
        let (bytes, code) = generator.instruction();
        tally.compare(&bytes, code);
    }
}

/// The executable sections of a 64-bit little-endian ELF file, or where it has no sections its executable segments;
/// `None` where it is no such file.
pub fn executable_parts(file: &[u8]) -> Option<Vec<&[u8]>> {
    let number = |offset: u64, bytes: usize| -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(file.get(start..start.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(value))
    };
    let part = |offset: u64, length: u64| {
        let start = usize::try_from(offset).ok()?;
        file.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    };
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let mut parts = Vec::new();
    let (sections, section_size, section_count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    for section in 0..section_count {
        let header = sections.checked_add(section * section_size)?;
        // SHT_PROGBITS with SHF_EXECINSTR.
        if number(header + 4, 4)? == 1 && number(header + 8, 8)? & 4 != 0 {
            parts.push(part(number(header + 0x18, 8)?, number(header + 0x20, 8)?)?);
        }
    }
    if parts.is_empty() {
        let (segments, segment_size, segment_count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        for segment in 0..segment_count {
            let header = segments.checked_add(segment * segment_size)?;
            // PT_LOAD with PF_X.
            if number(header, 4)? == 1 && number(header + 4, 4)? & 1 != 0 {
                parts.push(part(number(header + 8, 8)?, number(header + 0x20, 8)?)?);
            }
        }
    }
    Some(parts)
}
