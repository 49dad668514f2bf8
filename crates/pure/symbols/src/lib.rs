//! The symbol table of an image: made by the host tool, installed by the image, read when the host faults.
//!
//! Row 1 (pure). All numbers are little-endian. Bytes behind the last symbol do not count: the image keeps a place of [`CAPACITY`]
//! bytes, which the host tool fills once the image is linked.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | [`MAGIC`] |
//! | 8–9 | number of symbols |
//! | 10 | number of letters |
//! | 11 | number of pairs |
//! | then | the letters, a byte each |
//! | then | the pairs, two bytes each |
//! | then | for each symbol, by rising address: a number in groups of seven bits, the lowest first, bit 7 set where another group follows; then the end of its name |
//!
//! The number's lowest three bits say how many components of the path the name has in common with the one before, and begins with; the
//! others how far its address is from the one before (the first's: from 0).
//!
//! Names are ASCII; the letter `:` stands for the `::` of a path, and the letter 0 ends a name. The lowest bytes of a name stand for the
//! letters, in their order, and those from there on for pairs, whose bytes stand for letters or for pairs before them: what names have in
//! common takes one byte (byte pair encoding).

#![cfg_attr(not(test), no_std)]

/// Bytes that an image keeps for its table.
pub const CAPACITY: usize = 4 * 1024 + 64;
/// The first bytes of every table.
pub const MAGIC: [u8; 8] = *b"RFSYMBL3";
/// Bytes before the letters.
pub const HEADER: usize = 12;
/// The most components that a name shares with the one before.
pub const SHARED: usize = 7;
/// Letters that a name has at most: what is longer is cut.
pub const LONGEST: usize = 96;
/// Pairs may stand in pairs so deep; what is deeper does not show.
pub const DEPTH: usize = 24;

/// A table, read in place. Nothing in it is trusted: a broken one names nothing, or something wrong.
#[derive(Copy, Clone, Debug)]
pub struct Symbols<'table> {
    letters: &'table [u8],
    pairs: &'table [u8],
    entries: &'table [u8],
    count: u16,
}

/// The name of a symbol.
#[derive(Copy, Clone, Debug)]
pub struct Name {
    letters: [u8; LONGEST],
    length: usize,
}

impl core::fmt::Display for Name {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for letter in self.letters.iter().take(self.length) {
            for _ in 0..=u8::from(*letter == b':') {
                formatter.write_char(if letter.is_ascii_graphic() { char::from(*letter) } else { '?' })?;
            }
        }
        Ok(())
    }
}

impl Name {
    /// Keeps the first `components` of its path.
    fn keep(&mut self, components: usize) {
        let mut ends = (1..=self.length).filter(|end| self.letters.get(end - 1) == Some(&b':'));
        self.length = components.checked_sub(1).and_then(|before| ends.nth(before)).unwrap_or(0);
    }
}

impl<'table> Symbols<'table> {
    /// Reads a table; `None` where it is none.
    pub fn parse(table: &'table [u8]) -> Option<Self> {
        let (header, rest) = table.split_first_chunk::<HEADER>()?;
        let [magic @ .., count_low, count_high, letters, pairs] = header;
        if *magic != MAGIC {
            return None;
        }
        let (letters, rest) = rest.split_at_checked(usize::from(*letters))?;
        let (pairs, entries) = rest.split_at_checked(usize::from(*pairs) * 2)?;
        Some(Self { letters, pairs, entries, count: u16::from_le_bytes([*count_low, *count_high]) })
    }

    /// Writes what `code` stands for behind `name`; answers whether the name ends there.
    fn append(&self, name: &mut Name, code: u8) -> bool {
        // What is still to be written, the next on top.
        let mut stack = [code; DEPTH];
        let mut height = 1;
        // Codes in a pair are lower than its own, so that none stands in itself.
        while let Some(below) = usize::checked_sub(height, 1) {
            height = below;
            let top = stack.get(height).copied().unwrap_or(0);
            let place = usize::from(top);
            match self.letters.get(place) {
                Some(0) => return true,
                Some(letter) => {
                    if let Some(slot) = name.letters.get_mut(name.length) {
                        *slot = *letter;
                        name.length += 1;
                    }
                }
                None => {
                    let pair = self.pairs.get(2 * (place - self.letters.len())..);
                    let pair = pair.and_then(<[u8]>::first_chunk::<2>);
                    for part in pair.into_iter().flatten().rev().filter(|part| **part < top) {
                        if let Some(slot) = stack.get_mut(height) {
                            *slot = *part;
                            height += 1;
                        }
                    }
                }
            }
        }
        false
    }

    /// The name of the symbol at or before `address`, and how many bytes behind its start `address` lies.
    pub fn find(&self, address: u64) -> Option<(Name, u64)> {
        let mut rest = self.entries.iter();
        let mut start = 0u64;
        let mut name = Name { letters: [0; LONGEST], length: 0 };
        let mut found = None;
        for _ in 0..self.count {
            let mut shift = 0;
            let mut number = 0u64;
            loop {
                let group = u64::from(*rest.next()?);
                number |= (group & 0x7f).checked_shl(shift).unwrap_or(0);
                shift += 7;
                if group & 0x80 == 0 {
                    break;
                }
            }
            start = start.wrapping_add(number >> 3);
            if start > address {
                break;
            }
            name.keep(number as usize & SHARED);
            while !self.append(&mut name, *rest.next()?) {}
            found = Some(start);
        }
        found.map(|start| (name, address - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "boot", "boot::start" 0x40 bytes behind, "boot::stop" 0x2000 bytes behind that, and an empty name.
    fn table() -> Vec<u8> {
        let mut table = MAGIC.to_vec();
        table.extend_from_slice(&[4, 0, 9, 4]);
        table.extend_from_slice(b"\0botsarp:");
        // 9: "bo", 10: "t" and the end, 11: "st", 12: "ot" and the end.
        table.extend_from_slice(&[1, 2, 3, 0, 4, 3, 2, 10]);
        // 0x100000, in four groups, nothing shared.
        table.extend_from_slice(&[0x80, 0x80, 0x80, 0x04, 9, 12]);
        // 0x40, nothing shared.
        table.extend_from_slice(&[0x80, 0x04, 9, 2, 3, 8, 11, 5, 6, 10]);
        // 0x2000, one component shared.
        table.extend_from_slice(&[0x81, 0x80, 0x04, 11, 2, 7, 0]);
        table.extend_from_slice(&[0x80, 0x80, 0x04, 0]);
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
        assert_eq!(find(&table, 0x10_2042), Some(("boot::stop".to_owned(), 2)));
        assert_eq!(find(&table, 0x10_4041), Some((String::new(), 1)));
        assert_eq!(find(&table, u64::MAX), Some((String::new(), u64::MAX - 0x10_4040)));
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
            for value in [0, 1, 7, 9, 11, 12, 0x7f, 0x80, 0x82, 0xff] {
                let mut broken = table.clone();
                broken[index] = value;
                for address in [0, 0x10_0000, 0x10_2fff, u64::MAX] {
                    let _ = find(&broken, address);
                }
            }
        }
        // A pair that stands for itself twice.
        let mut endless = table.clone();
        endless[HEADER + 9..HEADER + 11].copy_from_slice(&[9, 9]);
        assert_eq!(find(&endless, 0x10_0000), Some(("ot".to_owned(), 0)));
        // A name that is too long is cut.
        let mut long = table[..HEADER + 17].to_vec();
        long.extend([8]);
        long.extend([9; LONGEST]);
        long.push(0);
        long[8] = 1;
        assert_eq!(find(&long, 1), Some(("bo".repeat(LONGEST / 2), 0)));
    }
}
