//! How long an intercepted instruction is, where the processor does not say.

use crate::DecodeError;
use crate::address::EffectiveAddress;
use crate::cursor::{Cursor, Prefixes, RepeatPrefix};
use x86::CodeSize;

/// An instruction that a back end can intercept, and whose length is not otherwise known.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Intercepted {
    /// CPUID, 0F A2.
    Cpuid,
    /// RDMSR, 0F 32.
    ReadMsr,
    /// WRMSR, 0F 30.
    WriteMsr,
    /// RDPMC, 0F 33.
    ReadPerformanceCounter,
    /// HLT, F4.
    Halt,
    /// VMMCALL (AMD), 0F 01 D9.
    Vmmcall,
    /// VMCALL (Intel), 0F 01 C1.
    Vmcall,
    /// XSETBV, 0F 01 D1.
    SetExtendedControl,
    /// INVD, 0F 08.
    Invd,
    /// WBINVD, 0F 09, and WBNOINVD, F3 0F 09.
    Wbinvd,
    /// PAUSE, F3 90.
    Pause,
    /// RDTSC, 0F 31.
    Rdtsc,
    /// RDTSCP, 0F 01 F9.
    Rdtscp,
    /// MONITOR, 0F 01 C8.
    Monitor,
    /// MWAIT, 0F 01 C9.
    Mwait,
    /// INVLPG with its memory operand, 0F 01 /7.
    InvalidatePage,
}

impl Intercepted {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Cpuid,
        Self::ReadMsr,
        Self::WriteMsr,
        Self::ReadPerformanceCounter,
        Self::Halt,
        Self::Vmmcall,
        Self::Vmcall,
        Self::SetExtendedControl,
        Self::Invd,
        Self::Wbinvd,
        Self::Pause,
        Self::Rdtsc,
        Self::Rdtscp,
        Self::Monitor,
        Self::Mwait,
        Self::InvalidatePage,
    ];

    /// The bytes without prefixes, the first in the low bits, and how many there are. PAUSE counts its F3, without which
    /// it is NOP. Of INVLPG, whose third byte is a ModRM, only the opcode.
    #[inline]
    const fn pattern(self) -> (u32, u8) {
        match self {
            Self::Cpuid => (0xa2_0f, 2),
            Self::ReadMsr => (0x32_0f, 2),
            Self::WriteMsr => (0x30_0f, 2),
            Self::ReadPerformanceCounter => (0x33_0f, 2),
            Self::Halt => (0xf4, 1),
            Self::Vmmcall => (0xd9_01_0f, 3),
            Self::Vmcall => (0xc1_01_0f, 3),
            Self::SetExtendedControl => (0xd1_01_0f, 3),
            Self::Invd => (0x08_0f, 2),
            Self::Wbinvd => (0x09_0f, 2),
            Self::Pause => (0x90_f3, 2),
            Self::Rdtsc => (0x31_0f, 2),
            Self::Rdtscp => (0xf9_01_0f, 3),
            Self::Monitor => (0xc8_01_0f, 3),
            Self::Mwait => (0xc9_01_0f, 3),
            Self::InvalidatePage => (0x01_0f, 2),
        }
    }
}

/// The length in bytes, 1 to 15, of the instruction at `bytes` if it is `expected`, all prefixes counted.
///
/// Prefixes that the instruction ignores are allowed, because processors allow them: whoever calls has an exit that says
/// which instruction was executed, so that only LOCK, which never was, is refused.
///
/// # Errors
/// [`DecodeError::Unexpected`] where the bytes are another instruction; never [`DecodeError::Unsupported`].
#[inline]
pub fn length(bytes: &[u8], code: CodeSize, expected: Intercepted) -> Result<u8, DecodeError> {
    if let Some(first) = bytes.first_chunk::<4>()
        && let Some(length) = plain_length(u32::from_le_bytes(*first), expected)
    {
        return Ok(length);
    }
    length_with_prefixes(bytes, code, expected)
}

/// As [`length`], of the first four bytes, the first in the low bits, where the instruction has no prefix, as in most code: one mask,
/// one comparison. `None`: ask [`length`].
#[inline(always)]
pub fn plain_length(first: u32, expected: Intercepted) -> Option<u8> {
    let (opcode, opcode_length) = expected.pattern();
    let mask = u32::MAX >> (32 - 8 * opcode_length as u32);
    let plain = first & mask == opcode && expected as u8 != Intercepted::InvalidatePage as u8;
    plain.then_some(opcode_length)
}

#[cold]
fn length_with_prefixes(bytes: &[u8], code: CodeSize, expected: Intercepted) -> Result<u8, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, first) = Prefixes::read(&mut cursor, code)?;
    let matches = if expected == Intercepted::Pause {
        // Decoders differ on whether REX.B makes it XCHG R8; an exit says that this processor took it for PAUSE.
        first == 0x90 && prefixes.repeat() == RepeatPrefix::Equal
    } else {
        let (opcode, opcode_length) = expected.pattern();
        let [expected_first, expected_rest @ ..] = opcode.to_le_bytes();
        let mut matches = first == expected_first;
        for expected_byte in expected_rest.into_iter().take(opcode_length.saturating_sub(1) as usize) {
            // Bytes behind a difference are another instruction's, and need not be there.
            matches = matches && cursor.byte()? == expected_byte;
        }
        matches
    };
    if !matches {
        return Err(DecodeError::Unexpected);
    }
    if expected == Intercepted::InvalidatePage {
        let modrm = cursor.byte()?;
        if modrm & 0x38 != 0x38 || modrm >> 6 == 3 {
            return Err(DecodeError::Unexpected);
        }
        EffectiveAddress::read(&mut cursor, prefixes, modrm)?;
    }
    if prefixes.lock() { Err(DecodeError::Undefined) } else { Ok(cursor.length()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CodeSize::{Bits16, Bits32, Bits64};

    #[test]
    fn every_instruction_has_the_length_of_its_bytes() {
        for expected in Intercepted::ALL {
            if expected == Intercepted::InvalidatePage {
                continue;
            }
            let (opcode, opcode_length) = expected.pattern();
            let mut bytes = [0xcc; 16];
            bytes[..opcode_length as usize].copy_from_slice(&opcode.to_le_bytes()[..opcode_length as usize]);
            for code in [Bits16, Bits32, Bits64] {
                assert_eq!(length(&bytes, code, expected), Ok(opcode_length), "{expected:?}");
                // The slow way agrees, also where the instruction ends with the bytes.
                assert_eq!(length(&bytes[..opcode_length as usize], code, expected), Ok(opcode_length));
                assert_eq!(
                    length(&bytes[..opcode_length as usize - 1], code, expected),
                    Err(DecodeError::NeedMoreBytes)
                );
            }
            for other in Intercepted::ALL {
                if other != expected {
                    assert_eq!(
                        length(&bytes, Bits64, other),
                        Err(DecodeError::Unexpected),
                        "{expected:?} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn prefixes_count() {
        assert_eq!(length(&[0x66, 0x2e, 0x0f, 0xa2], Bits32, Intercepted::Cpuid), Ok(4));
        assert_eq!(length(&[0x48, 0x0f, 0xa2], Bits64, Intercepted::Cpuid), Ok(3));
        // 48 is DEC EAX outside 64-bit mode.
        assert_eq!(length(&[0x48, 0x0f, 0xa2], Bits32, Intercepted::Cpuid), Err(DecodeError::Unexpected));
        assert_eq!(length(&[0xf0, 0x0f, 0xa2], Bits64, Intercepted::Cpuid), Err(DecodeError::Undefined));
        assert_eq!(length(&[0xf3, 0x0f, 0x09], Bits64, Intercepted::Wbinvd), Ok(3));
    }

    #[test]
    fn fifteen_bytes_are_allowed_and_sixteen_are_not() {
        let mut bytes = [0x66; 16];
        bytes[13..15].copy_from_slice(&[0x0f, 0xa2]);
        assert_eq!(length(&bytes, Bits64, Intercepted::Cpuid), Ok(15));
        assert_eq!(length(&bytes[..14], Bits64, Intercepted::Cpuid), Err(DecodeError::NeedMoreBytes));
        bytes[13..16].copy_from_slice(&[0x66, 0x0f, 0xa2]);
        assert_eq!(length(&bytes, Bits64, Intercepted::Cpuid), Err(DecodeError::TooLong));
        assert_eq!(length(&[0x66; 40], Bits64, Intercepted::Halt), Err(DecodeError::TooLong));
        assert_eq!(length(&[], Bits64, Intercepted::Halt), Err(DecodeError::NeedMoreBytes));
    }

    #[test]
    fn pause_is_an_f3_before_nop() {
        assert_eq!(length(&[0xf3, 0x90], Bits64, Intercepted::Pause), Ok(2));
        assert_eq!(length(&[0xf3, 0x66, 0x90], Bits64, Intercepted::Pause), Ok(3));
        assert_eq!(length(&[0x90], Bits64, Intercepted::Pause), Err(DecodeError::Unexpected));
        assert_eq!(length(&[0xf2, 0x90], Bits64, Intercepted::Pause), Err(DecodeError::Unexpected));
    }

    #[test]
    fn invlpg_counts_its_address() {
        let invlpg = Intercepted::InvalidatePage;
        assert_eq!(length(&[0x0f, 0x01, 0x38, 0, 0, 0], Bits64, invlpg), Ok(3));
        assert_eq!(length(&[0x0f, 0x01, 0x7c, 0x24, 0x08], Bits64, invlpg), Ok(5));
        assert_eq!(length(&[0x0f, 0x01, 0x3e, 0x34, 0x12], Bits16, invlpg), Ok(5));
        assert_eq!(length(&[0x0f, 0x01, 0xf8, 0, 0], Bits64, invlpg), Err(DecodeError::Unexpected)); // SWAPGS
    }
}
