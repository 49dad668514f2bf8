//! Reads instruction bytes in order, and the prefixes before the opcode.

use crate::arithmetic::sign_extended;
use crate::{DecodeError, LONGEST};
use x86::{CodeSize, SegmentName, Width};

/// What is left of the instruction's bytes.
pub(crate) struct Cursor<'a> {
    rest: core::slice::Iter<'a, u8>,
    /// How many bytes there were, at most 15.
    given: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let window = bytes.get(..LONGEST).unwrap_or(bytes);
        Self { rest: window.iter(), given: window.len() }
    }

    #[cold]
    fn exhausted(given: usize) -> DecodeError {
        // Of an instruction with 15 bytes all are here: one that goes on is too long, whatever follows.
        if given == LONGEST { DecodeError::TooLong } else { DecodeError::NeedMoreBytes }
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        match self.rest.next() {
            Some(byte) => Ok(*byte),
            None => Err(Self::exhausted(self.given)),
        }
    }

    /// The next `N` bytes.
    #[inline(always)]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.as_slice().split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.rest = rest.iter();
                Ok(*first)
            }
            None => Err(Self::exhausted(self.given)),
        }
    }

    /// A signed byte, sign-extended to 64 bits.
    #[inline(always)]
    pub(crate) fn signed_byte(&mut self) -> Result<u64, DecodeError> {
        Ok(sign_extended(Width::Byte, self.byte()? as u64))
    }

    /// A signed 16-bit number, sign-extended to 64 bits.
    #[inline(always)]
    pub(crate) fn signed_word(&mut self) -> Result<u64, DecodeError> {
        Ok(sign_extended(Width::Word, u16::from_le_bytes(self.chunk()?) as u64))
    }

    /// A signed 32-bit number, sign-extended to 64 bits.
    #[inline(always)]
    pub(crate) fn signed_double(&mut self) -> Result<u64, DecodeError> {
        Ok(sign_extended(Width::Double, u32::from_le_bytes(self.chunk()?) as u64))
    }

    /// An absolute address of this size, zero-extended (the moffset of APM Vol. 3 §1.5.3).
    #[inline]
    pub(crate) fn absolute(&mut self, size: Width) -> Result<u64, DecodeError> {
        Ok(match size {
            Width::Byte => self.byte()? as u64,
            Width::Word => u16::from_le_bytes(self.chunk()?) as u64,
            Width::Double => u32::from_le_bytes(self.chunk()?) as u64,
            Width::Quad => u64::from_le_bytes(self.chunk()?),
        })
    }

    /// An immediate operand of an instruction with this operand width, cut to the width: a 64-bit operand has a 32-bit
    /// immediate, sign-extended (APM Vol. 3 §1.6).
    #[inline(always)]
    pub(crate) fn immediate(&mut self, width: Width) -> Result<u64, DecodeError> {
        let value = match width {
            Width::Byte => self.signed_byte()?,
            Width::Word => self.signed_word()?,
            Width::Double | Width::Quad => self.signed_double()?,
        };
        Ok(value & width.mask())
    }

    /// Bytes read so far, 0 to 15.
    #[inline(always)]
    pub(crate) fn length(&self) -> u8 {
        // `rest` is a tail of the window, so this neither wraps nor exceeds 15.
        self.given.wrapping_sub(self.rest.len()) as u8
    }
}

/// F2 or F3, whichever came last.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum RepeatPrefix {
    None,
    /// F2.
    NotEqual,
    /// F3.
    Equal,
}

/// What the prefixes before an opcode say (APM Vol. 3 §1.2). Few words, because they stay in registers.
#[derive(Copy, Clone)]
pub(crate) struct Prefixes {
    /// [`OPERAND_SIZE`] to [`REPEAT_EQUAL`].
    flags: u8,
    /// The override that counts: in 64-bit mode only FS and GS do.
    pub(crate) segment: Option<SegmentName>,
    /// The REX byte directly before the opcode, 0 where there is none.
    rex: u8,
    code: CodeSize,
}

/// 66.
const OPERAND_SIZE: u8 = 1;
/// 67.
const ADDRESS_SIZE: u8 = 2;
/// F0.
const LOCK: u8 = 4;
/// F2.
const REPEAT_NOT_EQUAL: u8 = 8;
/// F3.
const REPEAT_EQUAL: u8 = 16;

/// Whether a byte is a prefix in any mode.
static MAY_BE_PREFIX: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3
        );
        byte += 1;
    }
    table
};

impl Prefixes {
    /// Reads all prefixes and the opcode's first byte behind them.
    #[inline(always)]
    pub(crate) fn read(cursor: &mut Cursor<'_>, code: CodeSize) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self { flags: 0, segment: None, rex: 0, code };
        let mut byte = cursor.byte()?;
        while MAY_BE_PREFIX[byte as usize] {
            if byte & 0xf0 == 0x40 {
                if code != CodeSize::Bits64 {
                    // INC and DEC there.
                    break;
                }
                prefixes.rex = byte;
            } else {
                prefixes.legacy(byte);
            }
            byte = cursor.byte()?;
        }
        Ok((prefixes, byte))
    }

    /// Heeds a prefix other than REX.
    #[inline(never)]
    fn legacy(&mut self, byte: u8) {
        // A REX that is not directly before the opcode means nothing (APM Vol. 3 §1.2.7).
        self.rex = 0;
        match byte {
            0x66 => self.flags |= OPERAND_SIZE,
            0x67 => self.flags |= ADDRESS_SIZE,
            0xf0 => self.flags |= LOCK,
            0xf2 => self.flags = self.flags & !REPEAT_EQUAL | REPEAT_NOT_EQUAL,
            0xf3 => self.flags = self.flags & !REPEAT_NOT_EQUAL | REPEAT_EQUAL,
            0x64 => self.segment = Some(SegmentName::Fs),
            0x65 => self.segment = Some(SegmentName::Gs),
            // 64-bit mode ignores the other four, which do not undo an FS or GS either (APM Vol. 3 §1.2.4).
            _ if self.code == CodeSize::Bits64 => {}
            0x26 => self.segment = Some(SegmentName::Es),
            0x2e => self.segment = Some(SegmentName::Cs),
            0x36 => self.segment = Some(SegmentName::Ss),
            _ => self.segment = Some(SegmentName::Ds),
        }
    }

    /// Whether there is a LOCK.
    #[inline(always)]
    pub(crate) const fn lock(self) -> bool {
        self.flags & LOCK != 0
    }

    /// Whether there is a 66.
    #[inline(always)]
    pub(crate) const fn operand_size(self) -> bool {
        self.flags & OPERAND_SIZE != 0
    }

    /// The repeat prefix that counts.
    #[inline(always)]
    pub(crate) const fn repeat(self) -> RepeatPrefix {
        match self.flags & (REPEAT_EQUAL | REPEAT_NOT_EQUAL) {
            0 => RepeatPrefix::None,
            REPEAT_NOT_EQUAL => RepeatPrefix::NotEqual,
            _ => RepeatPrefix::Equal,
        }
    }

    /// Whether there is a REX byte, which turns AH, CH, DH, BH into SPL, BPL, SIL, DIL.
    #[inline(always)]
    pub(crate) const fn has_rex(self) -> bool {
        self.rex != 0
    }

    /// REX.W.
    #[inline(always)]
    pub(crate) const fn wide(self) -> bool {
        self.rex & 8 != 0
    }

    /// REX.R as the fourth bit of a register number: 0 or 8.
    #[inline(always)]
    pub(crate) const fn register_high_bit(self) -> u8 {
        (self.rex & 4) << 1
    }

    /// REX.X as the fourth bit of an index's number: 0 or 8.
    #[inline(always)]
    pub(crate) const fn index_high_bit(self) -> u8 {
        (self.rex & 2) << 2
    }

    /// REX.B as the fourth bit of a base's number: 0 or 8.
    #[inline(always)]
    pub(crate) const fn base_high_bit(self) -> u8 {
        (self.rex & 1) << 3
    }

    /// Effective operand size: word, double or quad (APM Vol. 3 table 1-3).
    #[inline(always)]
    pub(crate) const fn operand_width(self) -> Width {
        let inverted = self.flags & OPERAND_SIZE != 0;
        match self.code {
            CodeSize::Bits64 if self.wide() => Width::Quad,
            CodeSize::Bits16 if !inverted => Width::Word,
            CodeSize::Bits32 | CodeSize::Bits64 if inverted => Width::Word,
            CodeSize::Bits16 | CodeSize::Bits32 | CodeSize::Bits64 => Width::Double,
        }
    }

    /// [`Self::operand_width`], or a byte where the opcode's lowest bit is clear, as in most of the one-byte map.
    #[inline(always)]
    pub(crate) const fn opcode_width(self, opcode: u8) -> Width {
        if opcode & 1 == 0 { Width::Byte } else { self.operand_width() }
    }

    /// Effective address size: word, double or quad (APM Vol. 3 table 1-4).
    #[inline(always)]
    pub(crate) const fn address_width(self) -> Width {
        match (self.code, self.flags & ADDRESS_SIZE != 0) {
            (CodeSize::Bits64, false) => Width::Quad,
            (CodeSize::Bits64 | CodeSize::Bits16, true) | (CodeSize::Bits32, false) => Width::Double,
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => Width::Word,
        }
    }

    /// The code's size.
    #[inline(always)]
    pub(crate) const fn code(self) -> CodeSize {
        self.code
    }
}
