//! Segment registers between their neutral form and the VMCS's (SDM Vol. 3C §25.4.1).

use crate::field::{Field, Fields, SegmentFields};
use x86::{DescriptorTable, Segment};

/// The register is unusable: a null selector was loaded.
pub const UNUSABLE: u64 = 1 << 16;
/// L: 64-bit code.
pub const LONG: u64 = 1 << 13;
/// D/B: 32-bit.
pub const BIG: u64 = 1 << 14;

/// Access rights from packed attributes: type, S, DPL and P in bits 7 to 0, AVL, L, D/B and G in bits 15 to 12.
const fn access(attributes: u16) -> u64 {
    let rights = (attributes & 0xff) as u64 | (attributes as u64 & 0xf00) << 4;
    if attributes & Segment::PRESENT == 0 { rights | UNUSABLE } else { rights }
}

/// Packed attributes from access rights; an unusable register is one that is not present.
const fn attributes(access: u64) -> u16 {
    let packed = (access & 0xff | access >> 4 & 0xf00) as u16;
    if access & UNUSABLE == 0 { packed } else { packed & !Segment::PRESENT }
}

/// Reads a segment register.
pub fn read(fields: &impl Fields, register: SegmentFields) -> Segment {
    Segment {
        selector: fields.read(register.selector()) as u16,
        attributes: attributes(fields.read(register.access())),
        limit: fields.read(register.limit()) as u32,
        base: fields.read(register.base()),
    }
}

/// Writes a segment register.
pub fn write(fields: &mut impl Fields, register: SegmentFields, value: &Segment) {
    fields.write(register.selector(), value.selector.into());
    fields.write(register.access(), access(value.attributes));
    fields.write(register.limit(), value.limit.into());
    fields.write(register.base(), value.base);
}

/// Writes GDTR or IDTR, whose fields are these.
pub fn write_table(fields: &mut impl Fields, base: Field, limit: Field, value: DescriptorTable) {
    fields.write(base, value.base);
    fields.write(limit, value.limit.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_move_to_the_bits_of_the_manual() {
        // 64-bit code: type 11, S, P, L, G (SDM Vol. 3C table 25-2).
        assert_eq!(access(0xa9b), 0xa09b);
        assert_eq!(access(0xc93), 0xc093);
        assert_eq!(access(0x8b), 0x8b);
        assert_eq!(access(0x13), 0x13 | UNUSABLE);
        for packed in [0xa9b, 0xc93, 0x93, 0x8b, 0x82, 0x10] {
            assert_eq!(attributes(access(packed)), packed);
        }
        assert_eq!(attributes(UNUSABLE | 0x93), 0x13);
    }
}
