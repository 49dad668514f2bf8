//! Turns the profile that is built into constants of the image: what it is, what it asks of a processor, and which other products there
//! are for processors that cannot give it.
//!
//! The profile is the file named by `RINGFENCE_PROFILE`, or `profiles/lab-amd-npt.toml` where that is not set, so that plain cargo works.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use profile::{Catalogue, Error, Profile, REQUIREMENTS, Requirement, RequirementSource};

fn main() {
    println!("cargo::rerun-if-env-changed=RINGFENCE_PROFILE");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("RINGFENCE_PROFILE")
        .map_or_else(|| root.join("profiles/lab-amd-npt.toml"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rerun-if-changed={}", root.join("profiles").display());
    let (profile, shipped) = match load(&path, &root.join("profiles")) {
        Ok(profiles) => profiles,
        Err(error) => {
            println!("cargo::error={}: {error}", path.display());
            return;
        }
    };
    let limits = &profile.limits;
    let mut source = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        source,
        "/// The profile that this image was built from.\n\
         pub const PROFILE: contracts::Profile = contracts::Profile {{\n    \
             name: {:?},\n    \
             limits: contracts::Limits {{ compartments: {}, vcpus_per_compartment: {}, cpus: {} }},\n    \
             parts: &{:?},\n\
         }};\n",
        profile.name, limits.compartments, limits.vcpus_per_compartment, limits.cpus, profile.parts
    );
    source.push_str(&requirements(&profile, &shipped));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = fs::write(out.join("profile.rs"), source) {
        println!("cargo::error=cannot write the profile's constants: {error}");
    }
}

/// The profile, and all products of the tree.
fn load(path: &Path, folder: &Path) -> Result<(Profile, Vec<Profile>), Error> {
    let catalogue = Catalogue::of_this_tree()?;
    let profile = Profile::load_with(path, &catalogue)?;
    let mut shipped = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            shipped.push(Profile::load_fragment(&entry.path(), &catalogue)?);
        }
    }
    shipped.retain(|profile| profile.is_product(&catalogue));
    Ok((profile, shipped))
}

/// What is asked of a processor, as `cpu::Requirements`.
fn requirements(profile: &Profile, shipped: &[Profile]) -> String {
    let own = profile.for_each_vendor().iter().map(Profile::requirements).collect::<Vec<_>>();
    let others = profile.alternatives(shipped);
    let sets = || own.iter().chain(others.iter().map(|other| &other.requirements));
    // In the order of the table; what several parts ask for once.
    let place = |row: &Requirement| (row.source, row.bit);
    let mut all: Vec<&Requirement> = Vec::new();
    for row in &REQUIREMENTS {
        if sets().any(|set| set.contains(&row)) && !all.iter().any(|known| place(known) == place(row)) {
            all.push(row);
        }
    }
    assert!(all.len() <= 32, "the image holds sets of requirements in 32 bits");
    let bits = |set: &[&Requirement]| {
        let asked = |row: &Requirement| set.iter().any(|asked| place(asked) == place(row));
        all.iter()
            .enumerate()
            .filter(|(_, row)| asked(row))
            .fold(0_u32, |bits, (number, _)| bits | 1 << number)
    };
    let mut source = "/// What this image asks of a processor.\n\
                      pub static REQUIREMENTS: cpu::Requirements = cpu::Requirements {\n    all: &["
        .to_owned();
    for row in &all {
        let (number, subleaf, word) = match row.source {
            RequirementSource::Cpuid { leaf, subleaf, register } => (leaf, subleaf, format!("{register:?}")),
            RequirementSource::Capability(number) => (number, 0, "Capability".to_owned()),
        };
        let _ = write!(
            source,
            "cpu::Requirement {{ number: {number:#x}, subleaf: {subleaf}, word: cpu::requirement::Word::{word}, bit: {} }}, ",
            row.bit
        );
    }
    let own = own.iter().map(|set| bits(set)).collect::<Vec<_>>();
    let _ = write!(source, "],\n    own: &{own:?},\n    stated: &[");
    for row in profile.requirements().iter().filter(|row| !profile.has(row.name)) {
        let sentence = format!("this processor has no {}, which profile {} requires", row.what, profile.name);
        let _ = write!(source, "({}, {sentence:?}), ", bits(&[row]));
    }
    source.push_str("],\n    others: &[");
    for other in &others {
        let _ = write!(source, "({:?}, {}), ", other.name, bits(&other.requirements));
    }
    source.push_str("],\n};\n");
    source
}
