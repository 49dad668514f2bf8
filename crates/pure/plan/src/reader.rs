//! Reads a plan as postcard writes it: numbers in groups of seven bits, the lowest first, lengths before what they count, the number
//! of a variant before what it holds. Written by hand, because it runs once in every image and is a fifth of what serde makes of it; the
//! tests hold it against postcard's own reader.

use crate::{Compartment, Label, Mode, OnReset, OnUnclaimed, Segment, Start};
use heapless::{String, Vec};

/// What is left of the bytes. `None` everywhere: they do not hold what they should.
pub(crate) struct Reader<'bytes>(pub(crate) &'bytes [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number of at most `bits` bits.
    #[inline(never)]
    fn number(&mut self, bits: u32) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        while shift < bits {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if group >> (bits - shift).min(7) != 0 {
                return None;
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
        None
    }

    fn quad(&mut self) -> Option<u64> {
        self.number(64)
    }

    pub(crate) fn double(&mut self) -> Option<u32> {
        self.number(32).map(|number| number as u32)
    }

    #[inline(never)]
    fn text<const LIMIT: usize>(&mut self) -> Option<String<LIMIT>> {
        let length = usize::try_from(self.quad()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::try_from(core::str::from_utf8(text).ok()?).ok()
    }

    fn label(&mut self) -> Option<Label> {
        Some(Label { text: self.text()?, colour: self.double()? })
    }

    #[inline(never)]
    pub(crate) fn compartment(&mut self) -> Option<Compartment> {
        Some(Compartment {
            name: self.text()?,
            memory: self.quad()?,
            vcpus: self.byte()?,
            share: self.double()?,
            cpus: {
                let mut cpus = Vec::new();
                for _ in 0..self.quad()? {
                    cpus.push(self.byte()?).ok()?;
                }
                cpus
            },
            on_reset: match self.double()? {
                0 => OnReset::Restart,
                1 => OnReset::Stop,
                _ => return None,
            },
            on_unclaimed: match self.double()? {
                0 => OnUnclaimed::Answer,
                1 => OnUnclaimed::Stop,
                _ => return None,
            },
            label: match self.byte()? {
                0 => None,
                1 => Some(self.label()?),
                _ => return None,
            },
            segments: {
                let mut segments = Vec::new();
                for _ in 0..self.quad()? {
                    let segment =
                        Segment { source: self.quad()?, length: self.quad()?, target: self.quad()? };
                    segments.push(segment).ok()?;
                }
                segments
            },
            start: Start {
                mode: match self.double()? {
                    0 => Mode::Protected,
                    1 => Mode::Long,
                    _ => return None,
                },
                entry: self.quad()?,
                rax: self.quad()?,
                rbx: self.quad()?,
                rsi: self.quad()?,
                rsp: self.quad()?,
                page_table: self.quad()?,
                descriptor_table: self.quad()?,
                descriptor_table_limit: self.number(16)? as u16,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// What postcard makes of the same bytes, and what it leaves.
    fn agrees(bytes: &[u8]) -> bool {
        let mut reader = Reader(bytes);
        let read = reader.compartment();
        let theirs = postcard::take_from_bytes::<Compartment>(bytes).ok();
        assert_eq!(read, theirs.as_ref().map(|(compartment, _)| compartment.clone()), "{bytes:x?}");
        if let Some((_, rest)) = theirs {
            assert_eq!(reader.0, rest);
        }
        read.is_some()
    }

    fn compartment(label: bool) -> Compartment {
        Compartment {
            name: "office".try_into().unwrap(),
            memory: u64::MAX,
            vcpus: 200,
            share: u32::MAX,
            cpus: [1, 255].into_iter().collect(),
            on_reset: OnReset::Stop,
            on_unclaimed: OnUnclaimed::Stop,
            label: label.then(|| Label { text: "Bü".try_into().unwrap(), colour: 0xff_8000 }),
            segments: [1, 1 << 40]
                .into_iter()
                .map(|source| Segment { source, length: 127, target: 128 })
                .collect(),
            start: Start {
                mode: Mode::Long,
                entry: 1,
                rax: 0x2bad_b002,
                rbx: 1 << 63,
                rsi: 0,
                rsp: 1 << 35,
                page_table: 0x7000,
                descriptor_table: 0x3fff,
                descriptor_table_limit: u16::MAX,
            },
        }
    }

    #[test]
    fn every_byte_means_what_it_means_to_postcard() {
        let mut accepted = 0;
        for label in [false, true] {
            let bytes = postcard::to_stdvec(&compartment(label)).unwrap();
            assert!(agrees(&bytes));
            for length in 0..bytes.len() {
                assert!(!agrees(&bytes[..length]));
            }
            // Each byte with each other value: longer lengths, unknown variants, numbers that are too large, letters that are none.
            for place in 0..bytes.len() {
                let mut changed = bytes.clone();
                for value in 0..=255 {
                    changed[place] = value;
                    accepted += u32::from(agrees(&changed));
                }
                // A byte more, as in a number with a group more than it needs.
                changed = bytes.clone();
                changed[place] |= 0x80;
                for value in [0, 1, 2, 3, 4, 15, 16, 127, 128] {
                    changed.insert(place + 1, value);
                    accepted += u32::from(agrees(&changed));
                    changed.remove(place + 1);
                }
            }
        }
        assert!(accepted > 1000);
    }
}
