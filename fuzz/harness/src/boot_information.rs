//! What a boot loader leaves in memory: PVH, multiboot 1 and multiboot 2.

use crate::tape::Tape;
use boot::BootInfo;
use boot::information::{MODULES, MULTIBOOT1, MULTIBOOT2, PVH, Physical, REGIONS, RootPointer};

/// Memory from this physical address on.
const BASE: u64 = 0x1000;
/// Bytes of it.
const LENGTH: usize = 0x1000;

struct Memory(Vec<u8>);

impl Physical for Memory {
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }
}

/// Reads the information that the bytes are, by one of the protocols; in front of it the first word is set where PVH wants it.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let choice = tape.byte();
    let length = usize::from(tape.word()) % (LENGTH + 1);
    let at = tape.word();
    let mut memory = tape.bytes(LENGTH);
    memory.resize(LENGTH, 0);
    memory.truncate(length.max(8));
    if choice & 3 == 2 {
        memory[..4].copy_from_slice(&PVH.to_le_bytes());
    }
    let eax = match choice & 3 {
        0 => MULTIBOOT1,
        1 => MULTIBOOT2,
        _ => u32::from(choice),
    };
    let ebx = if choice & 0x80 == 0 { BASE as u32 } else { at.into() };
    if let Ok(information) = BootInfo::read(&Memory(memory), eax, ebx) {
        assert!(information.map.len() <= REGIONS && information.modules.len() <= MODULES);
        assert!(information.map.iter().any(|region| region.usable));
        for range in information.map.iter().map(|region| &region.range).chain(&information.modules) {
            assert!(range.length() > 0 && range.start().get().checked_add(range.length() - 1).is_some());
        }
        if let RootPointer::Copied(bytes) = &information.root {
            assert!(matches!(bytes.len(), 20 | 36));
        }
        assert!(!information.command_line.contains('\0') && !information.loader.contains('\0'));
    }
}

/// The same machine in the words of each protocol.
pub fn seeds() -> Vec<Vec<u8>> {
    let put = |memory: &mut Vec<u8>, at: usize, words: &[u32]| {
        for (index, word) in words.iter().enumerate() {
            memory[at + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
    };
    let memory_of = |choice: u8| {
        let mut bytes = vec![choice, 0x00, 0x10, 0, 0];
        bytes.resize(5 + 0x200, 0);
        bytes
    };
    let mut first = memory_of(0);
    let base = BASE as u32;
    put(&mut first, 5, &[1 << 2 | 1 << 3 | 1 << 6 | 1 << 9, 0, 0, 0, base + 0x180, 1, base + 0x100]);
    put(&mut first, 5 + 44, &[48, base + 0x120]);
    put(&mut first, 5 + 64, &[base + 0x190]);
    put(&mut first, 5 + 0x100, &[0x20_0000, 0x20_1234, 0, 0]);
    put(&mut first, 5 + 0x120, &[20, 0, 0, 0x9_f000, 0, 1, 20, 0xffff_0000, 0, 0x1_0000, 0, 2]);
    first[5 + 0x180..][..8].copy_from_slice(b"quiet=1\0");
    first[5 + 0x190..][..7].copy_from_slice(b"loader\0");

    let mut pvh = memory_of(2);
    let words = [PVH, 1, 0, 1, base + 0x100, 0, base + 0x180, 0, 0xf_1234, 0, base + 0x120, 0, 2, 0];
    put(&mut pvh, 5, &words);
    put(&mut pvh, 5 + 0x100, &[0x20_0000, 0, 0x1234, 0, 0, 0, 0, 0]);
    put(&mut pvh, 5 + 0x120, &[0, 0, 0x9_f000, 0, 1, 0, 0xffff_0000, 0, 0x1_0000, 0, 2, 0]);

    let mut second = memory_of(1);
    let mut at = 8;
    let tags: [(u32, &[u32]); 7] = [
        (1, &[u32::from_le_bytes(*b"quie"), u32::from_le_bytes(*b"t\0\0\0")]),
        (2, &[u32::from_le_bytes(*b"load"), 0]),
        (3, &[0x20_0000, 0x20_1234, 0, 0]),
        (6, &[24, 0, 0, 0, 0x9_f000, 0, 1, 0, 0xffff_0000, 0, 0x1_0000, 0, 2, 0]),
        (14, &[3; 5]),
        (15, &[7; 9]),
        (0, &[]),
    ];
    for (kind, body) in tags {
        put(&mut second, 5 + at, &[kind, 8 + 4 * body.len() as u32]);
        put(&mut second, 5 + at + 8, body);
        at = (at + 8 + 4 * body.len()).next_multiple_of(8);
    }
    put(&mut second, 5, &[at as u32, 0]);
    vec![first, pvh, second]
}
