//! Turns the profile that is built into constants of the image.
//!
//! The profile is the file named by `RINGFENCE_PROFILE`, or `profiles/lab-amd-npt.toml` where that is not set, so that plain cargo works.

use std::fmt::Write as _;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=RINGFENCE_PROFILE");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("RINGFENCE_PROFILE")
        .map_or_else(|| root.join("profiles/lab-amd-npt.toml"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rerun-if-changed={}", root.join("profiles").display());
    let profile = match profile::Profile::load(&path) {
        Ok(profile) => profile,
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
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = std::fs::write(out.join("profile.rs"), source) {
        println!("cargo::error=cannot write the profile's constants: {error}");
    }
}
