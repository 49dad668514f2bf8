//! Bench machines as data.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Nested};

/// Which emulator.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emulator {
    /// QEMU.
    Qemu,
    /// Bochs.
    Bochs,
}

/// How it is booted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMethod {
    /// The emulator loads the ELF and its module.
    Kernel,
    /// Firmware boots a CD with GRUB, which loads both.
    Iso,
}

/// One bench machine: `build-configs/NAME.toml`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BenchMachine {
    /// The file format: 1.
    format: u32,
    /// Its name, which is its file's name without `.toml`.
    pub name: String,
    /// One line about what it is like.
    pub summary: String,
    /// Which emulator.
    pub emulator: Emulator,
    /// QEMU: which build of it, as the folder in [`Start::builds`](crate::Start::builds) is called; without it, the one on the search path.
    #[serde(default)]
    pub build: Option<String>,
    /// The emulator's word for the processor.
    pub cpu: String,
    /// QEMU: the machine is the host's own processor under KVM, which offers this virtualization to it; `cpu` is then "host". What is seen on it
    /// is evidence of the kind `nested`. Without it, the machine is emulated.
    #[serde(default)]
    pub nested: Option<Nested>,
    /// Number of processors, 1 to 64.
    pub cpus: u32,
    /// Memory in MiB, 64 to 65536.
    pub memory_mib: u32,
    /// How it is booted.
    pub boot: BootMethod,
    /// Bochs: how many instructions its clocks take for a second, 1,000,000 to 4,000,000,000; without it, about as many as it executes in one.
    #[serde(default)]
    pub instructions_per_second: Option<u32>,
    /// QEMU: further devices, as after `-device`.
    #[serde(default)]
    pub devices: Vec<String>,
}

impl BenchMachine {
    /// Reads a bench machine.
    ///
    /// # Errors
    /// [`Error::Unreadable`] or [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|error| Error::Unreadable { path: path.to_path_buf(), error })?;
        let malformed = |message: String| Error::Malformed { path: path.to_path_buf(), message };
        let machine: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if machine.format != 1 {
            return Err(malformed(format!("format {} is unknown; write format = 1", machine.format)));
        }
        if path.file_stem().is_none_or(|stem| stem != machine.name.as_str()) {
            return Err(malformed(format!("its name is \"{}\", but its file is not", machine.name)));
        }
        if !(1..=64).contains(&machine.cpus) {
            return Err(malformed("cpus is a number from 1 to 64".to_owned()));
        }
        if !(64..=65_536).contains(&machine.memory_mib) {
            return Err(malformed("memory-mib is a number from 64 to 65536".to_owned()));
        }
        if machine
            .build
            .as_ref()
            .is_some_and(|build| Path::new(build).file_name().is_none_or(|name| name != build.as_str()))
        {
            return Err(malformed("build is the name of a folder, such as \"qemu-10.0\"".to_owned()));
        }
        if machine.nested.is_some() != (machine.cpu == "host") {
            return Err(malformed(
                "cpu = \"host\" and nested go together: such a machine is KVM's".to_owned(),
            ));
        }
        if machine
            .instructions_per_second
            .is_some_and(|instructions| !(1_000_000..=4_000_000_000).contains(&instructions))
        {
            return Err(malformed(
                "instructions-per-second is a number from 1000000 to 4000000000".to_owned(),
            ));
        }
        if machine.instructions_per_second.is_some() && machine.emulator != Emulator::Bochs {
            return Err(malformed("only Bochs' clocks count instructions per second".to_owned()));
        }
        if machine.emulator == Emulator::Bochs {
            // Bochs loads nothing but what its firmware boots, takes 2 GiB in one piece, and has a fixed set of devices.
            if machine.boot == BootMethod::Kernel {
                return Err(malformed("Bochs has no kernel loader; write boot = \"iso\"".to_owned()));
            }
            if machine.memory_mib > 2048 {
                return Err(malformed("Bochs takes at most 2048 MiB".to_owned()));
            }
            if machine.nested.is_some() {
                return Err(malformed("Bochs does not use KVM".to_owned()));
            }
            if machine.build.is_some() {
                return Err(malformed("a build can be chosen of QEMU only".to_owned()));
            }
            if !machine.devices.is_empty() {
                return Err(malformed("devices can be added to QEMU only".to_owned()));
            }
        }
        Ok(machine)
    }

    /// The names of the bench machines in `folder`, sorted.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn names(folder: &Path) -> Result<Vec<String>, Error> {
        let unreadable = |error| Error::Unreadable { path: folder.to_path_buf(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path: PathBuf = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "toml")
                && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}
