//! The symbol table of an image: made by the host tool, installed by the image, read when the host faults.
//!
//! Row 1 (pure): safe on both ends. All numbers are little-endian. Bytes behind the names do not count: the image keeps a place of
//! [`CAPACITY`] bytes, which the host tool fills once the image is linked.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | [`MAGIC`] |
//! | 8–11 | number of symbols `n` |
//! | 12–15 | length of the names in bytes |
//! | 16– | `n` entries of 8 bytes by rising address: 32-bit address, 32-bit end of its name in the names |
//! | then | the names, one behind the other, UTF-8; a name begins where the one before ends |

#![cfg_attr(not(test), no_std)]

/// Bytes that an image keeps for its table.
pub const CAPACITY: usize = 12 * 1024;
/// The first bytes of every table.
pub const MAGIC: [u8; 8] = *b"RFSYMBOL";
const HEADER: usize = 16;
const ENTRY: usize = 8;

/// A table, read in place. Nothing in it is trusted: a broken one names nothing.
#[derive(Copy, Clone, Debug)]
pub struct Symbols<'table> {
    entries: &'table [u8],
    names: &'table [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl<'table> Symbols<'table> {
    /// Reads a table; `None` where it is none.
    pub fn parse(table: &'table [u8]) -> Option<Self> {
        if table.get(..8)? != MAGIC {
            return None;
        }
        let entries = (word(table, 8)? as usize).checked_mul(ENTRY)?;
        let names = word(table, 12)? as usize;
        let behind = HEADER.checked_add(entries)?;
        Some(Self {
            entries: table.get(HEADER..behind)?,
            names: table.get(behind..behind.checked_add(names)?)?,
        })
    }

    /// The name of the symbol at or before `address`, and how many bytes behind its start `address` lies.
    pub fn find(&self, address: u64) -> Option<(&'table str, u64)> {
        let address = u32::try_from(address).ok()?;
        let (mut low, mut high) = (0, self.entries.len() / ENTRY);
        // Entries below `low` begin at or before the address, those from `high` on behind it.
        while low < high {
            let middle = low + (high - low) / 2;
            if word(self.entries, middle * ENTRY)? <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let index = low.checked_sub(1)?;
        let start = match index.checked_sub(1) {
            Some(previous) => word(self.entries, previous * ENTRY + 4)? as usize,
            None => 0,
        };
        let end = word(self.entries, index * ENTRY + 4)? as usize;
        let name = core::str::from_utf8(self.names.get(start..end)?).ok()?;
        Some((name, u64::from(address - word(self.entries, index * ENTRY)?)))
    }
}

/// Bytes of a table of these symbols; `None` if it would exceed 4 GiB.
pub fn length(symbols: &[(u32, &str)]) -> Option<usize> {
    let mut names = 0usize;
    for (_, name) in symbols {
        names = names.checked_add(name.len())?;
    }
    u32::try_from(names).ok()?;
    u32::try_from(symbols.len()).ok()?;
    symbols.len().checked_mul(ENTRY)?.checked_add(HEADER)?.checked_add(names)
}

/// Writes a table of `symbols`, sorted by address, into `table`, which is [`length`] bytes long. False, and nothing useful
/// written, where the length is wrong or the symbols are not sorted.
pub fn write(symbols: &[(u32, &str)], table: &mut [u8]) -> bool {
    if length(symbols) != Some(table.len()) || !symbols.is_sorted_by_key(|(address, _)| *address) {
        return false;
    }
    let (header, rest) = table.split_at_mut(HEADER);
    let (entries, names) = rest.split_at_mut(symbols.len() * ENTRY);
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&(symbols.len() as u32).to_le_bytes());
    header[12..].copy_from_slice(&(names.len() as u32).to_le_bytes());
    let mut end = 0;
    for ((address, name), entry) in symbols.iter().zip(entries.chunks_exact_mut(ENTRY)) {
        names[end..end + name.len()].copy_from_slice(name.as_bytes());
        end += name.len();
        entry[..4].copy_from_slice(&address.to_le_bytes());
        entry[4..].copy_from_slice(&(end as u32).to_le_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: [(u32, &str); 4] =
        [(0x10_0000, "entry"), (0x10_0040, "boot::start"), (0x10_2000, ""), (0x10_3000, "cpu::halt")];

    fn table() -> Vec<u8> {
        let mut table = vec![0; length(&SYMBOLS).unwrap()];
        assert!(write(&SYMBOLS, &mut table));
        table
    }

    #[test]
    fn what_is_written_is_found() {
        let table = table();
        let symbols = Symbols::parse(&table).unwrap();
        assert_eq!(symbols.find(0xf_ffff), None);
        assert_eq!(symbols.find(0x10_0000), Some(("entry", 0)));
        assert_eq!(symbols.find(0x10_003f), Some(("entry", 0x3f)));
        assert_eq!(symbols.find(0x10_0041), Some(("boot::start", 1)));
        assert_eq!(symbols.find(0x10_2001), Some(("", 1)));
        assert_eq!(symbols.find(0xffff_ffff), Some(("cpu::halt", 0xffef_cfff)));
        assert_eq!(symbols.find(u64::MAX), None);
    }

    #[test]
    fn unsorted_symbols_are_refused() {
        let symbols = [(2, "b"), (1, "a")];
        let mut table = vec![0; length(&symbols).unwrap()];
        assert!(!write(&symbols, &mut table));
    }

    #[test]
    fn no_flipped_byte_and_no_cut_makes_it_panic() {
        let table = table();
        for cut in 0..table.len() {
            assert!(Symbols::parse(&table[..cut]).is_none());
        }
        for index in 0..table.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = table.clone();
                broken[index] = value;
                if let Some(symbols) = Symbols::parse(&broken) {
                    for address in [0, 0x10_0000, 0x10_2fff, 0xffff_ffff] {
                        let _ = symbols.find(address);
                    }
                }
            }
        }
    }
}
