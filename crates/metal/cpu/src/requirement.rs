//! What products ask of a processor, against what it says. The image's build script makes the lists from the profiles, by the table that
//! the host tools read.

use crate::Features;
use core::fmt;

/// A word in which a processor says what it has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// EAX of a CPUID leaf.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
    /// A VMX capability MSR.
    Capability,
}

/// One feature bit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// CPUID leaf, or number of the MSR.
    pub number: u32,
    /// CPUID subleaf, 0 with an MSR.
    pub subleaf: u8,
    /// The word.
    pub word: Word,
    /// The bit, 0 to 31, or to 63 with an MSR.
    pub bit: u8,
}

/// What an image asks of a processor, and what other products there are for those that cannot give it. Sets of requirements are bits that
/// number [`Self::all`].
#[derive(Copy, Clone, Debug)]
pub struct Requirements {
    /// Everything that any of these products asks for, at most 32. A bit that announces another's register stands before that.
    pub all: &'static [Requirement],
    /// What this image asks for: all of one of these, which are as many as it has back ends.
    pub own: &'static [u32],
    /// What its profile asks for beside its parts, each with the sentence for a processor that lacks it.
    pub stated: &'static [(u32, &'static str)],
    /// The other products, the best first: name, and what each asks for.
    pub others: &'static [(&'static str, u32)],
}

/// What somebody can do whose processor was refused. Displayed as the end of the sentence.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Take this product.
    Fits(&'static str),
    /// No shipped product fits.
    NoneFits,
    /// What is missing is not a matter of products.
    Other,
}

impl fmt::Display for Advice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits(name) => write!(formatter, "; profile {name} would fit"),
            Self::NoneFits => formatter.write_str("; no shipped profile fits"),
            Self::Other => Ok(()),
        }
    }
}

impl Requirements {
    /// The first thing that the profile states and this processor lacks, as a sentence.
    #[inline]
    pub fn unmet(&self, features: &Features) -> Option<&'static str> {
        self.stated.iter().find(|(set, _)| !self.met(*set, features)).map(|(_, sentence)| *sentence)
    }

    /// What to do where the image does not run on this processor.
    pub fn advice(&self, features: &Features) -> Advice {
        self.advice_by(|set| self.met(set, features))
    }

    fn advice_by(&self, met: impl Fn(u32) -> bool) -> Advice {
        if self.own.iter().any(|set| met(*set)) {
            return Advice::Other;
        }
        self.others.iter().find(|(_, set)| met(*set)).map_or(Advice::NoneFits, |(name, _)| Advice::Fits(name))
    }

    /// Whether this processor has all of a set.
    #[inline(never)]
    fn met(&self, set: u32, features: &Features) -> bool {
        self.met_by(set, crate::cpuid, |number| {
            // SAFETY: a capability MSR, which exists where VT-x is announced and the bits before it in the set say so; reading it changes
            // nothing. The descriptor table was loaded before any product is asked for.
            features.vmx.then(|| unsafe { crate::msr::read_checked(number) }).flatten()
        })
    }

    fn met_by(
        &self,
        set: u32,
        cpuid: impl Fn(u32, u32) -> [u32; 4],
        capability: impl Fn(u32) -> Option<u64>,
    ) -> bool {
        self.all.iter().enumerate().filter(|(number, _)| set >> number & 1 == 1).all(|(_, requirement)| {
            let Requirement { number, subleaf, word, bit } = *requirement;
            let value = match word {
                Word::Capability => capability(number).unwrap_or(0),
                // A leaf behind the last one of its range has no bits: some processors answer it with those of another (SDM Vol. 2A, CPUID).
                _ if cpuid(number & 0x8000_0000, 0)[0] < number => 0,
                _ => u64::from(cpuid(number, u32::from(subleaf)).get(word as usize).copied().unwrap_or(0)),
            };
            value >> (bit & 63) & 1 == 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    const fn cpuid(number: u32, word: Word, bit: u8) -> Requirement {
        Requirement { number, subleaf: 0, word, bit }
    }

    const fn capability(number: u32, bit: u8) -> Requirement {
        Requirement { number, subleaf: 0, word: Word::Capability, bit }
    }

    const THIS: Requirements = Requirements {
        all: &[
            cpuid(0x8000_0001, Word::Ecx, 2),
            cpuid(0x8000_000a, Word::Edx, 3),
            cpuid(1, Word::Ecx, 5),
            capability(0x482, 63),
            capability(0x48b, 33),
        ],
        own: &[0b00011],
        stated: &[],
        others: &[("full", 0b11100), ("less", 0b01100), ("least", 0b00001)],
    };

    /// A processor with these bits: ECX of leaf 1, ECX of 8000_0001, EDX of 8000_000A; leaves up to `last`.
    fn processor(one: u32, e1: u32, e10: u32, last: u32) -> impl Fn(u32, u32) -> [u32; 4] {
        move |leaf, _| match leaf {
            0 => [1, 0, 0, 0],
            1 => [0, 0, one, 0],
            0x8000_0000 => [last, 0, 0, 0],
            0x8000_0001 => [0, 0, e1, 0],
            0x8000_000a => [0, 0, 0, e10],
            _ => [u32::MAX; 4],
        }
    }

    #[test]
    fn the_first_product_that_fits_is_named() {
        let advice = |one, e1, e10, primary, secondary| {
            let read = |number| if number == 0x482 { primary } else { secondary };
            THIS.advice_by(|set| {
                THIS.met_by(set, processor(one, e1, e10, 0x8000_001f), |number| Some(read(number)))
            })
        };
        assert_eq!(advice(0, 1 << 2, 1 << 3, 0, 0), Advice::Other);
        assert_eq!(advice(0, 1 << 2, !(1 << 3), 0, 0), Advice::Fits("least"));
        assert_eq!(advice(0, !(1 << 2), 1 << 3, u64::MAX, u64::MAX), Advice::NoneFits);
        assert_eq!(advice(1 << 5, 0, 0, 1 << 63, 1 << 33), Advice::Fits("full"));
        assert_eq!(advice(1 << 5, 0, 0, 1 << 63, !(1 << 33)), Advice::Fits("less"));
        assert_eq!(advice(1 << 5, 0, 0, 0, u64::MAX), Advice::NoneFits);
    }

    #[test]
    fn no_register_is_read_that_another_does_not_announce() {
        let read = Cell::new(0);
        let met = |one, primary| {
            read.set(0);
            THIS.met_by(0b11100, processor(one, 0, 0, 0x8000_001f), |number| {
                read.set(read.get() + 1);
                (number == 0x482).then_some(primary)
            })
        };
        assert!(!met(0, 1 << 63) && read.get() == 0);
        assert!(!met(1 << 5, 0) && read.get() == 1);
        // One that is not there has no bits.
        assert!(!met(1 << 5, 1 << 63) && read.get() == 2);
    }

    #[test]
    fn a_leaf_behind_the_last_has_no_bits() {
        let met = |last| THIS.met_by(0b10, processor(0, 0, 1 << 3, last), |_| None);
        assert!(met(0x8000_000a));
        assert!(!met(0x8000_0008));
    }

    #[test]
    fn the_first_thing_that_a_profile_states_and_nobody_has_is_named() {
        // SSE2, which every 64-bit processor has, and bits of a leaf that none has.
        const STATING: Requirements = Requirements {
            all: &[
                cpuid(1, Word::Edx, 26),
                cpuid(0x7fff_ffff, Word::Eax, 0),
                cpuid(0x7fff_ffff, Word::Eax, 1),
            ],
            own: &[0b111],
            stated: &[(0b001, "SSE2"), (0b010, "first"), (0b100, "second")],
            others: &[],
        };
        assert_eq!(STATING.unmet(&Features::default()), Some("first"));
        assert_eq!(THIS.unmet(&Features::default()), None);
    }

    #[test]
    fn advice_ends_a_sentence() {
        assert_eq!(Advice::Fits("full").to_string(), "; profile full would fit");
        assert_eq!(Advice::NoneFits.to_string(), "; no shipped profile fits");
        assert_eq!(Advice::Other.to_string(), "");
    }
}
