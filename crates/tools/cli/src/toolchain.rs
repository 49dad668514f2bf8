//! The toolchain that builds for bare metal: a Rust that has the target, or one that has the sources to build `core` from.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::tree::Tree;

/// The target of all images.
pub const TARGET: &str = "x86_64-unknown-none";

/// How images are built here.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The search path on which its cargo and rustc come first.
    search_path: OsString,
    /// Whether `core` is built from source.
    build_core: bool,
}

impl Toolchain {
    /// Finds one: what is on the search path if that has the target, else the distribution's with its sources.
    pub fn find() -> Result<Self, Failure> {
        let path = env::var_os("PATH").unwrap_or_default();
        if has_target(&path) {
            return Ok(Self { search_path: path, build_core: false });
        }
        let debian = with_first(Path::new("/usr/bin"), &path);
        for search_path in [path, debian] {
            if sources(&search_path).is_some() {
                return Ok(Self { search_path, build_core: true });
            }
        }
        Err(Failure::environment(
            "no Rust toolchain here can build for bare metal",
            "run `./ringfence setup`: on Debian it installs rustc-web, cargo-web and rust-web-src; elsewhere, \
             `rustup target add x86_64-unknown-none`",
        ))
    }

    /// `cargo SUBCOMMAND` for bare metal in `folder`. Each kind of work has its own target folder, so that none throws away
    /// what another has built.
    pub fn cargo(&self, folder: &Path, subcommand: &str, target_folder: &Path) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(folder).env("PATH", &self.search_path).arg(subcommand);
        command.args(["--release", "--locked", "--target", TARGET, "--target-dir"]).arg(target_folder);
        if self.build_core {
            // Unstable options of a stable compiler: building `core` for a target that came without it. Its size-optimized form would spare
            // nothing here, and writes numbers with checks that the compiler cannot remove: places that panic.
            command.env("RUSTC_BOOTSTRAP", "1").args([
                "-Z",
                "build-std=core,compiler_builtins",
                "-Z",
                "build-std-features=compiler-builtins-mem",
            ]);
        }
        for inherited in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
        ] {
            command.env_remove(inherited);
        }
        for (name, _) in env::vars_os() {
            // The settings that the entry script builds this program with are not the image's.
            if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// `cargo SUBCOMMAND` for the image that has exactly these parts.
    pub fn image(&self, tree: &Tree, subcommand: &str, target_folder: &Path, parts: &[String]) -> Command {
        let mut command = self.cargo(tree.root(), subcommand, target_folder);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags(tree, target_folder).join("\u{1f}"));
        command.args(["--package", "image", "--bin", "ringfence-image", "--no-default-features"]);
        command.args(["--features", &parts.join(",")]);
        command
    }

    /// Whether it has clippy.
    pub fn has_clippy(&self) -> bool {
        let version =
            Command::new("cargo").env("PATH", &self.search_path).args(["clippy", "--version"]).output();
        version.is_ok_and(|output| output.status.success())
    }
}

/// The linker's words: a static ELF at fixed addresses, laid out by our script, without what nothing refers to.
fn flags(tree: &Tree, target_folder: &Path) -> Vec<String> {
    let script = tree.path("build-configs/link.ld");
    let map = target_folder.join("ringfence.map");
    [
        "linker=ld".to_owned(),
        "linker-flavor=ld".to_owned(),
        "relocation-model=static".to_owned(),
        // All of it lies below 2 GiB: an address is loaded in five bytes, not seven.
        "code-model=small".to_owned(),
        // A table of jumps takes eight bytes an entry, and comparisons for few entries less than that. The text is padded to a page: where
        // it is little above one, more tables make the file shorter, and fewer where it has room. Measure again when it has changed.
        "llvm-args=-min-jump-table-entries=16".to_owned(),
        // Callers know which registers a callee leaves alone, and what only known callers call need not keep any for them. Functions that
        // assembly calls or whose address is taken keep the usual convention.
        "llvm-args=-enable-ipra".to_owned(),
        "llvm-args=-tail-merge-size=2".to_owned(),
        // At the least size the compiler calls what would be shorter in place, since it does not know what falls away there. Measured.
        "llvm-args=-inline-threshold=25".to_owned(),
        // Blocks lie as they need the fewest jumps, and nothing is copied to spare one at run time.
        "llvm-args=-apply-ext-tsp-for-size".to_owned(),
        "llvm-args=-bonus-inst-threshold=0".to_owned(),
        // Addresses are computed where they are used, not kept in step with loop counters, and constants are written where they are used:
        // registers are what is scarce. Measured, each of them.
        "llvm-args=-disable-lsr".to_owned(),
        "llvm-args=-disable-constant-hoisting".to_owned(),
        "llvm-args=-split-spill-mode=size".to_owned(),
        "llvm-args=-pre-RA-sched=list-burr".to_owned(),
        "llvm-args=-aggressive-ext-opt".to_owned(),
        // Instructions that functions have in common become functions.
        "llvm-args=-enable-machine-outliner=always".to_owned(),
        format!("link-arg=-T{}", script.display()),
        "link-arg=--gc-sections".to_owned(),
        // The multiboot headers have to stay in the first 8 KiB of the file.
        "link-arg=-zmax-page-size=4096".to_owned(),
        format!("link-arg=-Map={}", map.display()),
    ]
    .into_iter()
    .map(|flag| format!("-C{flag}"))
    // SHA-256 in its short form: the boot module's plan is a few hundred bytes.
    .chain(["sha2_backend=\"soft\"", "sha2_backend_soft=\"compact\""].map(|option| format!("--cfg={option}")))
    .collect()
}

/// The search path with `folder` before everything else.
fn with_first(folder: &Path, path: &OsString) -> OsString {
    let folders = std::iter::once(folder.to_path_buf()).chain(env::split_paths(path));
    env::join_paths(folders).unwrap_or_else(|_| path.clone())
}

fn rustc(search_path: &OsString, arguments: &[&str]) -> Option<String> {
    let output = Command::new("rustc").env("PATH", search_path).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn has_target(search_path: &OsString) -> bool {
    rustc(search_path, &["--print", "target-libdir", "--target", TARGET])
        .is_some_and(|folder| Path::new(&folder).is_dir())
}

/// Whether a program is on the search path.
pub fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The sources of `core` that the rustc on `search_path` has.
fn sources(search_path: &OsString) -> Option<PathBuf> {
    let root = rustc(search_path, &["--print", "sysroot"])?;
    let library = Path::new(&root).join("lib/rustlib/src/rust/library");
    library.join("Cargo.lock").is_file().then_some(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_first() {
        let path = with_first(Path::new("/usr/bin"), &OsString::from("/a:/usr/bin:/b"));
        assert_eq!(path, OsString::from("/usr/bin:/a:/usr/bin:/b"));
    }

    #[test]
    fn the_linker_gets_the_trees_own_script() {
        let flags = flags(&Tree::at("/tree"), Path::new("/tree/target/image"));
        for flag in
            ["-Clink-arg=-T/tree/build-configs/link.ld", "-Clink-arg=-Map=/tree/target/image/ringfence.map"]
        {
            assert!(flags.iter().any(|known| known == flag), "{flags:?}");
        }
    }
}
