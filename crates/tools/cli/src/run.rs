//! `run`: boots a profile's image on a bench machine, shows the consoles, judges the end.

mod judge;
mod keyboard;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bench::{Accelerator, BenchMachine, BootMethod, Emulator, Event, Media, Session, Start};
use manifest::{Checked, Environment};
use profile::Profile;
use tempfile::TempDir;

use crate::console::Line;
use crate::tree::Tree;
use crate::until::Until;
use crate::words::{self, RunWords};
use crate::{Failure, Outcome, build, demonstration};

pub use judge::{Judge, Step, Verdict};

/// How long the emulator may take to go after the hypervisor has said its last word.
const GRACE: Duration = Duration::from_secs(5);
/// How many events may wait; more, and the machine waits.
const QUEUE: usize = 256;

/// Whatever a run waits for.
#[derive(Debug)]
enum Message {
    Machine(Event),
    /// Ctrl-C, a signal that ends programs, or Ctrl-] q on an attached keyboard.
    Interrupt,
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Self::Machine(event)
    }
}

/// Carries out `run`.
pub fn command(tree: &Tree, words: &RunWords) -> Result<Outcome, Failure> {
    let profile = tree.profile(words.profile.as_deref().unwrap_or(demonstration::PROFILE))?;
    let accelerator = match words.accelerator {
        words::Accelerator::Tcg => Accelerator::Tcg,
        words::Accelerator::Kvm => Accelerator::Kvm,
        words::Accelerator::Auto => Accelerator::Auto,
    };
    let machine = match &words.bench_machine {
        Some(name) => tree.bench_machine(name)?,
        None => choose(tree, &profile, accelerator)?,
    };

    let mode = words.interactive.then_some("shell");
    let (_demonstration, manifest) = match &words.manifest {
        Some(manifest) if !is_demonstration(tree, manifest) => (None, manifest.clone()),
        _ => {
            let (folder, manifest) = demonstration::stage(tree, mode)?;
            (Some(folder), manifest)
        }
    };
    let checked = build::check(&manifest, &environment(&profile, &machine))?;
    let names = checked.compartments().iter().map(|compartment| compartment.name.clone()).collect::<Vec<_>>();
    let image = build::profile_image(tree, &profile)?;
    let (_folder, media) = media(&machine, &image, checked)?;

    let until = words.until.as_deref().map(|word| Until::parse(word, &names));
    let start = Start {
        accelerator,
        // Bochs' clock counts instructions whether it is asked or not.
        instruction_count: words.icount && machine.emulator == Emulator::Qemu,
        builds: tree.emulators(),
        ..Start::new(media)
    };
    let boot = Boot {
        profile: &profile.name,
        machine: &machine,
        start: &start,
        timeout: words.timeout.map(Duration::from_secs),
        interactive: words.interactive,
    };
    let verdict = boot.carry_out(Judge::new(names, until), |line| print(&line.to_string()))?;
    if words.json {
        print(&json(&verdict.report)?);
    }
    match verdict.failure {
        Some(failure) => Err(failure),
        None => Ok(Outcome::Holds),
    }
}

/// The profile's machine for that accelerator.
fn choose(tree: &Tree, profile: &Profile, accelerator: Accelerator) -> Result<BenchMachine, Failure> {
    let names = profile.bench_machines.iter();
    let machines = names.map(|name| tree.bench_machine(name)).collect::<Result<Vec<_>, _>>()?;
    if machines.is_empty() {
        return tree.bench_machine("qemu-amd-epyc");
    }
    bench::choose(&machines, accelerator, Path::new("/")).cloned().ok_or_else(|| {
        Failure::environment(
            format!("profile {} has no bench machine for that accelerator", profile.name),
            "take another one with `--accelerator` or `--bench-machine`; build-configs/ has them all",
        )
    })
}

/// A value as one line of JSON.
pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::environment(format!("the report cannot be written: {error}"), ""))
}

fn is_demonstration(tree: &Tree, manifest: &Path) -> bool {
    let own = fs::canonicalize(tree.path(demonstration::MANIFEST)).ok();
    own.is_some() && own == fs::canonicalize(manifest).ok()
}

/// What a manifest is checked against: the profile, and the machine that it will run on.
pub fn environment(profile: &Profile, machine: &BenchMachine) -> Environment {
    Environment {
        machine_memory: Some(u64::from(machine.memory_mib) << 20),
        machine_cpus: Some(machine.cpus),
        ..build::environment(profile)
    }
}

/// What the machine boots: the image, and the module in a folder of this run's own.
pub fn media(machine: &BenchMachine, image: &Path, checked: Checked) -> Result<(TempDir, Media), Failure> {
    let folder = tempfile::Builder::new().prefix("ringfence-run-").tempdir()?;
    let module = folder.path().join(build::MODULE);
    fs::write(&module, checked.into_module())?;
    let elf = image.join(build::ELF);
    let media = match machine.boot {
        BootMethod::Kernel => Media::Kernel { image: elf, module: Some(module), command_line: String::new() },
        BootMethod::Iso => {
            let iso = folder.path().join(build::ISO);
            build::iso_of(&elf, Some(&module), &iso)?;
            Media::Iso(iso)
        }
    };
    Ok((folder, media))
}

/// One run of something on a bench machine.
pub struct Boot<'a> {
    /// The profile's name, for the report.
    pub profile: &'a str,
    /// The machine.
    pub machine: &'a BenchMachine,
    /// What is booted, and how.
    pub start: &'a Start,
    /// When it is stopped.
    pub timeout: Option<Duration>,
    /// Whether the keyboard is attached, and the console shown as it comes.
    pub interactive: bool,
}

impl Boot<'_> {
    /// Boots, gives each line of a console to `show`, which says whether anybody still listens, and judges the end.
    pub fn carry_out(
        self,
        mut judge: Judge,
        mut show: impl FnMut(&Line) -> bool,
    ) -> Result<Verdict, Failure> {
        let (sender, messages) = sync_channel::<Message>(QUEUE);
        interrupts(sender.clone())?;
        let session = Session::start(self.machine, self.start, sender.clone())?;
        let keyboard = self.interactive.then(|| {
            keyboard::attach(session.input(), move || {
                let _ = sender.try_send(Message::Interrupt);
            })
        });
        let mut deadline = self.timeout.map(|limit| (Instant::now() + limit, Step::TimeLimit));

        let end = loop {
            let message = match deadline {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((at, _)) => messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let step = match message {
                Ok(Message::Machine(Event::Console(bytes))) => {
                    let (lines, step) = judge.console(&bytes);
                    let heard =
                        if self.interactive { raw(&judge.raw(&bytes)) } else { lines.iter().all(&mut show) };
                    // Nobody reads on: there is nothing left to do.
                    if heard { step } else { Step::Interrupted }
                }
                Ok(Message::Machine(Event::Ended(end))) => {
                    if let (Some(line), false) = (judge.finish(), self.interactive) {
                        show(&line);
                    }
                    break judge.machine_ended(&end);
                }
                Ok(Message::Interrupt) => Step::Interrupted,
                Err(RecvTimeoutError::Timeout) => deadline.map_or(Step::TimeLimit, |(_, step)| step),
                // The machine's thread ends with a word; without one, the machine is gone.
                Err(RecvTimeoutError::Disconnected) => Step::MachineGone,
            };
            match step {
                Step::GoOn => {}
                // The hypervisor is done; the machine is about to end by itself.
                Step::Ended if deadline.is_none_or(|(_, then)| then != Step::Ended) => {
                    deadline = Some((Instant::now() + GRACE, Step::Ended));
                }
                step => break step,
            }
        };
        drop(keyboard);
        drop(session);
        Ok(judge.verdict(end, self.profile, &self.machine.name))
    }
}

/// Where signals go: to the run that is under way.
static LISTENER: Mutex<Option<SyncSender<Message>>> = Mutex::new(None);

/// Ctrl-C and the signals that end programs become messages to `sender`. Its queue may be full: then the run is alive, and
/// the next signal comes through.
fn interrupts(sender: SyncSender<Message>) -> Result<(), Failure> {
    let first = LISTENER.lock().unwrap_or_else(PoisonError::into_inner).replace(sender).is_none();
    if !first {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if let Some(sender) = LISTENER.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = sender.try_send(Message::Interrupt);
        }
    })
    .map_err(|error| Failure::environment(format!("signals cannot be handled: {error}"), ""))
}

/// Prints a line to standard output; whether somebody still reads it.
fn print(line: &str) -> bool {
    writeln!(io::stdout().lock(), "{line}").is_ok()
}

/// Shows bytes as they are; whether somebody still reads them.
fn raw(bytes: &[u8]) -> bool {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).is_ok()
}
