//! Effective addresses: what ModRM, SIB and displacement say (APM Vol. 3 §1.4 and §1.5).

use crate::DecodeError;
use crate::cursor::{Cursor, Prefixes};
use x86::{General, SegmentName, Width};

/// What an index is multiplied by.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the factors.
pub enum Scale {
    One = 0,
    Two = 1,
    Four = 2,
    Eight = 3,
}

impl Scale {
    /// The factor as a shift, 0 to 3.
    #[inline]
    pub const fn shift(self) -> u32 {
        self as u32
    }

    #[inline]
    pub(crate) const fn from_sib(sib: u8) -> Self {
        match sib >> 6 {
            0 => Self::One,
            1 => Self::Two,
            2 => Self::Four,
            _ => Self::Eight,
        }
    }
}

/// An effective address as the instruction describes it, before any register is read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct EffectiveAddress {
    /// Sign-extended (the absolute address of MOV A0 to A3: zero-extended) to 64 bits.
    pub displacement: u64,
    /// The base register, if there is one.
    pub base: Option<General>,
    /// The index register, if there is one.
    pub index: Option<General>,
    /// What the index is multiplied by; 1 where there is no index.
    pub scale: Scale,
    /// The segment. In 64-bit mode the bases of ES, CS, SS and DS count as 0; SS still decides that a non-canonical
    /// address raises #SS and not #GP (APM Vol. 2 §4.5.3, §8.2.13).
    pub segment: SegmentName,
    /// The address size: word, double or quad. The offset wraps at it.
    pub size: Width,
    /// Whether the displacement counts from the end of the instruction.
    pub instruction_relative: bool,
}

impl EffectiveAddress {
    /// The address that a string instruction has in `register`.
    #[inline]
    pub(crate) const fn of_string(register: General, segment: SegmentName, size: Width) -> Self {
        Self {
            displacement: 0,
            base: Some(register),
            index: None,
            scale: Scale::One,
            segment,
            size,
            instruction_relative: false,
        }
    }

    /// The absolute address of MOV A0 to A3.
    #[inline]
    pub(crate) fn absolute(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Result<Self, DecodeError> {
        let size = prefixes.address_width();
        Ok(Self {
            displacement: cursor.absolute(size)?,
            base: None,
            index: None,
            scale: Scale::One,
            segment: prefixes.segment.unwrap_or(SegmentName::Ds),
            size,
            instruction_relative: false,
        })
    }

    /// The offset in the segment, wrapped at the address size. `general` reads a register; `next` is the address of the
    /// instruction that follows in memory.
    #[inline]
    pub fn offset(&self, general: impl Fn(General) -> u64, next: u64) -> u64 {
        let mut offset = self.displacement;
        if let Some(base) = self.base {
            offset = offset.wrapping_add(general(base));
        }
        if let Some(index) = self.index {
            offset = offset.wrapping_add(general(index) << self.scale.shift());
        }
        if self.instruction_relative {
            offset = offset.wrapping_add(next);
        }
        offset & self.size.mask()
    }

    /// Reads what follows a ModRM byte whose mode is not 3.
    #[inline(never)]
    pub(crate) fn read(cursor: &mut Cursor<'_>, prefixes: Prefixes, modrm: u8) -> Result<Self, DecodeError> {
        let size = prefixes.address_width();
        if size == Width::Word {
            return Self::read_16(cursor, prefixes, modrm);
        }
        let mode = modrm >> 6;
        let mut address = Self {
            displacement: 0,
            base: None,
            index: None,
            scale: Scale::One,
            segment: SegmentName::Ds,
            size,
            instruction_relative: false,
        };
        let mut base = modrm & 7;
        let with_sib = base == 4;
        if with_sib {
            let sib = cursor.byte()?;
            // Index 4 means none, but R12 can be an index: the fourth bit counts here.
            let index = ((sib >> 3) & 7) | prefixes.index_high_bit();
            if index != 4 {
                address.index = Some(General::from_number(index));
                address.scale = Scale::from_sib(sib);
            }
            base = sib & 7;
        }
        // Base 5 without displacement means a displacement without base; R13 is no exception: the fourth bit does not count.
        if mode == 0 && base == 5 {
            address.displacement = cursor.signed_double()?;
            address.instruction_relative = !with_sib && prefixes.code() == x86::CodeSize::Bits64;
        } else {
            let number = base | prefixes.base_high_bit();
            if number == General::Rsp as u8 || number == General::Rbp as u8 {
                address.segment = SegmentName::Ss;
            }
            address.base = Some(General::from_number(number));
            address.displacement = match mode {
                0 => 0,
                1 => cursor.signed_byte()?,
                _ => cursor.signed_double()?,
            };
        }
        if let Some(segment) = prefixes.segment {
            address.segment = segment;
        }
        Ok(address)
    }

    /// The eight addressing modes of the 8086 (APM Vol. 3 table A-34).
    #[cold]
    fn read_16(cursor: &mut Cursor<'_>, prefixes: Prefixes, modrm: u8) -> Result<Self, DecodeError> {
        use General::{Rbp, Rbx, Rdi, Rsi};
        let mode = modrm >> 6;
        let (base, index) = match modrm & 7 {
            0 => (Some(Rbx), Some(Rsi)),
            1 => (Some(Rbx), Some(Rdi)),
            2 => (Some(Rbp), Some(Rsi)),
            3 => (Some(Rbp), Some(Rdi)),
            4 => (Some(Rsi), None),
            5 => (Some(Rdi), None),
            6 if mode == 0 => (None, None),
            6 => (Some(Rbp), None),
            _ => (Some(Rbx), None),
        };
        let displacement = match mode {
            0 if base.is_some() => 0,
            1 => cursor.signed_byte()?,
            _ => cursor.signed_word()?,
        };
        let default = if base == Some(Rbp) { SegmentName::Ss } else { SegmentName::Ds };
        Ok(Self {
            displacement,
            base,
            index,
            scale: Scale::One,
            segment: prefixes.segment.unwrap_or(default),
            size: Width::Word,
            instruction_relative: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_wrap_at_the_address_size() {
        let address = EffectiveAddress {
            displacement: u64::MAX, // −1
            base: Some(General::Rbx),
            index: Some(General::Rsi),
            scale: Scale::Four,
            segment: SegmentName::Ds,
            size: Width::Double,
            instruction_relative: false,
        };
        let general = |register| if register == General::Rbx { 0xffff_fff0 } else { 8 };
        assert_eq!(address.offset(general, 0), 0xf);
        assert_eq!(EffectiveAddress { size: Width::Word, ..address }.offset(general, 0), 0xf);
        assert_eq!(EffectiveAddress { size: Width::Quad, ..address }.offset(general, 0), 0x1_0000_000f);
    }

    #[test]
    fn relative_addresses_count_from_the_end_of_the_instruction() {
        let address = EffectiveAddress {
            displacement: 0x10,
            base: None,
            index: None,
            scale: Scale::One,
            segment: SegmentName::Ds,
            size: Width::Quad,
            instruction_relative: true,
        };
        assert_eq!(address.offset(|_| 0, 0xffff_ffff_8100_0007), 0xffff_ffff_8100_0017);
    }
}
