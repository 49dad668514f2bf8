//! The loaders: where everything lies, what the kernel is told, how the first vCPU begins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{BzImage, I386, X86_64, elf};
use manifest::boot::{
    Culprit, ExtractError, LoadError, Loaded, Module, Piece, Protocol, Request, extract_vmlinux, load,
    memory_map,
};
use plan::Mode;
use proptest::prelude::*;
use std::io::Write;

const MEBIBYTE: u64 = 1 << 20;

fn request(kernel: &[u8]) -> Request<'_> {
    Request {
        kernel,
        kernel_name: "kernel",
        initrd: None,
        command_line: "console=ttyS0",
        modules: Vec::new(),
        protocol: None,
        memory: 64 * MEBIBYTE,
        vcpus: 2,
    }
}

/// The RAM that a guest would find.
struct Ram<'a>(&'a [Piece]);

impl Ram<'_> {
    fn byte(&self, address: u64) -> u8 {
        let piece = self
            .0
            .iter()
            .find(|piece| piece.target <= address && address < piece.target + piece.bytes.len() as u64);
        piece.map_or(0, |piece| piece.bytes[(address - piece.target) as usize])
    }

    fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length).map(|address| self.byte(address)).collect()
    }

    fn number(&self, address: u64, length: u64) -> u64 {
        self.bytes(address, length).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn text(&self, address: u64) -> String {
        let bytes = (address..).map(|address| self.byte(address)).take_while(|byte| *byte != 0);
        String::from_utf8(bytes.collect()).unwrap()
    }
}

/// What holds for every loaded compartment.
fn judge(loaded: &Loaded, memory: u64) {
    let mut end = 0;
    for piece in &loaded.pieces {
        assert!(piece.target >= end, "{:#x} overlaps what ends at {end:#x}", piece.target);
        assert!(!piece.bytes.is_empty());
        end = piece.target + piece.bytes.len() as u64;
        assert!(plan::in_memory(memory, piece.target, piece.bytes.len() as u64));
    }
    let ram = Ram(&loaded.pieces);
    let start = &loaded.start;
    // The table has a code segment at 0x10 for that mode, data at 0x18, a busy task state at 0x20, all flat and present.
    let code = ram.number(start.descriptor_table + 0x10, 8);
    let long = start.mode == Mode::Long;
    assert_eq!((code >> 53 & 1 == 1, code >> 54 & 1 == 1), (long, !long), "L and D");
    assert_eq!(code >> 40 & 0x9f, 0x9b);
    assert_eq!(ram.number(start.descriptor_table + 0x18, 8) >> 40 & 0x9f, 0x93);
    assert_eq!(ram.number(start.descriptor_table + 0x20, 8) >> 40 & 0x9f, 0x8b);
    assert!(start.descriptor_table_limit >= 0x27);
    assert_ne!(ram.byte(start.entry), 0, "the entry point lies in the kernel");
    assert_eq!(ram.bytes(0xe_0000, 8), b"RSD PTR ");
    assert_eq!(ram.bytes(0xf_0000, 4), b"_MP_");
    // BIOS data area: COM1, segment of the EBDA, kibibytes below it.
    assert_eq!((ram.number(0x400, 2), ram.number(0x40e, 2), ram.number(0x413, 2)), (0x3f8, 0x9fc0, 639));
    if long {
        // Every address of the kernel and of its structures is mapped to itself.
        for address in [start.entry, start.rsi, start.descriptor_table, 0x10_0000, 0xffff_f000] {
            assert_eq!(translate(&ram, start.page_table, address), Some(address));
        }
        assert_eq!(translate(&ram, start.page_table, 1 << 32), None);
    }
}

/// A page walk (Intel SDM Vol. 3A §4.5).
fn translate(ram: &Ram<'_>, root: u64, address: u64) -> Option<u64> {
    let mut table = root;
    for shift in [39, 30, 21, 12] {
        let entry = ram.number(table + (address >> shift & 0x1ff) * 8, 8);
        if entry & 3 != 3 {
            return None;
        }
        let offset = (1 << shift) - 1;
        let base = entry & 0x000f_ffff_ffff_f000;
        if shift == 12 || entry & 1 << 7 != 0 {
            return Some((base & !offset) | (address & offset));
        }
        table = base;
    }
    None
}

/// The E820 entries of a zero page.
fn e820(ram: &Ram<'_>, zero_page: u64) -> Vec<(u64, u64, u64)> {
    (0..ram.number(zero_page + 0x1e8, 1))
        .map(|index| zero_page + 0x2d0 + index * 20)
        .map(|entry| (ram.number(entry, 8), ram.number(entry + 8, 8), ram.number(entry + 16, 4)))
        .collect()
}

fn expected_map(low: u64) -> Vec<(u64, u64, u64)> {
    vec![(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2), (0x10_0000, low - 0x10_0000, 1)]
}

fn placed(loaded: &Loaded, target: u64) -> &[u8] {
    &loaded.pieces.iter().find(|piece| piece.target == target).expect("a piece there").bytes
}

#[test]
fn the_memory_map_covers_all_ram_and_leaves_the_hole() {
    let tuples = |memory| -> Vec<(u64, u64, u64)> {
        memory_map(memory)
            .iter()
            .map(|entry| (entry.start, entry.length, u64::from(entry.kind.number())))
            .collect()
    };
    assert_eq!(tuples(64 << 20), expected_map(64 << 20));
    let mut large = expected_map(3 << 30);
    large.push((4 << 30, 2 << 30, 1));
    assert_eq!(tuples(5 << 30), large);
}

#[test]
fn a_64_bit_linux_gets_its_zero_page_and_starts_in_64_bit_mode() {
    let image = BzImage::default();
    let kernel = image.build();
    let initrd = vec![0x77; 5000];
    let loaded = load(&Request { initrd: Some(&initrd), ..request(&kernel) }).unwrap();
    judge(&loaded, 64 * MEBIBYTE);
    assert_eq!(loaded.protocol, Protocol::Linux);
    // "The Linux/x86 Boot Protocol", 64-bit boot protocol: entry at 0x200, RSI the zero page, paging on.
    assert_eq!((loaded.start.mode, loaded.start.entry), (Mode::Long, 16 * MEBIBYTE + 0x200));
    assert_eq!(placed(&loaded, 16 * MEBIBYTE), image.code);
    let ram = Ram(&loaded.pieces);
    let zero = loaded.start.rsi;
    assert_eq!(ram.bytes(zero + 0x202, 4), b"HdrS");
    assert_eq!(ram.number(zero + 0x206, 2), 0x20f);
    assert_eq!(ram.number(zero + 0x210, 1), 0xff, "type_of_loader");
    assert_eq!(ram.number(zero + 0x214, 4), 16 * MEBIBYTE, "code32_start");
    assert_eq!(ram.text(ram.number(zero + 0x228, 4)), "console=ttyS0");
    assert_eq!(ram.number(zero + 0x070, 8), 0xe_0000, "acpi_rsdp_addr");
    assert_eq!(ram.number(zero + 0x250, 8), 0, "setup_data is the loader's, not the file's");
    assert_eq!(e820(&ram, zero), expected_map(64 * MEBIBYTE));
    // As high as possible, on a page of its own.
    let at = ram.number(zero + 0x218, 4);
    assert_eq!((at, ram.number(zero + 0x21c, 4)), (64 * MEBIBYTE - 0x2000, 5000));
    assert_eq!(placed(&loaded, at), initrd);
}

#[test]
fn a_32_bit_linux_starts_in_protected_mode_at_its_first_byte() {
    let kernel = BzImage {
        xloadflags: 0,
        relocatable: false,
        preferred: MEBIBYTE,
        code: vec![0x90; 4096],
        ..BzImage::default()
    };
    let kernel = kernel.build();
    let loaded = load(&request(&kernel)).unwrap();
    judge(&loaded, 64 * MEBIBYTE);
    let start = &loaded.start;
    assert_eq!((start.mode, start.entry, start.page_table), (Mode::Protected, MEBIBYTE, 0));
    let ram = Ram(&loaded.pieces);
    assert_eq!(ram.number(start.rsi + 0x214, 4), MEBIBYTE);
    assert_eq!(ram.number(start.rsi + 0x21c, 4), 0, "no initial RAM disk");
}

#[test]
fn a_relocatable_linux_goes_lower_where_memory_is_small() {
    let kernel = BzImage { code: vec![0x90; 4096], ..BzImage::default() }.build();
    let small = Request { memory: 8 * MEBIBYTE, ..request(&kernel) };
    assert_eq!(load(&small).unwrap().start.entry, 2 * MEBIBYTE + 0x200);
    let error = load(&Request { memory: 4 * MEBIBYTE, ..request(&kernel) }).unwrap_err();
    assert_eq!((error.code, error.culprit), ("memory-too-little-for-kernel", Culprit::Memory));
    let fixed = BzImage { relocatable: false, code: vec![0x90; 4096], ..BzImage::default() }.build();
    let error = load(&Request { memory: 8 * MEBIBYTE, ..request(&fixed) }).unwrap_err();
    assert!(error.remedy.contains("at least 20 MiB"), "{}", error.remedy);
}

#[test]
fn the_initrd_respects_the_kernel_s_limit_and_its_working_space() {
    let kernel = BzImage { initrd_addr_max: 0x1fff_ffff >> 4, ..BzImage::default() }.build();
    let initrd = vec![1; 3 << 20];
    let loaded = load(&Request { initrd: Some(&initrd), ..request(&kernel) }).unwrap();
    judge(&loaded, 64 * MEBIBYTE);
    let ram = Ram(&loaded.pieces);
    assert_eq!(ram.number(loaded.start.rsi + 0x218, 4), 29 * MEBIBYTE);
    // init_size of 4 MiB from 16 MiB on is the kernel's: a larger disk goes below it.
    let initrd = vec![1; 13 << 20];
    let loaded = load(&Request { initrd: Some(&initrd), ..request(&kernel) }).unwrap();
    judge(&loaded, 64 * MEBIBYTE);
    assert_eq!(Ram(&loaded.pieces).number(loaded.start.rsi + 0x218, 4), 3 * MEBIBYTE);
}

#[test]
fn pvh_gets_its_start_information() {
    let initrd = vec![0x77; 5000];
    for wide in [true, false] {
        let entry = 0x100_0010_u64.to_le_bytes();
        let note = common::pvh_note(if wide { &entry } else { &entry[..4] });
        let segments = [common::load(16 << 20, &[0x90; 256], 0x1_0000), note];
        let kernel = elf(wide, if wide { X86_64 } else { I386 }, 0, &segments);
        let loaded = load(&Request { initrd: Some(&initrd), ..request(&kernel) }).unwrap();
        judge(&loaded, 64 * MEBIBYTE);
        let start = &loaded.start;
        assert_eq!((start.mode, start.entry), (Mode::Protected, 0x100_0010));
        let ram = Ram(&loaded.pieces);
        let info = start.rbx;
        // Offsets of `struct hvm_start_info`, version 1.
        assert_eq!((ram.number(info, 4), ram.number(info + 4, 4)), (0x336e_c578, 1));
        assert_eq!(ram.number(info + 8, 4), 0, "flags");
        assert_eq!(ram.text(ram.number(info + 24, 8)), "console=ttyS0");
        assert_eq!(ram.number(info + 32, 8), 0xe_0000);
        assert_eq!(ram.number(info + 12, 4), 1, "one module");
        let module = ram.number(info + 16, 8);
        let at = ram.number(module, 8);
        assert_eq!((at, ram.number(module + 8, 8)), (64 * MEBIBYTE - 0x2000, 5000));
        assert_eq!(placed(&loaded, at), initrd);
        let map: Vec<_> = (0..ram.number(info + 48, 4))
            .map(|index| ram.number(info + 40, 8) + index * 24)
            .map(|entry| (ram.number(entry, 8), ram.number(entry + 8, 8), ram.number(entry + 16, 4)))
            .collect();
        assert_eq!(map, expected_map(64 * MEBIBYTE));
    }
    let kernel = common::pvh();
    let loaded = load(&request(&kernel)).unwrap();
    let ram = Ram(&loaded.pieces);
    assert_eq!((ram.number(loaded.start.rbx + 12, 4), ram.number(loaded.start.rbx + 16, 8)), (0, 0));
    // A 32-bit kernel's disk stays where its linear map reaches.
    let segments =
        [common::load(16 << 20, &[0x90; 256], 256), common::pvh_note(&0x100_0000_u32.to_le_bytes())];
    let kernel = elf(false, I386, 0, &segments);
    let large = Request { initrd: Some(&initrd), memory: 2 << 30, ..request(&kernel) };
    let loaded = load(&large).unwrap();
    assert_eq!(loaded.pieces.last().unwrap().target, 0x3800_0000 - 0x2000);
}

#[test]
fn multiboot_elf_kernels_of_both_widths_get_the_information_structure() {
    for wide in [true, false] {
        let kernel = common::multiboot(wide);
        let modules = vec![
            Module { bytes: &[1; 5000], text: "first.img with arguments" },
            Module { bytes: &[2; 100], text: "second.img" },
        ];
        let loaded = load(&Request { modules, ..request(&kernel) }).unwrap();
        judge(&loaded, 64 * MEBIBYTE);
        let start = &loaded.start;
        assert_eq!((start.mode, start.entry, start.rax), (Mode::Protected, 0x10_0020, 0x2bad_b002));
        let ram = Ram(&loaded.pieces);
        let info = start.rbx;
        // Offsets of Multiboot Specification §3.3: memory, command line, modules, memory map, loader's name.
        assert_eq!(ram.number(info, 4), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
        assert_eq!((ram.number(info + 4, 4), ram.number(info + 8, 4)), (639, 63 << 10));
        assert_eq!(ram.text(ram.number(info + 16, 4)), "kernel console=ttyS0");
        assert_eq!(ram.text(ram.number(info + 64, 4)), "Ringfence");
        assert_eq!(ram.number(info + 20, 4), 2);
        let list = ram.number(info + 24, 4);
        let module = |index: u64| {
            let at = list + index * 16;
            let (first, end) = (ram.number(at, 4), ram.number(at + 4, 4));
            (first, end - first, ram.text(ram.number(at + 8, 4)))
        };
        // Behind the kernel, which has 0x2000 bytes at 1 MiB, on pages of their own.
        assert_eq!(module(0), (0x10_2000, 5000, "first.img with arguments".to_owned()));
        assert_eq!(module(1), (0x10_4000, 100, "second.img".to_owned()));
        assert_eq!(placed(&loaded, 0x10_4000), [2; 100]);
        let map = ram.number(info + 48, 4);
        let mut entries = Vec::new();
        let mut at = map;
        while at < map + ram.number(info + 44, 4) {
            entries.push((ram.number(at + 4, 8), ram.number(at + 12, 8), ram.number(at + 20, 4)));
            at += ram.number(at, 4) + 4;
        }
        assert_eq!(entries, expected_map(64 * MEBIBYTE));
    }
    let kernel = common::multiboot(false);
    let loaded = load(&Request { command_line: "", ..request(&kernel) }).unwrap();
    let ram = Ram(&loaded.pieces);
    assert_eq!(ram.number(loaded.start.rbx, 4) & 1 << 3, 0, "no modules");
    assert_eq!(ram.text(ram.number(loaded.start.rbx + 16, 4)), "kernel");
}

#[test]
fn a_multiboot_kernel_linked_to_high_addresses_starts_at_the_physical_one() {
    let mut code = common::multiboot_header(0, &[]);
    code.resize(256, 0x90);
    let mut segment = common::load(1 << 20, &code, 0x2000);
    segment.virtual_address = 0xffff_ffff_8010_0000;
    let kernel = elf(true, X86_64, 0xffff_ffff_8010_0040, &[segment]);
    assert_eq!(load(&request(&kernel)).unwrap().start.entry, 0x10_0040);
}

#[test]
fn a_flat_multiboot_kernel_is_placed_by_its_address_fields() {
    // 64 bytes that are not loaded, then the kernel, whose header lies 16 bytes into it.
    let flat = |load: u32, load_end: u32, bss_end: u32, entry: u32| {
        let mut file = vec![0xee; 64 + 16];
        file.extend(common::multiboot_header(1 << 16, &[0x20_0010, load, load_end, bss_end, entry]));
        file.resize(1024, 0x90);
        file
    };
    let kernel = flat(0x20_0000, 0x20_0200, 0x20_8000, 0x20_0100);
    let loaded =
        load(&Request { modules: vec![Module { bytes: &[1; 9], text: "m" }], ..request(&kernel) }).unwrap();
    judge(&loaded, 64 * MEBIBYTE);
    assert_eq!(loaded.start.entry, 0x20_0100);
    assert_eq!(placed(&loaded, 0x20_0000), &kernel[64..64 + 0x200]);
    assert_eq!(placed(&loaded, 0x20_8000), [1; 9], "behind the zeroed part");
    // No end given: the whole rest of the file.
    let kernel = flat(0x20_0000, 0, 0, 0x20_0100);
    let loaded = load(&request(&kernel)).unwrap();
    assert_eq!(placed(&loaded, 0x20_0000), &kernel[64..]);
    for (load_address, end, bss, entry) in [
        (0x20_0011, 0, 0, 0x20_0100),                 // the header before the load address
        (0x10_0000, 0, 0, 0x20_0100),                 // more before the header than the file has
        (0x20_0000, 0x20_1000, 0, 0x20_0100),         // more than the file has
        (0x20_0000, 0x1f_0000, 0, 0x20_0100),         // ends before it begins
        (0x20_0000, 0x20_0200, 0x20_0100, 0x20_0100), // zeroed part ends before the loaded one
        (0x20_0000, 0x20_0200, 0, 0x20_0200),         // entry point behind what is loaded
    ] {
        let error = load(&request(&flat(load_address, end, bss, entry))).unwrap_err();
        assert_eq!(error.code, "kernel-broken", "{load_address:#x} {end:#x} {bss:#x}");
    }
}

#[test]
fn multiboot_flags_that_version_1_does_not_define_are_refused() {
    let mut code = common::multiboot_header(1 << 5, &[]);
    code.resize(256, 0x90);
    let kernel = elf(false, I386, 0x10_0020, &[common::load(1 << 20, &code, 256)]);
    let error = load(&request(&kernel)).unwrap_err();
    assert_eq!(error.code, "multiboot-feature");
    assert!(error.sentence.contains("0x20"));
    // Flags 16 and up need not be known; a wrong checksum is no header.
    let mut code = common::multiboot_header(1 << 20, &[]);
    code.resize(256, 0x90);
    let kernel = elf(false, I386, 0x10_0020, &[common::load(1 << 20, &code, 256)]);
    assert!(load(&request(&kernel)).is_ok());
    let mut code = common::multiboot_header(0, &[]);
    code[8] ^= 1;
    let kernel = elf(false, I386, 0x10_0020, &[common::load(1 << 20, &code, 256)]);
    assert_eq!(load(&request(&kernel)).unwrap_err().code, "kernel-protocol-unknown");
}

#[test]
fn a_kernel_with_both_protocols_uses_pvh_unless_told_otherwise() {
    let mut code = common::multiboot_header(0, &[]);
    code.resize(256, 0x90);
    let segments = [common::load(1 << 20, &code, 256), common::pvh_note(&0x10_0030_u32.to_le_bytes())];
    let kernel = elf(true, X86_64, 0x10_0020, &segments);
    let entry = |protocol| load(&Request { protocol, ..request(&kernel) }).map(|loaded| loaded.start.entry);
    assert_eq!(entry(None), Ok(0x10_0030));
    assert_eq!(entry(Some(Protocol::Multiboot)), Ok(0x10_0020));
    assert_eq!(entry(Some(Protocol::Linux)).unwrap_err().code, "protocol-not-offered");
}

#[test]
fn kernels_that_contradict_themselves_are_refused() {
    let pvh = |entry: &[u8], segments: &[common::Segment]| {
        let mut segments = segments.to_vec();
        segments.push(common::pvh_note(entry));
        load(&request(&elf(true, X86_64, 0, &segments))).unwrap_err()
    };
    let good = common::load(16 << 20, &[0x90; 256], 256);
    let entry = 0x100_0000_u32.to_le_bytes();
    let code = |error: LoadError| (error.code, error.culprit);
    let broken = ("kernel-broken", Culprit::Kernel);
    assert_eq!(
        code(pvh(&0x200_0000_u32.to_le_bytes(), std::slice::from_ref(&good))),
        broken,
        "entry outside"
    );
    assert_eq!(code(pvh(&[1, 2], std::slice::from_ref(&good))), broken, "an entry point of two bytes");
    assert_eq!(code(pvh(&entry, &[])), broken, "nothing to load");
    let mut short = good.clone();
    short.memory_size = 255;
    assert_eq!(code(pvh(&entry, &[short])), broken, "a file part longer than the memory part");
    assert_eq!(code(pvh(&entry, &[good.clone(), good.clone()])), ("kernel-overlap", Culprit::Kernel));
    let mut wild = good.clone();
    wild.physical_address = u64::MAX - 10;
    assert_eq!(code(pvh(&entry, &[wild.clone()])), broken, "around the end of the address space");
    wild.physical_address = 0xffff_ffff_8000_0000;
    assert_eq!(code(pvh(&entry, &[wild.clone()])), ("kernel-address", Culprit::Kernel));
    wild.physical_address = 0xe_0000;
    assert_eq!(code(pvh(&entry, &[wild])), ("kernel-overlap", Culprit::Kernel), "where the tables lie");
    // A note longer than its segment.
    let mut note = common::pvh_note(&entry);
    note.bytes.truncate(20);
    let error = load(&request(&elf(true, X86_64, 0, &[good, note]))).unwrap_err();
    assert_eq!(code(error), broken);
    // Cut anywhere, a file is refused or (where only padding went) starts as before.
    let whole = common::pvh();
    for cut in 0..whole.len() {
        assert!(load(&request(&whole[..cut])).is_err(), "{cut}");
    }
}

#[test]
fn a_kernel_compressed_by_gzip_is_unpacked() {
    let kernel = common::multiboot(false);
    let packed = gzip(&kernel);
    let direct = load(&request(&kernel)).unwrap();
    assert_eq!(load(&request(&packed)).unwrap(), direct);
    let error = load(&request(&packed[..packed.len() - 9])).unwrap_err();
    assert!(error.sentence.starts_with("the kernel cannot be unpacked: "), "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A bzImage around a payload, as Linux's build makes it.
fn around(payload: &[u8]) -> Vec<u8> {
    let mut code = vec![0x90; 512];
    code.extend_from_slice(payload);
    code.extend_from_slice(&[0xcc; 100]);
    BzImage { code, payload: (512, payload.len() as u64), ..BzImage::default() }.build()
}

/// A vmlinux that is worth compressing, with code in it for the x86 filter of xz.
fn vmlinux() -> Vec<u8> {
    let mut code = Vec::new();
    for index in 0..20_000_u32 {
        code.push(0xe8);
        code.extend_from_slice(&(index * 3).to_le_bytes());
        code.extend_from_slice(b"text");
    }
    let entry = 0x100_0000_u32.to_le_bytes();
    elf(true, X86_64, 0, &[common::load(16 << 20, &code, code.len() as u64), common::pvh_note(&entry)])
}

/// The payload in each format that is supported, the unpacked size appended as Linux's build does.
fn payloads(kernel: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let size = (kernel.len() as u32).to_le_bytes();
    let mut options = lzma_rust2::XzOptions::with_preset(6);
    options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    // The kernel's own decoder knows CRC32 only.
    options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(kernel).unwrap();
    let xz = [&writer.finish().unwrap()[..], &size].concat();
    let zstd = ruzstd::encoding::compress_to_vec(kernel, ruzstd::encoding::CompressionLevel::Fastest);
    let zstd = [&zstd[..], &size].concat();
    let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
    // Two blocks, though the format would take it in one.
    for block in [&kernel[..1000], &kernel[1000..]] {
        let packed = lz4_flex::block::compress(block);
        lz4.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        lz4.extend_from_slice(&packed);
    }
    lz4.extend_from_slice(&size);
    vec![("gzip", gzip(kernel)), ("xz", xz), ("zstd", zstd), ("lz4", lz4)]
}

#[test]
fn a_vmlinux_is_taken_out_of_every_kind_of_bzimage_and_boots_by_pvh() {
    let inside = vmlinux();
    let direct = load(&request(&inside)).unwrap();
    for (name, payload) in payloads(&inside) {
        let image = around(&payload);
        assert_eq!(extract_vmlinux(&image).as_ref(), Ok(&inside), "{name}");
        assert_eq!(load(&Request { protocol: Some(Protocol::Pvh), ..request(&image) }).unwrap(), direct);
        assert_eq!(
            load(&request(&image)).unwrap().protocol,
            Protocol::Linux,
            "without being told: a bzImage"
        );
        // A wrong size at the end, a payload that is cut, and damaged bytes.
        let mut wrong = payload.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(extract_vmlinux(&around(&wrong)).is_err(), "{name}");
        assert!(extract_vmlinux(&around(&payload[..payload.len() / 2])).is_err(), "{name}");
        let mut damaged = payload.clone();
        for byte in &mut damaged[20..40] {
            *byte = !*byte;
        }
        assert_ne!(extract_vmlinux(&around(&damaged)).ok(), Some(inside.clone()), "{name}");
    }
}

#[test]
fn what_cannot_be_taken_out_is_named() {
    assert_eq!(extract_vmlinux(b"nothing"), Err(ExtractError::NoBzImage));
    for (magic, name) in [
        (&b"BZh9"[..], "bzip2"),
        (b"\x89LZO", "lzo"),
        (&[0x5d, 0, 0, 0], "lzma"),
        (b"\0\0\0\0", "an unknown format"),
    ] {
        let payload = [magic, &[0; 64]].concat();
        assert_eq!(extract_vmlinux(&around(&payload)), Err(ExtractError::Format(name)));
    }
    let outside = BzImage { payload: (0xfff_ffff, 100), ..BzImage::default() }.build();
    assert_eq!(extract_vmlinux(&outside), Err(ExtractError::Payload));
    // lz4's magic number, and behind it no room for the unpacked size: found by the fuzzer `kernel`.
    for length in 5..8 {
        let payload = &[0x02, 0x21, 0x4c, 0x18, 0, 0, 0][..length];
        assert_eq!(extract_vmlinux(&around(payload)), Err(ExtractError::Payload), "{length}");
    }
    // Without PVH inside, there is nothing to start.
    let kernel = common::multiboot(true);
    let image = around(&gzip(&kernel));
    let error = load(&Request { protocol: Some(Protocol::Pvh), ..request(&image) }).unwrap_err();
    assert_eq!(error.code, "protocol-not-offered");
}

#[test]
fn every_kind_of_memory_size_gives_a_machine_that_fits() {
    for kernel in [BzImage::default().build(), common::pvh(), common::multiboot(true)] {
        for memory in [20 * MEBIBYTE, 256 * MEBIBYTE, 3 << 30, (3 << 30) + 2 * MEBIBYTE, 64 << 30] {
            let loaded = load(&Request { memory, vcpus: 16, ..request(&kernel) }).unwrap();
            judge(&loaded, memory);
        }
    }
}

/// Loads, and judges what came out, whatever the file says.
fn survive(kernel: &[u8], memory: u64) {
    let initrd = [3; 4097];
    for (protocol, with_initrd) in [(None, true), (None, false), (Some(Protocol::Pvh), true)] {
        let loaded = load(&Request {
            initrd: with_initrd.then_some(&initrd[..]),
            protocol,
            memory,
            ..request(kernel)
        });
        if let Ok(loaded) = loaded {
            let mut end = 0;
            for piece in &loaded.pieces {
                assert!(piece.target >= end && !piece.bytes.is_empty());
                end = piece.target + piece.bytes.len() as u64;
            }
            assert!(plan::in_memory(memory, 0, end));
            assert!(plan::in_memory(memory, loaded.start.entry, 1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Headers with arbitrary words in them: refused or placed, but never a panic, an overlap or a piece outside the RAM.
    #[test]
    fn damaged_headers_never_break_the_loaders(
        which in 0..5_usize,
        words in proptest::collection::vec((0..200_usize, any::<u32>()), 1..5),
        large in any::<bool>(),
    ) {
        let mut kernel = match which {
            0 => BzImage::default().build(),
            1 => common::pvh(),
            2 => common::multiboot(true),
            3 => common::multiboot(false),
            _ => around(&gzip(&common::pvh())),
        };
        for (at, word) in words {
            // The interesting part of a bzImage begins at 0x1e4.
            let at = if which % 4 == 0 { 0x1e4 + at } else { at };
            let word = if word % 3 == 0 { word % 0x4000_0000 } else { word };
            kernel[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        survive(&kernel, if large { 5 << 30 } else { 32 << 20 });
    }

    #[test]
    fn arbitrary_bytes_never_break_the_loaders(
        magic in 0..4_usize,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let head: &[u8] = [&b""[..], b"\x7fELF\x02\x01", b"\x7fELF\x01\x01", &[0x1f, 0x8b, 8]][magic];
        bytes.splice(..head.len().min(bytes.len()), head.iter().copied());
        survive(&bytes, 32 << 20);
        let _ = extract_vmlinux(&bytes);
    }
}
