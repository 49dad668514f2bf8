//! The cpio writer, judged by the format's own rules and by cpio itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use manifest::initramfs::{ArchiveError, Entry, Kind, demonstration, write};
use std::io::Write;
use std::process::{Command, Stdio};

/// An entry as the archive's bytes say it: path, mode, links, device, content.
type Read = (String, u64, u64, (u64, u64), Vec<u8>);

/// Reads an archive ("initramfs buffer format": 13 hexadecimal fields of 8 digits, names and contents padded to 4).
fn read(archive: &[u8]) -> Vec<Read> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        assert_eq!(&archive[at..at + 6], b"070701");
        let field = |index: usize| {
            let text = std::str::from_utf8(&archive[at + 6 + index * 8..][..8]).unwrap();
            u64::from_str_radix(text, 16).unwrap()
        };
        // Owner, group, time, devices of the file system and checksum would make builds differ.
        for zero in [2, 3, 5, 7, 8, 12] {
            assert_eq!(field(zero), 0);
        }
        let name_length = field(11) as usize;
        let name_end = at + 110 + name_length;
        assert_eq!(archive[name_end - 1], 0);
        let name = String::from_utf8(archive[at + 110..name_end - 1].to_vec()).unwrap();
        let content = name_end.next_multiple_of(4);
        let end = content + field(6) as usize;
        if name == "TRAILER!!!" {
            assert!(archive[end..].iter().all(|byte| *byte == 0));
            return entries;
        }
        assert_eq!(field(0) as usize, entries.len() + 1, "inodes count up: no hard links");
        entries.push((name, field(1), field(4), (field(9), field(10)), archive[content..end].to_vec()));
        at = end.next_multiple_of(4);
    }
}

fn sample() -> Vec<Entry> {
    vec![
        Entry::folder("bin"),
        Entry::program("bin/busybox", vec![0x7f; 4099]),
        Entry::link("bin/sh", "busybox"),
        Entry::folder("dev"),
        Entry {
            path: "dev/console".to_owned(),
            mode: 0o600,
            kind: Kind::CharacterDevice { major: 5, minor: 1 },
        },
        Entry { path: "dev/vda".to_owned(), mode: 0o660, kind: Kind::BlockDevice { major: 254, minor: 0 } },
        Entry::file("empty", vec![]),
    ]
}

#[test]
fn entries_come_back_as_they_were_written() {
    let archive = write(&sample()).unwrap();
    assert_eq!(archive.len() % 512, 0);
    let path = |index: usize| sample()[index].path.clone();
    let expected: Vec<Read> = vec![
        (path(0), 0o040_755, 2, (0, 0), vec![]),
        (path(1), 0o100_755, 1, (0, 0), vec![0x7f; 4099]),
        (path(2), 0o120_777, 1, (0, 0), b"busybox".to_vec()),
        (path(3), 0o040_755, 2, (0, 0), vec![]),
        (path(4), 0o020_600, 1, (5, 1), vec![]),
        (path(5), 0o060_660, 1, (254, 0), vec![]),
        (path(6), 0o100_644, 1, (0, 0), vec![]),
    ];
    assert_eq!(read(&archive), expected);
    assert_eq!(write(&sample()).unwrap(), archive);
}

#[test]
fn paths_that_cannot_be_unpacked_are_refused() {
    let one = |path: &str| write(&[Entry::file(path, vec![])]);
    let long = "a".repeat(4096);
    for path in ["", "/init", "a/", "./init", "../init", "a//b", "TRAILER!!!", "a\0b", long.as_str()] {
        assert_eq!(one(path), Err(ArchiveError::Path(path.to_owned())));
    }
    assert_eq!(one("bin/sh"), Err(ArchiveError::NoFolder("bin/sh".to_owned())));
    let under_a_file = [Entry::file("bin", vec![]), Entry::file("bin/sh", vec![])];
    assert_eq!(write(&under_a_file), Err(ArchiveError::NoFolder("bin/sh".to_owned())));
    let twice = [Entry::file("init", vec![]), Entry::folder("init")];
    assert_eq!(write(&twice), Err(ArchiveError::Twice("init".to_owned())));
    let mode = Entry { mode: 0o100_755, ..Entry::file("init", vec![]) };
    assert_eq!(write(&[mode]), Err(ArchiveError::Mode("init".to_owned())));
}

#[test]
fn the_demonstration_has_all_that_the_first_process_needs() {
    let archive = demonstration(b"busybox".to_vec(), b"#!/bin/busybox sh".to_vec()).unwrap();
    let entries = read(&archive);
    let find = |path: &str| entries.iter().find(|entry| entry.0 == path).expect("an entry");
    assert_eq!(find("init").1, 0o100_755);
    assert_eq!(find("bin/busybox").4, b"busybox");
    assert_eq!((find("dev/console").1, find("dev/console").3), (0o020_600, (5, 1)));
    for folder in ["proc", "sys", "tmp", "dev"] {
        assert_eq!(find(folder).1, 0o040_755);
    }
}

#[test]
fn cpio_lists_the_archive() {
    let Ok(mut cpio) = Command::new("cpio")
        .args(["-itv", "--quiet", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        eprintln!("skipped: cpio is not installed");
        return;
    };
    cpio.stdin.take().unwrap().write_all(&write(&sample()).unwrap()).unwrap();
    let output = cpio.wait_with_output().unwrap();
    assert!(output.status.success());
    let listing = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(lines.len(), sample().len(), "{listing}");
    for (line, start, end) in [
        (0, "drwxr-xr-x", "bin"),
        (1, "-rwxr-xr-x", "bin/busybox"),
        (2, "lrwxrwxrwx", "bin/sh -> busybox"),
        (4, "crw-------", "dev/console"),
    ] {
        assert!(lines[line].starts_with(start) && lines[line].ends_with(end), "{}", lines[line]);
    }
}
