//! Bench machines: emulators that behave like a given machine.
//!
//! Tools row. A bench machine is data (`build-configs/NAME.toml`, [`BenchMachine`]); [`Session`] boots something on it and
//! hands over its serial console as a stream of bytes, both ways, whatever the emulator is. An emulator never outlives its
//! session: it is ended when the session is dropped, and the kernel ends it when this process dies in any other way.

mod bochs;
mod kvm;
mod machine;
mod qemu;
mod session;

use std::path::PathBuf;

pub use kvm::{Nested, choose};
pub use machine::{BenchMachine, BootMethod, Emulator};
pub use session::{End, Event, Input, Session};

/// What is booted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Media {
    /// A kernel that the emulator itself loads: a multiboot1 or PVH ELF.
    Kernel {
        /// The ELF.
        image: PathBuf,
        /// Its boot module, if any.
        module: Option<PathBuf>,
        /// Its command line.
        command_line: String,
    },
    /// A CD image that firmware boots.
    Iso(PathBuf),
}

/// What executes the machine's instructions.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Accelerator {
    /// The emulator itself. Repeatable, and runs everywhere.
    #[default]
    Tcg,
    /// The host's processor, through KVM with nested virtualization.
    Kvm,
    /// KVM where the host offers what the machine needs, else the emulator itself.
    Auto,
}

/// How a session is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// What is booted.
    pub media: Media,
    /// What executes instructions.
    pub accelerator: Accelerator,
    /// Whether the machine's clock counts instructions, so that a run repeats exactly (QEMU only; Bochs always does so).
    pub instruction_count: bool,
    /// The folder with builds of emulators beside the system's, for machines that ask for one. Each is laid out as Debian's packages are:
    /// `NAME/usr/bin/qemu-system-x86_64` and so on.
    pub builds: PathBuf,
    /// Where the host's files are that say what KVM offers: `/`, but for tests.
    pub host: PathBuf,
    /// Further arguments for the emulator, as tests need them.
    pub arguments: Vec<String>,
}

impl Start {
    /// Boots `media` with everything else as usual.
    pub fn new(media: Media) -> Self {
        Self {
            media,
            accelerator: Accelerator::default(),
            instruction_count: false,
            builds: PathBuf::new(),
            host: PathBuf::from("/"),
            arguments: Vec::new(),
        }
    }
}

/// The port of QEMU's `isa-debug-exit` device; Bochs has its own way ([`SHUTDOWN_PORT`]).
pub const EXIT_PORT: u16 = 0xf4;
/// Bochs ends when the bytes "Shutdown" are written to this port.
pub const SHUTDOWN_PORT: u16 = 0x8900;

/// Why a session cannot be started. Each sentence names its remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bench machine's file cannot be read.
    #[error("cannot read the bench machine {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A bench machine's file is wrong.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// The emulator is not there.
    #[error("there is no {program} on this machine: run `./ringfence setup`, which installs it")]
    NoEmulator {
        /// The program.
        program: &'static str,
    },
    /// A build of the emulator that the machine asks for is not there.
    #[error(
        "bench machine \"{machine}\" is the build {build}, and that is not at {}: `./ringfence run --bench-machine {machine}` fetches it",
        path.display()
    )]
    NoBuild {
        /// The bench machine.
        machine: String,
        /// The build.
        build: String,
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The emulator did not start.
    #[error("{program} did not start: {message}")]
    NotStarted {
        /// The program.
        program: &'static str,
        /// Its own words, or the system's.
        message: String,
    },
    /// KVM was asked for, and this host cannot do it.
    #[error(
        "this host cannot run a hypervisor under KVM ({0}): take `--accelerator tcg`, and a machine that is emulated"
    )]
    NoAcceleration(String),
    /// What is asked for is beyond this machine's emulator.
    #[error("{0}")]
    Unsupported(String),
    /// Files for the emulator cannot be written.
    #[error("cannot prepare the emulator's files: {0}")]
    Files(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
