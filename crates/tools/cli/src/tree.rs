//! Where things lie.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use bench::BenchMachine;
use profile::{Catalogue, Profile};

use crate::Failure;

/// The source tree that the command works on.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree that the entry script names (`RINGFENCE_ROOT`), or the one that this program was built from.
    pub fn find() -> Result<Self, Failure> {
        let root = env::var_os("RINGFENCE_ROOT")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.."), PathBuf::from);
        let root = fs::canonicalize(&root).ok().filter(|root| root.join("profiles").is_dir());
        root.map(|root| Self { root }).ok_or_else(|| {
            Failure::environment(
                "the source tree is not where it was",
                "run the script `./ringfence` in the root of the tree",
            )
        })
    }

    /// The tree at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// What set-up has fetched: guests' kernels, stamps.
    pub fn cache(&self) -> PathBuf {
        self.path(".ringfence")
    }

    /// Builds of emulators that set-up has unpacked beside the system's.
    pub fn emulators(&self) -> PathBuf {
        self.cache().join("emulators")
    }

    /// Everything that is built.
    pub fn target(&self) -> PathBuf {
        env::var_os("RINGFENCE_TARGET_DIR").map_or_else(|| self.path("target"), PathBuf::from)
    }

    /// Loads a profile by its name, or by its file.
    pub fn profile(&self, word: &str) -> Result<Profile, Failure> {
        let catalogue = Catalogue::of_tree(&self.root)?;
        Ok(Profile::load_with(&self.profile_file(word)?, &catalogue)?)
    }

    /// The file of a profile that is given by its name, or by its file.
    pub fn profile_file(&self, word: &str) -> Result<PathBuf, Failure> {
        let path = if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
            PathBuf::from(word)
        } else {
            self.path("profiles").join(format!("{word}.toml"))
        };
        if path.is_file() {
            return Ok(fs::canonicalize(&path)?);
        }
        let names = self.profile_names()?;
        Err(Failure::wrong_input(
            format!("there is no profile \"{word}\""),
            profile::suggestion(word, names.iter().map(String::as_str)),
        ))
    }

    /// The names of all profiles, sorted; also of those that are only there to be inherited from.
    pub fn profile_names(&self) -> Result<Vec<String>, Failure> {
        Ok(BenchMachine::names(&self.path("profiles"))?)
    }

    /// Loads a bench machine by its name.
    pub fn bench_machine(&self, name: &str) -> Result<BenchMachine, Failure> {
        let folder = self.path("build-configs");
        let path = folder.join(format!("{name}.toml"));
        if !path.is_file() {
            let names = BenchMachine::names(&folder)?;
            return Err(Failure::wrong_input(
                format!("there is no bench machine \"{name}\""),
                profile::suggestion(name, names.iter().map(String::as_str)),
            ));
        }
        Ok(BenchMachine::load(&path)?)
    }
}
