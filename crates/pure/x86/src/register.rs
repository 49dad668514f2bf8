//! General registers and access widths.

/// A general-purpose register, numbered as instructions encode it (APM Vol. 3 §1.4).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the architecture's own.
pub enum General {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl General {
    /// All sixteen, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with this number; only the low four bits count.
    #[inline]
    pub const fn from_number(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }
}

/// How many bytes an access moves.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Double = 4,
    /// 8 bytes.
    Quad = 8,
}

impl Width {
    /// The number of bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn bytes(self) -> u8 {
        self as u8
    }

    /// The bits that a value of this width can have.
    #[inline]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Double => 0xffff_ffff,
            Self::Quad => u64::MAX,
        }
    }

    /// The width of so many bytes, if there is one.
    #[inline]
    pub const fn from_bytes(bytes: u8) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Double),
            8 => Some(Self::Quad),
            _ => None,
        }
    }

    /// `old` with its low bytes replaced by `new`, as a write to a general register does: 32-bit writes clear the
    /// upper half, narrower ones keep it (APM Vol. 1 §3.1.2.3).
    #[inline]
    pub const fn merge(self, old: u64, new: u64) -> u64 {
        match self {
            Self::Byte | Self::Word => (old & !self.mask()) | (new & self.mask()),
            Self::Double | Self::Quad => new & self.mask(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_writes_merge_as_the_processor_does() {
        let old = 0x1122_3344_5566_7788;
        assert_eq!(Width::Byte.merge(old, 0xfff), 0x1122_3344_5566_77ff);
        assert_eq!(Width::Word.merge(old, 0xabcd), 0x1122_3344_5566_abcd);
        assert_eq!(Width::Double.merge(old, 0x1_0000_0001), 1);
        assert_eq!(Width::Quad.merge(old, 5), 5);
    }

    #[test]
    fn numbers_name_their_registers() {
        for (number, register) in General::ALL.iter().enumerate() {
            assert_eq!(*register as usize, number);
            assert_eq!(General::from_number(number as u8 | 0x10), *register);
        }
    }
}
