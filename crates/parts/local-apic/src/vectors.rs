//! Sets of interrupt vectors, as IRR, ISR and TMR hold them: 256 bits in eight registers.

use core::num::{NonZeroU8, NonZeroU32};

/// A set of vectors with a summary byte: bit n says that word n is not zero, so that the highest member is found
/// without a loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VectorSet {
    words: [u32; 8],
    occupied: u8,
}

const fn bit(vector: u8) -> u32 {
    1 << (vector & 31)
}

const fn index(vector: u8) -> usize {
    (vector >> 5) as usize
}

impl VectorSet {
    /// No vectors.
    pub const fn new() -> Self {
        Self { words: [0; 8], occupied: 0 }
    }

    /// The 32 vectors from `32 * word`, as the register at 16 times that offset shows them; `word` counts modulo 8.
    pub const fn word(&self, word: u8) -> u32 {
        self.words[(word & 7) as usize]
    }

    /// Whether `vector` is in the set.
    #[inline]
    pub const fn contains(&self, vector: u8) -> bool {
        self.words[index(vector)] & bit(vector) != 0
    }

    /// Adds `vector`.
    #[inline]
    pub const fn insert(&mut self, vector: u8) {
        self.words[index(vector)] |= bit(vector);
        self.occupied |= 1 << (vector >> 5);
    }

    /// Takes `vector` out.
    #[inline]
    pub const fn remove(&mut self, vector: u8) {
        let left = self.words[index(vector)] & !bit(vector);
        self.words[index(vector)] = left;
        if left == 0 {
            self.occupied &= !(1 << (vector >> 5));
        }
    }

    /// The highest vector of the set.
    #[inline]
    pub const fn highest(&self) -> Option<u8> {
        let Some(occupied) = NonZeroU8::new(self.occupied) else { return None };
        let word = (occupied.ilog2() & 7) as u8;
        match NonZeroU32::new(self.words[word as usize]) {
            Some(bits) => Some(word << 5 | bits.ilog2() as u8),
            None => None,
        }
    }

    /// Takes out the highest vector of the set and says which it was.
    #[inline]
    pub const fn take_highest(&mut self) -> Option<u8> {
        let highest = self.highest();
        if let Some(vector) = highest {
            self.remove(vector);
        }
        highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put in and taken out, the summary agrees with a plain list of booleans.
        #[test]
        fn agrees_with_a_plain_list(steps in proptest::collection::vec((any::<u8>(), 0u8..3), 0..200)) {
            let mut set = VectorSet::new();
            let mut plain = [false; 256];
            for (vector, what) in steps {
                match what {
                    0 => {
                        set.insert(vector);
                        plain[vector as usize] = true;
                    }
                    1 => {
                        set.remove(vector);
                        plain[vector as usize] = false;
                    }
                    _ => {
                        let expected = plain.iter().rposition(|member| *member);
                        prop_assert_eq!(set.take_highest().map(usize::from), expected);
                        if let Some(highest) = expected {
                            plain[highest] = false;
                        }
                    }
                }
                prop_assert_eq!(set.highest().map(usize::from), plain.iter().rposition(|member| *member));
                prop_assert_eq!(set.contains(vector), plain[vector as usize]);
                for word in 0..8u8 {
                    let expected = (0..32).filter(|bit| plain[32 * word as usize + bit]).map(|bit| 1u32 << bit).sum();
                    prop_assert_eq!(set.word(word), expected);
                }
            }
        }
    }
}
