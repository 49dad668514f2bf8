//! The tree under judgement: the workspace's crates by row, with their dependencies and sources.

use crate::source::{Purpose, Source};
use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Why a tree cannot be read.
#[derive(Debug)]
pub enum TreeError {
    /// The folder has no manifest.
    NoManifest(PathBuf),
    /// `cargo metadata` could not be run, or refused the manifests: its words.
    Metadata(String),
    /// A file or folder cannot be read.
    Unreadable(PathBuf, String),
    /// A manifest of a crate is no TOML.
    Manifest(PathBuf, String),
}

impl TreeError {
    /// Whether the environment is to blame, and not the tree.
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Metadata(_))
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManifest(root) => {
                write!(
                    formatter,
                    "{} has no Cargo.toml: name the folder of the workspace, as in `house .`",
                    root.display()
                )
            }
            Self::Metadata(why) => {
                write!(formatter, "`cargo metadata` failed; run it by hand and mend what it says: {why}")
            }
            Self::Unreadable(path, why) => write!(formatter, "{} cannot be read: {why}", path.display()),
            Self::Manifest(path, why) => write!(formatter, "{} is no TOML: {why}", path.display()),
        }
    }
}

impl std::error::Error for TreeError {}

/// The row of a crate, by the folder that it lies in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// Row 1, `crates/pure/*`.
    Pure,
    /// Row 2, `crates/contracts`.
    Contracts,
    /// Row 3, `crates/metal/*`.
    Metal,
    /// Row 4, `crates/monitor`.
    Monitor,
    /// Row 5, `crates/parts/*`.
    Parts,
    /// Row 6, `crates/image`.
    Image,
    /// Beside the rows: `crates/tools/*`, programs of the developer's machine.
    Tools,
}

impl Row {
    /// The row of a folder relative to the root; `None` for one that is no room of the house.
    pub fn of(folder: &Path) -> Option<Self> {
        let names: Vec<_> = folder.iter().map(|name| name.to_string_lossy()).collect();
        match names.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
            ["crates", "pure", _] => Some(Self::Pure),
            ["crates", "contracts"] => Some(Self::Contracts),
            ["crates", "metal", _] => Some(Self::Metal),
            ["crates", "monitor"] => Some(Self::Monitor),
            ["crates", "parts", _] => Some(Self::Parts),
            ["crates", "image"] => Some(Self::Image),
            ["crates", "tools", _] => Some(Self::Tools),
            _ => None,
        }
    }

    /// The rows that a crate of this row may depend on.
    pub fn below(self) -> &'static [Self] {
        match self {
            Self::Pure | Self::Contracts => &[Self::Pure],
            Self::Metal => &[Self::Pure, Self::Contracts, Self::Metal],
            Self::Monitor | Self::Parts => &[Self::Pure, Self::Contracts],
            Self::Image => &[Self::Pure, Self::Contracts, Self::Metal, Self::Monitor, Self::Parts],
            Self::Tools => &[Self::Pure, Self::Tools],
        }
    }

    /// Whether its code is linked into images: rows 1 to 6.
    pub fn is_linked(self) -> bool {
        self != Self::Tools
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pure => "pure",
            Self::Contracts => "contracts",
            Self::Metal => "metal",
            Self::Monitor => "monitor",
            Self::Parts => "parts",
            Self::Image => "image",
            Self::Tools => "tools",
        })
    }
}

/// A dependency on a folder, not on a registry.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// Normal, build or development.
    pub kind: DependencyKind,
    /// The folder, relative to the root; absolute if it lies outside.
    pub folder: PathBuf,
}

/// A crate of the workspace.
#[derive(Debug)]
pub struct Crate {
    /// The package's name.
    pub name: String,
    /// Its folder, relative to the root.
    pub folder: PathBuf,
    /// Its row; `None` if it lies in no room of the house.
    pub row: Option<Row>,
    /// What it depends on by path.
    pub dependencies: Vec<Dependency>,
    /// Its manifest.
    pub manifest: toml::Table,
    /// Its Rust files.
    pub sources: Vec<Source>,
}

impl Crate {
    /// Where its manifest lies, relative to the root.
    pub fn manifest_path(&self) -> PathBuf {
        self.folder.join("Cargo.toml")
    }

    /// The names of its features, but `default`.
    pub fn features(&self) -> BTreeSet<String> {
        let features = self.manifest.get("features").and_then(toml::Value::as_table);
        features
            .into_iter()
            .flat_map(|table| table.keys().cloned())
            .filter(|name| name != "default")
            .collect()
    }
}

/// A file that people write, of any kind but pictures and the like.
#[derive(Debug)]
pub struct Text {
    /// Relative to the root.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// A source tree.
#[derive(Debug)]
pub struct Tree {
    /// Where it lies.
    pub root: PathBuf,
    /// The workspace's crates, by folder.
    pub crates: Vec<Crate>,
    /// Every text file of the tree.
    pub texts: Vec<Text>,
}

/// Folders that hold what was built, not what was written.
const BUILT: [&str; 4] = ["target", ".git", ".ringfence", "node_modules"];

impl Tree {
    /// Reads the tree whose root manifest lies in `root`.
    pub fn read(root: &Path) -> Result<Self, TreeError> {
        let root =
            root.canonicalize().map_err(|error| TreeError::Unreadable(root.into(), error.to_string()))?;
        let manifest = root.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(TreeError::NoManifest(root));
        }
        let metadata = MetadataCommand::new()
            .manifest_path(&manifest)
            .current_dir(&root)
            .no_deps()
            .other_options(["--offline".to_owned()])
            .exec()
            .map_err(|error| TreeError::Metadata(error.to_string()))?;
        let mut crates = Vec::new();
        for package in metadata.workspace_packages() {
            let Some(place) = package.manifest_path.parent() else { continue };
            let relative = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
            let folder = relative(place.as_std_path());
            let dependencies = package
                .dependencies
                .iter()
                .filter_map(|dependency| {
                    let path = dependency.path.as_ref()?;
                    Some(Dependency {
                        name: dependency.name.clone(),
                        kind: dependency.kind,
                        folder: relative(path.as_std_path()),
                    })
                })
                .collect();
            let text = read(package.manifest_path.as_std_path())?;
            let manifest = text.parse().map_err(|error: toml::de::Error| {
                TreeError::Manifest(folder.join("Cargo.toml"), error.to_string())
            })?;
            crates.push(Crate {
                name: package.name.to_string(),
                row: Row::of(&folder),
                sources: sources(&root, &folder)?,
                folder,
                dependencies,
                manifest,
            });
        }
        crates.sort_by(|left, right| left.folder.cmp(&right.folder));
        let texts = texts(&root)?;
        Ok(Self { root, crates, texts })
    }

    /// The crate in that folder.
    pub fn crate_in(&self, folder: &Path) -> Option<&Crate> {
        self.crates.iter().find(|member| member.folder == folder)
    }

    /// The crates of a row.
    pub fn row(&self, row: Row) -> impl Iterator<Item = &Crate> {
        self.crates.iter().filter(move |member| member.row == Some(row))
    }
}

fn read(path: &Path) -> Result<String, TreeError> {
    std::fs::read_to_string(path).map_err(|error| TreeError::Unreadable(path.into(), error.to_string()))
}

fn files(folder: &Path) -> impl Iterator<Item = Result<PathBuf, TreeError>> {
    WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            !(entry.file_type().is_dir() && BUILT.iter().any(|built| entry.file_name() == *built))
        })
        .filter_map(|entry| match entry {
            Ok(entry) => entry.file_type().is_file().then(|| Ok(entry.into_path())),
            Err(error) => Some(Err(TreeError::Unreadable(
                error.path().unwrap_or(Path::new(".")).into(),
                error.to_string(),
            ))),
        })
}

/// The Rust files in a crate's folder.
fn sources(root: &Path, folder: &Path) -> Result<Vec<Source>, TreeError> {
    let mut sources = Vec::new();
    for file in files(&root.join(folder)) {
        let file = file?;
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let path = file.strip_prefix(root).unwrap_or(&file).to_path_buf();
        let inside = path.strip_prefix(folder).unwrap_or(&path);
        let purpose = match inside.iter().next().and_then(|first| first.to_str()) {
            Some("tests" | "benches" | "examples" | "fuzz") => Purpose::Test,
            Some("build.rs") => Purpose::BuildScript,
            _ => Purpose::Product,
        };
        sources.push(Source::new(path, read(&file)?, purpose));
    }
    // `#[cfg(test)] mod name;` makes tests of other files, and of those in the folder of that name.
    let test_places: Vec<PathBuf> = sources
        .iter()
        .flat_map(|source| {
            let parent = source.path.parent().unwrap_or(Path::new("")).to_path_buf();
            let stem = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let base = if ["lib", "main", "mod"].contains(&stem.as_str()) {
                parent.clone()
            } else {
                parent.join(stem)
            };
            source.test_modules.iter().map(move |module| match &module.path {
                Some(path) => parent.join(path),
                None => base.join(&module.name),
            })
        })
        .collect();
    for source in &mut sources {
        if test_places.iter().any(|place| {
            source.path == *place
                || source.path.with_extension("") == *place
                || source.path.starts_with(place)
        }) {
            source.purpose = Purpose::Test;
        }
    }
    Ok(sources)
}

/// Every file of the tree that is UTF-8.
fn texts(root: &Path) -> Result<Vec<Text>, TreeError> {
    let mut texts = Vec::new();
    for file in files(root) {
        let file = file?;
        let bytes =
            std::fs::read(&file).map_err(|error| TreeError::Unreadable(file.clone(), error.to_string()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push(Text { path: file.strip_prefix(root).unwrap_or(&file).to_path_buf(), text });
        }
    }
    Ok(texts)
}
