//! Sets of small numbers, looked through bit by bit.

/// Most slots that a set can hold.
pub(crate) const CAPACITY: usize = 256;
const WORDS: usize = CAPACITY / 64;

/// The ones of a word, lowest first.
#[derive(Clone, Debug)]
pub(crate) struct Ones(pub u64);

impl Iterator for Ones {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        Some(bit)
    }
}

/// A set of numbers below [`CAPACITY`].
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    #[inline(always)]
    pub fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    #[inline(always)]
    pub fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    /// Shows those in the set, in order, of the lowest `LIMIT` numbers: whoever knows that there are no more need not look at the
    /// rest.
    #[inline(always)]
    pub fn for_each<const LIMIT: usize>(&self, mut visit: impl FnMut(usize)) {
        let words = const { if LIMIT < CAPACITY { LIMIT.div_ceil(64) } else { WORDS } };
        for (index, word) in self.0.iter().enumerate().take(words) {
            for bit in Ones(*word) {
                visit(index * 64 + bit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    fn members<const LIMIT: usize>(bits: &Bits) -> Vec<usize> {
        let mut members = Vec::new();
        bits.for_each::<LIMIT>(|number| members.push(number));
        members
    }

    #[test]
    fn what_was_put_in_comes_out_in_order() {
        let mut bits = Bits::default();
        for number in [255, 0, 64, 63, 130, 130] {
            bits.insert(number);
        }
        bits.remove(64);
        bits.remove(65);
        bits.insert(CAPACITY);
        bits.remove(CAPACITY);
        assert_eq!(members::<256>(&bits), [0, 63, 130, 255]);
        assert_eq!(members::<64>(&bits), [0, 63]);
        assert_eq!(members::<65>(&bits), [0, 63]);
    }
}
