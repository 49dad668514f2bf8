//! Instructions that read and write control registers (APM Vol. 3 chapter 4).

use crate::DecodeError;
use crate::address::EffectiveAddress;
use crate::cursor::{Cursor, Prefixes};
use x86::{CodeSize, General, Width};

/// A control register that exists.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the architecture's own.
pub enum ControlRegister {
    Cr0 = 0,
    Cr2 = 2,
    Cr3 = 3,
    Cr4 = 4,
    Cr8 = 8,
}

impl ControlRegister {
    /// 0, 2, 3, 4 or 8.
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The register with this number, if there is one.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Cr0),
            2 => Some(Self::Cr2),
            3 => Some(Self::Cr3),
            4 => Some(Self::Cr4),
            8 => Some(Self::Cr8),
            _ => None,
        }
    }
}

/// Where SMSW puts the status word, or LMSW takes it from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StatusWordOperand {
    /// A general register. SMSW writes so many bytes of CR0 to it (word, double or quad); LMSW reads its low word.
    Register(General, Width),
    /// A word in memory.
    Memory(EffectiveAddress),
}

/// What an instruction does with a control register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ControlKind {
    /// MOV to a control register. 64 bits move in 64-bit mode, else 32.
    MoveTo {
        /// The control register.
        control: ControlRegister,
        /// The register that it takes its value from.
        general: General,
    },
    /// MOV from a control register. 64 bits move in 64-bit mode, else 32.
    MoveFrom {
        /// The control register.
        control: ControlRegister,
        /// The register that receives its value.
        general: General,
    },
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW: bits 0 to 3 of CR0, of which PE can only be set.
    LoadStatusWord(StatusWordOperand),
    /// SMSW.
    StoreStatusWord(StatusWordOperand),
}

/// An instruction that reads or writes a control register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ControlInstruction {
    /// Bytes, 2 to 15.
    pub length: u8,
    /// What it does.
    pub kind: ControlKind,
}

/// Decodes MOV to and from CR0, CR2, CR3, CR4 and CR8 (also as LOCK MOV CR0, APM Vol. 3 "MOV CRn"), CLTS, LMSW and SMSW.
///
/// # Errors
/// [`DecodeError::Undefined`] for control registers that do not exist; [`DecodeError::Unexpected`] for any other
/// instruction.
pub fn control(bytes: &[u8], code: CodeSize) -> Result<ControlInstruction, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, first) = Prefixes::read(&mut cursor, code)?;
    if first != 0x0f {
        return Err(DecodeError::Unexpected);
    }
    let mut lock_allowed = false;
    let kind = match cursor.byte()? {
        0x06 => ControlKind::ClearTaskSwitched,
        0x01 => {
            let modrm = cursor.byte()?;
            let load = match (modrm >> 3) & 7 {
                4 => false,
                6 => true,
                _ => return Err(DecodeError::Unexpected),
            };
            let operand = if modrm >> 6 == 3 {
                StatusWordOperand::Register(
                    General::from_number((modrm & 7) | prefixes.base_high_bit()),
                    if load { Width::Word } else { prefixes.operand_width() },
                )
            } else {
                StatusWordOperand::Memory(EffectiveAddress::read(&mut cursor, prefixes, modrm)?)
            };
            if load { ControlKind::LoadStatusWord(operand) } else { ControlKind::StoreStatusWord(operand) }
        }
        opcode @ (0x20 | 0x22) => {
            // The mode bits are ignored: the operand is always a register.
            let modrm = cursor.byte()?;
            let mut number = ((modrm >> 3) & 7) | prefixes.register_high_bit();
            if prefixes.lock() {
                if number != 0 {
                    return Err(DecodeError::Undefined);
                }
                lock_allowed = true;
                number = 8;
            }
            let Some(control) = ControlRegister::from_number(number) else {
                return Err(DecodeError::Undefined);
            };
            let general = General::from_number((modrm & 7) | prefixes.base_high_bit());
            if opcode == 0x20 {
                ControlKind::MoveFrom { control, general }
            } else {
                ControlKind::MoveTo { control, general }
            }
        }
        _ => return Err(DecodeError::Unexpected),
    };
    if prefixes.lock() && !lock_allowed {
        return Err(DecodeError::Undefined);
    }
    Ok(ControlInstruction { length: cursor.length(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use CodeSize::{Bits32, Bits64};

    fn kind(bytes: &[u8], code: CodeSize) -> ControlKind {
        let instruction = control(bytes, code).unwrap();
        assert_eq!(instruction.length as usize, bytes.len());
        instruction.kind
    }

    #[test]
    fn moves_name_both_registers() {
        let (control, general) = (ControlRegister::Cr3, General::Rax);
        assert_eq!(kind(&[0x0f, 0x22, 0xd8], Bits32), ControlKind::MoveTo { control, general });
        assert_eq!(kind(&[0x0f, 0x20, 0xd8], Bits64), ControlKind::MoveFrom { control, general });
        let (control, general) = (ControlRegister::Cr8, General::R9);
        assert_eq!(kind(&[0x45, 0x0f, 0x22, 0xc1], Bits64), ControlKind::MoveTo { control, general });
        // The mode bits do not count, and no displacement follows.
        let (control, general) = (ControlRegister::Cr0, General::Rbp);
        assert_eq!(kind(&[0x0f, 0x22, 0x05], Bits64), ControlKind::MoveTo { control, general });
    }

    #[test]
    fn lock_reaches_cr8() {
        let (control, general) = (ControlRegister::Cr8, General::Rcx);
        assert_eq!(kind(&[0xf0, 0x0f, 0x20, 0xc1], Bits32), ControlKind::MoveFrom { control, general });
        assert_eq!(super::control(&[0xf0, 0x0f, 0x20, 0xd1], Bits32), Err(DecodeError::Undefined));
        assert_eq!(super::control(&[0xf0, 0x0f, 0x06], Bits32), Err(DecodeError::Undefined));
    }

    #[test]
    fn absent_registers_are_undefined() {
        for number in [1, 5, 6, 7] {
            let modrm = 0xc0 | number << 3;
            assert_eq!(control(&[0x0f, 0x22, modrm], Bits64), Err(DecodeError::Undefined));
            assert_eq!(control(&[0x44, 0x0f, 0x22, modrm], Bits64), Err(DecodeError::Undefined));
        }
    }

    #[test]
    fn status_words_have_registers_and_memory() {
        assert_eq!(kind(&[0x0f, 0x06], Bits32), ControlKind::ClearTaskSwitched);
        assert_eq!(
            kind(&[0x0f, 0x01, 0xf0], Bits32),
            ControlKind::LoadStatusWord(StatusWordOperand::Register(General::Rax, Width::Word))
        );
        assert_eq!(
            kind(&[0x48, 0x0f, 0x01, 0xe3], Bits64),
            ControlKind::StoreStatusWord(StatusWordOperand::Register(General::Rbx, Width::Quad))
        );
        let ControlKind::StoreStatusWord(StatusWordOperand::Memory(address)) =
            kind(&[0x0f, 0x01, 0x66, 0x08], Bits32)
        else {
            panic!("SMSW [ESI+8] has a memory operand");
        };
        assert_eq!((address.base, address.displacement), (Some(General::Rsi), 8));
    }

    #[test]
    fn other_instructions_are_unexpected() {
        assert_eq!(control(&[0x90], Bits64), Err(DecodeError::Unexpected));
        assert_eq!(control(&[0x0f, 0xa2], Bits64), Err(DecodeError::Unexpected));
        assert_eq!(control(&[0x0f, 0x01, 0xf8], Bits64), Err(DecodeError::Unexpected));
        assert_eq!(control(&[0x0f, 0x22], Bits64), Err(DecodeError::NeedMoreBytes));
    }
}
