//! Systems of others, as Debian's packages have them, unmodified. What they complain of is compared with docs/guests.md.

use crate::complaints::expect_explained;
use crate::system::{Foreign, Guests, LIMIT, Ran, run, start};

use super::PROFILE;

/// Bochs executes some 90 million instructions a second, and hosts that test are busy.
const BOCHS_LIMIT: &str = "900";

const MACH_I386: Foreign<'_> = Foreign {
    name: "mach-i386",
    kernel: "gnumach-i386.gz",
    busybox: None,
    settings: "memory = \"32 MiB\"",
    words: "console=com0",
};
const MACH_AMD64: Foreign<'_> = Foreign { name: "mach-amd64", kernel: "gnumach-amd64.gz", ..MACH_I386 };
/// Xen calls BIOS in real mode, unless it is told that there is none.
const XEN: Foreign<'_> = Foreign {
    name: "xen",
    kernel: "xen.gz",
    busybox: None,
    settings: "memory = \"128 MiB\"",
    words: "no-real-mode console=com1 com1=115200,8n1 loglvl=all",
};
/// Linux with everything that it has to say.
const LINUX: Foreign<'_> = Foreign {
    name: "linux",
    kernel: "vmlinuz-generic",
    busybox: Some("busybox"),
    settings: "memory = \"192 MiB\"\nvcpus = 2",
    words: "console=ttyS0 ignore_loglevel panic=-1 ringfence.name=linux ringfence.mode=look",
};

/// What a small kernel is booted to say.
fn last_word(guest: &Foreign<'_>) -> &'static str {
    if guest.name == XEN.name {
        "dom0 kernel not specified."
    } else {
        "No bootstrap code loaded with the kernel!"
    }
}

/// Mach has nothing to run and says so; Xen asks for the kernel of its first domain. All at once.
fn small_kernels(machine: &[&str], limit: &str, guests: &[Foreign<'_>]) -> Ran {
    let compartments = Guests::foreign(guests);
    let words = ["run", PROFILE, "--manifest", compartments.manifest(), "--timeout", limit, "--json"];
    let running = start(&[&words[..], &["--bench-machine"], machine].concat());
    for guest in guests {
        running.wait_for_text(guest.name, last_word(guest));
    }
    running.interrupt();
    let ran = running.wait();
    ran.expect_code(0);
    for guest in guests {
        if guest.name == XEN.name {
            ran.find("xen", "(XEN) Bootloader: Ringfence");
            expect_explained(&ran, "xen", "Xen");
        } else {
            ran.find(guest.name, "biosmem: 000000000000100000:000000000002000000, available");
            ran.find(guest.name, "RTC time is 20");
            expect_explained(&ran, guest.name, "GNU Mach");
        }
    }
    ran
}

const SMALL: [Foreign<'_>; 3] = [MACH_I386, MACH_AMD64, XEN];

#[test]
fn mach_and_xen_start() {
    small_kernels(&["qemu-amd-epyc"], LIMIT, &SMALL);
}

#[test]
fn mach_and_xen_start_on_qemu_10() {
    small_kernels(&["qemu10-amd-epyc"], LIMIT, &SMALL);
}

#[test]
fn mach_and_xen_start_on_four_processors() {
    let ran = small_kernels(&["qemu-amd-epyc-4"], LIMIT, &SMALL);
    ran.find("ringfence", "4 processors, ");
}

/// Where the machine's clock counts instructions, a run repeats line by line. Without Mach for i386, which waits for hardware that is not
/// there for seconds, and each takes ten of the host's then.
#[test]
fn mach_and_xen_repeat_by_instruction_count() {
    let guests = [MACH_AMD64, XEN];
    let lines = || {
        let ran = small_kernels(&["qemu-amd-epyc-1", "--icount"], LIMIT, &guests);
        let said =
            |guest: &Foreign<'_>| ran.lines.iter().position(|line| line.text.contains(last_word(guest)));
        let end = guests.iter().map(|guest| said(guest).unwrap()).max().unwrap();
        ran.lines[..=end].iter().map(|line| format!("{}| {}", line.name, line.text)).collect::<Vec<_>>()
    };
    let first = lines();
    assert!(first.len() > 30, "{first:#?}");
    assert_eq!(first, lines());
}

/// One after the other: Mach ends with interrupts off, and then Bochs gives its processor to nobody else.
fn small_kernels_on_bochs(machine: &str) {
    for guest in SMALL {
        small_kernels(&[machine], BOCHS_LIMIT, &[guest]);
    }
}

#[test]
fn mach_and_xen_start_on_a_ryzen() {
    small_kernels_on_bochs("bochs-ryzen");
}

/// It has no nRIP save, as QEMU has not, and other ideas of what is to be checked.
#[test]
fn mach_and_xen_start_on_a_phenom() {
    small_kernels_on_bochs("bochs-phenom");
}

#[test]
#[ignore = "the same as on the Ryzen, on an older processor: nightly"]
fn mach_and_xen_start_on_a_zambezi() {
    small_kernels_on_bochs("bochs-zambezi");
}

/// memtest86+ on two vCPUs, whose threads wait for each other with HLT and NMI, interrupts off.
pub fn memtest(profile: &str, kernel: &str, keys: &[u8]) {
    let guest = Foreign {
        name: "memtest",
        kernel,
        busybox: None,
        settings: "memory = \"8 MiB\"\nvcpus = 2",
        words: "console=ttyS0,115200",
    };
    let guests = Guests::foreign(&[guest]);
    let mut running =
        start(&["run", profile, "--manifest", guests.manifest(), "--timeout", "900", "--interactive"]);
    running.wait_for_text("memtest", "Memtest86+ v6");
    running.wait_for_text("memtest", "SMP: 2T (PAR)");
    running.wait_for_text("memtest", "Status: Testing");
    running.send(keys);
    running.wait_for_text("memtest", "Pass:  1        Errors: 0");
    running.interrupt();
    let ran = running.wait();
    ran.expect_code(0);
    let text = ran.text("memtest");
    // What it shows in between is a matter of chance: it draws every two seconds.
    assert!(text.contains("#0  [Address test, walking ones"), "{}", ran.transcript());
    assert_eq!(keys.is_empty(), text.contains("#10 [Bit fade test"), "{}", ran.transcript());
    expect_explained(&ran, "memtest", "memtest86+");
}

/// Configuration, test selection, remove one test: 10, which waits for 160 seconds whether bits fade. Leave both menus.
pub const WITHOUT_BIT_FADE: &[u8] = b"11210\n00";

#[test]
fn memtest_completes_a_pass() {
    memtest(PROFILE, "memtest86+x64", WITHOUT_BIT_FADE);
}

#[test]
#[ignore = "it waits for three minutes whether bits fade: nightly"]
fn memtest_of_32_bits_completes_a_whole_pass() {
    memtest(PROFILE, "memtest86+ia32", b"");
}

/// Linux comes up, looks around, and switches its power off.
fn linux(machine: &str, limit: &str, guest: &Foreign<'_>, called: &str) -> Ran {
    let guests = Guests::foreign(&[*guest]);
    let words = ["run", PROFILE, "--manifest", guests.manifest(), "--bench-machine", machine];
    let ran = run(&[&words[..], &["--timeout", limit, "--json"]].concat());
    ran.expect_code(0);
    ran.find("linux", "Hello from linux: Linux 6.1");
    ran.find("linux", "isolation holds");
    ran.find("linux", "reboot: Power down");
    assert_eq!(ran.compartment("linux")["state"], "shut-down", "{}", ran.transcript());
    assert_eq!(ran.compartment("linux")["audit"]["malformed"], 0, "{}", ran.transcript());
    expect_explained(&ran, "linux", called);
    ran
}

/// The generic kernel with further words.
fn generic(words: &str) -> Ran {
    let words = format!("{} {words}", LINUX.words);
    linux("qemu-amd-epyc", LIMIT, &Foreign { words: &words, ..LINUX }, "Linux 6.1")
}

#[test]
fn linux_generic() {
    let ran = generic("");
    ran.find("linux", ", 2 processors");
    ran.find("linux", "Using IOAPIC for interrupt routing");
    ran.find("linux", "Switched APIC routing to physical x2apic");
}

#[test]
fn linux_generic_on_one_and_on_four_vcpus() {
    for vcpus in [1, 4] {
        let settings = format!("memory = \"192 MiB\"\nvcpus = {vcpus}");
        let ran = linux("qemu-amd-epyc", LIMIT, &Foreign { settings: &settings, ..LINUX }, "Linux 6.1");
        ran.find("linux", &format!(", {vcpus} processors"));
    }
}

#[test]
fn linux_without_the_second_processor() {
    let ran = generic("nosmp");
    ran.find("linux", "smpboot: SMP disabled");
    ran.find("linux", ", 1 processors");
}

#[test]
fn linux_without_the_io_apic() {
    let ran = generic("noapic");
    ran.find("linux", "Using PIC for interrupt routing");
    ran.find("linux", ", 2 processors");
}

#[test]
fn linux_without_x2apic() {
    let ran = generic("nox2apic");
    ran.find("linux", "Using IOAPIC for interrupt routing");
    ran.find("linux", ", 2 processors");
    assert_eq!(ran.count("linux", "x2apic enabled"), 0, "{}", ran.transcript());
}

/// The loader's 32-bit entry point: this kernel has no other.
const OLD_LINUX: Foreign<'_> = Foreign { kernel: "vmlinuz-686", busybox: Some("busybox-686"), ..LINUX };
const LATER_LINUX: Foreign<'_> = Foreign { kernel: "vmlinuz-6.12", ..LINUX };

#[test]
fn linux_for_32_bit_processors() {
    let ran = linux("qemu-amd-epyc", LIMIT, &OLD_LINUX, "Linux 6.1 686");
    ran.find("linux", "-686, 2 processors");
}

#[test]
fn linux_6_12() {
    let ran = linux("qemu-amd-epyc", LIMIT, &LATER_LINUX, "Linux 6.12");
    ran.find("linux", "Hello from linux: Linux 6.12");
}

/// On Bochs a vCPU that spins with interrupts off keeps its processor: one each.
fn linux_on_bochs(machine: &str, guest: &Foreign<'_>, called: &str) {
    // The Phenom announces POPCNT and raises #UD for it; Linux can be told not to believe it.
    let disbelief = if machine == "bochs-phenom" { " clearcpuid=popcnt" } else { "" };
    let words = format!("{}{disbelief}", guest.words);
    let guest = Foreign { settings: "memory = \"192 MiB\"", words: &words, ..*guest };
    linux(machine, BOCHS_LIMIT, &guest, called);
}

#[test]
fn linux_on_a_phenom() {
    let guest = Foreign { kernel: "vmlinuz-cloud", ..LINUX };
    linux_on_bochs("bochs-phenom", &guest, "Linux 6.1");
}

#[test]
#[ignore = "a minute or two for each of nine: nightly"]
fn every_linux_on_every_bochs() {
    for machine in ["bochs-ryzen", "bochs-zambezi", "bochs-phenom"] {
        linux_on_bochs(machine, &LINUX, "Linux 6.1");
        linux_on_bochs(machine, &OLD_LINUX, "Linux 6.1 686");
        linux_on_bochs(machine, &LATER_LINUX, "Linux 6.12");
    }
}

#[test]
fn linux_6_12_on_qemu_10() {
    linux("qemu10-amd-epyc", LIMIT, &LATER_LINUX, "Linux 6.12");
}

#[test]
#[ignore = "the same as on the system's QEMU: nightly"]
fn other_linux_on_qemu_10() {
    linux("qemu10-amd-epyc", LIMIT, &LINUX, "Linux 6.1");
    linux("qemu10-amd-epyc", LIMIT, &OLD_LINUX, "Linux 6.1 686");
}
