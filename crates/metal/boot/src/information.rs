//! What the boot loader says: memory map, boot modules, command line. All of it is an allegation, read from bounded slices.

use address::{HostPhysical, HostRange};
use heapless::{String, Vec};
use memory::Region;

/// Most pieces of a memory map.
pub const REGIONS: usize = 128;
/// Most boot modules.
pub const MODULES: usize = 8;
/// What multiboot 1 leaves in EAX (Multiboot Specification §3.2).
pub const MULTIBOOT1: u32 = 0x2bad_b002;
/// What multiboot 2 leaves in EAX (Multiboot2 Specification §3.2).
pub const MULTIBOOT2: u32 = 0x36d7_6289;
/// The first word of a PVH start information (Xen, `hvm_start_info`).
pub const PVH: u32 = 0x336e_c578;

/// How the image was entered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// PVH: `qemu -kernel`, Xen.
    Pvh,
    /// Multiboot 1: `qemu -kernel`, GRUB `multiboot`.
    Multiboot1,
    /// Multiboot 2: GRUB `multiboot2`.
    Multiboot2,
}

impl Protocol {
    /// Its name for the boot log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pvh => "PVH",
            Self::Multiboot1 => "multiboot 1",
            Self::Multiboot2 => "multiboot 2",
        }
    }
}

/// Where the ACPI root pointer is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum RootPointer {
    /// The loader did not say.
    #[default]
    Unknown,
    /// At that physical address.
    At(u64),
    /// The loader copied it.
    Copied(Vec<u8, 36>),
}

/// Why the loader's information is of no use.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// None of the three protocols.
    Protocol,
    /// It lies where it cannot be read, or ends before its contents do.
    Truncated,
    /// It has no memory map.
    NoMemoryMap,
    /// More pieces of memory map, or modules, than there is room for.
    TooMany,
    /// No module.
    NoModule,
    /// So many modules, where one is wanted.
    Modules(u8),
    /// A module that is empty, or wraps around the end of memory.
    ModuleLength,
    /// The module does not lie in usable memory below 4 GiB, or shares it with the image.
    ModulePlace,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Modules(count) => {
                return write!(
                    formatter,
                    "{count} boot modules came with the image: it takes one, which holds what may run"
                );
            }
            Self::NoModule => "no boot module came with the image: it holds what may run",
            Self::ModuleLength => "a boot module is empty or has an impossible length",
            Self::ModulePlace => "the boot module does not lie in usable memory below 4 GiB",
            Self::Protocol => "the boot loader speaks none of PVH, multiboot 1 and multiboot 2",
            Self::Truncated => "the boot loader's information ends before its contents do",
            Self::NoMemoryMap => "the boot loader gave no memory map",
            Self::TooMany => "the memory map or the list of modules is too long",
        })
    }
}

/// Physical memory that may be looked at during boot.
pub trait Physical {
    /// `length` bytes at `address`; `None` where they cannot be read.
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]>;
}

/// What the boot loader said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootInfo {
    /// How the image was entered.
    pub protocol: Protocol,
    /// The memory map, as it came.
    pub map: Vec<Region, REGIONS>,
    /// Boot modules in order.
    pub modules: Vec<HostRange, MODULES>,
    /// ACPI root pointer.
    pub root: RootPointer,
    /// The command line, its first 255 bytes as far as they are UTF-8.
    pub command_line: String<255>,
    /// What the loader calls itself.
    pub loader: String<63>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn quad(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The text up to the first zero, as far as it is UTF-8 and fits.
fn text<const LENGTH: usize>(bytes: &[u8]) -> String<LENGTH> {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let bytes = bytes.get(..LENGTH).unwrap_or(bytes);
    let valid = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            core::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
    };
    let mut text = String::new();
    // It fits: the slice is at most `LENGTH` long.
    let _ = text.push_str(valid);
    text
}

/// A string in memory. One that lies at the end of what can be read is looked at in shorter pieces.
fn text_at<const LENGTH: usize>(memory: &impl Physical, address: u64) -> String<LENGTH> {
    let mut length = LENGTH as u64 + 1;
    while length > 0 {
        if let Some(bytes) = memory.bytes(address, length) {
            return text(bytes);
        }
        length /= 2;
    }
    String::new()
}

impl BootInfo {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            map: Vec::new(),
            modules: Vec::new(),
            root: RootPointer::Unknown,
            command_line: String::new(),
            loader: String::new(),
        }
    }

    /// Reads what the loader left: `eax` and `ebx` as they were at entry. PVH is told by its magic number in memory, since it
    /// promises nothing of EAX.
    pub fn read(memory: &impl Physical, eax: u32, ebx: u32) -> Result<Self, Refusal> {
        let at = u64::from(ebx);
        let first = memory.bytes(at, 4).and_then(|bytes| word(bytes, 0));
        let information = match (first, eax) {
            (Some(PVH), _) => Self::pvh(memory, at),
            (_, MULTIBOOT1) => Self::multiboot1(memory, at),
            (_, MULTIBOOT2) => Self::multiboot2(memory, at),
            _ => return Err(Refusal::Protocol),
        }?;
        if information.map.iter().any(|region| region.usable) {
            Ok(information)
        } else {
            Err(Refusal::NoMemoryMap)
        }
    }

    /// The one module: which of several holds the plan would be a guess. It lies in memory that can be read, and not where the `image`
    /// lies.
    pub fn module(&self, image: Option<HostRange>) -> Result<HostRange, Refusal> {
        let module = match &self.modules[..] {
            [] => return Err(Refusal::NoModule),
            [module] => *module,
            several => return Err(Refusal::Modules(several.len() as u8)),
        };
        // A map may cut the memory where nothing ends. Each piece is needed once at most.
        let mut covered = module.start();
        for _ in 0..self.map.len() {
            let piece = self.map.iter().find(|region| region.usable && region.range.contains(covered));
            covered = piece.map_or(covered, |region| region.range.end());
        }
        let readable = module.end() <= covered && module.end().get() <= memory::BOOT_REACH;
        if readable && !image.is_some_and(|image| image.overlaps(&module)) {
            Ok(module)
        } else {
            Err(Refusal::ModulePlace)
        }
    }

    fn add_region(&mut self, start: u64, length: u64, kind: u32) -> Result<(), Refusal> {
        // Empty and wrapping pieces are nobody's memory.
        let Some(range) = HostRange::new(HostPhysical::new(start), length) else { return Ok(()) };
        // All three protocols use the numbers of E820: 1 is memory, everything else is not.
        self.map.push(Region { range, usable: kind == 1 }).map_err(|_| Refusal::TooMany)
    }

    fn add_module(&mut self, start: u64, length: u64) -> Result<(), Refusal> {
        let range = HostRange::new(HostPhysical::new(start), length).ok_or(Refusal::ModuleLength)?;
        self.modules.push(range).map_err(|_| Refusal::TooMany)
    }

    /// `hvm_start_info`, versions 0 and 1.
    #[inline(never)]
    fn pvh(memory: &impl Physical, at: u64) -> Result<Self, Refusal> {
        let head = memory.bytes(at, 40).ok_or(Refusal::Truncated)?;
        let mut this = Self::new(Protocol::Pvh);
        let read = |offset| quad(head, offset).ok_or(Refusal::Truncated);
        let version = word(head, 4).ok_or(Refusal::Truncated)?;
        let modules = word(head, 12).ok_or(Refusal::Truncated)?;
        if modules as usize > MODULES {
            return Err(Refusal::TooMany);
        }
        if modules > 0 {
            let list = memory.bytes(read(16)?, u64::from(modules) * 32).ok_or(Refusal::Truncated)?;
            for entry in list.chunks_exact(32) {
                let (Some(start), Some(length)) = (quad(entry, 0), quad(entry, 8)) else { continue };
                this.add_module(start, length)?;
            }
        }
        let command_line = read(24)?;
        if command_line != 0 {
            this.command_line = text_at(memory, command_line);
        }
        let root = read(32)?;
        if root != 0 {
            this.root = RootPointer::At(root);
        }
        if version >= 1 {
            let more = memory.bytes(at, 52).ok_or(Refusal::Truncated)?;
            let map = quad(more, 40).ok_or(Refusal::Truncated)?;
            let entries = word(more, 48).ok_or(Refusal::Truncated)?;
            if entries as usize > REGIONS {
                return Err(Refusal::TooMany);
            }
            let list = memory.bytes(map, u64::from(entries) * 24).ok_or(Refusal::Truncated)?;
            for entry in list.chunks_exact(24) {
                let (Some(start), Some(length), Some(kind)) =
                    (quad(entry, 0), quad(entry, 8), word(entry, 16))
                else {
                    continue;
                };
                this.add_region(start, length, kind)?;
            }
        }
        Ok(this)
    }

    /// Multiboot Specification 0.6.96 §3.3.
    #[inline(never)]
    fn multiboot1(memory: &impl Physical, at: u64) -> Result<Self, Refusal> {
        let head = memory.bytes(at, 88).ok_or(Refusal::Truncated)?;
        let mut this = Self::new(Protocol::Multiboot1);
        let read = |offset| word(head, offset).ok_or(Refusal::Truncated);
        let flags = read(0)?;
        if flags & 1 << 2 != 0 {
            this.command_line = text_at(memory, u64::from(read(16)?));
        }
        if flags & 1 << 3 != 0 {
            let count = read(20)?;
            if count as usize > MODULES {
                return Err(Refusal::TooMany);
            }
            if count > 0 {
                let list =
                    memory.bytes(u64::from(read(24)?), u64::from(count) * 16).ok_or(Refusal::Truncated)?;
                for entry in list.chunks_exact(16) {
                    let (Some(start), Some(end)) = (word(entry, 0), word(entry, 4)) else { continue };
                    this.add_module(u64::from(start), u64::from(end.saturating_sub(start)))?;
                }
            }
        }
        if flags & 1 << 6 != 0 {
            let length = u64::from(read(44)?);
            let map = memory.bytes(u64::from(read(48)?), length).ok_or(Refusal::Truncated)?;
            let mut offset = 0usize;
            // An entry's size does not count the field that says it.
            while let Some(size) = word(map, offset) {
                let (Some(start), Some(length), Some(kind)) =
                    (quad(map, offset + 4), quad(map, offset + 12), word(map, offset + 20))
                else {
                    break;
                };
                this.add_region(start, length, kind)?;
                offset = match offset.checked_add(size as usize).and_then(|offset| offset.checked_add(4)) {
                    Some(next) if size >= 20 => next,
                    _ => break,
                };
            }
        }
        if flags & 1 << 9 != 0 {
            this.loader = text_at(memory, u64::from(read(64)?));
        }
        Ok(this)
    }

    /// Multiboot2 Specification 2.0 §3.6.
    #[inline(never)]
    fn multiboot2(memory: &impl Physical, at: u64) -> Result<Self, Refusal> {
        let total = memory.bytes(at, 8).and_then(|head| word(head, 0)).ok_or(Refusal::Truncated)?;
        let all = memory.bytes(at, u64::from(total)).ok_or(Refusal::Truncated)?;
        let mut this = Self::new(Protocol::Multiboot2);
        let mut offset = 8usize;
        loop {
            let (Some(kind), Some(size)) =
                (word(all, offset), offset.checked_add(4).and_then(|offset| word(all, offset)))
            else {
                return Err(Refusal::Truncated);
            };
            if kind == 0 {
                return Ok(this);
            }
            let end = offset.checked_add(size as usize).ok_or(Refusal::Truncated)?;
            let body = all.get(offset.saturating_add(8)..end).ok_or(Refusal::Truncated)?;
            match kind {
                1 => this.command_line = text(body),
                2 => this.loader = text(body),
                3 => {
                    let (Some(start), Some(end)) = (word(body, 0), word(body, 4)) else {
                        return Err(Refusal::Truncated);
                    };
                    this.add_module(u64::from(start), u64::from(end.saturating_sub(start)))?;
                }
                6 => {
                    let entry_size = word(body, 0).ok_or(Refusal::Truncated)? as usize;
                    if entry_size < 20 {
                        return Err(Refusal::Truncated);
                    }
                    for entry in body.get(8..).unwrap_or_default().chunks_exact(entry_size) {
                        let (Some(start), Some(length), Some(kind)) =
                            (quad(entry, 0), quad(entry, 8), word(entry, 16))
                        else {
                            continue;
                        };
                        this.add_region(start, length, kind)?;
                    }
                }
                // The newer root pointer wins over the older one, in whichever order they come.
                14 if !matches!(&this.root, RootPointer::Copied(bytes) if bytes.len() > 20) => {
                    this.root = copied(body, 20);
                }
                15 => this.root = copied(body, 36),
                _ => {}
            }
            // Tags begin at multiples of 8; one of size below 8 would never end.
            offset = match end.checked_next_multiple_of(8) {
                Some(next) if size >= 8 => next,
                _ => return Err(Refusal::Truncated),
            };
        }
    }
}

fn copied(body: &[u8], length: usize) -> RootPointer {
    match body.get(..length).and_then(|bytes| Vec::from_slice(bytes).ok()) {
        Some(bytes) => RootPointer::Copied(bytes),
        None => RootPointer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from physical address 1000h.
    struct Fake(std::vec::Vec<u8>);

    const BASE: u64 = 0x1000;

    impl Physical for Fake {
        fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
            let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
            self.0.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        }
    }

    impl Fake {
        fn new() -> Self {
            Self(vec![0; 0x1000])
        }

        fn put(&mut self, at: u64, bytes: &[u8]) {
            let start = (at - BASE) as usize;
            self.0[start..start + bytes.len()].copy_from_slice(bytes);
        }

        fn words(&mut self, at: u64, words: &[u32]) {
            for (index, word) in words.iter().enumerate() {
                self.put(at + 4 * index as u64, &word.to_le_bytes());
            }
        }
    }

    fn range(start: u64, length: u64) -> HostRange {
        HostRange::new(HostPhysical::new(start), length).unwrap()
    }

    fn multiboot1() -> Fake {
        let mut memory = Fake::new();
        memory.words(BASE, &[1 << 2 | 1 << 3 | 1 << 6 | 1 << 9]);
        memory.words(BASE + 16, &[0x1200, 1, 0x1300]);
        memory.words(BASE + 44, &[48, 0x1400]);
        memory.words(BASE + 64, &[0x1280]);
        memory.put(0x1200, b"quiet=1\0");
        memory.put(0x1280, b"loader\0");
        memory.words(0x1300, &[0x20_0000, 0x20_1234, 0, 0]);
        memory.words(0x1400, &[20, 0, 0, 0x9_f000, 0, 1]);
        memory.words(0x1418, &[20, 0xffff_0000, 0, 0x1_0000, 0, 2]);
        memory
    }

    fn pvh() -> Fake {
        let mut memory = Fake::new();
        memory.words(BASE, &[PVH, 1, 0, 1, 0x1300, 0, 0x1200, 0, 0xf_1234, 0, 0x1400, 0, 2, 0]);
        memory.put(0x1200, b"quiet=1\0");
        memory.words(0x1300, &[0x20_0000, 0, 0x1234, 0, 0, 0, 0, 0]);
        memory.words(0x1400, &[0, 0, 0x9_f000, 0, 1, 0]);
        memory.words(0x1418, &[0xffff_0000, 0, 0x1_0000, 0, 2, 0]);
        memory
    }

    fn multiboot2() -> Fake {
        let mut memory = Fake::new();
        let mut at = BASE + 8;
        let mut tag = |kind: u32, body: &[u8]| {
            memory.words(at, &[kind, body.len() as u32 + 8]);
            memory.put(at + 8, body);
            at = (at + 8 + body.len() as u64).next_multiple_of(8);
        };
        let words =
            |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<std::vec::Vec<u8>>();
        tag(1, b"quiet=1\0");
        tag(2, b"loader\0");
        tag(3, &[&words(&[0x20_0000, 0x20_1234])[..], b"plan\0"].concat());
        tag(6, &words(&[24, 0, 0, 0, 0x9_f000, 0, 1, 0, 0xffff_0000, 0, 0x1_0000, 0, 2, 0]));
        tag(15, &[7; 36]);
        tag(14, &[3; 20]);
        tag(0, b"");
        let total = (at - BASE) as u32;
        memory.words(BASE, &[total, 0]);
        memory
    }

    #[test]
    fn all_protocols_say_the_same() {
        for (memory, eax, protocol) in [
            (multiboot1(), MULTIBOOT1, Protocol::Multiboot1),
            (multiboot2(), MULTIBOOT2, Protocol::Multiboot2),
            // PVH leaves anything in EAX.
            (pvh(), MULTIBOOT1, Protocol::Pvh),
            (pvh(), 0, Protocol::Pvh),
        ] {
            let information = BootInfo::read(&memory, eax, BASE as u32).unwrap();
            assert_eq!(information.protocol, protocol);
            assert_eq!(information.modules[..], [range(0x20_0000, 0x1234)]);
            assert_eq!(
                information.map[..],
                [
                    Region { range: range(0, 0x9_f000), usable: true },
                    Region { range: range(0xffff_0000, 0x1_0000), usable: false }
                ]
            );
            assert_eq!(information.command_line, "quiet=1");
            if protocol != Protocol::Pvh {
                assert_eq!(information.loader, "loader");
            }
            match protocol {
                Protocol::Pvh => assert_eq!(information.root, RootPointer::At(0xf_1234)),
                Protocol::Multiboot1 => assert_eq!(information.root, RootPointer::Unknown),
                Protocol::Multiboot2 => {
                    assert!(matches!(information.root, RootPointer::Copied(b) if b[..] == [7; 36]))
                }
            }
        }
    }

    #[test]
    fn nobodys_information_is_refused() {
        assert_eq!(BootInfo::read(&multiboot1(), 0, BASE as u32), Err(Refusal::Protocol));
        assert_eq!(BootInfo::read(&multiboot1(), MULTIBOOT1, 0), Err(Refusal::Truncated));
        assert_eq!(BootInfo::read(&Fake::new(), MULTIBOOT1, BASE as u32), Err(Refusal::NoMemoryMap));
        let mut memory = pvh();
        memory.words(BASE + 12, &[u32::MAX]);
        assert_eq!(BootInfo::read(&memory, 0, BASE as u32), Err(Refusal::TooMany));
    }

    #[test]
    fn one_module_that_can_be_read_is_taken() {
        let mut information = BootInfo::read(&pvh(), 0, BASE as u32).unwrap();
        let image = range(0x10_0000, 0x4_0000);
        let mut module = |map: &[(u64, u64, bool)], modules: &[HostRange]| {
            let region = |(start, length, usable): &(u64, u64, bool)| Region {
                range: range(*start, *length),
                usable: *usable,
            };
            information.map = map.iter().map(region).collect();
            information.modules = Vec::from_slice(modules).unwrap();
            information.module(Some(image))
        };
        let one = range(0x20_0000, 0x1234);
        let all = [(0x10_0000, 0x2_0000_0000, true)];
        assert_eq!(module(&all, &[one]), Ok(one));
        assert_eq!(module(&all, &[]), Err(Refusal::NoModule));
        assert_eq!(module(&all, &[one, one]), Err(Refusal::Modules(2)));
        // In the image, across the end of the window, behind it.
        for (start, length) in
            [(0xf_f000, 0x2000), (0x13_fff0, 0x20), (0xffff_f000, 0x2000), (0x1_0000_0000, 1)]
        {
            assert_eq!(module(&all, &[range(start, length)]), Err(Refusal::ModulePlace), "{start:x}");
        }
        let last = range(0xffff_f000, 0x1000);
        assert_eq!(module(&all, &[last]), Ok(last));
        // The map may cut memory anywhere, in any order; a hole is none.
        let cut = [(0x20_1000, 0x1000, true), (0x20_0000, 0x1000, true)];
        assert_eq!(module(&cut, &[one]), Ok(one));
        for hole in [[(0x20_1000, 0x1000, false), cut[1]], [(0x20_1001, 0x1000, true), cut[1]], [cut[0]; 2]] {
            assert_eq!(module(&hole, &[one]), Err(Refusal::ModulePlace));
        }
    }

    #[test]
    fn a_module_without_bytes_is_refused() {
        for (start, end) in [(0x20_0000, 0x20_0000), (0x20_0000, 0x1f_ffff)] {
            let mut memory = multiboot1();
            memory.words(0x1300, &[start, end]);
            assert_eq!(BootInfo::read(&memory, MULTIBOOT1, BASE as u32), Err(Refusal::ModuleLength));
        }
        let mut memory = pvh();
        memory.words(0x1300, &[u32::MAX, u32::MAX, 2, 0]);
        assert_eq!(BootInfo::read(&memory, 0, BASE as u32), Err(Refusal::ModuleLength));
    }

    #[test]
    fn no_flipped_byte_and_no_cut_makes_it_panic_or_hang() {
        for (memory, eax) in [(multiboot1(), MULTIBOOT1), (multiboot2(), MULTIBOOT2), (pvh(), 0)] {
            for index in 0..0x480 {
                for value in [0, 1, 4, 0x7f, 0x80, 0xff] {
                    let mut broken = Fake(memory.0.clone());
                    broken.0[index] = value;
                    let _ = BootInfo::read(&broken, eax, BASE as u32);
                }
                let _ = BootInfo::read(&Fake(memory.0[..index].to_vec()), eax, BASE as u32);
            }
        }
    }

    #[test]
    fn text_ends_at_a_zero_at_nonsense_and_at_the_end_of_memory() {
        assert_eq!(text::<8>(b"ab\0cd"), "ab");
        assert_eq!(text::<8>(b"ab\xffcd"), "ab");
        assert_eq!(text::<3>(b"abcdef"), "abc");
        let mut memory = Fake::new();
        memory.put(0x1ffa, b"end\0");
        assert_eq!(text_at::<63>(&memory, 0x1ffa), "end");
    }
}
