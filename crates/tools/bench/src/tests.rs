use std::fs;
use std::path::{Path, PathBuf};

use crate::{Accelerator, BenchMachine, Emulator, Error, Media, Start, bochs, qemu};

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
    assert!(text.contains("cpu: model=ryzen, count=2,"));
    assert!(text.contains("path=\"image.iso\""));
    assert!(text.contains("mode=socket-client, dev=localhost:4711"));
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
