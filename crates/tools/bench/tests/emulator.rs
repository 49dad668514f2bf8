//! Sessions on real emulators. The guest is a few instructions: it prints a letter and gives back what it is sent, until it
//! is sent a `q`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bench::{BenchMachine, End, Error, Event, Media, Session, Start};

const LIMIT: Duration = Duration::from_mins(1);

/// A multiboot1 kernel: ELF32 with one segment at 1 MiB, which holds the header and the code.
fn guest(folder: &Path) -> PathBuf {
    const BASE: u32 = 0x10_0000;
    #[rustfmt::skip]
    let code: &[u8] = &[
        0x66, 0xba, 0xfb, 0x03,             // mov dx, 0x3fb
        0xb0, 0x03,                         // mov al, 3: eight bits
        0xee,                               // out dx, al
        0x66, 0xba, 0xf8, 0x03,             // mov dx, 0x3f8
        0xb0, b'!',                         // mov al, '!'
        0xee,                               // out dx, al
        // next:
        0x66, 0xba, 0xfd, 0x03,             // mov dx, 0x3fd
        0xec,                               // in al, dx
        0xa8, 0x01,                         // test al, 1
        0x74, 0xf7,                         // jz next
        0x66, 0xba, 0xf8, 0x03,             // mov dx, 0x3f8
        0xec,                               // in al, dx
        0xee,                               // out dx, al
        0x3c, b'q',                         // cmp al, 'q'
        0x75, 0xed,                         // jne next
        0x66, 0xba, 0xfd, 0x03,             // mov dx, 0x3fd
        // sending:
        0xec,                               // in al, dx
        0xa8, 0x40,                         // test al, 0x40
        0x74, 0xfb,                         // jz sending
        0x31, 0xc0,                         // xor eax, eax
        0xe7, 0xf4,                         // out 0xf4, eax
        0x66, 0xba, 0x00, 0x89,             // mov dx, 0x8900
        0xbe, 0x00, 0x00, 0x00, 0x00,       // mov esi, text
        0xb9, 0x08, 0x00, 0x00, 0x00,       // mov ecx, 8
        0xf3, 0x6e,                         // rep outsb
        0xf4, 0xeb, 0xfd,                   // hlt; jmp hlt
    ];
    let header = [0x1bad_b002_u32, 0, 0x1bad_b002_u32.wrapping_neg()];
    let mut segment = header.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let entry = BASE + segment.len() as u32;
    let text = entry + code.len() as u32;
    segment.extend(code);
    let place = segment.windows(5).position(|window| window == [0xbe, 0, 0, 0, 0]).unwrap() + 1;
    segment[place..place + 4].copy_from_slice(&text.to_le_bytes());
    segment.extend(b"Shutdown");

    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    for half in [2_u16, 3] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, entry, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let length = segment.len() as u32;
    for word in [1, 0x1000, BASE, BASE, length, length, 7, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.resize(0x1000, 0);
    elf.extend(segment);
    let path = folder.join("guest.elf");
    fs::write(&path, elf).unwrap();
    path
}

fn iso(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("boot/grub")).unwrap();
    fs::rename(guest(folder), tree.join("boot/guest.elf")).unwrap();
    fs::write(tree.join("boot/grub/grub.cfg"), "multiboot /boot/guest.elf\nboot\n").unwrap();
    let iso = folder.join("guest.iso");
    let output = Command::new("grub-mkrescue").arg("-o").args([&iso, &tree]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    iso
}

fn machine(name: &str) -> BenchMachine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../build-configs");
    BenchMachine::load(&folder.join(format!("{name}.toml"))).unwrap()
}

fn kernel(image: PathBuf) -> Start {
    Start::new(Media::Kernel { image, module: None, command_line: String::new() })
}

/// Reads the console until it has said `text`.
fn expect(events: &Receiver<Event>, text: &str) {
    let deadline = Instant::now() + LIMIT;
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Console(bytes)) => said.extend(bytes),
            other => {
                panic!("waiting for {text:?}, said {:?}, then {other:?}", String::from_utf8_lossy(&said))
            }
        }
    }
}

fn end(events: &Receiver<Event>) -> End {
    let deadline = Instant::now() + LIMIT;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended(end)) => return end,
            Ok(Event::Console(_)) => {}
            Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended without a word"),
        }
    }
}

fn talks(machine_name: &str, start: &Start) -> End {
    let (sender, events) = sync_channel::<Event>(64);
    let session = Session::start(&machine(machine_name), start, sender).unwrap();
    expect(&events, "!");
    session.input().send(b"h");
    expect(&events, "h");
    session.input().send(b"q");
    expect(&events, "q");
    end(&events)
}

#[test]
fn qemu_talks_both_ways_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let end = talks("qemu-amd-epyc", &kernel(guest(folder.path())));
    assert_eq!(end.code, Some(1), "isa-debug-exit gives twice the value and one: {end:?}");
}

#[test]
fn qemu_with_an_instruction_count() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start { instruction_count: true, ..kernel(guest(folder.path())) };
    assert_eq!(talks("qemu-amd-epyc-1", &start).code, Some(1));
}

#[test]
fn qemu_boots_a_cd() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(talks("qemu-amd-epyc-grub", &Start::new(Media::Iso(iso(folder.path())))).code, Some(1));
}

#[test]
fn bochs_talks_both_ways_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let end = talks("bochs-phenom", &Start::new(Media::Iso(iso(folder.path()))));
    // Its exit code says nothing: 1, or a crash of its own when it tears its window down.
    assert!(end.complaint.contains("shutdown requested"), "{end:?}");
}

#[test]
fn nothing_outlives_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let start = kernel(guest(folder.path()));
    let (sender, events) = sync_channel::<Event>(64);
    let session = Session::start(&machine("qemu-amd-epyc"), &start, sender).unwrap();
    expect(&events, "!");
    let process = PathBuf::from(format!("/proc/{}", session.process()));
    assert!(process.exists());
    session.stop();
    assert_eq!(end(&events).signal, Some(9));
    drop(session);
    assert!(!process.exists());

    // The kernel keeps the promise when nobody is left to drop the session.
    let (sender, events) = sync_channel::<Event>(64);
    let (leave, left) = sync_channel::<()>(1);
    let starter = std::thread::spawn(move || {
        let session = Session::start(&machine("qemu-amd-epyc"), &start, sender).unwrap();
        std::mem::forget(session);
        left.recv().unwrap();
    });
    expect(&events, "!");
    leave.send(()).unwrap();
    starter.join().unwrap();
    assert_eq!(end(&events).signal, Some(9));
}

#[test]
fn an_emulator_that_does_not_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = kernel(guest(folder.path()));
    start.arguments = vec!["-no-such-option".to_owned()];
    let (sender, events) = sync_channel::<Event>(64);
    let _session = Session::start(&machine("qemu-amd-epyc"), &start, sender).unwrap();
    let end = end(&events);
    assert_eq!(end.code, Some(1));
    assert!(end.complaint.contains("-no-such-option"), "{end:?}");
    let kernel_on_bochs = kernel(folder.path().join("guest.elf"));
    let (sender, _events) = sync_channel::<Event>(64);
    let refused = Session::start(&machine("bochs-phenom"), &kernel_on_bochs, sender);
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}
