//! The words of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Ringfence: a type-1 x86-64 hypervisor, built for exactly one machine and purpose.
#[derive(Parser, Debug)]
#[command(name = "ringfence", version, about, after_help = EXIT_CODES)]
pub struct Words {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 it holds, 1 it does not hold, 2 the words or the input are wrong, \
                          4 the environment failed, 5 time limit.";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Builds a profile's image, boots it on a bench machine, and shows the consoles.
    #[command(after_help = "Examples:\n  ringfence run\n  ringfence run --interactive\n  \
                            ringfence run lab-amd-npt --manifest two.ringfence.toml --until banking:login --json")]
    Run(RunWords),
    /// Builds a profile's bootable image.
    #[command(after_help = "Examples:\n  ringfence build lab-amd-npt\n  \
                            ringfence build lab-amd-npt --manifest two.ringfence.toml --format iso --output out")]
    Build(BuildWords),
    /// Runs everything that CI runs: lints, tests, images, whole systems on bench machines.
    #[command(
        after_help = "Examples:\n  ringfence test\n  ringfence test --quick\n  ringfence test --profile lab-amd-npt"
    )]
    Test(TestWords),
    /// Fuzzes the boundaries that take bytes from outside.
    #[command(
        after_help = "Examples:\n  ringfence fuzz\n  ringfence fuzz exit_dispatch uart --seconds 600\n  \
                            ringfence fuzz exit_dispatch --minimise"
    )]
    Fuzz(FuzzWords),
    /// Prints what operations cost a guest, in instructions: on AMD's processors beside the figures of other hypervisors, and on Intel's.
    #[command(after_help = "Examples:\n  ringfence bench\n  ringfence bench --peers")]
    Bench(BenchWords),
    /// Installs what the other commands need, and does nothing else.
    #[command(
        after_help = "Examples:\n  ringfence setup\n  ringfence setup --check\n  ringfence setup --yes"
    )]
    Setup(SetupWords),
}

/// The words of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunWords {
    /// The profile to build; without it, `lab-amd-npt`.
    pub profile: Option<String>,
    /// What may run; without it, the demonstration's two compartments.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The bench machine to boot on; without it, the profile's first.
    #[arg(long, value_name = "NAME")]
    pub bench_machine: Option<String>,
    /// What executes the machine's instructions.
    #[arg(long, value_enum, default_value_t = Accelerator::Tcg)]
    pub accelerator: Accelerator,
    /// Stop after that many seconds, counted from the boot; the exit code is then 5.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: Option<u64>,
    /// Stop when TEXT appears, on the console of compartment NAME or on any.
    #[arg(long, value_name = "[NAME:]TEXT")]
    pub until: Option<String>,
    /// Attach the keyboard: Ctrl-] then a number switches compartments, Ctrl-] then q ends.
    #[arg(long, short)]
    pub interactive: bool,
    /// Let the machine's clock count instructions, so that the run repeats exactly.
    #[arg(long)]
    pub icount: bool,
    /// Close with one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// What executes the machine's instructions.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Accelerator {
    /// The emulator itself: repeatable, and runs everywhere.
    Tcg,
    /// The host's processor, through KVM with nested virtualization.
    Kvm,
    /// KVM where the host offers what is needed, else TCG.
    Auto,
}

/// The words of `build`.
#[derive(Args, Clone, Debug)]
pub struct BuildWords {
    /// The profile to build: a name in profiles/, or a file.
    pub profile: String,
    /// What may run: compiled to the boot module beside the image.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// What to make bootable.
    #[arg(long, value_enum, default_value_t = Format::Elf)]
    pub format: Format,
    /// The folder to write to; without it, target/ringfence/PROFILE.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// The words of `test`.
#[derive(Args, Clone, Debug)]
pub struct TestWords {
    /// Only what takes less than five minutes: lints, host tests, the demonstration.
    #[arg(long, conflicts_with = "nightly")]
    pub quick: bool,
    /// Also the long runs.
    #[arg(long)]
    pub nightly: bool,
    /// Of the images and the whole systems, only those of this profile.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
}

/// The words of `fuzz`.
#[derive(Args, Clone, Debug)]
pub struct FuzzWords {
    /// The boundaries, by the names of the files in fuzz/fuzz_targets; without them, all.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How long each is fuzzed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub seconds: u32,
    /// Do not fuzz: make the committed corpus of what was found.
    #[arg(long)]
    pub minimise: bool,
}

/// The words of `bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchWords {
    /// Also say where the peers' figures come from.
    #[arg(long)]
    pub peers: bool,
    /// Close with one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// The words of `setup`.
#[derive(Args, Clone, Debug)]
pub struct SetupWords {
    /// Change nothing: say in plain words what there is and what is missing.
    #[arg(long)]
    pub check: bool,
    /// Use sudo without asking.
    #[arg(long)]
    pub yes: bool,
}

/// What to make bootable.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// The ELF that a multiboot or PVH loader takes.
    Elf,
    /// Also a CD image with GRUB (BIOS).
    Iso,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Words::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Words::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{} has none", command.get_name());
        }
    }
}
