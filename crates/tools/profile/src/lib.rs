//! Profiles: what is compiled.
//!
//! Tools row. A profile (`profiles/NAME.toml`) names the parts of one product, its limits and its bench machines. It may
//! inherit from another profile of the same folder. [`Profile::load`] reads, checks and flattens it: what it gives needs no
//! other file. The names of the parts are the features of `crates/image/Cargo.toml`, and are written nowhere else.
//!
//! The `ringfence` command uses this crate, and so does the image's build script.

mod catalogue;
mod error;
mod reader;
mod requirement;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use catalogue::Catalogue;
pub use error::Error;
pub use reader::{Source, suggestion};
pub use requirement::{REQUIREMENTS, Register, Requirement, Source as RequirementSource};

use reader::Raw;

/// The format of profiles that this code reads.
pub const FORMAT: u32 = 1;

/// Capacities that are compiled into an image: it has no heap.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most compartments of a manifest: 1 to 16.
    pub compartments: u32,
    /// Most vCPUs of one compartment: 1 to 16.
    pub vcpus_per_compartment: u32,
    /// Most processors of the machine that the image uses: 1 to 256.
    pub cpus: u32,
}

/// What a limit is when neither the profile nor what it inherits says anything.
const DEFAULT_LIMITS: Limits = Limits { compartments: 4, vcpus_per_compartment: 4, cpus: 8 };

/// A flat profile: inheritance is resolved, every part is known, no part is named twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name, which is its file's name without `.toml`.
    pub name: String,
    /// One line about what it is for.
    pub summary: String,
    /// Names of the parts, sorted.
    pub parts: Vec<String>,
    /// Its capacities.
    pub limits: Limits,
    /// Names of the bench machines (`build-configs/NAME.toml`) that it is tested on, the one that `run` takes first.
    pub bench_machines: Vec<String>,
    /// Names of [`REQUIREMENTS`] that it adds to what its parts require, sorted.
    pub requires: Vec<String>,
    /// The files that it was read from: its own, then what it inherits from.
    pub files: Vec<PathBuf>,
}

/// Parts of which an image has to have a certain number.
struct Choice {
    what: &'static str,
    parts: &'static [&'static str],
    /// Whether one image can have several of them.
    several: bool,
}

const CHOICES: [Choice; 3] = [
    Choice { what: "processor back end", parts: &["svm", "vmx"], several: true },
    Choice { what: "second stage", parts: &["npt", "ept", "shadow-paging"], several: true },
    Choice { what: "scheduler", parts: &["schedule-shared", "schedule-static"], several: false },
];

/// Parts that only tests use: a product with one of them is proposed to nobody.
const TEST_PARTS: [&str; 1] = ["isolation-check"];

/// A shipped product, for one vendor's processors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alternative {
    /// The profile's name.
    pub name: String,
    /// What it asks of a processor, in the order of [`REQUIREMENTS`].
    pub requirements: Vec<&'static Requirement>,
}

impl Profile {
    /// Reads the profile at `path` and whatever it inherits from, with the parts of this tree.
    ///
    /// # Errors
    /// A file that cannot be read, a mistake in it (with its place and a remedy), or a profile that no image can be built
    /// from.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_with(path, &Catalogue::of_this_tree()?)
    }

    /// As [`Profile::load`], with the parts of `catalogue`.
    pub fn load_with(path: &Path, catalogue: &Catalogue) -> Result<Self, Error> {
        let profile = Self::load_fragment(path, catalogue)?;
        profile.complete(catalogue)?;
        Ok(profile)
    }

    /// As [`Profile::load_with`], but also takes a profile that is only there to be inherited from.
    pub fn load_fragment(path: &Path, catalogue: &Catalogue) -> Result<Self, Error> {
        let mut chain = Vec::new();
        let mut next = Some(path.to_path_buf());
        while let Some(file) = next.take() {
            let source = Source::read(&file)?;
            let raw = Raw::parse(&source, catalogue)?;
            if let Some(inherit) = &raw.inherit {
                let parent = file.with_file_name(format!("{}.toml", inherit.get_ref()));
                if chain.iter().any(|(_, known): &(Raw, PathBuf)| *known == parent) || parent == file {
                    return Err(source.error(
                        inherit.span(),
                        format!("\"{}\" inherits from itself", inherit.get_ref()),
                        "take one `inherit` of the circle out",
                    ));
                }
                if !parent.is_file() {
                    let names = source.neighbours();
                    return Err(source.error(
                        inherit.span(),
                        format!("there is no profile \"{}\" beside this one", inherit.get_ref()),
                        suggestion(inherit.get_ref(), names.iter().map(String::as_str)),
                    ));
                }
                next = Some(parent);
            }
            chain.push((raw, file));
        }
        Self::flatten(chain)
    }

    fn flatten(chain: Vec<(Raw, PathBuf)>) -> Result<Self, Error> {
        let mut parts = BTreeSet::new();
        let mut requires = BTreeSet::new();
        let mut limits = DEFAULT_LIMITS;
        let mut bench_machines = Vec::new();
        let mut named = (String::new(), String::new());
        let mut files = Vec::new();
        // From the root of the inheritance to the profile itself: the later word holds.
        for (raw, file) in chain.into_iter().rev() {
            for part in &raw.without {
                if !parts.remove(part.get_ref()) {
                    return Err(Source::read(&file)?.error(
                        part.span(),
                        format!("\"{}\" is not inherited, so it cannot be taken out", part.get_ref()),
                        "remove it from `without`",
                    ));
                }
            }
            parts.extend(raw.parts);
            requires.extend(raw.requires);
            limits.compartments = raw.compartments.unwrap_or(limits.compartments);
            limits.vcpus_per_compartment = raw.vcpus_per_compartment.unwrap_or(limits.vcpus_per_compartment);
            limits.cpus = raw.cpus.unwrap_or(limits.cpus);
            bench_machines = raw.bench_machines.unwrap_or(bench_machines);
            named = (raw.name, raw.summary);
            files.insert(0, file);
        }
        Ok(Self {
            name: named.0,
            summary: named.1,
            parts: parts.into_iter().collect(),
            limits,
            bench_machines,
            requires: requires.into_iter().collect(),
            files,
        })
    }

    /// Whether an image can be built from it.
    fn complete(&self, catalogue: &Catalogue) -> Result<(), Error> {
        for choice in &CHOICES {
            let known = choice.parts.iter().copied().filter(|part| catalogue.has(part)).collect::<Vec<_>>();
            let chosen = known.iter().copied().filter(|part| self.has(part)).collect::<Vec<_>>();
            let what = choice.what;
            if chosen.is_empty() {
                return Err(Error::sentence(
                    format!("profile \"{}\" has no {what}: no image can be built from it", self.name),
                    format!("add one of these parts: {}", known.join(", ")),
                ));
            }
            if chosen.len() > 1 && !choice.several {
                return Err(Error::sentence(
                    format!("profile \"{}\" has more than one {what}: {}", self.name, chosen.join(", ")),
                    "keep one of them; take an inherited one out with `without`".to_owned(),
                ));
            }
        }
        // Without unrestricted guests the guest is shown a page of the hypervisor's, which the check is there to find.
        if self.has("vmx") && self.has("isolation-check") && !self.has("unrestricted-guest") {
            return Err(Error::sentence(
                format!(
                    "profile \"{}\" has parts vmx and isolation-check, and not unrestricted-guest: a guest then reads the page table that it runs on \
                     without paging, which is none of its RAM, and the check would stop the machine",
                    self.name
                ),
                "add unrestricted-guest, or leave isolation-check out".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether an image can be built from it; if not, it is there to be inherited from.
    pub fn is_product(&self, catalogue: &Catalogue) -> bool {
        self.complete(catalogue).is_ok()
    }

    /// Whether it has the part of that name.
    pub fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|known| known == part)
    }

    /// What a processor must have: what the parts require, and what the profile adds.
    pub fn requirements(&self) -> Vec<&'static Requirement> {
        REQUIREMENTS
            .iter()
            .filter(|requirement| {
                self.has(requirement.name) || self.requires.iter().any(|name| name == requirement.name)
            })
            .collect()
    }

    /// The product as each vendor's processors run it, one for each back end: without what belongs to another.
    pub fn for_each_vendor(&self) -> Vec<Self> {
        let belongs = |name: &str, back_end: &str| {
            let row = REQUIREMENTS.iter().find(|requirement| requirement.name == name);
            row.is_none_or(|row| row.back_end.is_none_or(|whose| whose == back_end))
        };
        let back_ends =
            REQUIREMENTS.iter().filter(|row| row.back_end == Some(row.name) && self.has(row.name));
        back_ends
            .map(|back_end| {
                let mut side = self.clone();
                side.parts.retain(|part| belongs(part, back_end.name));
                side.requires.retain(|name| belongs(name, back_end.name));
                side
            })
            .collect()
    }

    /// Those of the `shipped` products that may fit a processor which this one does not fit, the best first: it has the most parts in
    /// common, then it uses the most of the hardware, then it is for this vendor alone. None of them asks for all that this one, or one before
    /// it, asks for. A product for several vendors counts as one for each.
    pub fn alternatives(&self, shipped: &[Self]) -> Vec<Alternative> {
        let meant = shipped.iter().filter(|other| !TEST_PARTS.iter().any(|part| other.has(part)));
        let sides = |product: &Self| {
            let sides = product.for_each_vendor();
            let vendors = sides.len();
            sides.into_iter().map(move |side| (vendors, side))
        };
        let mut others = meant.flat_map(sides).collect::<Vec<_>>();
        others.sort_by_cached_key(|(vendors, other)| {
            let common = other.parts.iter().filter(|part| self.has(part)).count();
            let hardware = other.requirements().len();
            (Reverse(common), Reverse(hardware), *vendors, other.limits != self.limits, other.name.clone())
        });
        let mut asked = self.for_each_vendor().iter().map(Self::requirements).collect::<Vec<_>>();
        let mut alternatives = Vec::new();
        for (_, other) in others {
            let requirements = other.requirements();
            if !asked.iter().any(|earlier| earlier.iter().all(|one| requirements.contains(one))) {
                asked.push(requirements.clone());
                alternatives.push(Alternative { name: other.name, requirements });
            }
        }
        alternatives
    }

    /// The flat profile as a file that says the same without any other.
    pub fn to_toml(&self) -> String {
        let list = |names: &[String]| {
            names
                .iter()
                .map(|name| toml::Value::from(name.as_str()).to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let Limits { compartments, vcpus_per_compartment, cpus } = self.limits;
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "format = {FORMAT}\nname = {}\nsummary = {}\nparts = [{}]\nlimits = {{ compartments = {compartments}, \
             vcpus-per-compartment = {vcpus_per_compartment}, cpus = {cpus} }}\nbench-machines = [{}]\n",
            toml::Value::from(self.name.as_str()),
            toml::Value::from(self.summary.as_str()),
            list(&self.parts),
            list(&self.bench_machines),
        );
        if !self.requires.is_empty() {
            let _ = writeln!(text, "requires = [{}]", list(&self.requires));
        }
        text
    }
}

#[cfg(test)]
mod tests;
