//! Bochs' configuration file.

use std::fs;
use std::path::Path;

use crate::{BenchMachine, Error, Media, Start};

pub(crate) const PROGRAM: &str = "bochs";
/// Instructions per second of Bochs' clock: it runs at 80 to 90 million, and time that is a little slow is harmless.
const INSTRUCTIONS_PER_SECOND: u32 = 50_000_000;

/// Writes the configuration that makes `machine` boot `start`, its console a connection to `port` of this host, into
/// `folder`, and gives the arguments that use it.
pub(crate) fn arguments(
    machine: &BenchMachine,
    start: &Start,
    folder: &Path,
    port: u16,
) -> Result<Vec<String>, Error> {
    let Media::Iso(iso) = &start.media else {
        return Err(Error::Unsupported(format!(
            "bench machine \"{}\" is Bochs, which boots CD images only: build one with `--format iso`",
            machine.name
        )));
    };
    let BenchMachine { cpu, cpus, memory_mib, .. } = machine;
    let instructions = machine.instructions_per_second.unwrap_or(INSTRUCTIONS_PER_SECOND);
    let configuration = folder.join("bochs.rc");
    let debugger = folder.join("bochs.debug");
    let log = folder.join("bochs.log");
    let text = format!(
        "display_library: sdl2\n\
         cpu: model={cpu}, count={cpus}, ips={instructions}, reset_on_triple_fault=0, ignore_bad_msrs=0\n\
         memory: guest={memory_mib}, host={memory_mib}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=\"{iso}\", status=inserted\n\
         boot: cdrom\n\
         clock: sync=none, time0=1000000000\n\
         com1: enabled=1, mode=socket-client, dev=localhost:{port}\n\
         plugin_ctrl: speaker=0, usb_uhci=0, gameport=0, parallel=0\n\
         speaker: enabled=0\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore\n\
         debug: action=ignore\n\
         log: {log}\n",
        iso = iso.display(),
        log = log.display(),
    );
    fs::write(&configuration, text)?;
    // Debian's Bochs has its debugger in it: "go on".
    fs::write(&debugger, "c\n")?;
    let words = ["-q", "-f", &configuration.to_string_lossy(), "-rc", &debugger.to_string_lossy()];
    Ok(words.into_iter().map(str::to_owned).chain(start.arguments.iter().cloned()).collect())
}
