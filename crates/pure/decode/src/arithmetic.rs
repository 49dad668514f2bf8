//! Results and flags of integer arithmetic (APM Vol. 3 chapter 3, under the instructions' names; flags: APM Vol. 1 §3.1.4).
//!
//! Values come and go in the low bits of 64; bits above the width are ignored on the way in and 0 on the way out. Flags
//! that the manual leaves undefined are cleared by the logical functions (AF) and kept by the bit functions (all but CF),
//! as processors do. Flags that are not arithmetic always stay.

use x86::{Rflags, Width};

/// A function of two operands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Binary {
    /// ADD.
    Add,
    /// OR.
    Or,
    /// ADC: adds CF too.
    AddCarry,
    /// SBB: subtracts CF too.
    SubtractBorrow,
    /// AND.
    And,
    /// SUB.
    Subtract,
    /// XOR.
    ExclusiveOr,
    /// CMP: SUB for the flags alone.
    Compare,
    /// TEST: AND for the flags alone.
    Test,
}

impl Binary {
    /// The function with this number in opcodes 00 to 3F and in group 1; only the low three bits count.
    #[inline]
    pub(crate) const fn of_group(number: u8) -> Self {
        match number & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::AddCarry,
            3 => Self::SubtractBorrow,
            4 => Self::And,
            5 => Self::Subtract,
            6 => Self::ExclusiveOr,
            _ => Self::Compare,
        }
    }

    /// Whether the result is stored; else only the flags change.
    #[inline]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Compare | Self::Test)
    }
}

/// A function of one operand.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unary {
    /// NOT: leaves all flags.
    Not,
    /// NEG.
    Negate,
    /// INC: leaves CF.
    Increment,
    /// DEC: leaves CF.
    Decrement,
}

/// What happens to a bit after it was copied to CF.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BitFunction {
    /// BT: nothing.
    Test,
    /// BTS: it becomes 1.
    Set,
    /// BTR: it becomes 0.
    Reset,
    /// BTC: it turns over.
    Complement,
}

impl BitFunction {
    /// The function with this number in group 8 and in opcodes 0F A3 to 0F BB; only the low two bits count.
    #[inline]
    pub(crate) const fn of_group(number: u8) -> Self {
        match number & 3 {
            0 => Self::Test,
            1 => Self::Set,
            2 => Self::Reset,
            _ => Self::Complement,
        }
    }

    /// Whether the operand is written.
    #[inline]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Test)
    }
}

/// `value`, `width` wide, with its highest bit copied upwards to 64 bits.
#[inline]
pub const fn sign_extended(width: Width, value: u64) -> u64 {
    let signed = match width {
        Width::Byte => (value as u8).cast_signed() as i64,
        Width::Word => (value as u16).cast_signed() as i64,
        Width::Double => (value as u32).cast_signed() as i64,
        Width::Quad => return value,
    };
    signed.cast_unsigned()
}

const SIX: Rflags = Rflags::CARRY
    .union(Rflags::PARITY)
    .union(Rflags::AUXILIARY)
    .union(Rflags::ZERO)
    .union(Rflags::SIGN)
    .union(Rflags::OVERFLOW);

/// The highest bit of the width.
#[inline]
const fn sign(width: Width) -> u64 {
    width.mask() ^ (width.mask() >> 1)
}

/// ZF, SF and PF of a result that was cut to its width.
#[inline]
fn of_result(width: Width, result: u64) -> Rflags {
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZERO, result == 0);
    flags.set(Rflags::SIGN, result & sign(width) != 0);
    // PF looks at the lowest byte only, whatever the width.
    flags.set(Rflags::PARITY, (result as u8).count_ones() & 1 == 0);
    flags
}

/// `left + right + carry` with all six flags.
#[inline]
fn add(width: Width, left: u64, right: u64, carry: bool) -> (u64, Rflags) {
    let result = left.wrapping_add(right).wrapping_add(carry as u64) & width.mask();
    let mut flags = of_result(width, result);
    // Each bit of the majority is the carry out of its place.
    let carries = (left & right) | ((left | right) & !result);
    flags.set(Rflags::CARRY, carries & sign(width) != 0);
    flags.set(Rflags::AUXILIARY, carries & 8 != 0);
    flags.set(Rflags::OVERFLOW, (left ^ result) & (right ^ result) & sign(width) != 0);
    (result, flags)
}

/// `left - right - borrow` with all six flags.
#[inline]
fn subtract(width: Width, left: u64, right: u64, borrow: bool) -> (u64, Rflags) {
    let result = left.wrapping_sub(right).wrapping_sub(borrow as u64) & width.mask();
    let mut flags = of_result(width, result);
    let borrows = (!left & right) | ((!left | right) & result);
    flags.set(Rflags::CARRY, borrows & sign(width) != 0);
    flags.set(Rflags::AUXILIARY, borrows & 8 != 0);
    flags.set(Rflags::OVERFLOW, (left ^ right) & (left ^ result) & sign(width) != 0);
    (result, flags)
}

/// `destination function source`, and RFLAGS after it. CMP and TEST return the destination as it was.
pub fn binary(function: Binary, width: Width, destination: u64, source: u64, flags: Rflags) -> (u64, Rflags) {
    let left = destination & width.mask();
    let right = source & width.mask();
    let carry = flags.contains(Rflags::CARRY);
    let logical = |result: u64| (result, of_result(width, result));
    let (result, changed) = match function {
        Binary::Add => add(width, left, right, false),
        Binary::AddCarry => add(width, left, right, carry),
        Binary::Subtract | Binary::Compare => subtract(width, left, right, false),
        Binary::SubtractBorrow => subtract(width, left, right, carry),
        Binary::And | Binary::Test => logical(left & right),
        Binary::Or => logical(left | right),
        Binary::ExclusiveOr => logical(left ^ right),
    };
    let result = if function.writes() { result } else { left };
    (result, flags.difference(SIX).union(changed))
}

/// `function value`, and RFLAGS after it.
pub fn unary(function: Unary, width: Width, value: u64, flags: Rflags) -> (u64, Rflags) {
    let value = value & width.mask();
    let keep_carry = |(result, changed): (u64, Rflags)| {
        let five = SIX.difference(Rflags::CARRY);
        (result, flags.difference(five).union(changed.intersection(five)))
    };
    match function {
        Unary::Not => (!value & width.mask(), flags),
        Unary::Negate => {
            let (result, changed) = subtract(width, 0, value, false);
            (result, flags.difference(SIX).union(changed))
        }
        Unary::Increment => keep_carry(add(width, value, 1, false)),
        Unary::Decrement => keep_carry(subtract(width, value, 1, false)),
    }
}

/// The value after `function` on its bit `number` modulo the width, and RFLAGS after it: CF is the bit as it was.
pub fn bit(function: BitFunction, width: Width, value: u64, number: u64, flags: Rflags) -> (u64, Rflags) {
    let value = value & width.mask();
    let bits = width.bytes() as u64 * 8;
    let selected = 1_u64 << (number & (bits - 1));
    let result = match function {
        BitFunction::Test => value,
        BitFunction::Set => value | selected,
        BitFunction::Reset => value & !selected,
        BitFunction::Complement => value ^ selected,
    };
    let mut flags = flags;
    flags.set(Rflags::CARRY, value & selected != 0);
    (result, flags)
}
