//! Compiles a manifest to a boot module: `cargo run -p manifest --example compile -- two.ringfence.toml out.module`.
//!
//! It checks against a generous profile; `ringfence build` checks against the real one.

use manifest::{Environment, Limits, Manifest};
use miette::{IntoDiagnostic, Result, miette};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err(miette!(help = "Usage: compile MANIFEST MODULE", "two file names are needed"));
    };
    let environment = Environment {
        profile_name: "example".to_owned(),
        limits: Limits { compartments: 16, vcpus_per_compartment: 16, cpus: 64 },
        parts: vec!["schedule-shared".to_owned()],
        machine_memory: None,
        machine_cpus: None,
    };
    let checked = Manifest::load(input.as_ref())?.check(&environment)?;
    for warning in checked.warnings() {
        eprintln!("{:?}", miette::Report::new(warning.clone()));
    }
    for compartment in checked.compartments() {
        println!(
            "{}: {} MiB, {} vCPUs, protocol {}",
            compartment.name,
            compartment.memory >> 20,
            compartment.vcpus,
            compartment.protocol.name()
        );
    }
    let module = checked.into_module();
    println!("{} bytes", module.len());
    std::fs::write(output, module).into_diagnostic()
}
