//! A set of slots, small enough to be looked through bit by bit.

/// Most slots that a set can hold.
pub(crate) const CAPACITY: usize = 256;
const WORDS: usize = CAPACITY / 64;

/// A set of numbers below [`CAPACITY`].
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    #[inline]
    pub fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    #[inline]
    pub fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    /// Those in the set, in order, of the lowest `LIMIT` numbers: whoever knows that there are no more need not look at the rest.
    #[inline]
    pub fn iter<const LIMIT: usize>(self) -> impl Iterator<Item = usize> {
        let words = const { if LIMIT < CAPACITY { LIMIT.div_ceil(64) } else { WORDS } };
        self.0.into_iter().take(words).enumerate().flat_map(|(word, mut bits)| {
            core::iter::from_fn(move || {
                if bits == 0 {
                    return None;
                }
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                Some(word * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(bits.iter::<256>().collect::<Vec<_>>(), [0, 63, 130, 255]);
        assert_eq!(bits.iter::<64>().collect::<Vec<_>>(), [0, 63]);
        assert_eq!(bits.iter::<65>().collect::<Vec<_>>(), [0, 63]);
    }

    extern crate std;
    use std::vec::Vec;
}
