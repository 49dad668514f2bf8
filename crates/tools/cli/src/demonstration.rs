//! The demonstration: two compartments, each an unmodified Debian kernel with a RAM disk made here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use manifest::initramfs::{self, Entry, Kind};
use tempfile::TempDir;
use toml_edit::{DocumentMut, Item, Value};

use crate::Failure;
use crate::tree::Tree;

/// The profile that it runs on.
pub const PROFILE: &str = "lab-amd-npt";
/// Its manifest, in the tree.
pub const MANIFEST: &str = "examples/demonstration/demonstration.ringfence.toml";
/// The first program of its compartments, in the tree.
const INIT: &str = "examples/demonstration/init";
/// The kernel, as its manifests name it.
pub const KERNEL: &str = "vmlinuz";
/// The RAM disk, as its manifests name it.
pub const RAM_DISK: &str = "initramfs.img";

/// Puts the demonstration's manifest, kernel and RAM disk into a folder of their own; with `mode`, both compartments are
/// told `ringfence.mode=MODE`. Gives the folder, which lives as long as the value, and the manifest.
pub fn stage(tree: &Tree, mode: Option<&str>) -> Result<(TempDir, PathBuf), Failure> {
    let folder = tempfile::Builder::new().prefix("ringfence-demonstration-").tempdir()?;
    guest_files(tree, folder.path())?;
    let text = fs::read_to_string(tree.path(MANIFEST))?;
    let text = match mode {
        Some(mode) => with_words(&text, &format!("ringfence.mode={mode}"))?,
        None => text,
    };
    let manifest = folder.path().join("demonstration.ringfence.toml");
    fs::write(&manifest, text)?;
    Ok((folder, manifest))
}

/// Puts [`KERNEL`] and [`RAM_DISK`] into `folder`, for manifests that lie there.
pub fn guest_files(tree: &Tree, folder: &Path) -> Result<(), Failure> {
    symlink(kernel(tree)?, folder.join(KERNEL))?;
    fs::write(folder.join(RAM_DISK), ram_disk(tree, "busybox")?)?;
    Ok(())
}

/// The demonstration's RAM disk, with the busybox that the cache has under this name: that of a kernel's own architecture.
pub fn ram_disk(tree: &Tree, busybox: &str) -> Result<Vec<u8>, Failure> {
    let busybox = fs::read(cached(tree, busybox)?)?;
    let init = fs::read(tree.path(INIT))?;
    let entries = [
        Entry::folder("bin"),
        Entry::program("bin/busybox", busybox),
        Entry::link("bin/sh", "busybox"),
        Entry::folder("dev"),
        // What the first program's words go to, before there is a devtmpfs.
        Entry {
            path: "dev/console".to_owned(),
            mode: 0o600,
            kind: Kind::CharacterDevice { major: 5, minor: 1 },
        },
        Entry::folder("proc"),
        Entry::folder("sys"),
        Entry::folder("tmp"),
        Entry::program("init", init),
    ];
    initramfs::write(&entries)
        .map_err(|error| Failure::environment(format!("the RAM disk cannot be made: {error}"), ""))
}

/// Debian's cloud kernel, a bzImage.
pub fn kernel(tree: &Tree) -> Result<PathBuf, Failure> {
    cached(tree, "vmlinuz-cloud")
}

/// A guest's file that set-up has put into the cache.
pub fn cached(tree: &Tree, name: &str) -> Result<PathBuf, Failure> {
    let path = tree.cache().join("guests").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::environment(
        format!("the guests' {name} is not in the cache ({})", path.display()),
        "run `./ringfence setup`, which fetches it from Debian's packages",
    ))
}

/// The manifest with `words` at the end of every kernel command line.
pub fn with_words(text: &str, words: &str) -> Result<String, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::wrong_input(format!("the demonstration's manifest is broken: {error}"), "restore it")
    };
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| broken(&error))?;
    let compartments = document
        .get_mut("compartment")
        .and_then(Item::as_array_of_tables_mut)
        .ok_or_else(|| broken(&"it has no compartments"))?;
    for compartment in compartments.iter_mut() {
        let line = compartment.get_mut("boot").and_then(|boot| boot.get_mut("command-line"));
        let line = line.ok_or_else(|| broken(&"a compartment has no command line"))?;
        let longer = format!("{} {words}", line.as_str().unwrap_or_default());
        *line = Item::Value(Value::from(longer));
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_every_compartment() {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(MANIFEST))
            .unwrap();
        let changed = with_words(&text, "ringfence.mode=shell").unwrap();
        assert_eq!(changed.matches(" ringfence.mode=shell\"").count(), 2);
        assert_eq!(changed.replace(" ringfence.mode=shell", ""), text);
    }
}
