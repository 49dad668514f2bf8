//! Multiboot version 1 ("Multiboot Specification version 0.6.96"): ELF32, ELF64, and flat kernels with address fields.

use super::elf::Elf;
use super::layout::Layout;
use super::{
    COMMAND_LINE, COMMAND_LINE_END, Culprit, INFORMATION, LISTS, LOADER_NAME, LoadError, Request, memory_map,
    number, place_descriptors, put, start, too_little_memory,
};
use crate::platform;

/// In the kernel's header.
const HEADER_MAGIC: u64 = 0x1bad_b002;
/// In EAX when the kernel starts.
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// The header lies in this many bytes from the file's beginning (§3.1).
const SEARCH: usize = 8192;
/// Header flags 3 to 15 ask for what this version does not define: a loader that does not know them must refuse (§3.1.2).
const UNKNOWN_REQUIRED: u64 = 0xfff8;
/// Header flag: the address fields are valid.
const ADDRESS_FIELDS: u64 = 1 << 16;
/// Information flags: memory sizes, command line, modules, memory map, loader's name (§3.3).
const INFORMATION_FLAGS: u64 = 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9;
/// Information flag: the list of modules is valid.
const MODULES_FLAG: u64 = 1 << 3;
/// Bytes of the information structure.
const INFORMATION_LENGTH: usize = 120;
/// Where the loader's name lies: behind the information structure.
const NAME: u64 = INFORMATION + 0x100;

/// The address fields (§3.1.3), as physical addresses.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    header: u64,
    load: u64,
    load_end: u64,
    bss_end: u64,
    entry: u64,
}

/// A multiboot header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    offset: usize,
    flags: u64,
    /// The address fields, if the header has them.
    pub addresses: Option<Addresses>,
}

impl Header {
    /// The first valid header of the file.
    pub fn find(file: &[u8]) -> Option<Self> {
        let searched = file.get(..SEARCH.min(file.len()))?;
        (0..searched.len()).step_by(4).find_map(|offset| {
            let word = |index: usize| number::<4>(searched, offset + index * 4);
            let (magic, flags, checksum) = (word(0)?, word(1)?, word(2)?);
            let sum = magic.wrapping_add(flags).wrapping_add(checksum);
            if magic != HEADER_MAGIC || sum & 0xffff_ffff != 0 {
                return None;
            }
            let addresses = if flags & ADDRESS_FIELDS == 0 {
                None
            } else {
                Some(Addresses {
                    header: word(3)?,
                    load: word(4)?,
                    load_end: word(5)?,
                    bss_end: word(6)?,
                    entry: word(7)?,
                })
            };
            Some(Self { offset, flags, addresses })
        })
    }
}

/// Places the kernel, its modules and its information structure.
pub(super) fn place(
    layout: &mut Layout,
    kernel: &[u8],
    request: &Request<'_>,
) -> Result<plan::Start, LoadError> {
    let header =
        Header::find(kernel).ok_or_else(|| LoadError::broken("the kernel's multiboot header is gone"))?;
    if header.flags & UNKNOWN_REQUIRED != 0 {
        return Err(LoadError::new(
            "multiboot-feature",
            Culprit::Kernel,
            format!(
                "the kernel requires multiboot features that version 1 does not define (flags {:#x})",
                header.flags & UNKNOWN_REQUIRED
            ),
            "Build the kernel without these flags.",
        ));
    }
    let entry = if let Some(addresses) = header.addresses {
        place_flat(layout, kernel, header.offset as u64, addresses)?
    } else {
        let elf = Elf::parse(kernel)?;
        elf.place(layout)?;
        elf.physical_entry()
    };

    // The command line begins with the kernel's name, as boot loaders of multiboot have it, and kernels skip it.
    let mut texts = Texts::default();
    let line = if request.command_line.is_empty() {
        request.kernel_name.to_owned()
    } else {
        format!("{} {}", request.kernel_name, request.command_line)
    };
    let line = texts.add(&line, Culprit::CommandLine)?;

    let mut lists = Vec::new();
    for entry in memory_map(request.memory) {
        let mut slot = [0; 24];
        // The size does not count itself.
        put::<4>(&mut slot, 0, 20);
        put::<8>(&mut slot, 4, entry.start);
        put::<8>(&mut slot, 12, entry.length);
        put::<4>(&mut slot, 20, u64::from(entry.kind.number()));
        lists.extend_from_slice(&slot);
    }
    let map_length = lists.len() as u64;
    let mut next = layout.used_end();
    for (index, module) in request.modules.iter().enumerate() {
        let length = module.bytes.len() as u64;
        if length == 0 {
            return Err(LoadError::new(
                "module-empty",
                Culprit::Module(index),
                "the module's file is empty",
                "Build the module again, or take it from the list.",
            ));
        }
        let at = layout
            .lowest(length, next, 4096)
            .ok_or_else(|| too_little_memory("the kernel with its modules", next.saturating_add(length)))?;
        layout.place("a module", at, module.bytes.to_vec())?;
        next = at.saturating_add(length);
        let mut slot = [0; 16];
        put::<4>(&mut slot, 0, at);
        put::<4>(&mut slot, 4, next);
        put::<4>(&mut slot, 8, texts.add(module.text, Culprit::Module(index))?);
        lists.extend_from_slice(&slot);
    }

    let (low, _) = plan::memory_layout(request.memory);
    let mut information = vec![0; INFORMATION_LENGTH];
    put::<4>(&mut information, 0, INFORMATION_FLAGS);
    put::<4>(&mut information, 4, platform::EBDA >> 10);
    put::<4>(&mut information, 8, low.saturating_sub(platform::MEBIBYTE) >> 10);
    put::<4>(&mut information, 16, line);
    if !request.modules.is_empty() {
        put::<4>(&mut information, 0, INFORMATION_FLAGS | MODULES_FLAG);
        put::<4>(&mut information, 20, request.modules.len() as u64);
        put::<4>(&mut information, 24, LISTS + map_length);
    }
    put::<4>(&mut information, 44, map_length);
    put::<4>(&mut information, 48, LISTS);
    put::<4>(&mut information, 64, NAME);
    layout.place("the multiboot information", INFORMATION, information)?;
    let mut name = LOADER_NAME.as_bytes().to_vec();
    name.push(0);
    layout.place("the loader's name", NAME, name)?;
    layout.place("the multiboot lists", LISTS, lists)?;
    layout.place("the command lines", COMMAND_LINE, texts.bytes)?;

    let limit = place_descriptors(layout, plan::Mode::Protected)?;
    let mut state = start(plan::Mode::Protected, entry, limit);
    state.rax = LOADER_MAGIC;
    state.rbx = INFORMATION;
    Ok(state)
}

/// Places a kernel by its address fields (§3.1.3); gives its entry point.
fn place_flat(
    layout: &mut Layout,
    kernel: &[u8],
    header_offset: u64,
    addresses: Addresses,
) -> Result<u64, LoadError> {
    let broken = || LoadError::broken("the kernel's multiboot address fields contradict its file");
    let before = addresses.header.checked_sub(addresses.load).ok_or_else(broken)?;
    let first = header_offset.checked_sub(before).ok_or_else(broken)?;
    let there = (kernel.len() as u64).checked_sub(first).ok_or_else(broken)?;
    let length = match addresses.load_end {
        0 => there,
        end => end.checked_sub(addresses.load).filter(|length| *length <= there).ok_or_else(broken)?,
    };
    let end = addresses.load.checked_add(length).ok_or_else(broken)?;
    let bss_end = if addresses.bss_end == 0 { end } else { addresses.bss_end };
    if bss_end < end || length == 0 {
        return Err(broken());
    }
    let bytes = kernel.get(first as usize..(first + length) as usize).ok_or_else(broken)?;
    layout.reserve("the kernel", addresses.load, bss_end - addresses.load)?;
    layout.fill(addresses.load, bytes.to_vec());
    Ok(addresses.entry)
}

/// The command lines, one behind the other.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
}

impl Texts {
    /// Adds a text and gives its address.
    fn add(&mut self, text: &str, culprit: Culprit) -> Result<u64, LoadError> {
        let at = COMMAND_LINE + self.bytes.len() as u64;
        let end = at + text.len() as u64 + 1;
        if end > COMMAND_LINE_END {
            return Err(LoadError::new(
                "command-line-too-long",
                culprit,
                format!(
                    "the command lines of kernel and modules together have more than {} bytes",
                    COMMAND_LINE_END - COMMAND_LINE
                ),
                "Shorten the command line or the modules' arguments.",
            ));
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(at)
    }
}
