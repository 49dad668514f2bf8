//! Results and flags against their definitions, written here with integers wide enough that nothing can wrap (APM Vol. 1
//! §3.1.4): CF is the unsigned result leaving its range, OF the signed one, AF the low four bits leaving theirs.

use decode::arithmetic::{Binary, BitFunction, Unary, binary, bit, unary};
use proptest::prelude::*;
use x86::{Rflags, Width};

const BINARY: [Binary; 9] = [
    Binary::Add,
    Binary::Or,
    Binary::AddCarry,
    Binary::SubtractBorrow,
    Binary::And,
    Binary::Subtract,
    Binary::ExclusiveOr,
    Binary::Compare,
    Binary::Test,
];

fn unsigned(width: Width, value: u64) -> i128 {
    let bits = u32::from(width.bytes()) * 8;
    i128::from(value) % (1_i128 << bits)
}

/// `value` without the bits above the width.
fn cut(width: Width, value: u64) -> u64 {
    (u128::from(value) % (1 << (u32::from(width.bytes()) * 8))) as u64
}

fn signed(width: Width, value: u64) -> i128 {
    let bits = u32::from(width.bytes()) * 8;
    let value = unsigned(width, value);
    if value >= 1_i128 << (bits - 1) { value - (1_i128 << bits) } else { value }
}

/// The result, wrapped, and the six flags in the order CF, PF, AF, ZF, SF, OF.
type Outcome = (u64, [bool; 6]);

fn finish(width: Width, result: i128, carry: bool, auxiliary: bool, overflow: bool) -> Outcome {
    let bits = u32::from(width.bytes()) * 8;
    let wrapped = result.rem_euclid(1_i128 << bits) as u64;
    let even = (0..8).filter(|place| wrapped >> place & 1 == 1).count() % 2 == 0;
    (wrapped, [carry, even, auxiliary, wrapped == 0, signed(width, wrapped) < 0, overflow])
}

/// `left + sign * (right + carry)`.
fn sum(width: Width, left: u64, right: u64, carry: i128, sign: i128) -> Outcome {
    let bits = u32::from(width.bytes()) * 8;
    let combine = |left: i128, right: i128| left + sign * (right + carry);
    let exact = combine(unsigned(width, left), unsigned(width, right));
    let exact_signed = combine(signed(width, left), signed(width, right));
    let low = combine(i128::from(left % 16), i128::from(right % 16));
    finish(
        width,
        exact,
        !(0..1_i128 << bits).contains(&exact),
        !(0..16).contains(&low),
        !(-(1_i128 << (bits - 1))..1_i128 << (bits - 1)).contains(&exact_signed),
    )
}

fn expected_binary(function: Binary, width: Width, left: u64, right: u64, carry: bool) -> Outcome {
    let carry = i128::from(carry);
    let logical = |result: u64| finish(width, unsigned(width, result), false, false, false);
    match function {
        Binary::Add => sum(width, left, right, 0, 1),
        Binary::AddCarry => sum(width, left, right, carry, 1),
        Binary::Subtract => sum(width, left, right, 0, -1),
        Binary::SubtractBorrow => sum(width, left, right, carry, -1),
        Binary::And => logical(left & right),
        Binary::Or => logical(left | right),
        Binary::ExclusiveOr => logical(left ^ right),
        Binary::Compare => (cut(width, left), sum(width, left, right, 0, -1).1),
        Binary::Test => (cut(width, left), logical(left & right).1),
    }
}

const NAMES: [Rflags; 6] =
    [Rflags::CARRY, Rflags::PARITY, Rflags::AUXILIARY, Rflags::ZERO, Rflags::SIGN, Rflags::OVERFLOW];

/// `before` with those of the six flags replaced that `which` names.
fn replaced(before: Rflags, six: [bool; 6], which: Rflags) -> Rflags {
    let mut flags = before;
    for (name, value) in NAMES.into_iter().zip(six) {
        if which.contains(name) {
            flags.set(name, value);
        }
    }
    flags
}

fn check_binary(width: Width, left: u64, right: u64, before: Rflags) {
    for function in BINARY {
        let (result, six) = expected_binary(function, width, left, right, before.contains(Rflags::CARRY));
        assert_eq!(
            binary(function, width, left, right, before),
            (result, replaced(before, six, Rflags::all())),
            "{function:?} {width:?} {left:#x} {right:#x} {before:?}"
        );
    }
}

fn check_unary(width: Width, value: u64, before: Rflags) {
    let but_carry = Rflags::all().difference(Rflags::CARRY);
    let (result, six) = sum(width, value, 1, 0, 1);
    assert_eq!(unary(Unary::Increment, width, value, before), (result, replaced(before, six, but_carry)));
    let (result, six) = sum(width, value, 1, 0, -1);
    assert_eq!(unary(Unary::Decrement, width, value, before), (result, replaced(before, six, but_carry)));
    let (result, six) = sum(width, 0, value, 0, -1);
    assert_eq!(unary(Unary::Negate, width, value, before), (result, replaced(before, six, Rflags::all())));
    let complement = (-1 - signed(width, value)).rem_euclid(1 << (u32::from(width.bytes()) * 8)) as u64;
    assert_eq!(unary(Unary::Not, width, value, before), (complement, before));
}

fn check_bit(width: Width, value: u64, number: u64, before: Rflags) {
    let bits = u64::from(width.bytes()) * 8;
    let place = number % bits;
    let value = cut(width, value);
    let digit = value / (1 << place) % 2;
    let with = |digit: u64| {
        let above = u128::from(value) >> (place + 1) << (place + 1);
        above as u64 + digit * (1 << place) + value % (1 << place)
    };
    let after = replaced(before, [digit == 1, false, false, false, false, false], Rflags::CARRY);
    assert_eq!(bit(BitFunction::Test, width, value, number, before), (value, after));
    assert_eq!(bit(BitFunction::Set, width, value, number, before), (with(1), after));
    assert_eq!(bit(BitFunction::Reset, width, value, number, before), (with(0), after));
    assert_eq!(bit(BitFunction::Complement, width, value, number, before), (with(1 - digit), after));
}

#[test]
fn all_bytes() {
    // Every pair of bytes, with CF clear and set, and the other flags neither all clear nor all set.
    for before in [Rflags::INTERRUPT | Rflags::OVERFLOW, Rflags::CARRY | Rflags::SIGN | Rflags::AUXILIARY] {
        for left in 0..=255 {
            for right in 0..=255 {
                check_binary(Width::Byte, left, right, before);
            }
            check_unary(Width::Byte, left, before);
            for number in 0..16 {
                check_bit(Width::Word, left << 4, number, before);
            }
        }
    }
}

/// Values near the places where flags change, and any others.
fn value() -> impl Strategy<Value = u64> {
    let edge = prop_oneof![Just(0_u64), Just(0x7f), Just(0x7fff), Just(0x7fff_ffff), Just(i64::MAX as u64)];
    prop_oneof![
        any::<u64>(),
        (edge, 0..3_u64, any::<bool>()).prop_map(|(edge, distance, down)| {
            if down { edge.wrapping_sub(distance) } else { edge.wrapping_add(distance) }
        })
    ]
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Double), Just(Width::Quad)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_widths(width in width(), left in value(), right in value(), flags in any::<u64>()) {
        let before = Rflags::from_bits_retain(flags);
        check_binary(width, left, right, before);
        check_unary(width, left, before);
        check_bit(width, left, right, before);
    }
}
