//! Manifests: what may run; compiled to the binary boot module with kernels, tables and start states.
//!
//! ```no_run
//! use manifest::{Environment, Limits, Manifest};
//!
//! # fn main() -> Result<(), manifest::Mistakes> {
//! let environment = Environment {
//!     profile_name: "lab-amd-npt".to_owned(),
//!     limits: Limits { compartments: 4, vcpus_per_compartment: 4, cpus: 8 },
//!     parts: vec!["schedule-shared".to_owned()],
//!     machine_memory: Some(2 << 30),
//!     machine_cpus: Some(2),
//! };
//! let checked = Manifest::load("two.ringfence.toml".as_ref())?.check(&environment)?;
//! let module: Vec<u8> = checked.compile();
//! # Ok(())
//! # }
//! ```
//!
//! Row: tools. The steps: [`Manifest::load`] reads the TOML and remembers where each word stands; [`Manifest::check`] judges it
//! against profile, machine and files, and reports *all* mistakes at once, each with place, plain sentence and remedy;
//! [`Checked::compile`] gives the bytes that the hypervisor reads through crate `plan`.

pub mod boot;
mod check;
mod compile;
pub mod initramfs;
mod mistake;
pub mod model;
pub mod platform;
mod read;
pub mod size;

pub use check::{Checked, FORMAT, Summary};
pub use mistake::{Mistake, Mistakes, Source};

use std::path::{Path, PathBuf};

/// Capacities of a profile.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Compartments at a time.
    pub compartments: u32,
    /// vCPUs of a compartment.
    pub vcpus_per_compartment: u32,
    /// Host processors used.
    pub cpus: u32,
}

/// What a manifest is checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The profile's name, for sentences.
    pub profile_name: String,
    /// The profile's capacities.
    pub limits: Limits,
    /// The profile's parts.
    pub parts: Vec<String>,
    /// RAM of the machine in bytes, if it is known.
    pub machine_memory: Option<u64>,
    /// Processors of the machine, if they are known.
    pub machine_cpus: Option<u32>,
}

/// A manifest that was read, but not yet checked: an allegation.
#[derive(Clone, Debug)]
pub struct Manifest {
    source: Source,
    folder: PathBuf,
    document: model::Document,
    found: Vec<Mistake>,
}

impl Manifest {
    /// Reads the manifest at `path`. Fails if there is no such file, or if it is no TOML; mistakes in what it says come from
    /// [`Manifest::check`], all at once.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text, path.parent().unwrap_or(Path::new(""))),
            Err(error) => {
                let source = Source::new(&name, "");
                let sentence = match error.kind() {
                    std::io::ErrorKind::NotFound => format!("there is no manifest `{name}`"),
                    std::io::ErrorKind::InvalidData => format!("the manifest `{name}` is no text in UTF-8"),
                    _ => format!("the manifest `{name}` cannot be read ({error})"),
                };
                let remedy = "Name a file such as `two.ringfence.toml`.";
                let mistake = Mistake::new(&source, 0..0, "manifest-unreadable", sentence, remedy);
                Err(Mistakes::new(&source, vec![mistake]))
            }
        }
    }

    /// Reads the manifest `text`, which mistakes will call `name`; files that it names are relative to `folder`.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, Mistakes> {
        let source = Source::new(name, text);
        let mut found = Vec::new();
        let document = read::read(&source, &mut found);
        if found.iter().any(|mistake| mistake.kind() == "syntax") {
            return Err(Mistakes::new(&source, found));
        }
        Ok(Self { source, folder: folder.to_owned(), document, found })
    }

    /// What the manifest says, unchecked.
    pub fn document(&self) -> &model::Document {
        &self.document
    }

    /// Checks everything that the manifest says, and reads the files that it names.
    pub fn check(&self, environment: &Environment) -> Result<Checked, Mistakes> {
        check::check(&self.source, &self.folder, &self.document, &self.found, environment)
    }
}
