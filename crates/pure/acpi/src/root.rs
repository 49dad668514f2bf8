//! The root: RSDP, RSDT, XSDT.

use crate::bytes::{array, byte, double_word, quad_word, sums_to_zero};
use crate::{Error, HEADER_LENGTH, Table};

/// The RSDP lies at a multiple of this many bytes (§5.2.5.1).
pub const RSDP_STEP: usize = 16;
/// Bytes that the first checksum covers: all of the ACPI 1.0 structure.
const FIRST_LENGTH: usize = 20;
/// Bytes of the structure since ACPI 2.0.
const EXTENDED_LENGTH: usize = 36;

/// The root system description pointer (§5.2.5.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Rsdp {
    /// 0 for ACPI 1.0, 2 since ACPI 2.0.
    pub revision: u8,
    /// Who made it; padded with spaces or zeros.
    pub oem_id: [u8; 6],
    /// Physical address of the RSDT; 0 where there is none.
    pub rsdt: u32,
    /// Physical address of the XSDT, if there is one. It then takes the place of the RSDT (§5.2.8).
    pub xsdt: Option<u64>,
}

impl Rsdp {
    /// Reads an RSDP from the front of `bytes`: signature, checksum and, from revision 2 on, length and extended checksum.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Signature`], [`Error::Checksum`], [`Error::Length`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let first = bytes.get(..FIRST_LENGTH).ok_or(Error::Truncated)?;
        if !first.starts_with(b"RSD PTR ") {
            return Err(Error::Signature);
        }
        if !sums_to_zero(first) {
            return Err(Error::Checksum);
        }
        let revision = byte(first, 15).ok_or(Error::Truncated)?;
        let xsdt = if revision < 2 { None } else { Self::extended(bytes)? };
        Ok(Self {
            revision,
            oem_id: array(first, 9).ok_or(Error::Truncated)?,
            rsdt: double_word(first, 16).ok_or(Error::Truncated)?,
            xsdt,
        })
    }

    fn extended(bytes: &[u8]) -> Result<Option<u64>, Error> {
        let length = double_word(bytes, 20).ok_or(Error::Truncated)? as usize;
        if length < EXTENDED_LENGTH {
            return Err(Error::Length);
        }
        let whole = bytes.get(..length).ok_or(Error::Truncated)?;
        if !sums_to_zero(whole) {
            return Err(Error::Checksum);
        }
        let xsdt = quad_word(whole, 24).ok_or(Error::Truncated)?;
        Ok((xsdt != 0).then_some(xsdt))
    }
}

/// Finds an RSDP in a memory area that begins at a multiple of [`RSDP_STEP`] (§5.2.5.1: the first KiB of the extended BIOS
/// data area, and 0xE0000 to 0xFFFFF). Answers where in `area` the first whole and right one begins.
pub fn find_rsdp(area: &[u8]) -> Option<usize> {
    (0..area.len())
        .step_by(RSDP_STEP)
        .find(|offset| area.get(*offset..).is_some_and(|bytes| Rsdp::parse(bytes).is_ok()))
}

/// The tables that a root table lists, as physical addresses. Zeros are passed over; so are bytes at the end that
/// are no whole address.
#[derive(Clone, Debug)]
pub struct RootEntries<'table> {
    rest: &'table [u8],
    wide: bool,
}

/// What an RSDT (§5.2.7) or XSDT (§5.2.8) lists.
///
/// # Errors
/// [`Error::Signature`] if `table` is neither.
pub fn root_entries<'table>(table: &Table<'table>) -> Result<RootEntries<'table>, Error> {
    let wide = match &table.signature() {
        b"RSDT" => false,
        b"XSDT" => true,
        _ => return Err(Error::Signature),
    };
    Ok(RootEntries { rest: table.bytes().get(HEADER_LENGTH..).unwrap_or_default(), wide })
}

impl Iterator for RootEntries<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let (address, size) = if self.wide {
                (quad_word(self.rest, 0)?, 8)
            } else {
                (double_word(self.rest, 0)? as u64, 4)
            };
            self.rest = self.rest.get(size..).unwrap_or_default();
            if address != 0 {
                return Some(address);
            }
        }
    }
}
