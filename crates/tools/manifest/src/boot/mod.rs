//! Loaders: a kernel file becomes bytes at guest-physical addresses and the first vCPU's start state.
//!
//! Everything is decided here, on the host: the hypervisor copies [`Piece`]s and sets a [`plan::Start`]. The protocol follows
//! the file (a Linux bzImage, an ELF file with a PVH note, a multiboot1 kernel), and may be named where a file offers
//! more than one. Files are allegations: every length and offset in them is checked against the file and the RAM.
//!
//! ## What lies where
//! | guest-physical address | what |
//! |---|---|
//! | 0x400–0x4ff | BIOS data area: address of COM1, of the EBDA, kibibytes of low memory |
//! | 0x1000 | global descriptor table: code at 0x10, data at 0x18, task state at 0x20 |
//! | 0x2000–0x7fff | page tables of the 64-bit start: the first 4 GiB, mapped to themselves in 2 MiB pages |
//! | 0x8000 | zero page of Linux, `hvm_start_info` of PVH, or information structure of multiboot |
//! | 0x9000 | memory map and list of modules (PVH, multiboot) |
//! | 0x10000–0x1ffff | command line, then those of the modules |
//! | 0x9fc00 | extended BIOS data area: from here to 1 MiB all is reserved |
//! | 0xe0000–0xeffff | ACPI tables, the RSDP first |
//! | 0xf0000 | multiprocessor table, for kernels without ACPI |
//! | from 1 MiB | the kernel, where its file says |
//! | behind the kernel | modules of multiboot |
//! | end of low memory | initial RAM disk, page-aligned, as high as the kernel allows |

mod elf;
mod extract;
mod layout;
mod linux;
mod multiboot;
mod pvh;

pub use extract::{ExtractError, extract_vmlinux, gunzip, is_gzip};
pub use layout::{MapEntry, MapKind, memory_map};

use crate::platform;
use layout::Layout;

/// Address of the BIOS data area.
const BIOS_DATA: u64 = 0x400;
/// Address of the global descriptor table.
const DESCRIPTORS: u64 = 0x1000;
/// Address of the page tables.
const PAGE_TABLES: u64 = 0x2000;
/// Address of the structure that the protocol hands to the kernel.
const INFORMATION: u64 = 0x8000;
/// Address of memory maps and module lists.
const LISTS: u64 = 0x9000;
/// Address of the command line.
const COMMAND_LINE: u64 = 0x1_0000;
/// Where command lines must end.
const COMMAND_LINE_END: u64 = 0x2_0000;
/// The loader's name, as multiboot kernels print it.
const LOADER_NAME: &str = "Ringfence";

/// How a kernel is started.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Linux boot protocol 2.12 or later, 64-bit or 32-bit entry.
    Linux,
    /// PVH: an ELF file with the note `XEN_ELFNOTE_PHYS32_ENTRY`.
    Pvh,
    /// Multiboot version 1.
    Multiboot,
}

impl Protocol {
    /// All of them, by the names that a manifest uses.
    pub const NAMES: [(&'static str, Self); 3] =
        [("linux", Self::Linux), ("pvh", Self::Pvh), ("multiboot", Self::Multiboot)];

    /// The name that a manifest uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Pvh => "pvh",
            Self::Multiboot => "multiboot",
        }
    }
}

/// A module of a multiboot kernel.
#[derive(Clone, Debug)]
pub struct Module<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The string that the kernel gets with it: file name and arguments.
    pub text: &'a str,
}

/// What is to be booted, and in which machine.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The kernel's file, perhaps compressed by gzip.
    pub kernel: &'a [u8],
    /// The kernel's name, which begins a multiboot command line.
    pub kernel_name: &'a str,
    /// The initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The command line.
    pub command_line: &'a str,
    /// Modules of a multiboot kernel.
    pub modules: Vec<Module<'a>>,
    /// The protocol to use; `None` lets the file decide.
    pub protocol: Option<Protocol>,
    /// RAM in bytes, a multiple of [`plan::MEMORY_GRAIN`].
    pub memory: u64,
    /// Number of vCPUs, at least 1.
    pub vcpus: u8,
}

/// Bytes that have to be in RAM before the first vCPU starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Guest-physical address of the first byte.
    pub target: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A compartment ready to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The protocol used.
    pub protocol: Protocol,
    /// Disjoint pieces in ascending order; all other RAM is zero.
    pub pieces: Vec<Piece>,
    /// How the first vCPU begins.
    pub start: plan::Start,
}

/// What of a [`Request`] is to blame.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Culprit {
    /// The kernel's file.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The command line.
    CommandLine,
    /// A module, by index.
    Module(usize),
    /// The protocol that was asked for.
    Protocol,
    /// The amount of RAM.
    Memory,
}

/// Why nothing can be booted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    /// A short name of the kind of error.
    pub code: &'static str,
    /// What to change.
    pub culprit: Culprit,
    /// What is wrong.
    pub sentence: String,
    /// What helps.
    pub remedy: String,
}

impl LoadError {
    fn new(
        code: &'static str,
        culprit: Culprit,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code, culprit, sentence: sentence.into(), remedy: remedy.into() }
    }

    /// A kernel's file that contradicts itself.
    fn broken(sentence: impl Into<String>) -> Self {
        Self::new(
            "kernel-broken",
            Culprit::Kernel,
            sentence,
            "The file is truncated or damaged: take a fresh copy of the kernel.",
        )
    }
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(&self.sentence)
    }
}

impl core::error::Error for LoadError {}

/// What a kernel's file is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    BzImage,
    Elf { pvh: bool, multiboot: bool },
    Flat,
}

/// Places everything that `request` asks for.
pub fn load(request: &Request<'_>) -> Result<Loaded, LoadError> {
    let unpacked;
    let kernel = if is_gzip(request.kernel) {
        unpacked = gunzip(request.kernel)
            .map_err(|error| LoadError::broken(format!("the kernel cannot be unpacked: {error}")))?;
        &unpacked
    } else {
        request.kernel
    };
    let kind = identify(kernel)?;
    let protocol = choose(kind, request.protocol)?;
    if protocol != Protocol::Multiboot && !request.modules.is_empty() {
        return Err(LoadError::new(
            "modules-without-multiboot",
            Culprit::Module(0),
            "modules belong to multiboot kernels, and this kernel is started by another protocol",
            "Remove `modules`; give a Linux kernel its initial RAM disk as `initrd`.",
        ));
    }
    if protocol == Protocol::Multiboot && request.initrd.is_some() {
        return Err(LoadError::new(
            "initrd-with-multiboot",
            Culprit::Initrd,
            "a multiboot kernel has no initial RAM disk",
            "List the file in `modules` instead of `initrd`.",
        ));
    }
    if request.initrd.is_some_and(<[u8]>::is_empty) {
        return Err(LoadError::new(
            "initrd-empty",
            Culprit::Initrd,
            "the initial RAM disk is empty",
            "Build the initial RAM disk again, or remove `initrd`.",
        ));
    }
    if let Some(bad) = request.command_line.chars().find(|character| character.is_control()) {
        return Err(LoadError::new(
            "command-line-control",
            Culprit::CommandLine,
            format!("the command line contains the control character {}", bad.escape_default()),
            "Write the command line as one line of visible characters.",
        ));
    }
    let mut layout = Layout::new(request.memory);
    place_platform(&mut layout, request)?;
    let start = match (protocol, kind) {
        (Protocol::Linux, _) => linux::place(&mut layout, kernel, request)?,
        (Protocol::Pvh, Kind::BzImage) => {
            let vmlinux = extract_vmlinux(kernel).map_err(|error| {
                LoadError::new(
                    "kernel-extract",
                    Culprit::Kernel,
                    format!("the vmlinux inside the bzImage cannot be taken out: {error}"),
                    "Remove `protocol`, so that the kernel unpacks itself, or name the vmlinux as `kernel`.",
                )
            })?;
            let inside = identify(&vmlinux)?;
            choose(inside, Some(Protocol::Pvh))?;
            pvh::place(&mut layout, &vmlinux, request)?
        }
        (Protocol::Pvh, _) => pvh::place(&mut layout, kernel, request)?,
        (Protocol::Multiboot, _) => multiboot::place(&mut layout, kernel, request)?,
    };
    let pieces = layout.finish();
    let inside = |piece: &Piece| {
        piece.target >= platform::MEBIBYTE
            && start.entry.checked_sub(piece.target).is_some_and(|offset| offset < piece.bytes.len() as u64)
    };
    if !pieces.iter().any(inside) {
        return Err(LoadError::broken(format!(
            "the kernel's entry point {:#x} does not lie in what is loaded of it",
            start.entry
        )));
    }
    Ok(Loaded { protocol, pieces, start })
}

/// Says what the file is, or why it is no kernel for this machine.
fn identify(kernel: &[u8]) -> Result<Kind, LoadError> {
    if linux::is_linux(kernel) {
        return Ok(Kind::BzImage);
    }
    if kernel.starts_with(b"\x7fELF") {
        let machine = elf::machine(kernel);
        if !matches!(machine, Some(elf::MACHINE_386 | elf::MACHINE_X86_64)) {
            return Err(wrong_architecture(&elf::machine_name(kernel)));
        }
        let pvh = elf::Elf::parse(kernel)?.pvh_entry()?.is_some();
        let multiboot = multiboot::Header::find(kernel).is_some();
        if !pvh && !multiboot {
            return Err(LoadError::new(
                "kernel-protocol-unknown",
                Culprit::Kernel,
                "the kernel is an ELF file that offers neither PVH nor multiboot",
                "Build it with a PVH note (Linux: CONFIG_PVH=y) or a multiboot1 header, or take its bzImage.",
            ));
        }
        return Ok(Kind::Elf { pvh, multiboot });
    }
    if multiboot::Header::find(kernel).is_some_and(|header| header.addresses.is_some()) {
        return Ok(Kind::Flat);
    }
    // Images of other architectures share the beginning of an EFI program and name themselves at 0x38.
    let other = match kernel.get(0x38..0x3c) {
        Some(b"ARM\x64") => Some("64-bit ARM"),
        Some(b"RSC\x05") => Some("RISC-V"),
        Some([0x53, 0x4c, 0x52, 0x4d] | [0xcd, 0x23, 0x82, 0x81]) => Some("LoongArch"),
        _ => None,
    };
    if let Some(other) = other {
        return Err(wrong_architecture(other));
    }
    Err(LoadError::new(
        "kernel-is-none",
        Culprit::Kernel,
        "the file is no kernel: neither a Linux bzImage, nor an ELF file, nor a multiboot kernel",
        "Name a kernel such as /boot/vmlinuz of a distribution; an initial RAM disk goes to `initrd`.",
    ))
}

fn wrong_architecture(name: &str) -> LoadError {
    LoadError::new(
        "kernel-architecture",
        Culprit::Kernel,
        format!("the kernel is made for {name}, and compartments are x86 machines"),
        "Take the x86-64 (amd64) or 32-bit x86 (i386, i686) build of that kernel.",
    )
}

fn choose(kind: Kind, wanted: Option<Protocol>) -> Result<Protocol, LoadError> {
    let offered: &[Protocol] = match kind {
        // The vmlinux inside may offer PVH.
        Kind::BzImage => &[Protocol::Linux, Protocol::Pvh],
        Kind::Elf { pvh: true, multiboot: true } => &[Protocol::Pvh, Protocol::Multiboot],
        Kind::Elf { pvh: true, .. } => &[Protocol::Pvh],
        Kind::Elf { .. } | Kind::Flat => &[Protocol::Multiboot],
    };
    match wanted {
        None => Ok(offered[0]),
        Some(wanted) if offered.contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(LoadError::new(
            "protocol-not-offered",
            Culprit::Protocol,
            format!("the kernel cannot be started by the protocol `{}`", wanted.name()),
            format!(
                "Remove `protocol`, or write {}.",
                offered
                    .iter()
                    .map(|protocol| format!("`{}`", protocol.name()))
                    .collect::<Vec<_>>()
                    .join(" or ")
            ),
        )),
    }
}

/// Places what every compartment finds: the firmware's tables and the descriptors of the start state.
fn place_platform(layout: &mut Layout, request: &Request<'_>) -> Result<(), LoadError> {
    layout.place("the BIOS data area", BIOS_DATA, platform::bios_data())?;
    layout.place("the extended BIOS data area", platform::EBDA, platform::extended_bios_data())?;
    layout.place("the ACPI tables", platform::ACPI_TABLES, platform::acpi_tables(request.vcpus))?;
    layout.place("the multiprocessor table", platform::MP_TABLE, platform::mp_table(request.vcpus))?;
    Ok(())
}

/// The command line with its end, placed.
fn place_command_line(layout: &mut Layout, line: &str, limit: usize) -> Result<(), LoadError> {
    if line.len() > limit {
        return Err(LoadError::new(
            "command-line-too-long",
            Culprit::CommandLine,
            format!("the command line has {} bytes, and this kernel takes at most {limit}", line.len()),
            "Shorten the command line.",
        ));
    }
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(0);
    layout.place("the command line", COMMAND_LINE, bytes)
}

/// The global descriptor table whose code segment serves `mode`, placed; gives its limit.
fn place_descriptors(layout: &mut Layout, mode: plan::Mode) -> Result<u16, LoadError> {
    // Flat segments of ring 0, accessed already (Intel SDM Vol. 3A §3.4.5): limit 0xfffff pages, and either the D flag for
    // 32-bit code or the L flag for 64-bit code.
    let code: u64 = match mode {
        plan::Mode::Protected => 0x00cf_9b00_0000_ffff,
        plan::Mode::Long => 0x00af_9b00_0000_ffff,
    };
    let data: u64 = 0x00cf_9300_0000_ffff;
    // A busy task state of 0x68 bytes at 0; 64-bit mode takes 16 bytes for it (§8.2.3).
    let task: u64 = 0x0000_8b00_0000_0067;
    let table: Vec<u8> = [0, 0, code, data, task, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    let limit = table.len() as u16 - 1;
    layout.place("the descriptor table", DESCRIPTORS, table)?;
    Ok(limit)
}

/// Page tables that map the first 4 GiB to themselves, placed; gives CR3.
fn place_page_tables(layout: &mut Layout) -> Result<u64, LoadError> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let directories = PAGE_TABLES + 0x2000;
    let mut entries = vec![0_u64; 512 * 6];
    entries[0] = (PAGE_TABLES + 0x1000) | PRESENT_WRITABLE;
    for number in 0..4 {
        entries[512 + number] = (directories + number as u64 * 0x1000) | PRESENT_WRITABLE;
    }
    for (number, entry) in entries[1024..].iter_mut().enumerate() {
        *entry = (number as u64) << 21 | PRESENT_WRITABLE | LARGE;
    }
    layout.place("the page tables", PAGE_TABLES, entries.into_iter().flat_map(u64::to_le_bytes).collect())?;
    Ok(PAGE_TABLES)
}

/// A start state with all but `mode`, `entry` and the descriptor table zero.
fn start(mode: plan::Mode, entry: u64, descriptor_table_limit: u16) -> plan::Start {
    plan::Start {
        mode,
        entry,
        rax: 0,
        rbx: 0,
        rsi: 0,
        rsp: 0,
        page_table: 0,
        descriptor_table: DESCRIPTORS,
        descriptor_table_limit,
    }
}

/// The sentence for a compartment that is too small, with the memory that would do.
fn too_little_memory(what: &str, needed: u64) -> LoadError {
    let mebibytes = needed.next_multiple_of(plan::MEMORY_GRAIN) >> 20;
    LoadError::new(
        "memory-too-little-for-kernel",
        Culprit::Memory,
        format!("{what} does not fit the compartment's memory"),
        format!("Give it at least {mebibytes} MiB; a system needs more than its files to run."),
    )
}

/// A little-endian number of a file; `None` beyond its end.
fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let slice: &[u8; BYTES] = bytes.get(at..)?.first_chunk()?;
    Some(slice.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Writes a little-endian number into a structure under construction.
fn put<const BYTES: usize>(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + BYTES].copy_from_slice(&value.to_le_bytes()[..BYTES]);
}
