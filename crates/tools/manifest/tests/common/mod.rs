//! Small kernels made by hand, and a folder to put them in.
#![allow(dead_code, reason = "each test file uses some of it")]

use manifest::{Environment, Limits};

/// A profile with schedule-shared and room for four, on a machine with 2 GiB and four processors.
pub fn environment() -> Environment {
    Environment {
        profile_name: "lab".to_owned(),
        limits: Limits { compartments: 4, vcpus_per_compartment: 4, cpus: 8 },
        parts: vec!["svm".to_owned(), "schedule-shared".to_owned()],
        machine_memory: Some(2 << 30),
        machine_cpus: Some(4),
    }
}

/// The same with schedule-static.
pub fn fixed() -> Environment {
    let mut environment = environment();
    environment.parts = vec!["svm".to_owned(), "schedule-static".to_owned()];
    environment
}

fn put(bytes: &mut [u8], at: usize, value: u64, length: usize) {
    bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
}

/// What a bzImage's header says.
#[derive(Clone)]
pub struct BzImage {
    pub version: u64,
    pub loadflags: u8,
    pub xloadflags: u64,
    pub preferred: u64,
    pub alignment: u64,
    pub relocatable: bool,
    pub init_size: u64,
    pub initrd_addr_max: u64,
    pub cmdline_size: u64,
    /// The protected-mode code.
    pub code: Vec<u8>,
    /// Where in the code the compressed kernel lies, and how long it is.
    pub payload: (u64, u64),
}

impl Default for BzImage {
    fn default() -> Self {
        Self {
            version: 0x20f,
            loadflags: 1,
            xloadflags: 1,
            preferred: 16 << 20,
            alignment: 2 << 20,
            relocatable: true,
            init_size: 4 << 20,
            initrd_addr_max: 0x7fff_ffff,
            cmdline_size: 100,
            code: (0..0x1000_u32).map(|byte| byte as u8 | 1).collect(),
            payload: (0, 0),
        }
    }
}

impl BzImage {
    /// The file: boot sector, one sector of setup code, protected-mode code. Offsets as in the Linux boot protocol.
    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        put(&mut file, 0x1f4, self.code.len().div_ceil(16) as u64, 4);
        put(&mut file, 0x1fe, 0xaa55, 2);
        file[0x200] = 0xeb;
        file[0x201] = 0x6a;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        put(&mut file, 0x206, self.version, 2);
        file[0x211] = self.loadflags;
        put(&mut file, 0x214, 0x10_0000, 4);
        put(&mut file, 0x22c, self.initrd_addr_max, 4);
        put(&mut file, 0x230, self.alignment, 4);
        file[0x234] = u8::from(self.relocatable);
        put(&mut file, 0x236, self.xloadflags, 2);
        put(&mut file, 0x238, self.cmdline_size, 4);
        put(&mut file, 0x248, self.payload.0, 4);
        put(&mut file, 0x24c, self.payload.1, 4);
        // A loader must not believe this one.
        put(&mut file, 0x250, 0xdead_beef, 8);
        put(&mut file, 0x258, self.preferred, 8);
        put(&mut file, 0x260, self.init_size, 4);
        file.extend_from_slice(&self.code);
        file
    }
}

/// A segment of an ELF file.
#[derive(Clone)]
pub struct Segment {
    pub kind: u64,
    pub virtual_address: u64,
    pub physical_address: u64,
    pub bytes: Vec<u8>,
    pub memory_size: u64,
    pub alignment: u64,
}

/// A segment that is loaded.
pub fn load(physical_address: u64, bytes: &[u8], memory_size: u64) -> Segment {
    Segment {
        kind: 1,
        virtual_address: physical_address,
        physical_address,
        bytes: bytes.to_vec(),
        memory_size,
        alignment: 4096,
    }
}

/// A segment of notes with another maker's note and then Xen's PVH entry point.
pub fn pvh_note(entry: &[u8]) -> Segment {
    let mut bytes = Vec::new();
    let mut note = |name: &[u8], kind: u32, value: &[u8]| {
        for number in [name.len() as u32, value.len() as u32, kind] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    note(b"GNU\0", 3, b"an identifier");
    note(b"Xen\0", 6, b"linux\0");
    note(b"Xen\0", 18, entry);
    Segment { kind: 4, virtual_address: 0, physical_address: 0, memory_size: 0, alignment: 4, bytes }
}

/// An ELF file.
pub fn elf(wide: bool, machine: u64, entry: u64, segments: &[Segment]) -> Vec<u8> {
    let (header, size) = if wide { (64, 56) } else { (52, 32) };
    let mut file = vec![0; header + size * segments.len()];
    file[..4].copy_from_slice(b"\x7fELF");
    file[4] = 1 + u8::from(wide);
    file[5] = 1;
    file[6] = 1;
    put(&mut file, 16, 2, 2);
    put(&mut file, 18, machine, 2);
    let native = if wide { 8 } else { 4 };
    put(&mut file, 24, entry, native);
    put(&mut file, if wide { 32 } else { 28 }, header as u64, native);
    put(&mut file, if wide { 54 } else { 42 }, size as u64, 2);
    put(&mut file, if wide { 56 } else { 44 }, segments.len() as u64, 2);
    for (index, segment) in segments.iter().enumerate() {
        let at = header + index * size;
        let offset = file.len() as u64;
        let length = segment.bytes.len() as u64;
        put(&mut file, at, segment.kind, 4);
        let (first, rest): (usize, [u64; 5]) = (
            if wide { 8 } else { 4 },
            [offset, segment.virtual_address, segment.physical_address, length, segment.memory_size],
        );
        for (number, value) in rest.into_iter().enumerate() {
            put(&mut file, at + first + number * native, value, native);
        }
        put(&mut file, at + if wide { 48 } else { 28 }, segment.alignment, native);
        file.extend_from_slice(&segment.bytes);
    }
    file
}

pub const X86_64: u64 = 62;
pub const I386: u64 = 3;

/// A 64-bit PVH kernel at 16 MiB with 64 KiB of memory.
pub fn pvh() -> Vec<u8> {
    let entry = 0x100_0010_u32.to_le_bytes();
    elf(true, X86_64, 0xffff_ffff_8100_0000, &[load(16 << 20, &[0x90; 256], 0x1_0000), pvh_note(&entry)])
}

/// A multiboot header (Multiboot Specification §3.1.1) with these flags and address fields.
pub fn multiboot_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [magic, flags, checksum];
    words.iter().chain(addresses).flat_map(|word| word.to_le_bytes()).collect()
}

/// A multiboot ELF kernel at 1 MiB.
pub fn multiboot(wide: bool) -> Vec<u8> {
    let mut code = multiboot_header(3, &[]);
    code.resize(256, 0x90);
    elf(wide, if wide { X86_64 } else { I386 }, 0x10_0020, &[load(1 << 20, &code, 0x2000)])
}
