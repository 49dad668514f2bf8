//! Reads instruction bytes in order, and the prefixes before the opcode.

use crate::arithmetic::sign_extended;
use crate::{DecodeError, LONGEST};
use x86::{CodeSize, SegmentName, Width};

/// What is left of the instruction's bytes.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many bytes there were, at most 15.
    given: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let window = bytes.get(..LONGEST).unwrap_or(bytes);
        Self { rest: window, given: window.len() }
    }

    #[cold]
    fn exhausted(&self) -> DecodeError {
        // Of an instruction with 15 bytes all are here: one that goes on is too long, whatever follows.
        if self.given == LONGEST { DecodeError::TooLong } else { DecodeError::NeedMoreBytes }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                Ok(*first)
            }
            None => Err(self.exhausted()),
        }
    }

    /// The next `N` bytes.
    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.rest = rest;
                Ok(*first)
            }
            None => Err(self.exhausted()),
        }
    }

    /// A signed byte, sign-extended to 64 bits.
    #[inline]
    pub(crate) fn signed_byte(&mut self) -> Result<u64, DecodeError> {
        Ok(sign_extended(Width::Byte, self.byte()? as u64))
    }

    /// A signed 16-bit number, sign-extended to 64 bits.
    #[inline]
    pub(crate) fn signed_word(&mut self) -> Result<u64, DecodeError> {
        Ok(sign_extended(Width::Word, u16::from_le_bytes(self.chunk()?) as u64))
    }

    /// A signed 32-bit number, sign-extended to 64 bits.
    #[inline]
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
    #[inline]
    pub(crate) fn immediate(&mut self, width: Width) -> Result<u64, DecodeError> {
        let value = match width {
            Width::Byte => self.signed_byte()?,
            Width::Word => self.signed_word()?,
            Width::Double | Width::Quad => self.signed_double()?,
        };
        Ok(value & width.mask())
    }

    /// Bytes read so far, 0 to 15.
    #[inline]
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

/// What the prefixes before an opcode say (APM Vol. 3 §1.2).
pub(crate) struct Prefixes {
    /// 66.
    pub(crate) operand_size: bool,
    /// 67.
    pub(crate) address_size: bool,
    /// F0.
    pub(crate) lock: bool,
    pub(crate) repeat: RepeatPrefix,
    /// The override that counts: in 64-bit mode only FS and GS do.
    pub(crate) segment: Option<SegmentName>,
    /// The REX byte directly before the opcode, 0 where there is none.
    rex: u8,
    code: CodeSize,
}

impl Prefixes {
    /// Reads all prefixes and the opcode's first byte behind them.
    #[inline]
    pub(crate) fn read(cursor: &mut Cursor<'_>, code: CodeSize) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self {
            operand_size: false,
            address_size: false,
            lock: false,
            repeat: RepeatPrefix::None,
            segment: None,
            rex: 0,
            code,
        };
        loop {
            let byte = cursor.byte()?;
            if code == CodeSize::Bits64 && byte & 0xf0 == 0x40 {
                prefixes.rex = byte;
                continue;
            }
            match byte {
                0x66 => prefixes.operand_size = true,
                0x67 => prefixes.address_size = true,
                0xf0 => prefixes.lock = true,
                0xf2 => prefixes.repeat = RepeatPrefix::NotEqual,
                0xf3 => prefixes.repeat = RepeatPrefix::Equal,
                0x64 => prefixes.segment = Some(SegmentName::Fs),
                0x65 => prefixes.segment = Some(SegmentName::Gs),
                // 64-bit mode ignores the other four, which do not undo an FS or GS either (APM Vol. 3 §1.2.4).
                0x26 => prefixes.legacy_segment(SegmentName::Es),
                0x2e => prefixes.legacy_segment(SegmentName::Cs),
                0x36 => prefixes.legacy_segment(SegmentName::Ss),
                0x3e => prefixes.legacy_segment(SegmentName::Ds),
                opcode => return Ok((prefixes, opcode)),
            }
            // A REX that is not directly before the opcode means nothing (APM Vol. 3 §1.2.7).
            prefixes.rex = 0;
        }
    }

    fn legacy_segment(&mut self, segment: SegmentName) {
        if self.code != CodeSize::Bits64 {
            self.segment = Some(segment);
        }
    }

    /// Whether there is a REX byte, which turns AH, CH, DH, BH into SPL, BPL, SIL, DIL.
    #[inline]
    pub(crate) const fn has_rex(&self) -> bool {
        self.rex != 0
    }

    /// REX.W.
    #[inline]
    pub(crate) const fn wide(&self) -> bool {
        self.rex & 8 != 0
    }

    /// REX.R as the fourth bit of a register number: 0 or 8.
    #[inline]
    pub(crate) const fn register_high_bit(&self) -> u8 {
        (self.rex & 4) << 1
    }

    /// REX.X as the fourth bit of an index's number: 0 or 8.
    #[inline]
    pub(crate) const fn index_high_bit(&self) -> u8 {
        (self.rex & 2) << 2
    }

    /// REX.B as the fourth bit of a base's number: 0 or 8.
    #[inline]
    pub(crate) const fn base_high_bit(&self) -> u8 {
        (self.rex & 1) << 3
    }

    /// Effective operand size: word, double or quad (APM Vol. 3 table 1-3).
    #[inline]
    pub(crate) const fn operand_width(&self) -> Width {
        match self.code {
            CodeSize::Bits64 if self.wide() => Width::Quad,
            CodeSize::Bits16 if self.operand_size => Width::Double,
            CodeSize::Bits16 => Width::Word,
            CodeSize::Bits32 | CodeSize::Bits64 if self.operand_size => Width::Word,
            CodeSize::Bits32 | CodeSize::Bits64 => Width::Double,
        }
    }

    /// [`Self::operand_width`], or a byte where the opcode's lowest bit is clear, as in most of the one-byte map.
    #[inline]
    pub(crate) const fn opcode_width(&self, opcode: u8) -> Width {
        if opcode & 1 == 0 { Width::Byte } else { self.operand_width() }
    }

    /// Effective address size: word, double or quad (APM Vol. 3 table 1-4).
    #[inline]
    pub(crate) const fn address_width(&self) -> Width {
        match (self.code, self.address_size) {
            (CodeSize::Bits64, false) => Width::Quad,
            (CodeSize::Bits64 | CodeSize::Bits16, true) | (CodeSize::Bits32, false) => Width::Double,
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => Width::Word,
        }
    }

    /// The code's size.
    #[inline]
    pub(crate) const fn code(&self) -> CodeSize {
        self.code
    }
}
