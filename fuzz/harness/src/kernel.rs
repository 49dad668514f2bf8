//! The host tool's loaders: bzImage, PVH, multiboot 1, and what unpacks them.

use crate::common;
use crate::tape::Tape;
use manifest::boot::{self, Module, Protocol, Request};

/// A command line of every length that a request may have.
const COMMAND_LINE: &str = "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1 quiet loglevel=7 nokaslr root=/dev/ram0 rw init=/init";

/// Loads the kernel that the bytes are, behind four that say what is asked for.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let (choice, memory, extras, text) = (tape.byte(), tape.byte(), tape.byte(), tape.byte());
    let kernel = tape.rest();
    let other = vec![0x5a; usize::from(extras) << 4];
    let memory = (1 + u64::from(memory)) * plan::MEMORY_GRAIN;
    let request = Request {
        kernel: &kernel,
        kernel_name: "kernel",
        initrd: (choice & 4 != 0).then_some(&other[..]),
        command_line: &COMMAND_LINE[..usize::from(text) % COMMAND_LINE.len()],
        modules: (0..choice >> 3 & 3).map(|_| Module { bytes: &other, text: "module" }).collect(),
        protocol: [None, Some(Protocol::Linux), Some(Protocol::Pvh), Some(Protocol::Multiboot)]
            [usize::from(choice & 3)],
        memory,
        vcpus: 1 + (choice >> 5),
    };
    let _ = boot::extract_vmlinux(&kernel);
    let Ok(loaded) = boot::load(&request) else { return };
    assert!(request.protocol.is_none_or(|protocol| protocol == loaded.protocol));
    let mut end = 0;
    for piece in &loaded.pieces {
        assert!(!piece.bytes.is_empty() && piece.target >= end, "pieces that are empty, unsorted or overlap");
        assert!(plan::in_memory(memory, piece.target, piece.bytes.len() as u64), "a piece outside RAM");
        end = piece.target + piece.bytes.len() as u64;
    }
    assert!(plan::in_memory(memory, loaded.start.entry, 1), "an entry point outside RAM");
}

/// A kernel of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let with = |choice: u8, kernel: Vec<u8>| [&[choice, 63, 4, 20][..], &kernel].concat();
    let small = common::BzImage { code: vec![0x90; 512], ..common::BzImage::default() };
    let with_payload = |payload: &[u8]| {
        let code = payload.to_vec();
        common::BzImage { payload: (0, code.len() as u64), code, ..common::BzImage::default() }.build()
    };
    // A member of one stored block, by RFC 1952: the length is the last word.
    let stored = |bytes: &[u8]| {
        let length = bytes.len() as u16;
        let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(bytes);
        file.extend((!sum).to_le_bytes());
        file.extend(u32::from(length).to_le_bytes());
        file
    };
    vec![
        with(0, small.build()),
        with(4, small.build()),
        with(0, common::pvh()),
        with(4, common::pvh()),
        with(0, common::multiboot(false)),
        with(8, common::multiboot(true)),
        with(0, stored(&common::pvh())),
        with(2, with_payload(&stored(&common::pvh()))),
        with(2, with_payload(&[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 1, 0, 0, 0, 0])),
        with(2, with_payload(&[0x28, 0xb5, 0x2f, 0xfd, 4, 0, 1, 0, 0, 0, 0])),
        with(2, with_payload(&[0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, 0x41, 1, 0, 0, 0])),
    ]
}
