//! What all tables share: header, length, checksum.

use crate::Error;
use crate::bytes::{array, byte, double_word, sums_to_zero};

/// Bytes of the header with which every table begins (§5.2.6).
pub const HEADER_LENGTH: usize = 36;

/// The header of a table (§5.2.6), as it says of itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the table is.
    pub signature: [u8; 4],
    /// Bytes of the whole table, header included; at least [`HEADER_LENGTH`].
    pub length: u32,
    /// Revision of the structure that the signature names.
    pub revision: u8,
    /// Who made it; padded with spaces or zeros.
    pub oem_id: [u8; 6],
    /// What its maker calls it; padded with spaces or zeros.
    pub oem_table_id: [u8; 8],
    /// Its maker's revision.
    pub oem_revision: u32,
    /// The vendor of the tool that made it.
    pub creator_id: [u8; 4],
    /// The revision of that tool.
    pub creator_revision: u32,
}

impl Header {
    /// Reads a header from the front of `bytes`, which need not hold the whole table; the checksum is not looked at.
    ///
    /// # Errors
    /// [`Error::Truncated`] below [`HEADER_LENGTH`] bytes, [`Error::Length`] if the table says it is shorter than that.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let header = Self::read(bytes).ok_or(Error::Truncated)?;
        if (header.length as usize) < HEADER_LENGTH { Err(Error::Length) } else { Ok(header) }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            signature: array(bytes, 0)?,
            length: double_word(bytes, 4)?,
            revision: byte(bytes, 8)?,
            oem_id: array(bytes, 10)?,
            oem_table_id: array(bytes, 16)?,
            oem_revision: double_word(bytes, 24)?,
            creator_id: array(bytes, 28)?,
            creator_revision: double_word(bytes, 32)?,
        })
    }
}

/// A table whose length lies within its slice.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Table<'table> {
    header: Header,
    bytes: &'table [u8],
}

impl<'table> Table<'table> {
    /// The table at the front of `bytes`; what follows it there is not looked at.
    ///
    /// # Errors
    /// As [`Header::parse`]; [`Error::Truncated`] if the table reaches beyond `bytes`; [`Error::Checksum`].
    pub fn new(bytes: &'table [u8]) -> Result<Self, Error> {
        let table = Self::with_any_checksum(bytes)?;
        if table.checksum_is_right() { Ok(table) } else { Err(Error::Checksum) }
    }

    /// As [`Table::new`], for callers who say themselves what a wrong checksum means.
    ///
    /// # Errors
    /// As [`Table::new`], but never [`Error::Checksum`].
    pub fn with_any_checksum(bytes: &'table [u8]) -> Result<Self, Error> {
        let header = Header::parse(bytes)?;
        let bytes = bytes.get(..header.length as usize).ok_or(Error::Truncated)?;
        Ok(Self { header, bytes })
    }

    /// Whether the table's bytes add up to zero.
    pub fn checksum_is_right(&self) -> bool {
        sums_to_zero(self.bytes)
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What the table is.
    pub const fn signature(&self) -> [u8; 4] {
        self.header.signature
    }

    /// All of it, header included.
    pub const fn bytes(&self) -> &'table [u8] {
        self.bytes
    }

    /// What follows the header.
    pub fn body(&self) -> &'table [u8] {
        self.bytes.get(HEADER_LENGTH..).unwrap_or_default()
    }

    /// As [`Table::new`], of a table that must be `signature` and hold at least `least` bytes.
    pub(crate) fn expect(bytes: &'table [u8], signature: [u8; 4], least: usize) -> Result<Self, Error> {
        // The signature comes first: of a table that is another one, neither length nor checksum matters.
        if Header::parse(bytes)?.signature != signature {
            return Err(Error::Signature);
        }
        let table = Self::new(bytes)?;
        if table.bytes.len() < least { Err(Error::Length) } else { Ok(table) }
    }
}
