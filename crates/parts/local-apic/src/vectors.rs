//! Sets of interrupt vectors, as IRR, ISR and TMR hold them: 256 bits in eight registers.

use core::num::{NonZeroU8, NonZeroU32};

/// Where a vector is in the registers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which register, 0 to 7.
    word: u32,
    /// Which bit of it, 0 to 31.
    bit: u32,
}

impl Place {
    /// The place of a vector.
    #[inline]
    pub const fn of(vector: u8) -> Self {
        Self { word: vector as u32 >> 5, bit: vector as u32 & 31 }
    }

    /// The vector at that place.
    #[inline]
    pub const fn vector(self) -> u8 {
        (self.word * 32 + self.bit) as u8
    }

    #[inline]
    const fn index(self) -> usize {
        (self.word & 7) as usize
    }
}

/// A set of vectors with a summary byte: bit n says that word n is not zero, so that the highest member is found
/// without a loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VectorSet {
    words: [u32; 8],
    occupied: u8,
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

    /// Whether the vector at `place` is in the set.
    #[inline]
    pub const fn contains(&self, place: Place) -> bool {
        self.words[place.index()] & 1 << place.bit != 0
    }

    /// Adds the vector at `place`.
    #[inline]
    pub const fn insert(&mut self, place: Place) {
        self.words[place.index()] |= 1 << place.bit;
        self.occupied |= 1 << place.index();
    }

    /// Takes the vector at `place` out.
    #[inline]
    pub const fn remove(&mut self, place: Place) {
        self.words[place.index()] &= !(1 << place.bit);
        if self.words[place.index()] == 0 {
            self.occupied &= !(1 << place.index());
        }
    }

    /// The highest vector of the set.
    #[inline]
    pub const fn highest(&self) -> Option<Place> {
        let Some(occupied) = NonZeroU8::new(self.occupied) else { return None };
        let word = occupied.ilog2() & 7;
        match NonZeroU32::new(self.words[word as usize]) {
            Some(bits) => Some(Place { word, bit: bits.ilog2() }),
            None => None,
        }
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
                        set.insert(Place::of(vector));
                        plain[vector as usize] = true;
                    }
                    1 => {
                        set.remove(Place::of(vector));
                        plain[vector as usize] = false;
                    }
                    _ => {
                        if let Some(highest) = set.highest() {
                            set.remove(highest);
                            plain[highest.vector() as usize] = false;
                        }
                    }
                }
                let highest = set.highest().map(|place| place.vector() as usize);
                prop_assert_eq!(highest, plain.iter().rposition(|member| *member));
                prop_assert_eq!(set.contains(Place::of(vector)), plain[vector as usize]);
                for word in 0..8u8 {
                    let expected = (0..32).filter(|bit| plain[32 * word as usize + bit]).map(|bit| 1u32 << bit).sum();
                    prop_assert_eq!(set.word(word), expected);
                }
            }
        }
    }
}
