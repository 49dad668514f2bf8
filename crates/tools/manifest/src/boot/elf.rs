//! Reads ELF files of x86 kernels ("Tool Interface Standard: Executable and Linking Format" 1.2; "ELF-64 Object File Format").

use super::layout::Layout;
use super::{LoadError, number};

/// `e_machine` of 32-bit x86.
pub(super) const MACHINE_386: u64 = 3;
/// `e_machine` of x86-64.
pub(super) const MACHINE_X86_64: u64 = 62;
/// `p_type` of what is loaded.
const LOAD: u64 = 1;
/// `p_type` of notes.
const NOTE: u64 = 4;
/// Type of Xen's note with the PVH entry point (Xen, `elfnote.h`).
const PHYS32_ENTRY: u64 = 18;
/// Most program headers that are looked at; kernels have fewer than ten.
const HEADERS: u64 = 64;

/// Where an ELF file's fields lie, by class.
struct Fields {
    entry: usize,
    table: usize,
    entry_size: usize,
    count: usize,
    offset: usize,
    virtual_address: usize,
    physical_address: usize,
    file_size: usize,
    memory_size: usize,
    alignment: usize,
}

const ELF32: Fields = Fields {
    entry: 0x18,
    table: 0x1c,
    entry_size: 0x2a,
    count: 0x2c,
    offset: 4,
    virtual_address: 8,
    physical_address: 12,
    file_size: 16,
    memory_size: 20,
    alignment: 28,
};
const ELF64: Fields = Fields {
    entry: 0x18,
    table: 0x20,
    entry_size: 0x36,
    count: 0x38,
    offset: 8,
    virtual_address: 16,
    physical_address: 24,
    file_size: 32,
    memory_size: 40,
    alignment: 48,
};

/// A program header, with its bytes.
struct Segment<'a> {
    kind: u64,
    virtual_address: u64,
    physical_address: u64,
    memory_size: u64,
    alignment: u64,
    bytes: &'a [u8],
}

/// An ELF file for x86.
pub(super) struct Elf<'a> {
    /// Whether it is 64-bit.
    pub wide: bool,
    entry: u64,
    segments: Vec<Segment<'a>>,
}

/// The file's `e_machine`; `None` if it is cut off or big-endian.
pub(super) fn machine(file: &[u8]) -> Option<u64> {
    (file.get(5) == Some(&1)).then(|| number::<2>(file, 0x12)).flatten()
}

/// The architecture in words.
pub(super) fn machine_name(file: &[u8]) -> String {
    match (file.get(5), machine(file)) {
        (Some(2), _) => "a big-endian machine".to_owned(),
        (_, Some(40)) => "32-bit ARM".to_owned(),
        (_, Some(183)) => "64-bit ARM".to_owned(),
        (_, Some(243)) => "RISC-V".to_owned(),
        (_, Some(8)) => "MIPS".to_owned(),
        (_, Some(20 | 21)) => "POWER".to_owned(),
        (_, Some(258)) => "LoongArch".to_owned(),
        (_, Some(number)) => format!("ELF machine number {number}"),
        (_, None) => "an unknown machine".to_owned(),
    }
}

impl<'a> Elf<'a> {
    /// Reads the header and the program headers.
    pub fn parse(file: &'a [u8]) -> Result<Self, LoadError> {
        let broken =
            || LoadError::broken("the kernel is an ELF file whose headers are cut off or point outside it");
        let wide = match file.get(4) {
            Some(1) => false,
            Some(2) => true,
            _ => return Err(broken()),
        };
        let fields = if wide { ELF64 } else { ELF32 };
        let native = |bytes: &[u8], at: usize| {
            if wide { number::<8>(bytes, at) } else { number::<4>(bytes, at) }.ok_or_else(broken)
        };
        let entry = native(file, fields.entry)?;
        let table = native(file, fields.table)?;
        let size = number::<2>(file, fields.entry_size).ok_or_else(broken)?;
        let count = number::<2>(file, fields.count).ok_or_else(broken)?;
        if count > HEADERS {
            return Err(LoadError::broken(format!("the kernel is an ELF file with {count} program headers")));
        }
        let mut segments = Vec::new();
        for index in 0..count {
            let at =
                table.checked_add(index * size).and_then(|at| usize::try_from(at).ok()).ok_or_else(broken)?;
            let header = file.get(at..).ok_or_else(broken)?;
            let offset = native(header, fields.offset)?;
            let length = native(header, fields.file_size)?;
            let kind = number::<4>(header, 0).ok_or_else(broken)?;
            // Other kinds may say what they like.
            if !matches!(kind, LOAD | NOTE) {
                continue;
            }
            let end = offset.checked_add(length).ok_or_else(broken)?;
            let bytes = file.get(offset as usize..end as usize).ok_or_else(broken)?;
            segments.push(Segment {
                kind,
                virtual_address: native(header, fields.virtual_address)?,
                physical_address: native(header, fields.physical_address)?,
                memory_size: native(header, fields.memory_size)?,
                alignment: native(header, fields.alignment)?,
                bytes,
            });
        }
        Ok(Self { wide, entry, segments })
    }

    /// The entry point of the PVH protocol, if a note gives one.
    pub fn pvh_entry(&self) -> Result<Option<u64>, LoadError> {
        for segment in self.segments.iter().filter(|segment| segment.kind == NOTE) {
            // Linux pads notes to four bytes, and some linkers to eight.
            let padding = if segment.alignment == 8 { 8 } else { 4 };
            let mut rest = segment.bytes;
            while rest.len() >= 12 {
                let note = Note::parse(rest, padding).ok_or_else(|| {
                    LoadError::broken("the kernel is an ELF file with a note that is longer than its segment")
                })?;
                if note.name == b"Xen\0" && note.kind == PHYS32_ENTRY {
                    return match note.value.len() {
                        4 => Ok(number::<4>(note.value, 0)),
                        8 => Ok(number::<8>(note.value, 0)),
                        length => {
                            Err(LoadError::broken(format!("the kernel's PVH entry point has {length} bytes")))
                        }
                    };
                }
                rest = note.rest;
            }
        }
        Ok(None)
    }

    /// The entry point as a physical address: kernels that are linked to high addresses may give it as a virtual one.
    pub fn physical_entry(&self) -> u64 {
        self.segments
            .iter()
            .filter(|segment| segment.kind == LOAD)
            .find_map(|segment| {
                let offset = self.entry.checked_sub(segment.virtual_address)?;
                (offset < segment.memory_size).then(|| segment.physical_address.wrapping_add(offset))
            })
            .unwrap_or(self.entry)
    }

    /// Places all segments at their physical addresses.
    pub fn place(&self, layout: &mut Layout) -> Result<(), LoadError> {
        let mut any = false;
        for segment in self.segments.iter().filter(|segment| segment.kind == LOAD && segment.memory_size > 0)
        {
            if segment.bytes.len() as u64 > segment.memory_size {
                return Err(LoadError::broken(
                    "the kernel is an ELF file with a segment that is longer than its memory",
                ));
            }
            layout.reserve("the kernel", segment.physical_address, segment.memory_size)?;
            layout.fill(segment.physical_address, segment.bytes.to_vec());
            any = true;
        }
        if any { Ok(()) } else { Err(LoadError::broken("the kernel is an ELF file with nothing to load")) }
    }
}

struct Note<'a> {
    name: &'a [u8],
    kind: u64,
    value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Note<'a> {
    fn parse(bytes: &'a [u8], padding: usize) -> Option<Self> {
        let name_length = number::<4>(bytes, 0)? as usize;
        let value_length = number::<4>(bytes, 4)? as usize;
        let kind = number::<4>(bytes, 8)?;
        let value_start = 12_usize.checked_add(name_length)?.checked_next_multiple_of(padding)?;
        let value_end = value_start.checked_add(value_length)?;
        let next = value_end.checked_next_multiple_of(padding)?;
        Some(Self {
            name: bytes.get(12..12_usize.checked_add(name_length)?)?,
            kind,
            value: bytes.get(value_start..value_end)?,
            rest: bytes.get(next..).unwrap_or(&[]),
        })
    }
}
