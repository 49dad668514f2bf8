//! The symbol table of an image: made by the host tool, installed by the image, read when the host faults.
//!
//! Row 1 (pure). All numbers are little-endian. Bytes behind the last symbol do not count: the image keeps a place of [`CAPACITY`]
//! bytes, which the host tool fills once the image is linked.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | [`MAGIC`] |
//! | 8–9 | number of symbols |
//! | 10–11 | number of pairs, at most 128 |
//! | then | the pairs, two bytes each |
//! | then | for each symbol, by rising address: how far its address is from the one before (the first's: from 0), in groups of seven bits, the lowest first, bit 7 set where another group follows; its name; a zero |
//!
//! Names are ASCII. A byte from 128 on stands for the pair of that number less 128, whose bytes may stand for pairs again: what names
//! have in common takes one byte (byte pair encoding).

#![cfg_attr(not(test), no_std)]

/// Bytes that an image keeps for its table.
pub const CAPACITY: usize = 6 * 1024 + 512;
/// The first bytes of every table.
pub const MAGIC: [u8; 8] = *b"RFSYMBL2";
/// Bytes before the pairs.
pub const HEADER: usize = 12;
/// The most pairs, and the first byte that stands for one.
pub const PAIRS: usize = 128;
/// Pairs may stand in pairs so deep; what is deeper does not show.
const DEPTH: usize = 24;

/// A table, read in place. Nothing in it is trusted: a broken one names nothing, or something wrong.
#[derive(Copy, Clone, Debug)]
pub struct Symbols<'table> {
    pairs: &'table [u8],
    entries: &'table [u8],
    count: u16,
}

/// A name as the table has it.
#[derive(Copy, Clone, Debug)]
pub struct Name<'table> {
    pairs: &'table [u8],
    bytes: &'table [u8],
}

impl core::fmt::Display for Name<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for byte in self.bytes {
            // What is still to be shown of this byte, the next on top.
            let mut stack = [*byte; DEPTH];
            let mut height = 1;
            // A pair that stands in itself would never end.
            let mut patience = 0..1024;
            while height > 0 && patience.next().is_some() {
                height -= 1;
                let top = stack.get(height).copied().unwrap_or(0);
                let place = usize::from(top).checked_sub(PAIRS).map(|pair| 2 * pair);
                match place.and_then(|place| self.pairs.get(place..)).and_then(<[u8]>::first_chunk::<2>) {
                    Some([first, second]) => {
                        for part in [*second, *first] {
                            if let Some(slot) = stack.get_mut(height) {
                                *slot = part;
                                height += 1;
                            }
                        }
                    }
                    _ => formatter.write_char(if top.is_ascii_graphic() { char::from(top) } else { '?' })?,
                }
            }
        }
        Ok(())
    }
}

impl<'table> Symbols<'table> {
    /// Reads a table; `None` where it is none.
    pub fn parse(table: &'table [u8]) -> Option<Self> {
        let (header, rest) = table.split_first_chunk::<HEADER>()?;
        let [magic @ .., count_low, count_high, pairs_low, pairs_high] = header;
        if *magic != MAGIC {
            return None;
        }
        let pairs = usize::from(u16::from_le_bytes([*pairs_low, *pairs_high]));
        let (pairs, entries) = rest.split_at_checked(pairs * 2)?;
        Some(Self { pairs, entries, count: u16::from_le_bytes([*count_low, *count_high]) })
    }

    /// The name of the symbol at or before `address`, and how many bytes behind its start `address` lies.
    pub fn find(&self, address: u64) -> Option<(Name<'table>, u64)> {
        let mut rest = self.entries.iter();
        let mut start = 0u64;
        let mut found = None;
        for _ in 0..self.count {
            let mut shift = 0;
            loop {
                let group = u64::from(*rest.next()?);
                start = start.wrapping_add((group & 0x7f).checked_shl(shift).unwrap_or(0));
                shift += 7;
                if group & 0x80 == 0 {
                    break;
                }
            }
            if start > address {
                break;
            }
            let name = rest.as_slice();
            let length = rest.position(|byte| *byte == 0)?;
            found = Some((Name { pairs: self.pairs, bytes: name.get(..length)? }, address - start));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "boot" and "boot::start" behind each other, 0x40 bytes apart, and an empty name.
    fn table() -> Vec<u8> {
        let mut table = MAGIC.to_vec();
        table.extend_from_slice(&[3, 0, 3, 0]);
        // 128: "bo", 129: "ot", 130: "boot".
        table.extend_from_slice(&[b'b', b'o', b'o', b't', 128, 129]);
        // 0x100000, in three groups.
        table.extend_from_slice(&[0x80, 0x80, 0x40, 130, 0]);
        table.extend_from_slice(b"\x40\x82::start\0");
        table.extend_from_slice(&[0xc0, 0x3f, 0]);
        table
    }

    fn find(table: &[u8], address: u64) -> Option<(String, u64)> {
        Symbols::parse(table)?.find(address).map(|(name, offset)| (name.to_string(), offset))
    }

    #[test]
    fn names_are_found_at_and_behind_their_addresses() {
        let table = table();
        assert_eq!(find(&table, 0xf_ffff), None);
        assert_eq!(find(&table, 0x10_0000), Some(("boot".to_owned(), 0)));
        assert_eq!(find(&table, 0x10_003f), Some(("boot".to_owned(), 0x3f)));
        assert_eq!(find(&table, 0x10_0041), Some(("boot::start".to_owned(), 1)));
        assert_eq!(find(&table, 0x10_2001), Some((String::new(), 1)));
        assert_eq!(find(&table, u64::MAX), Some((String::new(), u64::MAX - 0x10_2000)));
    }

    #[test]
    fn bytes_behind_the_last_symbol_do_not_count() {
        let mut table = table();
        table.resize(CAPACITY, 0);
        assert_eq!(find(&table, 0x10_0041), Some(("boot::start".to_owned(), 1)));
    }

    #[test]
    fn no_flipped_byte_and_no_cut_makes_it_panic_or_hang() {
        let table = table();
        for cut in 0..table.len() {
            let _ = find(&table[..cut], u64::MAX);
        }
        for index in 0..table.len() {
            for value in [0, 1, 0x7f, 0x80, 0x82, 0xff] {
                let mut broken = table.clone();
                broken[index] = value;
                for address in [0, 0x10_0000, 0x10_2fff, u64::MAX] {
                    let _ = find(&broken, address);
                }
            }
        }
        // A pair that stands for itself twice.
        let mut endless = table.clone();
        endless[HEADER + 4..HEADER + 6].copy_from_slice(&[130, 130]);
        assert!(find(&endless, 0x10_0000).is_some());
    }
}
