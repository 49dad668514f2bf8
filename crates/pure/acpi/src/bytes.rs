//! Little-endian fields and chains of structures, read without a step past the end.

use crate::Error;

/// `N` bytes from `offset`, or `None` where they are not all there.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[inline]
pub(crate) fn byte(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

#[inline]
pub(crate) fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

#[inline]
pub(crate) fn double_word(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

#[inline]
pub(crate) fn quad_word(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// Whether the bytes add up to zero, modulo 256 (§5.2.6).
pub(crate) fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// Where a structure in a chain says its kind and its length; the length counts the whole structure.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Byte 0 is the kind, byte 1 the length: MADT, device scopes.
    ByteByte,
    /// Bytes 0–1 are the kind, bytes 2–3 the length: DMAR.
    WordWord,
    /// Byte 0 is the kind, bytes 2–3 the length: IVRS.
    ByteWord,
    /// Byte 0 is the kind, which implies the length: device entries of the IVRS.
    ByKind,
}

/// One structure of a chain: all its bytes, and where it lies in its table.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Structure<'table> {
    pub kind: u16,
    pub bytes: &'table [u8],
    pub offset: usize,
}

impl Structure<'_> {
    /// The error that names this structure.
    pub const fn error(&self) -> Error {
        Error::Structure { offset: self.offset }
    }
}

/// A chain of structures that follow each other to the end of `bytes`. Each step takes at least one byte away or ends
/// the chain.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'table> {
    bytes: &'table [u8],
    /// Where `bytes` begins in the table.
    offset: usize,
    shape: Shape,
}

impl<'table> Chain<'table> {
    /// The chain from byte `start` of `whole`, which itself lies at byte `origin` of the table.
    pub fn new(whole: &'table [u8], start: usize, origin: usize, shape: Shape) -> Self {
        let bytes = whole.get(start..).unwrap_or_default();
        Self { bytes, offset: origin.saturating_add(start), shape }
    }

    /// Ends the chain.
    pub fn end(&mut self) {
        self.bytes = &[];
    }

    /// Kind, length and least possible length of the structure at the front.
    fn front(&self) -> Option<(u16, usize, usize)> {
        let kind = byte(self.bytes, 0)?;
        Some(match self.shape {
            Shape::ByteByte => (kind as u16, byte(self.bytes, 1)? as usize, 2),
            Shape::ByteWord => (kind as u16, word(self.bytes, 2)? as usize, 4),
            Shape::WordWord => (word(self.bytes, 0)?, word(self.bytes, 2)? as usize, 4),
            Shape::ByKind => (kind as u16, crate::ivrs::entry_length(self.bytes)?, 1),
        })
    }

    /// The next structure; after an error there is none.
    pub fn step(&mut self) -> Option<Result<Structure<'table>, Error>> {
        if self.bytes.is_empty() {
            return None;
        }
        let offset = self.offset;
        if let Some((kind, length, least)) = self.front()
            && length >= least
            && let Some((bytes, rest)) = self.bytes.split_at_checked(length)
        {
            self.bytes = rest;
            self.offset = offset.saturating_add(length);
            return Some(Ok(Structure { kind, bytes, offset }));
        }
        self.end();
        Some(Err(Error::Structure { offset }))
    }

    /// The next structure as `read` understands it. Where it does not, the chain ends with the structure's error.
    pub fn step_with<T>(
        &mut self,
        read: impl FnOnce(&Structure<'table>) -> Option<T>,
    ) -> Option<Result<T, Error>> {
        Some(self.step()?.and_then(|structure| {
            read(&structure).ok_or_else(|| {
                self.end();
                structure.error()
            })
        }))
    }
}
