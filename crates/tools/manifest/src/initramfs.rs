//! Writes initial RAM disks (Linux kernel documentation, "initramfs buffer format": cpio `newc`).
//!
//! The same entries give the same bytes: no times, no owners, no inode numbers of the host.

/// The longest path, in bytes.
const PATH_MOST: usize = 4095;
/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";
/// The archive's length is a multiple of this, as cpio has it.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file with its bytes.
    File(Vec<u8>),
    /// A symbolic link to a path.
    Link(String),
    /// A character device with its numbers.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device with its numbers.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// An entry of the archive, owned by root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its path, without a leading `/`. Folders come before what is in them.
    pub path: String,
    /// Permissions: bits 11–0 of the mode.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// A folder that all may enter.
    pub fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o755, kind: Kind::Folder }
    }

    /// A file that all may run.
    pub fn program(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, kind: Kind::File(bytes) }
    }

    /// A file that all may read.
    pub fn file(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, kind: Kind::File(bytes) }
    }

    /// A symbolic link to `to`.
    pub fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, kind: Kind::Link(to.to_owned()) }
    }
}

/// The initial RAM disk of the demonstration: busybox, and a shell script that is the first process.
///
/// `busybox` is the statically linked program, `init` the script (`examples/demonstration/init`).
pub fn demonstration(busybox: Vec<u8>, init: Vec<u8>) -> Result<Vec<u8>, ArchiveError> {
    write(&[
        Entry::folder("bin"),
        Entry::program("bin/busybox", busybox),
        Entry::link("bin/sh", "busybox"),
        Entry::folder("dev"),
        // The kernel opens it for the first process before anything is mounted.
        Entry {
            path: "dev/console".to_owned(),
            mode: 0o600,
            kind: Kind::CharacterDevice { major: 5, minor: 1 },
        },
        Entry::folder("proc"),
        Entry::folder("sys"),
        Entry::folder("tmp"),
        Entry::program("init", init),
    ])
}

/// Why an archive cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArchiveError {
    /// The path is empty, absolute, too long, or has an empty or relative component or a zero byte.
    Path(String),
    /// Two entries have that path.
    Twice(String),
    /// The entry's folder does not come before it.
    NoFolder(String),
    /// The mode has bits above 11.
    Mode(String),
    /// The file has 4 GiB or more.
    TooLong(String),
}

impl std::fmt::Display for ArchiveError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "`{path}` cannot be a path in an initial RAM disk"),
            Self::Twice(path) => write!(formatter, "`{path}` is in the initial RAM disk twice"),
            Self::NoFolder(path) => write!(formatter, "the folder of `{path}` does not come before it"),
            Self::Mode(path) => write!(formatter, "the mode of `{path}` is no set of permissions"),
            Self::TooLong(path) => write!(formatter, "`{path}` has 4 GiB or more"),
        }
    }
}

impl std::error::Error for ArchiveError {}

/// The archive of `entries`, in their order.
pub fn write(entries: &[Entry]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Vec::new();
    let mut known = std::collections::BTreeMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let path = entry.path.as_str();
        let component = |name: &str| !matches!(name, "" | "." | "..");
        if path.len() > PATH_MOST || path == TRAILER || path.contains('\0') || !path.split('/').all(component)
        {
            return Err(ArchiveError::Path(path.to_owned()));
        }
        if let Some((folder, _)) = path.rsplit_once('/')
            && known.get(folder) != Some(&true)
        {
            return Err(ArchiveError::NoFolder(path.to_owned()));
        }
        if known.insert(path, entry.kind == Kind::Folder).is_some() {
            return Err(ArchiveError::Twice(path.to_owned()));
        }
        if entry.mode > 0o7777 {
            return Err(ArchiveError::Mode(path.to_owned()));
        }
        let (kind, links, device, bytes): (u32, u32, (u32, u32), &[u8]) = match &entry.kind {
            Kind::Folder => (0o040_000, 2, (0, 0), &[]),
            Kind::File(bytes) => (0o100_000, 1, (0, 0), bytes),
            Kind::Link(to) => (0o120_000, 1, (0, 0), to.as_bytes()),
            Kind::CharacterDevice { major, minor } => (0o020_000, 1, (*major, *minor), &[]),
            Kind::BlockDevice { major, minor } => (0o060_000, 1, (*major, *minor), &[]),
        };
        let length = u32::try_from(bytes.len()).map_err(|_| ArchiveError::TooLong(path.to_owned()))?;
        header(&mut archive, number as u32 + 1, kind | entry.mode, links, length, device, path);
        archive.extend_from_slice(bytes);
        pad(&mut archive, 4);
    }
    header(&mut archive, 0, 0, 1, 0, (0, 0), TRAILER);
    pad(&mut archive, BLOCK);
    Ok(archive)
}

/// An entry's header and name, padded.
fn header(
    archive: &mut Vec<u8>,
    inode: u32,
    mode: u32,
    links: u32,
    length: u32,
    device: (u32, u32),
    path: &str,
) {
    archive.extend_from_slice(b"070701");
    // Inode, mode, user, group, links, time, length, device of the file system (two), device (two), length of the name with its
    // end, checksum.
    let name_length = path.len() as u32 + 1;
    for field in [inode, mode, 0, 0, links, 0, length, 0, 0, device.0, device.1, name_length, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive, 4);
}

fn pad(archive: &mut Vec<u8>, alignment: usize) {
    archive.resize(archive.len().next_multiple_of(alignment), 0);
}
