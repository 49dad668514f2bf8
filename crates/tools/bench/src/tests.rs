use std::fs;
use std::path::{Path, PathBuf};

use crate::{Accelerator, BenchMachine, Emulator, Error, Media, Nested, Start, bochs, choose, qemu};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../build-configs")
}

fn machine(name: &str) -> BenchMachine {
    BenchMachine::load(&shipped().join(format!("{name}.toml"))).unwrap()
}

fn kernel() -> Start {
    let module = Some(PathBuf::from("a,b.module"));
    Start::new(Media::Kernel { image: "image.elf".into(), module, command_line: "loud".to_owned() })
}

fn has(arguments: &[String], pair: [&str; 2]) -> bool {
    arguments.windows(2).any(|window| window == pair)
}

#[test]
fn every_shipped_machine_is_sound() {
    let names = BenchMachine::names(&shipped()).unwrap();
    assert!(names.len() >= 4);
    for name in names {
        assert_eq!(machine(&name).name, name);
    }
}

fn refused(change: impl Fn(String) -> String) -> String {
    let text = fs::read_to_string(shipped().join("bochs-ryzen.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bochs-ryzen.toml");
    fs::write(&path, change(text)).unwrap();
    BenchMachine::load(&path).unwrap_err().to_string()
}

#[test]
fn mistakes_in_a_machine_are_named() {
    for (from, to, sentence) in [
        ("format = 1", "format = 2", "format 2 is unknown"),
        ("cpus = 2", "cpus = 0", "cpus is a number from 1 to 64"),
        ("memory-mib = 1024", "memory-mib = 4096", "Bochs takes at most 2048 MiB"),
        ("memory-mib = 1024", "memory-mib = 1", "memory-mib is a number from 64 to 65536"),
        ("boot = \"iso\"", "boot = \"kernel\"", "Bochs has no kernel loader"),
        ("boot = \"iso\"", "boot = \"iso\"\ndevices = [\"edu\"]", "devices can be added to QEMU only"),
        ("boot = \"iso\"", "boot = \"iso\"\nbuild = \"qemu-10.0\"", "a build can be chosen of QEMU only"),
        ("boot = \"iso\"", "boot = \"iso\"\nbuild = \"../elsewhere\"", "build is the name of a folder"),
        ("cpu = \"ryzen\"", "cpu = \"host\"", "cpu = \"host\" and nested go together"),
        ("cpu = \"ryzen\"", "cpu = \"ryzen\"\nnested = \"svm\"", "cpu = \"host\" and nested go together"),
        ("cpu = \"ryzen\"", "cpu = \"host\"\nnested = \"svm\"", "Bochs does not use KVM"),
        ("cpu = \"ryzen\"", "cpu = \"host\"\nnested = \"vt-x\"", "unknown variant `vt-x`"),
        (
            "cpus = 2",
            "cpus = 2\ninstructions-per-second = 5",
            "instructions-per-second is a number from 1000000",
        ),
        (
            "emulator = \"bochs\"",
            "emulator = \"qemu\"\ninstructions-per-second = 1000000",
            "only Bochs' clocks count instructions",
        ),
        ("name = \"bochs-ryzen\"", "name = \"other\"", "its name is \"other\""),
        ("cpus = 2", "cpu-count = 2", "unknown field `cpu-count`"),
    ] {
        let error = refused(|text| {
            assert!(text.contains(from));
            text.replace(from, to)
        });
        assert!(error.contains(sentence), "{error}");
    }
    let missing = BenchMachine::load(Path::new("nowhere.toml")).unwrap_err();
    assert!(matches!(missing, Error::Unreadable { .. }));
}

#[test]
fn qemu_gets_the_kernel_and_its_module() {
    let arguments = qemu::arguments(&machine("qemu-amd-epyc"), &kernel()).unwrap();
    assert!(has(&arguments, ["-kernel", "image.elf"]));
    assert!(has(&arguments, ["-initrd", "a,,b.module"]), "a comma would begin another module");
    assert!(has(&arguments, ["-append", "loud"]));
    assert!(has(&arguments, ["-smp", "2"]));
    assert!(has(&arguments, ["-accel", "tcg,thread=single"]));
    assert!(!arguments.iter().any(|word| word == "-icount"));
}

#[test]
fn an_instruction_count_excludes_kvm() {
    let machine = machine("qemu-amd-epyc");
    let counted = Start { instruction_count: true, ..kernel() };
    let arguments = qemu::arguments(&machine, &counted).unwrap();
    assert!(has(&arguments, ["-icount", "shift=0,sleep=off"]));
    assert!(has(&arguments, ["-rtc", "base=2024-01-01,clock=vm"]));
    assert!(has(&arguments, ["-seed", "1"]));
    let both = Start { accelerator: Accelerator::Kvm, ..counted };
    assert!(matches!(qemu::arguments(&machine, &both), Err(Error::Unsupported(_))));
}

#[test]
fn bochs_boots_a_cd_only() {
    let machine = machine("bochs-ryzen");
    assert_eq!(machine.emulator, Emulator::Bochs);
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(bochs::arguments(&machine, &kernel(), folder.path(), 1), Err(Error::Unsupported(_))));
    let start = Start::new(Media::Iso("image.iso".into()));
    bochs::arguments(&machine, &start, folder.path(), 4711).unwrap();
    let text = fs::read_to_string(folder.path().join("bochs.rc")).unwrap();
    assert!(text.contains("cpu: model=ryzen, count=2, ips=50000000,"));
    assert!(text.contains("path=\"image.iso\""));
    assert!(text.contains("mode=socket-client, dev=localhost:4711"));
    let fast = self::machine("bochs-skylake-fast");
    bochs::arguments(&fast, &start, folder.path(), 4711).unwrap();
    let text = fs::read_to_string(folder.path().join("bochs.rc")).unwrap();
    let instructions = fast.instructions_per_second.unwrap();
    assert!(text.contains(&format!("count=2, ips={instructions},")), "{text}");
}

#[test]
fn a_build_has_its_own_firmware_and_modules() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine("qemu10-amd-epyc");
    let build = folder.path().join("qemu-10.0");
    let Err(error @ Error::NoBuild { .. }) = qemu::Build::of(&machine, folder.path()) else {
        panic!("there is no such build");
    };
    assert!(
        error.to_string().contains("`./ringfence run --bench-machine qemu10-amd-epyc` fetches it"),
        "{error}"
    );
    fs::create_dir_all(build.join("usr/bin")).unwrap();
    fs::write(build.join("usr/bin/qemu-system-x86_64"), "").unwrap();
    let found = qemu::Build::of(&machine, folder.path()).unwrap().unwrap();
    assert_eq!(found.program, build.join("usr/bin/qemu-system-x86_64"));
    assert!(has(&found.arguments(), ["-L", build.join("usr/share/qemu").to_str().unwrap()]));
    assert!(has(&found.arguments(), ["-L", build.join("usr/share/seabios").to_str().unwrap()]));
    assert!(qemu::Build::of(&self::machine("qemu-amd-epyc"), folder.path()).unwrap().is_none());
}

/// A host that is made up: what its files say.
struct Host(tempfile::TempDir);

impl Host {
    fn new(flags: &str, module: &str, nested: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("dev/kvm", "");
        host.write(
            "proc/cpuinfo",
            &format!("processor\t: 0\nvmx flags\t: vmx svm\nflags\t\t: fpu {flags} lm\n"),
        );
        host.write(&format!("sys/module/{module}/parameters/nested"), nested);
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(self, path: &str) -> Self {
        fs::remove_file(self.root().join(path)).unwrap();
        self
    }

    fn root(&self) -> &Path {
        self.0.path()
    }
}

#[test]
fn what_a_host_offers_under_kvm_is_read_from_its_files() {
    let intel = |nested| Host::new("vmx", "kvm_intel", nested);
    for (host, kind) in [
        (intel("Y\n"), Nested::Vmx),
        (intel("1\n"), Nested::Vmx),
        (Host::new("svm", "kvm_amd", "1\n"), Nested::Svm),
        (Host::new("svm", "kvm_amd", "Y\n"), Nested::Svm),
    ] {
        assert_eq!(kind.obstacle(host.root()), None);
    }
    for (host, kind, words) in [
        (intel("Y").remove("dev/kvm"), Nested::Vmx, "/dev/kvm cannot be opened: "),
        (intel("N\n"), Nested::Vmx, "kvm_intel has nested virtualization off"),
        (intel("0\n"), Nested::Vmx, "kvm_intel has nested virtualization off"),
        (
            intel("Y").remove("sys/module/kvm_intel/parameters/nested"),
            Nested::Vmx,
            "kvm_intel offers its guests cannot be read",
        ),
        (intel("Y").remove("proc/cpuinfo"), Nested::Vmx, "its processor has no vmx"),
        (Host::new("svm", "kvm_intel", "Y"), Nested::Vmx, "its processor has no vmx"),
        (intel("Y"), Nested::Svm, "its processor has no svm"),
        (Host::new("svm", "kvm_amd", "0"), Nested::Svm, "kvm_amd has nested virtualization off"),
    ] {
        let obstacle = kind.obstacle(host.root()).unwrap();
        assert!(obstacle.contains(words), "{obstacle}");
    }
}

#[test]
fn the_host_s_own_processor_is_chosen_where_it_offers_what_is_needed_and_nowhere_else() {
    let intel = ["bochs-skylake", "qemu-kvm-intel"].map(machine);
    let amd = ["qemu-amd-epyc", "qemu-kvm-amd"].map(machine);
    let (offers, none) = (Host::new("vmx", "kvm_intel", "Y"), Host::new("vmx", "kvm_intel", "N"));
    let chosen = |machines: &[BenchMachine], accelerator, host: &Host| {
        choose(machines, accelerator, host.root()).map(|machine| machine.name.clone())
    };
    for (machines, accelerator, host, name) in [
        (&intel, Accelerator::Tcg, &offers, "bochs-skylake"),
        (&intel, Accelerator::Auto, &offers, "qemu-kvm-intel"),
        (&intel, Accelerator::Auto, &none, "bochs-skylake"),
        // Asked for: the refusal says what is missing.
        (&intel, Accelerator::Kvm, &none, "qemu-kvm-intel"),
        // The other vendor's.
        (&amd, Accelerator::Auto, &offers, "qemu-amd-epyc"),
        (&amd, Accelerator::Kvm, &offers, "qemu-kvm-amd"),
    ] {
        assert_eq!(chosen(machines, accelerator, host).as_deref(), Some(name));
    }
    assert_eq!(chosen(&intel[..1], Accelerator::Kvm, &offers), None);
    assert_eq!(chosen(&intel[1..], Accelerator::Tcg, &offers), None);
}

#[test]
fn kvm_is_used_where_the_host_offers_it_and_missed_by_a_sentence() {
    let (own, epyc) = (machine("qemu-kvm-intel"), machine("qemu-amd-epyc"));
    let (offers, none) = (Host::new("vmx", "kvm_intel", "Y"), Host::new("vmx", "kvm_intel", "N"));
    let start = |accelerator, host: &Host| Start { accelerator, host: host.root().to_owned(), ..kernel() };
    for accelerator in [Accelerator::Kvm, Accelerator::Auto] {
        let arguments = qemu::arguments(&own, &start(accelerator, &offers)).unwrap();
        assert!(has(&arguments, ["-accel", "kvm"]) && has(&arguments, ["-cpu", "host"]));
        let error = qemu::arguments(&own, &start(accelerator, &none)).unwrap_err();
        assert!(error.to_string().contains("kvm_intel has nested virtualization off"), "{error}");
    }
    let error = qemu::arguments(&own, &start(Accelerator::Tcg, &offers)).unwrap_err();
    assert!(error.to_string().contains("take `--accelerator kvm`"), "{error}");
    let counted = Start { instruction_count: true, ..start(Accelerator::Auto, &offers) };
    assert!(matches!(qemu::arguments(&own, &counted), Err(Error::Unsupported(_))));
    // An emulated AMD processor on a host that has none.
    let arguments = qemu::arguments(&epyc, &start(Accelerator::Auto, &offers)).unwrap();
    assert!(has(&arguments, ["-accel", "tcg,thread=single"]));
    let error = qemu::arguments(&epyc, &start(Accelerator::Kvm, &offers)).unwrap_err();
    assert!(error.to_string().contains("its processor has no svm"), "{error}");
}
