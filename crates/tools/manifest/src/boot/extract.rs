//! Takes the vmlinux out of a bzImage, and unpacks kernels that are compressed as a whole.
//!
//! The compressed vmlinux lies where `payload_offset` and `payload_length` of the setup header say. Linux's build
//! appends the unpacked size in four bytes to every format but gzip, which ends with it anyway.

use super::{linux, number};
use std::io::Read;

/// The most bytes that a file may unpack to: a kernel beyond that is a bomb.
const MOST: u64 = 1 << 30;
/// lz4's legacy frames hold blocks of at most 8 MiB (LZ4 Frame Format, "Legacy frame").
const LZ4_BLOCK: usize = 8 << 20;

/// Why a file cannot be unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExtractError {
    /// It is no bzImage, or its header is cut off.
    NoBzImage,
    /// The payload does not lie in the file.
    Payload,
    /// The payload's format is none of gzip, xz, zstd and lz4; what it seems to be.
    Format(&'static str),
    /// The compressed bytes are damaged; the unpacker's words.
    Damaged(String),
    /// It unpacks to more than a kernel can have.
    TooLong,
    /// It unpacks to another length than the header promises.
    Length {
        /// Bytes promised.
        promised: u64,
        /// Bytes that came out.
        found: u64,
    },
}

impl core::fmt::Display for ExtractError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoBzImage => formatter.write_str("it is no complete bzImage"),
            Self::Payload => {
                formatter.write_str("its header says that the compressed kernel lies outside the file")
            }
            Self::Format(name) => {
                write!(formatter, "it is compressed by {name}; gzip, xz, zstd and lz4 are supported")
            }
            Self::Damaged(why) => write!(formatter, "the compressed bytes are damaged ({why})"),
            Self::TooLong => write!(formatter, "it unpacks to more than {} MiB", MOST >> 20),
            Self::Length { promised, found } => {
                write!(formatter, "it unpacks to {found} bytes, and its end says {promised}")
            }
        }
    }
}

impl core::error::Error for ExtractError {}

/// Whether the bytes begin as a gzip file does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b, 0x08])
}

/// Unpacks a gzip file.
pub fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, ExtractError> {
    read_all(flate2::bufread::GzDecoder::new(bytes))
}

/// Takes the vmlinux, an ELF file, out of a bzImage.
pub fn extract_vmlinux(kernel: &[u8]) -> Result<Vec<u8>, ExtractError> {
    if !linux::is_linux(kernel) {
        return Err(ExtractError::NoBzImage);
    }
    let code = linux::protected_mode_code(kernel).ok_or(ExtractError::NoBzImage)?;
    let offset = number::<4>(kernel, 0x248).ok_or(ExtractError::NoBzImage)? as usize;
    let length = number::<4>(kernel, 0x24c).ok_or(ExtractError::NoBzImage)? as usize;
    let payload = code
        .get(offset..)
        .and_then(|payload| payload.get(..length))
        .filter(|payload| payload.len() > 4)
        .ok_or(ExtractError::Payload)?;
    let promised = number::<4>(payload, payload.len() - 4).ok_or(ExtractError::Payload)?;
    let unpacked = match payload {
        [0x1f, 0x8b, 0x08, ..] => gunzip(payload)?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => read_all(lzma_rust2::XzReader::new(payload, false))?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(payload, MOST)
                .map_err(|error| ExtractError::Damaged(error.to_string()))?;
            read_all(decoder)?
        }
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => {
            let blocks = rest.len().checked_sub(4).and_then(|length| rest.get(..length));
            unpack_lz4(blocks.ok_or(ExtractError::Payload)?, promised)?
        }
        [b'B', b'Z', b'h', ..] => return Err(ExtractError::Format("bzip2")),
        [0x89, b'L', b'Z', b'O', ..] => return Err(ExtractError::Format("lzo")),
        [0x5d, 0, 0, ..] => return Err(ExtractError::Format("lzma")),
        _ => return Err(ExtractError::Format("an unknown format")),
    };
    let found = unpacked.len() as u64;
    if found != promised {
        return Err(ExtractError::Length { promised, found });
    }
    Ok(unpacked)
}

/// Reads a decoder to its end, or to the limit.
fn read_all(decoder: impl Read) -> Result<Vec<u8>, ExtractError> {
    let mut unpacked = Vec::new();
    decoder
        .take(MOST + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| ExtractError::Damaged(error.to_string()))?;
    if unpacked.len() as u64 > MOST { Err(ExtractError::TooLong) } else { Ok(unpacked) }
}

/// Unpacks the blocks of lz4's legacy format.
fn unpack_lz4(mut rest: &[u8], promised: u64) -> Result<Vec<u8>, ExtractError> {
    if promised > MOST {
        return Err(ExtractError::TooLong);
    }
    let mut unpacked = Vec::new();
    while !rest.is_empty() {
        let damaged = || ExtractError::Damaged("a block is cut off".to_owned());
        let length = number::<4>(rest, 0).ok_or_else(damaged)? as usize;
        let block = rest.get(4..).and_then(|block| block.get(..length)).ok_or_else(damaged)?;
        let bytes = lz4_flex::block::decompress(block, LZ4_BLOCK)
            .map_err(|error| ExtractError::Damaged(error.to_string()))?;
        unpacked.extend_from_slice(&bytes);
        if unpacked.len() as u64 > promised {
            return Err(ExtractError::Length { promised, found: unpacked.len() as u64 });
        }
        rest = rest.get(4 + length..).unwrap_or(&[]);
    }
    Ok(unpacked)
}
