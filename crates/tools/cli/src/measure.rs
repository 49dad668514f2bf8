//! `bench`: what operations cost a guest, in instructions, beside the figures of other hypervisors.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use bench::{Emulator, Start};
use manifest::initramfs::{self, Entry, Kind};
use profile::Profile;
use serde::{Deserialize, Serialize};

use crate::console::{HYPERVISOR, Line};
use crate::progress::Progress;
use crate::run::{Boot, Judge};
use crate::tree::Tree;
use crate::words::BenchWords;
use crate::{Failure, Outcome, build, demonstration, guest, run};

/// What is measured where.
struct Place {
    /// A profile in which a vCPU owns its processor, so that nothing else is counted.
    profile: &'static str,
    /// A machine with one processor, since only then the count of instructions is exact.
    machine: &'static str,
}

const AMD: Place = Place { profile: "lab-amd-npt-static", machine: "qemu-amd-epyc-1" };
/// Bochs' time stamp counter counts instructions, always.
const INTEL: Place = Place { profile: "lab-intel-skylake-static", machine: "bochs-skylake-1" };
/// A run that takes longer than this on any host has gone astray.
const LIMIT: Duration = Duration::from_mins(10);
/// The figures of others.
const PEERS: &str = include_str!("../peers.toml");

/// The peers' figures, and ours to reach.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    #[expect(dead_code, reason = "only checked to be there")]
    format: u32,
    source: String,
    operation: Vec<Operation>,
    intel: Vec<Operation>,
}

/// One operation; figures in instructions unless it says bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Operation {
    name: String,
    what: String,
    native: Option<u64>,
    kvm: Option<u64>,
    xen_pvh: Option<u64>,
    xen_hvm: Option<u64>,
    goal: Option<u64>,
    #[serde(skip_deserializing)]
    ringfence: Option<u64>,
}

impl Operation {
    fn misses_its_goal(&self) -> bool {
        self.ringfence.zip(self.goal).is_some_and(|(found, goal)| found > goal)
    }
}

/// The closing line of `bench --json`: what is compared with peers, and the same product on processors of Intel's.
#[derive(Serialize)]
struct Report<'a> {
    profile: &'a str,
    bench_machine: &'a str,
    operations: &'a [Operation],
    intel: Measured<'a>,
}

#[derive(Serialize)]
struct Measured<'a> {
    profile: &'a str,
    bench_machine: &'a str,
    operations: &'a [Operation],
}

/// Carries out `bench`.
pub fn command(tree: &Tree, words: &BenchWords) -> Result<Outcome, Failure> {
    let mut peers: Peers = toml::from_str(PEERS)
        .map_err(|error| Failure::environment(format!("peers.toml is broken: {error}"), "restore it"))?;
    let profile = tree.profile(AMD.profile)?;
    let image = build::profile_image(tree, &profile)?;
    let mut found = friendly(tree, &AMD, &profile, &image)?;
    found.extend(linux(tree, &AMD, &profile, &image)?);
    let smallest = build::profile_image(tree, &tree.profile(demonstration::PROFILE)?)?;
    found.insert("image-bytes".to_owned(), fs::metadata(smallest.join(build::ELF))?.len());
    fill(&mut peers.operation, found);
    let profile = tree.profile(INTEL.profile)?;
    let image = build::profile_image(tree, &profile)?;
    fill(&mut peers.intel, friendly(tree, &INTEL, &profile, &image)?);
    for (operations, Place { profile, machine }) in [(&peers.operation, AMD), (&peers.intel, INTEL)] {
        print!("{}", table(operations));
        println!("\nRingfence was measured now, on {machine} with profile {profile}.\n");
    }
    println!("The others' figures are stored ones.");
    if words.peers {
        println!("{}", peers.source.trim());
    }
    if words.json {
        let report = Report {
            profile: AMD.profile,
            bench_machine: AMD.machine,
            operations: &peers.operation,
            intel: Measured {
                profile: INTEL.profile,
                bench_machine: INTEL.machine,
                operations: &peers.intel,
            },
        };
        println!("{}", run::json(&report)?);
    }
    let all = peers.operation.iter().chain(&peers.intel);
    let missed = all.filter(|operation| operation.misses_its_goal()).count();
    if missed == 0 {
        return Ok(Outcome::Holds);
    }
    Err(Failure::does_not_hold(
        format!("{missed} of the costs are above what Ringfence is to stay below"),
        "they are marked in the table",
    ))
}

/// Writes what was found beside the operations. What is measured and has no peer is shown all the same.
fn fill(operations: &mut Vec<Operation>, mut found: BTreeMap<String, u64>) {
    for operation in operations.iter_mut() {
        operation.ringfence = found.remove(&operation.name);
    }
    operations.extend(found.into_iter().map(|(name, figure)| Operation {
        what: name.clone(),
        name,
        native: None,
        kvm: None,
        xen_pvh: None,
        xen_hvm: None,
        goal: None,
        ringfence: Some(figure),
    }));
}

/// The table, one operation a line.
fn table(operations: &[Operation]) -> String {
    let figure = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), grouped);
    let mut rows = vec![
        ["instructions", "native", "KVM", "Xen PVH", "Xen HVM", "Ringfence", "at most"].map(str::to_owned),
    ];
    for operation in operations {
        let mark = if operation.misses_its_goal() { " !" } else { "" };
        rows.push([
            operation.what.clone(),
            figure(operation.native),
            figure(operation.kvm),
            figure(operation.xen_pvh),
            figure(operation.xen_hvm),
            figure(operation.ringfence),
            format!("{}{mark}", operation.goal.map_or_else(String::new, grouped)),
        ]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3, 4, 5, 6].map(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            6 => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Runs a manifest with an exact count of instructions, and gives the lines of its consoles.
fn measure(
    tree: &Tree,
    place: &Place,
    profile: &Profile,
    image: &Path,
    manifest: &Path,
    title: &str,
) -> Result<Vec<Line>, Failure> {
    let machine = tree.bench_machine(place.machine)?;
    let checked = build::check(manifest, &run::environment(profile, &machine))?;
    let names = checked.compartments().iter().map(|compartment| compartment.name.clone()).collect();
    let (_folder, media) = run::media(&machine, image, checked)?;
    let start = Start { instruction_count: machine.emulator == Emulator::Qemu, ..Start::new(media) };
    let boot = Boot {
        profile: place.profile,
        machine: &machine,
        start: &start,
        timeout: Some(LIMIT),
        interactive: false,
    };
    let progress = Progress::begin(title);
    let mut lines = Vec::new();
    let verdict = boot.carry_out(Judge::new(names, None), |line| {
        progress.detail(&line.to_string());
        lines.push(line.clone());
        true
    })?;
    progress.done();
    match verdict.failure {
        None => Ok(lines),
        Some(failure) => {
            let said = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            Err(failure.with_words(said))
        }
    }
}

/// What the friendly guest measures.
fn friendly(
    tree: &Tree,
    place: &Place,
    profile: &Profile,
    image: &Path,
) -> Result<BTreeMap<String, u64>, Failure> {
    let program = guest::program(tree, "friendly")?;
    let folder = tempfile::tempdir()?;
    symlink(program, folder.path().join("friendly"))?;
    let manifest = folder.path().join("friendly.ringfence.toml");
    let text = "format = 1\n\n[[compartment]]\nname = \"friendly\"\nmemory = \"64 MiB\"\nvcpus = 1\n\
                boot = { kernel = \"friendly\" }\n";
    fs::write(&manifest, text)?;
    let lines = measure(tree, place, profile, image, &manifest, "measuring operations")?;
    let done = lines.iter().any(|line| line.name == "friendly" && line.text == "friendly done");
    if !done {
        let said = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        return Err(Failure::does_not_hold(
            "the friendly guest did not come to its end",
            "its console is above",
        )
        .with_words(said));
    }
    Ok(lines.iter().filter(|line| line.name != HYPERVISOR).filter_map(|line| figure(&line.text)).collect())
}

/// `bench NAME NUMBER`; an operation that is not there has a word for a number.
fn figure(text: &str) -> Option<(String, u64)> {
    let mut words = text.strip_prefix("bench ")?.split(' ');
    let (name, number) = (words.next()?, words.next()?);
    Some((name.to_owned(), number.parse().ok()?))
}

/// How many instructions pass from the start of a Linux compartment to its first user instruction, and what memory the
/// hypervisor takes for itself meanwhile: the vmlinux out of Debian's cloud kernel, started by PVH, 256 MiB, one vCPU, command
/// line `console=ttyS0`.
fn linux(
    tree: &Tree,
    place: &Place,
    profile: &Profile,
    image: &Path,
) -> Result<BTreeMap<String, u64>, Failure> {
    let folder = tempfile::tempdir()?;
    let kernel = fs::read(demonstration::kernel(tree)?)?;
    let vmlinux = manifest::boot::extract_vmlinux(&kernel).map_err(|error| {
        Failure::environment(format!("the guests' kernel cannot be unpacked: {error}"), "")
    })?;
    fs::write(folder.path().join("vmlinux"), vmlinux)?;
    let console = Kind::CharacterDevice { major: 5, minor: 1 };
    let entries = [
        Entry::folder("dev"),
        Entry { path: "dev/console".to_owned(), mode: 0o600, kind: console },
        Entry::program("init", clock_program()),
    ];
    let archive = initramfs::write(&entries)
        .map_err(|error| Failure::environment(format!("the RAM disk cannot be made: {error}"), ""))?;
    fs::write(folder.path().join("initramfs.img"), archive)?;
    let manifest = folder.path().join("linux.ringfence.toml");
    let text = "format = 1\n\n[[compartment]]\nname = \"linux\"\nmemory = \"256 MiB\"\nvcpus = 1\n\
                boot = { kernel = \"vmlinux\", initrd = \"initramfs.img\", command-line = \"console=ttyS0\" }\n";
    fs::write(&manifest, text)?;
    let lines = measure(tree, place, profile, image, &manifest, "measuring the start of a Linux")?;
    let instructions =
        lines.iter().filter(|line| line.name == "linux").find_map(|line| line.text.parse().ok());
    let own = || lines.iter().filter(|line| line.name == HYPERVISOR);
    let beside = own().find_map(|line| memory_beside(&line.text));
    let fixed = own().find_map(|line| fixed_memory(&line.text));
    let (Some(instructions), Some(beside), Some(fixed)) = (instructions, beside, fixed) else {
        let said = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let message =
            "Linux did not come to its first program, or the hypervisor did not say what memory it takes";
        return Err(Failure::does_not_hold(message, "the consoles are above").with_words(said));
    };
    Ok([
        ("linux-first-user".to_owned(), instructions),
        ("own-memory".to_owned(), beside),
        ("fixed-memory".to_owned(), fixed),
    ]
    .into())
}

/// The number in `compartment NAME: …, 180 KiB beside`: what the hypervisor keeps for a compartment, its RAM aside, in KiB.
fn memory_beside(text: &str) -> Option<u64> {
    let (before, _) = text.strip_prefix("compartment ")?.split_once(" KiB beside")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// The number in `…, 220 KiB of the hypervisor's own, …`, in KiB: what it keeps whatever runs.
fn fixed_memory(text: &str) -> Option<u64> {
    let (before, _) = text.split_once(" KiB of the hypervisor's own")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// A Linux program that prints the time stamp counter's value at its first instruction, in decimal, and switches the power
/// off: an ELF64 with one segment.
fn clock_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[rustfmt::skip]
    let code: &[u8] = &[
        0x0f, 0x31,                         // rdtsc
        0x48, 0xc1, 0xe2, 0x20,             // shl rdx, 32
        0x48, 0x09, 0xd0,                   // or rax, rdx
        0x48, 0x8d, 0x74, 0x24, 0xff,       // lea rsi, [rsp - 1]
        0xc6, 0x06, 0x0a,                   // mov byte [rsi], '\n'
        0xb9, 0x0a, 0x00, 0x00, 0x00,       // mov ecx, 10
        // next:
        0x31, 0xd2,                         // xor edx, edx
        0x48, 0xf7, 0xf1,                   // div rcx
        0x80, 0xc2, 0x30,                   // add dl, '0'
        0x48, 0xff, 0xce,                   // dec rsi
        0x88, 0x16,                         // mov [rsi], dl
        0x48, 0x85, 0xc0,                   // test rax, rax
        0x75, 0xee,                         // jnz next
        0x48, 0x89, 0xe2,                   // mov rdx, rsp
        0x48, 0x29, 0xf2,                   // sub rdx, rsi
        0xbf, 0x01, 0x00, 0x00, 0x00,       // mov edi, 1
        0x89, 0xf8,                         // mov eax, edi: write
        0x0f, 0x05,                         // syscall
        0xb8, 0xa9, 0x00, 0x00, 0x00,       // mov eax, 169: reboot
        0xbf, 0xad, 0xde, 0xe1, 0xfe,       // mov edi, 0xfee1dead
        0xbe, 0x69, 0x19, 0x12, 0x28,       // mov esi, 0x28121969
        0xba, 0xdc, 0xfe, 0x21, 0x43,       // mov edx, 0x4321fedc: power off
        0x0f, 0x05,                         // syscall
    ];
    let length = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend([0, BASE, BASE, length, length, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_are_read() {
        let peers: Peers = toml::from_str(PEERS).unwrap();
        assert!(peers.operation.len() >= 20);
        let cpuid = peers.operation.iter().find(|operation| operation.name == "cpuid").unwrap();
        assert_eq!((cpuid.kvm, cpuid.xen_pvh, cpuid.goal), (Some(3067), Some(5437), Some(300)));
    }

    #[test]
    fn figures_are_read() {
        assert_eq!(figure("bench cpuid 210"), Some(("cpuid".to_owned(), 210)));
        assert_eq!(figure("bench hypercall absent"), None);
        assert_eq!(figure("friendly begins"), None);
    }

    #[test]
    fn the_hypervisors_memory_is_read() {
        let own = "2 processors, 236 KiB of the hypervisor's own, 505856 KiB free, started after 7 ticks";
        let beside = "compartment office: 256 MiB, 2 vCPUs, 180 KiB beside";
        assert_eq!((fixed_memory(own), fixed_memory(beside)), (Some(236), None));
        assert_eq!((memory_beside(own), memory_beside(beside)), (None, Some(180)));
    }

    #[test]
    fn a_missed_goal_is_marked() {
        let mut peers: Peers = toml::from_str(PEERS).unwrap();
        peers.operation.truncate(1);
        for (ringfence, line) in [
            (300, "CPUID             11  3,067    5,437    6,057        300  300"),
            (1301, "CPUID             11  3,067    5,437    6,057      1,301  300 !"),
        ] {
            peers.operation[0].ringfence = Some(ringfence);
            assert_eq!(table(&peers.operation).lines().nth(1), Some(line));
        }
    }

    #[test]
    fn the_clock_program_is_an_elf_of_one_segment() {
        let elf = clock_program();
        assert_eq!(elf[..4], *b"\x7fELF");
        // The entry point is the first byte of the code, RDTSC, in the file at the same distance from its segment's start.
        let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
        let base = u64::from_le_bytes(elf[80..88].try_into().unwrap());
        let at = usize::try_from(entry - base).unwrap();
        assert_eq!(elf[at..at + 2], [0x0f, 0x31]);
        assert_eq!(u64::from_le_bytes(elf[96..104].try_into().unwrap()), elf.len() as u64);
    }
}
