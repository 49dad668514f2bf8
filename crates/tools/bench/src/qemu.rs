//! QEMU's command line.

use std::path::{Path, PathBuf};

use crate::{Accelerator, BenchMachine, EXIT_PORT, Error, Media, Nested, Start};

pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU of its own folder, as Debian's packages are laid out.
pub(crate) struct Build {
    /// The program.
    pub program: PathBuf,
    /// Where it looks for its modules: what the variable `QEMU_MODULE_DIR` says.
    pub modules: PathBuf,
    /// Where it looks for firmware.
    firmware: [PathBuf; 2],
}

impl Build {
    /// The build that `machine` asks for, if it asks for one.
    pub(crate) fn of(machine: &BenchMachine, builds: &Path) -> Result<Option<Self>, Error> {
        let Some(name) = &machine.build else {
            return Ok(None);
        };
        let root = builds.join(name);
        let program = root.join("usr/bin").join(PROGRAM);
        if !program.is_file() {
            return Err(Error::NoBuild { machine: machine.name.clone(), build: name.clone(), path: program });
        }
        let share = root.join("usr/share");
        Ok(Some(Self {
            program,
            modules: root.join("usr/lib/x86_64-linux-gnu/qemu"),
            firmware: [share.join("qemu"), share.join("seabios")],
        }))
    }

    /// The arguments that make it find its firmware.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let folders = self.firmware.iter();
        folders.flat_map(|folder| ["-L".to_owned(), folder.to_string_lossy().into_owned()]).collect()
    }
}

/// The arguments that make `machine` boot `start`, its console on standard input and output.
pub(crate) fn arguments(machine: &BenchMachine, start: &Start) -> Result<Vec<String>, Error> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    // No default devices: no VGA, no network card with a boot ROM that talks.
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", &machine.name]);
    add(&["-machine", "pc", "-m", &format!("{}M", machine.memory_mib)]);
    add(&["-cpu", &machine.cpu, "-smp", &machine.cpus.to_string()]);
    // The session sends signals; the console's bytes are the guest's alone.
    add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    add(&["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
    if start.instruction_count {
        if start.accelerator == Accelerator::Kvm || machine.nested.is_some() {
            return Err(Error::Unsupported(
                "KVM cannot count instructions: take `--accelerator tcg`, and a machine that is emulated"
                    .to_owned(),
            ));
        }
        add(&["-accel", "tcg"]);
        add(&["-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01,clock=vm", "-seed", "1"]);
    } else {
        // QEMU emulates AMD's processors alone.
        let obstacle = || machine.nested.unwrap_or(Nested::Svm).obstacle(&start.host);
        let kvm = match (start.accelerator, machine.nested) {
            (Accelerator::Tcg, None) => false,
            (Accelerator::Tcg, Some(_)) => {
                return Err(Error::Unsupported(format!(
                    "bench machine \"{}\" is the host's own processor: take `--accelerator kvm`",
                    machine.name
                )));
            }
            (Accelerator::Auto, None) => obstacle().is_none(),
            (Accelerator::Kvm, _) | (Accelerator::Auto, Some(_)) => match obstacle() {
                Some(obstacle) => return Err(Error::NoAcceleration(obstacle)),
                None => true,
            },
        };
        // One thread for all processors: in QEMU up to 10.0 each restore of x87 state (FXRSTOR, XRSTOR) on any processor rewrites a
        // flag word of the first one without a lock, and so undoes a world switch that happens there at that moment
        // (docs/decisions, 6).
        add(&["-accel", if kvm { "kvm" } else { "tcg,thread=single" }]);
    }
    for device in &machine.devices {
        add(&["-device", device]);
    }
    match &start.media {
        Media::Kernel { image, module, command_line } => {
            add(&["-kernel", &image.to_string_lossy(), "-append", command_line]);
            if let Some(module) = module {
                // A comma in a file name would begin another module; it is written twice.
                add(&["-initrd", &module.to_string_lossy().replace(',', ",,")]);
            }
        }
        Media::Iso(path) => {
            let path = path.to_string_lossy().replace(',', ",,");
            add(&["-drive", &format!("file={path},format=raw,if=ide,media=cdrom,readonly=on"), "-boot", "d"]);
        }
    }
    arguments.extend(start.arguments.iter().cloned());
    Ok(arguments)
}
