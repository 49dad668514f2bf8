//! What the hypervisor makes of machines and modules that are wrong: one sentence each, and nothing starts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bench::{BenchMachine, Event, Media, Session, Start};
use cli::build;
use tempfile::TempDir;

use crate::system::{Guests, tree};

const PROFILE: &str = "lab-amd-npt";

/// A product on a machine, and what it is given to boot.
struct Case {
    machine: BenchMachine,
    image: PathBuf,
    module: Vec<u8>,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Case {
    /// `guests` under `profile` on the bench machine `machine`.
    fn new(profile: &str, machine: &str, guests: &Guests) -> Self {
        let tree = tree();
        let profile = tree.profile(profile).unwrap();
        let machine = tree.bench_machine(machine).unwrap();
        let image = build::profile_image(&tree, &profile).unwrap().join(build::ELF);
        // As for a machine of which nothing is known: what does not fit is for the hypervisor to find.
        let checked = build::check(Path::new(guests.manifest()), &build::environment(&profile)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { machine, image, module: checked.into_module(), arguments: Vec::new(), folder }
    }

    /// Lets QEMU offer what `option` names at a socket.
    fn socket(&mut self, option: &str) -> PathBuf {
        let path = self.folder.path().join("socket");
        self.arguments = vec![option.to_owned(), format!("unix:{},server=on,wait=off", path.display())];
        path
    }

    /// Boots with this module.
    fn boot(&self, module: Option<&[u8]>) -> Booted {
        let module = module.map(|bytes| {
            let path = self.folder.path().join("module");
            fs::write(&path, bytes).unwrap();
            path
        });
        let media = Media::Kernel { image: self.image.clone(), module, command_line: String::new() };
        let (sender, events) = sync_channel(256);
        let start = Start { arguments: self.arguments.clone(), ..Start::new(media) };
        let session = Session::start(&self.machine, &start, sender).unwrap();
        Booted { _session: session, events, said: String::new() }
    }

    /// Boots, and answers all that was said until the machine was off.
    fn say(&self, module: Option<&[u8]>) -> String {
        self.boot(module).end()
    }

    /// Boots with this module alone, and fails unless it is refused with a sentence that has all of `words`.
    fn refused(&self, module: &[u8], words: &[&str]) {
        refused(&self.say(Some(module)), words);
    }
}

struct Booted {
    _session: Session,
    events: Receiver<Event>,
    said: String,
}

impl Booted {
    /// Waits until `text` was said.
    fn hear(&mut self, text: &str) {
        while !self.said.contains(text) {
            match self.events.recv_timeout(Duration::from_mins(2)) {
                Ok(Event::Console(bytes)) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{text:?} was not said, but {other:?} happened:\n{}", self.said),
            }
        }
    }

    /// Waits until the machine is off.
    fn end(mut self) -> String {
        loop {
            match self.events.recv_timeout(Duration::from_mins(2)) {
                Ok(Event::Console(bytes)) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(Event::Ended(end)) => {
                    assert_eq!(end.signal, None, "{}\n{}", end.complaint, self.said);
                    return self.said;
                }
                Err(error) => panic!("the machine does not end ({error}):\n{}", self.said),
            }
        }
    }
}

/// Fails unless it was refused, once, by a sentence with all of `words`, and no compartment was started.
fn refused(said: &str, words: &[&str]) {
    let sentences = said.lines().filter(|line| line.starts_with("ringfence| refused: ")).collect::<Vec<_>>();
    assert!(
        sentences.len() == 1 && words.iter().all(|word| sentences[0].contains(word)),
        "{words:?} was to be said:\n{said}"
    );
    let others = said.lines().filter(|line| line.contains("| ") && !line.starts_with("ringfence| "));
    assert_eq!(others.count(), 0, "a compartment has started:\n{said}");
    assert!(!said.contains("host fault"), "{said}");
}

/// Fails unless `profile`'s image is refused by QEMU's processor `processor` with a sentence that has all of `words`.
pub fn refused_on(profile: &str, processor: &str, words: &[&str]) {
    let mut case = Case::new(profile, "qemu-amd-epyc", &one());
    processor.clone_into(&mut case.machine.cpu);
    case.refused(&case.module, words);
}

fn one() -> Guests {
    Guests::new(&[("office", "vcpus = 1", "ringfence.mode=clock")])
}

/// One sentence names what is missing, on which processor, and what would fit; it is the first thing that is said, before anything is
/// touched.
#[test]
fn a_processor_without_what_the_product_needs_is_refused() {
    let guests = one();
    let mut case = Case::new(PROFILE, "qemu-amd-epyc", &guests);
    let none = "); no shipped profile fits";
    for (processor, missing, remedy) in [
        ("qemu64,-svm", "this processor has no AMD-V (SVM), which part svm needs", none),
        ("EPYC,-npt", "this processor has AMD-V but no nested paging, which part npt needs", none),
        ("EPYC,-nx", "this processor has no no-execute pages, which part svm needs", ")"),
        // QEMU has no VT-x here.
        ("Haswell", "this processor has no AMD-V (SVM), which part svm needs", none),
    ] {
        processor.clone_into(&mut case.machine.cpu);
        let said = case.say(Some(&case.module));
        refused(&said, &[missing, " (processor signature 0x"]);
        assert!(
            said.lines().any(|line| line.contains("refused: ") && line.trim_end().ends_with(remedy)),
            "{said}"
        );
        assert_eq!(said.lines().filter(|line| line.starts_with("ringfence| ")).count(), 1, "{said}");
    }
    // The same sentence for what a part of the hardware's features needs.
    let case = Case::new("lab-amd-nrip", "qemu-amd-epyc", &guests);
    case.refused(&case.module, &["part nrip-save needs", "; profile lab-amd-npt-static would fit"]);
}

/// Truncated at each border of the format and elsewhere, extended, empty, missing.
#[test]
fn a_module_of_the_wrong_length_is_refused() {
    let case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    let whole = case.module.as_slice();
    let size = u32::from_le_bytes(whole[20..24].try_into().unwrap()) as usize;
    refused(&case.say(None), &["no boot module came with the image"]);
    case.refused(&[], &["a boot module is empty"]);
    for length in [1, plan::HEADER_LENGTH - 1] {
        case.refused(&whole[..length], &["the boot module is shorter than its header"]);
    }
    for length in [plan::HEADER_LENGTH, plan::HEADER_LENGTH + size - 1] {
        case.refused(&whole[..length], &["bytes"]);
    }
    for length in [plan::HEADER_LENGTH + size, 4096, whole.len() / 2, whole.len() - 1] {
        let words = format!("has {length} bytes where its header says {}", whole.len());
        case.refused(&whole[..length], &[&words]);
    }
    let longer = [whole, &[0]].concat();
    case.refused(&longer, &["truncated or extended"]);
}

/// One bit in each field of the header, in the plan, in the padding and in the payloads. Every bit of a small module is tried on the
/// host (`crates/pure/plan/tests/format.rs`).
#[test]
fn a_module_with_a_flipped_bit_is_refused() {
    let case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    let size = u32::from_le_bytes(case.module[20..24].try_into().unwrap()) as usize;
    let last = case.module.len() - 1;
    for (byte, words) in [
        (3, "does not begin with a plan"),
        (16, "this image reads format"),
        (23, "is impossible"),
        (24, "truncated or extended"),
        (40, "its SHA-256 is not the one in the header"),
        (70, "the payloads were changed"),
        (plan::HEADER_LENGTH, "its SHA-256 is not the one in the header"),
        (plan::HEADER_LENGTH + size - 1, "its SHA-256 is not the one in the header"),
        (4095, "the payloads were changed"),
        (4096, "the payloads were changed"),
        (last / 2, "the payloads were changed"),
        (last, "the payloads were changed"),
    ] {
        let mut module = case.module.clone();
        module[byte] ^= 1 << (byte % 8);
        case.refused(&module, &[words]);
    }
}

/// Blocks in the wrong order, and modules in the wrong order.
#[test]
fn a_reordered_module_is_refused() {
    let mut case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    let mut module = case.module.clone();
    // The kernel's first blocks may be alike; these are not.
    let middle = (module.len() / 2) & !4095;
    let (first, second) = module[middle..middle + 8192].split_at_mut(4096);
    assert_ne!(first, second);
    first.swap_with_slice(second);
    case.refused(&module, &["the payloads were changed"]);
    // QEMU takes several modules, with a comma between. Which is meant would be a guess, in whatever order they come.
    let [other, own] = ["other", "own"].map(|name| case.folder.path().join(name));
    fs::write(&other, [7; 8192]).unwrap();
    fs::write(&own, &case.module).unwrap();
    for [first, second] in [[&other, &own], [&own, &other]] {
        case.arguments = vec!["-initrd".to_owned(), format!("{},{}", first.display(), second.display())];
        refused(&case.say(None), &["2 boot modules came with the image: it takes one"]);
    }
}

/// More than the product holds, and more than the machine has: the sentence says what is needed and for what.
#[test]
fn what_does_not_fit_is_refused_with_what_it_needs() {
    // More compartments than the profile holds: a module of a larger product.
    let names = ["one", "two", "three", "four", "five"];
    let five = Guests::with_memory("96 MiB", &names.map(|name| (name, "vcpus = 1", "")));
    let large = Case::new("lab-amd-npt-many", "qemu-amd-epyc", &five);
    let mut case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    case.refused(&large.module, &["the plan has 5 compartments; profile lab-amd-npt holds 4"]);

    // Memory: for the second compartment there is not enough.
    let two = Guests::new(&[("office", "vcpus = 1", ""), ("banking", "vcpus = 1", "")]);
    let module = Case::new(PROFILE, "qemu-amd-epyc", &two).module;
    case.machine.memory_mib = 256;
    case.refused(&module, &["compartment banking: 128 MiB of memory are needed, ", " MiB are free"]);
    // A module that takes most of the memory itself.
    let mut padded = module.clone();
    padded.resize(200 << 20, 0);
    case.refused(&padded, &["truncated or extended"]);

    // Processors: one, where two compartments want one each for themselves.
    let mut alone = Case::new("lab-amd-npt-static", "qemu-amd-epyc", &two);
    alone.machine.cpus = 1;
    let words = ["compartment banking: its 1 vCPUs need a processor each, beside 1 of others; 1 run"];
    alone.refused(&alone.module, &words);
    let pinned = Guests::new(&[("office", "vcpus = 2\ncpus = [0, 3]", "")]);
    let pinned = Case::new("lab-amd-npt-static", "qemu-amd-epyc", &pinned);
    pinned.refused(&pinned.module, &["compartment office needs processor 3, 2 run, from 0"]);

    // Hardly more memory than the image takes itself.
    case.arguments = ["-m", "1480K"].map(str::to_owned).to_vec();
    case.refused(
        &[0; 4096],
        &["the hypervisor itself needs ", " KiB beside image and boot module, ", " KiB are left"],
    );
}

/// Speaks QEMU's machine protocol.
struct Control(BufReader<UnixStream>);

impl Control {
    fn new(path: &Path) -> Self {
        let mut control = Self(BufReader::new(UnixStream::connect(path).unwrap()));
        control.line();
        control.send("qmp_capabilities", "");
        control
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Gives a command, and waits until it was taken.
    fn send(&mut self, command: &str, arguments: &str) {
        writeln!(self.0.get_mut(), "{{\"execute\": \"{command}\", \"arguments\": {{{arguments}}}}}").unwrap();
        loop {
            let answer = self.line();
            assert!(!answer.is_empty() && !answer.contains("\"error\""), "{command} {arguments}: {answer}");
            if answer.contains("\"return\"") {
                return;
            }
        }
    }
}

/// What stops the whole machine is named on the serial line, with the function it happened in: here an NMI, which no guest can cause.
#[test]
fn a_host_fault_is_named() {
    let mut case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    let socket = case.socket("-qmp");
    let mut booted = case.boot(Some(&case.module));
    booted.hear("Hello from office");
    Control::new(&socket).send("inject-nmi", "");
    booted.hear("everything is stopped");
    let said = booted.end();
    let fault = said.lines().find(|line| line.contains("host fault: ")).unwrap();
    assert!(fault.starts_with("ringfence| host fault: NMI error=0x0 at "), "{fault}");
    assert!(fault.contains("::") && fault.contains("+0x"), "no symbol: {fault}");
    for register in ["rip=", "rsp=", "rax=", "r15=", "cr2=", "cr3="] {
        assert!(said.contains(register), "{register} is missing:\n{said}");
    }
    assert!(said.contains("ringfence| called from "), "{said}");
}

/// A machine check stops everything, and the report says what the processor's banks hold.
#[test]
fn a_machine_check_of_the_host_is_named() {
    let mut case = Case::new(PROFILE, "qemu-amd-epyc", &one());
    let socket = case.socket("-qmp");
    let mut booted = case.boot(Some(&case.module));
    booted.hear("Hello from office");
    // Of the second processor, which has no guest: QEMU 7.2 gives what comes while a guest runs to the guest, in spite of the intercept.
    // Bank 2: valid, uncorrected, enabled, with an address; a machine check is in progress and execution can go on.
    let command = "\"command-line\": \"mce 1 2 0xb600000000000000 0x5 0x123456789abc 0\"";
    Control::new(&socket).send("human-monitor-command", command);
    booted.hear("everything is stopped");
    let said = booted.end();
    assert!(said.contains("ringfence| host fault: machine check error=0x0 at "), "{said}");
    assert!(said.contains("machine check status=5"), "{said}");
    assert!(said.contains("bank 2 status=b600000000000000 address=0000123456789abc"), "{said}");
}

/// The remote protocol of debuggers, as far as it writes memory.
struct Debugger(BufReader<UnixStream>);

impl Debugger {
    fn new(path: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(path).unwrap()))
    }

    /// Sends a packet without waiting for what it answers.
    fn packet(&mut self, text: &str) {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0.get_mut(), "${text}#{sum:02x}").unwrap();
    }

    /// Sends a packet, and waits until it was carried out. That the machine was stopped for it may be said before.
    fn send(&mut self, text: &str) {
        self.packet(text);
        loop {
            let mut answer = Vec::new();
            self.0.read_until(b'#', &mut answer).unwrap();
            self.0.read_exact(&mut [0; 2]).unwrap();
            self.0.get_mut().write_all(b"+").unwrap();
            if answer.ends_with(b"$OK#") {
                return;
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("$T"), "{text}: {answer}");
        }
    }
}

/// Interrupts that nobody asked for: the run goes on, and its end says how many there were. Each is acknowledged, whatever its vector, or its
/// processor would never see a timer again.
#[test]
fn stray_interrupts_are_counted() {
    let guests = Guests::new(&[("office", "vcpus = 1", "ringfence.mode=uptime ringfence.seconds=3")]);
    let mut case = Case::new(PROFILE, "qemu-amd-epyc-1", &guests);
    let socket = case.socket("-gdb");
    let mut booted = case.boot(Some(&case.module));
    booted.hear("Hello from office");
    let mut debugger = Debugger::new(&socket);
    debugger.send("Qqemu.PhyMemMode:1");
    // Written to where the local APICs are, the vector is a message to the first, as a device sends it. Two are those of the 8259As' spurious
    // interrupts, the last is that of the local APIC's.
    for vector in [0x27, 0x2f, 0x55, 0xff] {
        debugger.send(&format!("Mfee00000,4:{vector:02x}000000"));
    }
    debugger.packet("D");
    let said = booted.end();
    assert!(said.contains("ringfence| unexpected interrupt, vector 0xff; others are only counted"), "{said}");
    let line = said.lines().find(|line| line.contains(" spurious interrupts, "));
    let line = line.unwrap_or_else(|| panic!("no count:\n{said}"));
    assert_eq!(line, "ringfence| 0 spurious interrupts, 4 on vectors that nobody uses");
}
