//! The registers of a local APIC that decide which interrupt comes next: TPR, and the sets of vectors IRR, ISR and TMR (SDM Vol. 3A §11.8).

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

/// A set of vectors, 256 bits in eight registers, with a summary byte: bit n says that register n is not zero, so that the highest member is
/// found without a loop.
#[derive(Clone, Eq, Debug, Default)]
pub struct VectorSet {
    words: [u32; 8],
    occupied: u8,
}

/// Registers that are 0 on both sides are not compared: there are few others.
impl PartialEq for VectorSet {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let mut rest = self.occupied;
        while let Some(occupied) = NonZeroU8::new(rest) {
            let word = (occupied.trailing_zeros() & 7) as usize;
            if self.words[word] != other.words[word] {
                return false;
            }
            rest &= rest - 1;
        }
        self.occupied == other.occupied
    }
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

    /// All registers.
    #[inline]
    pub const fn words(&self) -> &[u32; 8] {
        &self.words
    }

    /// Takes all vectors out: `each` gets the number of each register that had some, 0 to 7, and its bits.
    #[inline]
    pub fn drain(&mut self, mut each: impl FnMut(u8, u32)) {
        while let Some(occupied) = NonZeroU8::new(self.occupied) {
            let word = occupied.trailing_zeros() as u8 & 7;
            self.occupied &= occupied.get() - 1;
            each(word, core::mem::take(&mut self.words[word as usize]));
        }
    }

    /// Adds the vectors whose bits are on in the register of that number, which counts modulo 8.
    #[inline]
    pub const fn add_word(&mut self, word: u8, bits: u32) {
        let word = word & 7;
        self.words[word as usize] |= bits;
        if bits != 0 {
            self.occupied |= 1 << word;
        }
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

/// What decides which interrupt comes next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InterruptRegisters {
    /// TPR, the task priority, 0 to 255.
    pub task_priority: u8,
    /// IRR: vectors requested.
    pub requested: VectorSet,
    /// ISR: vectors in service.
    pub in_service: VectorSet,
    /// TMR: vectors whose last request came by level, and whose end the I/O APIC hears of.
    pub level: VectorSet,
}

impl InterruptRegisters {
    /// As after reset.
    pub const fn new() -> Self {
        let none = VectorSet::new;
        Self { task_priority: 0, requested: none(), in_service: none(), level: none() }
    }

    /// SDM Vol. 3A §11.8.3.1.
    #[inline]
    pub const fn processor_priority(&self) -> u8 {
        let serviced = match self.in_service.highest() {
            Some(place) => place.vector() & 0xf0,
            None => 0,
        };
        if self.task_priority & 0xf0 >= serviced { self.task_priority } else { serviced }
    }

    /// The vector that the processor should take now.
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?.vector();
        (vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor takes [`Self::pending`]: moves it from requested to in service.
    #[inline]
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        let place = Place::of(vector);
        self.requested.remove(place);
        self.in_service.insert(place);
        Some(vector)
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
                let (mut emptied, mut filled) = (set.clone(), VectorSet::new());
                emptied.drain(|word, bits| filled.add_word(word, bits));
                prop_assert_eq!((&emptied, &filled), (&VectorSet::new(), &set));
                prop_assert_eq!(core::array::from_fn(|word| set.word(word as u8)), *set.words());
                filled.add_word(vector >> 5, 1 << (vector & 31));
                prop_assert_eq!(filled == set, plain[vector as usize]);
                for word in 0..8u8 {
                    let expected = (0..32).filter(|bit| plain[32 * word as usize + bit]).map(|bit| 1u32 << bit).sum();
                    prop_assert_eq!(set.word(word), expected);
                }
            }
        }
    }
}
