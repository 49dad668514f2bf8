//! INS and OUTS (APM Vol. 3 chapter 3).

use crate::DecodeError;
use crate::address::EffectiveAddress;
use crate::cursor::{Cursor, Prefixes, RepeatPrefix};
use x86::{CodeSize, General, SegmentName, Width};

/// Which way the bytes go.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PortDirection {
    /// INS: from the port to memory.
    In,
    /// OUTS: from memory to the port.
    Out,
}

/// INS or OUTS. The port is DX; rDI or rSI moves by the width, down where RFLAGS.DF is set; see [`crate::advance`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StringPort {
    /// Bytes, 1 to 15.
    pub length: u8,
    /// Which way.
    pub direction: PortDirection,
    /// Byte, word or double.
    pub width: Width,
    /// Whether rCX, of the address's size, counts.
    pub repeat: bool,
    /// ES:rDI for INS; the segment given, else DS, with rSI for OUTS.
    pub address: EffectiveAddress,
}

/// Decodes INS and OUTS, 6C to 6F.
///
/// # Errors
/// [`DecodeError::Unexpected`] for any other instruction.
pub fn string_port(bytes: &[u8], code: CodeSize) -> Result<StringPort, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, opcode) = Prefixes::read(&mut cursor, code)?;
    let size = prefixes.address_width();
    let (direction, address) = match opcode {
        0x6c | 0x6d => (PortDirection::In, EffectiveAddress::of_string(General::Rdi, SegmentName::Es, size)),
        0x6e | 0x6f => {
            let segment = prefixes.segment.unwrap_or(SegmentName::Ds);
            (PortDirection::Out, EffectiveAddress::of_string(General::Rsi, segment, size))
        }
        _ => return Err(DecodeError::Unexpected),
    };
    if prefixes.lock() {
        return Err(DecodeError::Undefined);
    }
    Ok(StringPort {
        length: cursor.length(),
        direction,
        // No port is wider than 32 bits: REX.W leaves the double.
        width: match prefixes.opcode_width(opcode) {
            Width::Quad => Width::Double,
            width => width,
        },
        // F2 repeats like F3 here: no condition is tested.
        repeat: prefixes.repeat() != RepeatPrefix::None,
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use CodeSize::{Bits16, Bits32, Bits64};

    #[test]
    fn ins_writes_to_es_whatever_the_prefix() {
        let decoded = string_port(&[0x64, 0xf3, 0x6c], Bits32).unwrap();
        assert_eq!((decoded.length, decoded.direction, decoded.width), (3, PortDirection::In, Width::Byte));
        assert!(decoded.repeat);
        assert_eq!(
            decoded.address,
            EffectiveAddress::of_string(General::Rdi, SegmentName::Es, Width::Double)
        );
    }

    #[test]
    fn outs_heeds_segment_and_sizes() {
        let decoded = string_port(&[0x2e, 0x66, 0x67, 0x6f], Bits16).unwrap();
        assert_eq!(
            (decoded.length, decoded.direction, decoded.width),
            (4, PortDirection::Out, Width::Double)
        );
        assert!(!decoded.repeat);
        assert_eq!(
            decoded.address,
            EffectiveAddress::of_string(General::Rsi, SegmentName::Cs, Width::Double)
        );
        let decoded = string_port(&[0x2e, 0x48, 0x6f], Bits64).unwrap();
        assert_eq!((decoded.width, decoded.address.segment), (Width::Double, SegmentName::Ds));
        assert_eq!(decoded.address.size, Width::Quad);
    }

    #[test]
    fn others_and_lock_are_refused() {
        assert_eq!(string_port(&[0xee], Bits64), Err(DecodeError::Unexpected));
        assert_eq!(string_port(&[0xf0, 0x6c], Bits64), Err(DecodeError::Undefined));
        assert_eq!(string_port(&[0xf3], Bits64), Err(DecodeError::NeedMoreBytes));
        assert_eq!(string_port(&[0xf3; 15], Bits64), Err(DecodeError::TooLong));
    }
}
