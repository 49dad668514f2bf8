//! Every kind of mistake: its sentence, its place, its remedy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{BzImage, environment, fixed};
use manifest::{Environment, Manifest, Mistake};
use std::path::Path;

/// A folder with kernels of all kinds.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("vmlinuz", &BzImage::default().build());
    write("vmlinux", &common::pvh());
    write("mach", &common::multiboot(false));
    write("initrd.img", &[7; 5000]);
    write("large.img", &vec![7; 16 << 20]);
    write("empty.img", &[]);
    write("old", &BzImage { version: 0x20b, ..BzImage::default() }.build());
    write("zimage", &BzImage { loadflags: 0, ..BzImage::default() }.build());
    write("truncated", &BzImage::default().build()[..2000]);
    write(
        "text",
        b"This is no kernel, but a letter to my aunt in Amsterdam, who collects stamps and kernels.",
    );
    write("arm", &common::elf(true, 183, 0, &[]));
    let mut image = vec![0; 4096];
    image[..2].copy_from_slice(b"MZ");
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    write("arm-image", &image);
    write(
        "program",
        &common::elf(true, common::X86_64, 0x40_0000, &[common::load(4 << 20, &[0x90; 64], 64)]),
    );
    write("low", &{
        let entry = 0x9000_u32.to_le_bytes();
        common::elf(
            true,
            common::X86_64,
            0,
            &[common::load(0x9000, &[0x90; 64], 64), common::pvh_note(&entry)],
        )
    });
    folder
}

fn check(text: &str, environment: &Environment, folder: &Path) -> Vec<Mistake> {
    let checked =
        Manifest::parse("two.ringfence.toml", text, folder).and_then(|manifest| manifest.check(environment));
    match checked {
        Ok(checked) => checked.warnings().to_vec(),
        Err(mistakes) => mistakes.iter().cloned().collect(),
    }
}

/// `text` has to have exactly one mistake, at the mark `«…»`, of that kind, with that sentence and that in its remedy.
#[track_caller]
fn mistake_in(environment: &Environment, text: &str, kind: &str, sentence: &str, remedy: &str) -> Mistake {
    let start = text.find('«').expect("a mark for the place");
    let end = text.find('»').expect("an end of the mark");
    let marked = &text[start + '«'.len_utf8()..end];
    let clean = text.replace(['«', '»'], "");
    let folder = folder();
    let mistakes = check(&clean, environment, folder.path());
    let [mistake] = mistakes.as_slice() else {
        panic!("{} mistakes: {mistakes:#?}", mistakes.len());
    };
    assert_eq!(mistake.kind(), kind);
    assert_eq!(mistake.sentence(), sentence);
    assert!(mistake.remedy().contains(remedy), "{}", mistake.remedy());
    assert_eq!(mistake.file(), "two.ringfence.toml");
    assert_eq!(mistake.snippet(), marked);
    let before = &text[..start];
    assert_eq!(mistake.line(), before.lines().count().max(1) + usize::from(before.ends_with('\n')));
    assert_eq!(mistake.column(), before.rsplit('\n').next().unwrap().chars().count() + 1);
    mistake.clone()
}

#[track_caller]
fn mistake(text: &str, kind: &str, sentence: &str, remedy: &str) {
    let mistake = mistake_in(&environment(), text, kind, sentence, remedy);
    assert!(!mistake.is_warning());
}

/// A manifest with one compartment, which has these lines.
fn one(lines: &str) -> String {
    format!("format = 1\n\n[[compartment]]\n{lines}\n")
}

/// Lines of a compartment without a mistake, but for a key that is to be given otherwise.
fn lines(key: &str, line: &str) -> String {
    let usual = [
        ("name", "name = \"office\""),
        ("memory", "memory = \"64 MiB\""),
        ("vcpus", "vcpus = 2"),
        ("boot", "boot = { kernel = \"vmlinuz\", initrd = \"initrd.img\" }"),
    ];
    let mut text: Vec<&str> =
        usual.iter().filter(|(usual, _)| *usual != key).map(|(_, line)| *line).collect();
    text.push(line);
    one(&text.join("\n"))
}

#[test]
fn a_manifest_without_mistakes_compiles() {
    let folder = folder();
    let text =
        lines("", "label = { text = \"OFFICE\", colour = \"#1e6fd9\" }\nshare = 7\non-reset = \"stop\"");
    let checked = Manifest::parse("m", &text, folder.path()).unwrap().check(&environment()).unwrap();
    assert!(checked.warnings().is_empty());
    let plan = plan::read_whole(&checked.compile()).unwrap();
    let office = &plan.compartments[0];
    assert_eq!((office.name.as_str(), office.memory, office.vcpus, office.share), ("office", 64 << 20, 2, 7));
    assert_eq!(office.on_reset, plan::OnReset::Stop);
    let label = office.label.as_ref().unwrap();
    assert_eq!((label.text.as_str(), label.colour), ("OFFICE", 0x1e_6fd9));
    assert!(office.cpus.is_empty());
}

#[test]
fn what_is_not_said_has_its_default() {
    let folder = folder();
    let text = one("name = \"a\"\nmemory = \"64 MiB\"\nboot = { kernel = \"vmlinuz\" }");
    let checked = Manifest::parse("m", &text, folder.path()).unwrap().check(&environment()).unwrap();
    let plan = plan::read_whole(&checked.compile()).unwrap();
    let only = &plan.compartments[0];
    assert_eq!((only.vcpus, only.share, only.on_reset), (1, 100, plan::OnReset::Restart));
    assert_eq!(only.on_unclaimed, plan::OnUnclaimed::Answer);
    assert_eq!(only.label, None);
}

#[test]
fn what_is_unclaimed_is_answered_or_the_end() {
    let folder = folder();
    for (word, policy) in [("answer", plan::OnUnclaimed::Answer), ("stop", plan::OnUnclaimed::Stop)] {
        let text = lines("", &format!("on-unclaimed = \"{word}\""));
        let checked = Manifest::parse("m", &text, folder.path()).unwrap().check(&environment()).unwrap();
        assert!(checked.warnings().is_empty());
        let plan = plan::read_whole(&checked.compile()).unwrap();
        assert_eq!(plan.compartments[0].on_unclaimed, policy);
    }
}

#[test]
fn the_manifest_itself() {
    mistake(
        "format = 1\n[[compartment«»\nname = \"office\"\n",
        "syntax",
        "this is no valid TOML: unclosed array table, expected `]]`",
        "key = value",
    );
    mistake(
        "format = 1\n«»",
        "no-compartment",
        "the manifest has no compartment, so nothing would run",
        "[[compartment]]",
    );
    let folder = folder();
    let none = check("", &environment(), folder.path());
    let kinds: Vec<_> = none.iter().map(Mistake::kind).collect();
    assert_eq!(kinds, ["format-missing", "no-compartment"], "an empty manifest lacks both");
    let error = Manifest::load(&folder.path().join("absent.ringfence.toml")).unwrap_err();
    assert!(error.iter().next().unwrap().sentence().starts_with("there is no manifest `"));
    let error = Manifest::load(folder.path()).unwrap_err();
    assert!(error.iter().next().unwrap().sentence().contains("cannot be read"));
}

#[test]
fn the_format() {
    let rest = "[[compartment]]\nname = \"a\"\nmemory = \"64 MiB\"\nboot = { kernel = \"vmlinuz\" }\n";
    mistake(
        &format!("«»{rest}"),
        "format-missing",
        "the manifest does not say its format",
        "Write `format = 1` as the first line.",
    );
    mistake(
        &format!("format = «2»\n{rest}"),
        "format",
        "the manifest has format 2, and this tool reads format 1",
        "newer release",
    );
    mistake(
        &format!("format = «\"1\"»\n{rest}"),
        "wrong-type",
        "`format` is a text, and has to be a whole number",
        "Write `format = 1`.",
    );
}

#[test]
fn unknown_keys() {
    mistake(
        &lines("memory", "«memry» = \"64 MiB\"\nmemory = \"64 MiB\""),
        "unknown-key",
        "a compartment has no key `memry`",
        "Did you mean `memory`?",
    );
    mistake(
        &lines("", "«on_reset» = \"stop\""),
        "unknown-key",
        "a compartment has no key `on_reset`",
        "Did you mean `on-reset`?",
    );
    mistake(
        &lines("", "«on-unclaimd» = \"stop\""),
        "unknown-key",
        "a compartment has no key `on-unclaimd`",
        "Did you mean `on-unclaimed`?",
    );
    mistake(
        &lines("", "«disk» = \"a.img\""),
        "unknown-key",
        "a compartment has no key `disk`",
        "The keys of a compartment are `name`, `memory`, `vcpus`, `boot`, `label`, `share`, `cpus`, `on-reset`, `on-unclaimed`, `interface`.",
    );
    mistake(
        &lines("boot", "boot = { kernel = \"vmlinuz\", «cmdline» = \"quiet\" }"),
        "unknown-key",
        "`boot` has no key `cmdline`",
        "`command-line`",
    );
    mistake(
        &format!("«compartments» = 3\n{}", lines("", "")),
        "unknown-key",
        "a manifest has no key `compartments`",
        "Did you mean `compartment`?",
    );
    mistake(
        &lines("", "label = { text = \"A\", colour = \"#000000\", «color» = \"#000000\" }"),
        "unknown-key",
        "`label` has no key `color`",
        "Did you mean `colour`?",
    );
}

#[test]
fn types() {
    mistake(
        &lines("vcpus", "vcpus = «\"two\"»"),
        "wrong-type",
        "`vcpus` is a text, and has to be a whole number",
        "`vcpus = 2`",
    );
    mistake(
        &lines("memory", "memory = «256»"),
        "wrong-type",
        "`memory` is a number, and has to be a text in double quotes",
        "`memory = \"256 MiB\"`",
    );
    mistake(
        &lines("boot", "boot = «\"vmlinuz\"»"),
        "wrong-type",
        "`boot` is a text, and has to be a table",
        "`boot = { kernel = \"vmlinuz\" }`",
    );
    mistake(
        &lines("name", "name = «true»"),
        "wrong-type",
        "`name` is true or false, and has to be a text in double quotes",
        "`name = \"office\"`",
    );
    mistake(
        &lines("", "cpus = «2»"),
        "wrong-type",
        "`cpus` is a number, and has to be a list of whole numbers",
        "`cpus = [0, 1]`",
    );
    mistake(
        &lines("", "on-unclaimed = «false»"),
        "wrong-type",
        "`on-unclaimed` is true or false, and has to be a text in double quotes",
        "`on-unclaimed = \"answer\"`",
    );
    mistake(
        &lines("", "share = «1.5»"),
        "wrong-type",
        "`share` is a number with a fraction, and has to be a whole number",
        "`share = 100`",
    );
    mistake(
        "format = 1\ncompartment = «{ name = \"a\" }»\n",
        "wrong-type",
        "`compartment` is a table, and has to be a list of tables",
        "`[[compartment]]`",
    );
}

#[test]
fn names() {
    mistake(
        &one("memory = \"64 MiB\"\nboot = { kernel = \"vmlinuz\" }")
            .replace("[[compartment]]", "«[[compartment]]»"),
        "name-missing",
        "the compartment has no name",
        "`name = \"office\"`",
    );
    for (name, shown) in
        [("Office", "Office"), ("my office", "my office"), ("9to5", "9to5"), ("", ""), ("a\\n", "a\\n")]
    {
        mistake(
            &lines("name", &format!("name = «\"{name}\"»")),
            "name-characters",
            &format!("`{shown}` cannot be the name of a compartment"),
            "lower-case letters, digits and `-`",
        );
    }
    mistake(
        &lines("name", "name = «\"ringfence\"»"),
        "name-reserved",
        "the name `ringfence` is reserved for the hypervisor's own lines on the console",
        "another name",
    );
    let long = "a".repeat(33);
    mistake(
        &lines("name", &format!("name = «\"{long}\"»")),
        "name-too-long",
        &format!("the name `{long}` has 33 bytes, and at most 32 are allowed"),
        "shorter",
    );
    let first = lines("", "");
    let second =
        "[[compartment]]\nname = «\"office\"»\nmemory = \"64 MiB\"\nboot = { kernel = \"vmlinuz\" }\n";
    mistake(
        &format!("{first}{second}"),
        "name-duplicate",
        "the name `office` is taken by the compartment in line 4",
        "of its own",
    );
}

#[test]
fn memory() {
    mistake(
        &one("name = \"a\"\nboot = { kernel = \"vmlinuz\" }").replace("[[compartment]]", "«[[compartment]]»"),
        "memory-missing",
        "the compartment has no memory",
        "`memory = \"256 MiB\"`",
    );
    for (size, why) in [
        ("256", "it has no unit"),
        ("256 MB", "the unit could mean thousands"),
        ("256 mebibytes", "the unit is unknown"),
        ("much", "it does not begin with a number"),
        ("1.5 GiB", "it has a fraction"),
        ("-1 MiB", "it does not begin with a number"),
        ("99999999999 TiB", "it is too large"),
    ] {
        mistake(
            &lines("memory", &format!("memory = «\"{size}\"»")),
            "size",
            &format!("`{size}` is no size: {why}"),
            "\"256 MiB\"",
        );
    }
    mistake(
        &lines("memory", "memory = «\"63 MiB\"»"),
        "memory-grain",
        "63 MiB is no multiple of 2 MiB",
        "`memory = \"64 MiB\"`",
    );
    mistake(
        &lines("memory", "memory = «\"0 MiB\"»"),
        "memory-range",
        "a compartment cannot have 0 bytes of memory",
        "2 MiB to 64 GiB",
    );
    mistake(
        &lines("memory", "memory = «\"66 GiB\"»"),
        "memory-range",
        "a compartment cannot have 66 GiB of memory",
        "2 MiB to 64 GiB",
    );
    mistake(
        &lines("memory", "memory = «\"4 GiB\"»"),
        "memory-machine",
        "4 GiB is more memory than the machine has (2048 MiB)",
        "a machine with more",
    );
    // The kernel wants 4 MiB from 16 MiB on, or, being relocatable, from 2 MiB on.
    mistake(
        &lines("memory", "memory = «\"4 MiB\"»"),
        "memory-too-little-for-kernel",
        "the kernel does not fit the compartment's memory",
        "at least 6 MiB",
    );
    mistake(
        &one("name = \"a\"\nmemory = «\"32 MiB\"»\nboot = { kernel = \"vmlinuz\", initrd = \"large.img\" }"),
        "memory-too-little-for-kernel",
        "the kernel with its initial RAM disk does not fit the compartment's memory",
        "at least 36 MiB",
    );
    mistake(
        &one("name = \"a\"\nmemory = «\"16 MiB\"»\nboot = { kernel = \"vmlinux\" }"),
        "memory-too-little-for-kernel",
        "the kernel does not fit the compartment's memory",
        "at least 18 MiB",
    );
}

#[test]
fn memory_of_all_together() {
    let compartment = |name: &str, memory: &str| {
        format!("[[compartment]]\nname = \"{name}\"\nmemory = {memory}\nboot = {{ kernel = \"vmlinuz\" }}\n")
    };
    let text = format!("format = 1\n{}{}", compartment("a", "\"1 GiB\""), compartment("b", "«\"1 GiB\"»"));
    mistake(
        &text,
        "memory-total",
        "the compartments need 2048 MiB, the boot module 1 MiB and the hypervisor 16 MiB, and the machine has 2048 MiB",
        "less memory",
    );
    // Without knowledge of the machine there is nothing to compare with.
    let folder = folder();
    let unknown = Environment { machine_memory: None, ..environment() };
    assert!(check(&text.replace(['«', '»'], ""), &unknown, folder.path()).is_empty());
}

#[test]
fn processors() {
    mistake(
        &lines("vcpus", "vcpus = «0»"),
        "vcpus-none",
        "a compartment with 0 vCPUs cannot run",
        "`vcpus = 1`",
    );
    mistake(
        &lines("vcpus", "vcpus = «5»"),
        "vcpus-limit",
        "5 vCPUs are more than the 4 that profile lab allows a compartment",
        "limits.vcpus-per-compartment",
    );
    mistake(
        &lines("vcpus", "vcpus = «99999999999999999999»"),
        "vcpus-limit",
        &format!("{} vCPUs are more than the 4 that profile lab allows a compartment", i64::MAX),
        "fewer vCPUs",
    );
    for share in ["0", "10001", "-3"] {
        mistake(
            &lines("", &format!("share = «{share}»")),
            "share-range",
            &format!("the share {share} is out of range"),
            "1 to 10000",
        );
    }
    mistake(
        &lines("", "cpus = «[0, 1]»"),
        "cpus-without-static",
        "`cpus` pins vCPUs to processors, which needs part `schedule-static`, and profile lab does not have it",
        "Remove `cpus`",
    );
}

#[test]
fn processors_under_schedule_static() {
    let expect = |text: &str, kind: &str, sentence: &str, remedy: &str| {
        mistake_in(&fixed(), text, kind, sentence, remedy)
    };
    expect(
        &lines("", "cpus = «[0]»"),
        "cpus-length",
        "`cpus` names 1 processor for 2 vCPUs",
        "one processor for each vCPU",
    );
    expect(
        &lines("", "cpus = [0, «4»]"),
        "cpus-range",
        "there is no processor 4: the machine has 4 processors",
        "numbered from 0 to 3",
    );
    let small = Environment { machine_cpus: None, ..fixed() };
    mistake_in(
        &small,
        &lines("", "cpus = [0, «8»]"),
        "cpus-range",
        "there is no processor 8: profile lab uses 8 processors",
        "numbered from 0 to 7",
    );
    expect(
        &lines("", "cpus = [-0, «-1»]"),
        "cpus-range",
        "there is no processor -1: the machine has 4 processors",
        "0 to 3",
    );
    expect(&lines("", "cpus = [3, «3»]"), "cpus-twice", "processor 3 is named twice", "once");
    let second = |name: &str, more: &str| {
        format!(
            "[[compartment]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nboot = {{ kernel = \"vmlinuz\" }}\n{more}\n"
        )
    };
    expect(
        &format!("{}{}", lines("", "cpus = [0, 1]"), second("b", "cpus = [«1»]")),
        "cpus-taken",
        "processor 1 belongs to the compartment `office`",
        "one that is free",
    );
    expect(
        &format!("{}{}", lines("", ""), second("b", "vcpus = «3»")),
        "too-many-vcpus-for-static",
        "up to here the compartments have 5 vCPUs, and the machine has 4 processors",
        "schedule-shared",
    );
    let warning = expect(
        &lines("", "share = «50»"),
        "share-without-effect",
        "`share` has no effect: profile lab schedules statically",
        "Remove `share`",
    );
    assert!(warning.is_warning());
}

#[test]
fn too_many_compartments() {
    let compartment = |name: &str| {
        format!(
            "[[compartment]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nboot = {{ kernel = \"vmlinuz\" }}\n"
        )
    };
    let four: String = ["a", "b", "c", "d"].iter().map(|name| compartment(name)).collect();
    let fifth = compartment("e").replace("[[compartment]]", "«[[compartment]]»");
    mistake(
        &format!("format = 1\n{four}{fifth}"),
        "too-many-compartments",
        "the manifest has 5 compartments, and profile lab has room for 4",
        "limits.compartments",
    );
}

#[test]
fn files() {
    let boot = |boot: &str| lines("boot", &format!("boot = {boot}"));
    mistake(
        &one("name = \"a\"\nmemory = \"64 MiB\"").replace("[[compartment]]", "«[[compartment]]»"),
        "boot-missing",
        "the compartment has nothing to boot",
        "`boot = { kernel = \"vmlinuz\" }`",
    );
    mistake(
        &boot("«{ initrd = \"initrd.img\" }»"),
        "kernel-missing",
        "`boot` names no kernel",
        "`kernel = \"vmlinuz\"`",
    );
    mistake(
        &boot("{ kernel = «\"vmlimuz\"» }"),
        "file-missing",
        "there is no file `vmlimuz`, which is to be the kernel",
        "Did you mean `vmlinuz`?",
    );
    mistake(
        &boot("{ kernel = «\".\"» }"),
        "file-missing",
        "`.` is a folder, which is to be the kernel",
        "relative to the manifest's folder",
    );
    mistake(
        &boot("{ kernel = \"vmlinuz\", initrd = «\"initrd.gz\"» }"),
        "file-missing",
        "there is no file `initrd.gz`, which is to be the initial RAM disk",
        "Did you mean `initrd.img`?",
    );
    mistake(
        &boot("{ kernel = \"vmlinuz\", initrd = «\"empty.img\"» }"),
        "initrd-empty",
        "the initial RAM disk is empty",
        "Build the initial RAM disk again",
    );
    mistake(
        &boot("{ kernel = \"mach\", modules = [\"initrd.img\", «\"absent with arguments\"»] }"),
        "file-missing",
        "there is no file `absent`, which is to be the module",
        "relative",
    );
    mistake(
        &boot("{ kernel = \"mach\", modules = [\"initrd.img\", «\"empty.img x\"»] }"),
        "module-empty",
        "the module's file is empty",
        "Build the module again",
    );
}

#[test]
fn kernels() {
    let kernel = |name: &str| lines("boot", &format!("boot = {{ kernel = «\"{name}\"» }}"));
    mistake(
        &kernel("text"),
        "kernel-is-none",
        "the file is no kernel: neither a Linux bzImage, nor an ELF file, nor a multiboot kernel",
        "/boot/vmlinuz",
    );
    mistake(
        &kernel("empty.img"),
        "kernel-is-none",
        "the file is no kernel: neither a Linux bzImage, nor an ELF file, nor a multiboot kernel",
        "kernel",
    );
    for name in ["arm", "arm-image"] {
        mistake(
            &kernel(name),
            "kernel-architecture",
            "the kernel is made for 64-bit ARM, and compartments are x86 machines",
            "amd64",
        );
    }
    mistake(
        &kernel("program"),
        "kernel-protocol-unknown",
        "the kernel is an ELF file that offers neither PVH nor multiboot",
        "CONFIG_PVH=y",
    );
    mistake(
        &kernel("old"),
        "kernel-too-old",
        "the kernel speaks version 2.11 of the Linux boot protocol, and 2.12 is the oldest supported",
        "3.8 or later",
    );
    mistake(
        &kernel("zimage"),
        "kernel-too-old",
        "the kernel is a zImage, which only BIOS loaders can start",
        "bzImage",
    );
    mistake(
        &kernel("truncated"),
        "kernel-broken",
        "the bzImage is truncated: its header promises 4096 bytes of code, and 976 are there",
        "fresh copy",
    );
    mistake(
        &kernel("low"),
        "kernel-overlap",
        "the start information's lists asks for the addresses 0x9000 to 0x9048, where the kernel lies",
        "1 MiB or above",
    );
}

#[test]
fn protocols() {
    let boot = |boot: &str| lines("boot", &format!("boot = {boot}"));
    mistake(
        &boot("{ kernel = \"vmlinuz\", protocol = «\"efi\"» }"),
        "wrong-word",
        "`protocol` cannot be `efi`",
        "Write \"linux\" or \"pvh\" or \"multiboot\".",
    );
    mistake(
        &boot("{ kernel = \"vmlinux\", protocol = «\"multiboot\"» }"),
        "protocol-not-offered",
        "the kernel cannot be started by the protocol `multiboot`",
        "write `pvh`",
    );
    mistake(
        &boot("{ kernel = «\"vmlinuz\"», protocol = \"pvh\" }"),
        "kernel-extract",
        "the vmlinux inside the bzImage cannot be taken out: its header says that the compressed kernel lies outside the file",
        "Remove `protocol`",
    );
    mistake(
        &boot("{ kernel = \"vmlinuz\", modules = [«\"initrd.img\"»] }"),
        "modules-without-multiboot",
        "modules belong to multiboot kernels, and this kernel is started by another protocol",
        "`initrd`",
    );
    mistake(
        &boot("{ kernel = \"mach\", initrd = «\"initrd.img\"» }"),
        "initrd-with-multiboot",
        "a multiboot kernel has no initial RAM disk",
        "`modules`",
    );
    let both = check(
        &boot("{ kernel = \"mach\", initrd = \"initrd.img\", modules = [\"initrd.img\"] }"),
        &environment(),
        folder().path(),
    );
    assert_eq!(both.iter().map(Mistake::kind).collect::<Vec<_>>(), ["initrd-with-multiboot"]);
    let modules = vec!["\"initrd.img\""; 20].join(", ").replacen("\"initrd.img\"", "«\"initrd.img\"»", 1);
    mistake(
        &boot(&format!("{{ kernel = \"mach\", modules = [{modules}] }}")),
        "too-many-segments",
        "kernel and modules have 30 pieces, and a boot module holds 24 for each compartment",
        "fewer modules",
    );
}

#[test]
fn command_lines() {
    let line = |kernel: &str, line: &str| {
        lines("boot", &format!("boot = {{ kernel = \"{kernel}\", command-line = «\"{line}\"» }}"))
    };
    mistake(
        &line("vmlinuz", &"x".repeat(101)),
        "command-line-too-long",
        "the command line has 101 bytes, and this kernel takes at most 100",
        "Shorten",
    );
    mistake(
        &line("vmlinux", &"x".repeat(2048)),
        "command-line-too-long",
        "the command line has 2048 bytes, and this kernel takes at most 2047",
        "Shorten",
    );
    mistake(
        &line("mach", &"x".repeat(65_531)),
        "command-line-too-long",
        "the command lines of kernel and modules together have more than 65536 bytes",
        "Shorten",
    );
    mistake(
        &line("vmlinuz", "quiet\\nsingle"),
        "command-line-control",
        "the command line contains the control character \\n",
        "one line",
    );
}

#[test]
fn labels_and_words() {
    for colour in ["00a651", "#00a65", "#00a65g", "green", "#+0a651"] {
        mistake(
            &lines("", &format!("label = {{ text = \"A\", colour = «\"{colour}\"» }}")),
            "colour",
            &format!("`{colour}` is no colour"),
            "\"#00a651\"",
        );
    }
    mistake(
        &lines("", "label = «{ text = \"A\" }»"),
        "label-incomplete",
        "the label has no colour",
        "`colour = \"#00a651\"`",
    );
    mistake(
        &lines("", "label = «{ colour = \"#00a651\" }»"),
        "label-incomplete",
        "the label has no text",
        "`text = \"OFFICE\"`",
    );
    let long = "A".repeat(33);
    mistake(
        &lines("", &format!("label = {{ text = «\"{long}\"», colour = \"#00a651\" }}")),
        "label-text",
        &format!("`{long}` cannot be the text of a label"),
        "1 to 32 bytes",
    );
    mistake(
        &lines("", "on-reset = «\"reboot\"»"),
        "wrong-word",
        "`on-reset` cannot be `reboot`",
        "Write \"restart\" or \"stop\".",
    );
    mistake(
        &lines("", "on-unclaimed = «\"ignore\"»"),
        "wrong-word",
        "`on-unclaimed` cannot be `ignore`",
        "Write \"answer\" or \"stop\".",
    );
}

#[test]
fn grants_need_their_parts() {
    let interface = lines(
        "",
        "«[[compartment.interface]]»\nnetwork = \"wan\"\naddresses = [\"10.0.2.20/24\"]\nallow = [{ to = \"10.0.2.3\", udp = 53 }, { to = \"192.0.2.0/24\", tcp = [443, 8443], rate = \"1 MiB/s\" }, { to = \"10.0.2.1\", icmp = \"echo\" }]\naccept = [{ from = \"10.1.0.2\", tcp = 80 }]",
    );
    mistake(
        &interface,
        "part-missing",
        "an interface needs part `network`, which profile lab does not have",
        "Choose a profile with part `network`, or remove it.",
    );
    mistake(
        &format!("{}\n«[[network]]»\nname = \"wan\"\nuplink = \"nic0\"\n", lines("", "")),
        "part-missing",
        "a network needs part `network`, which profile lab does not have",
        "part `network`",
    );
    let channel = format!(
        "{}\n«[[channel]]»\nname = \"s\"\nfrom = \"office\"\nto = \"office\"\nsize = \"64 KiB\"\n",
        lines("", "")
    );
    mistake(
        &channel,
        "part-missing",
        "a channel needs part `channel`, which profile lab does not have",
        "part `channel`",
    );
    // Until boot modules carry them, no profile makes them silently vanish.
    let mut with_part = environment();
    with_part.parts.push("channel".to_owned());
    mistake_in(
        &with_part,
        &channel,
        "grant-not-carried",
        "a channel cannot be compiled: boot modules of format 2 carry none",
        "later release",
    );
    // They are read by type all the same.
    let folder = folder();
    let wrong = interface.replace(['«', '»'], "").replace("udp = 53", "udp = \"dns\"");
    let kinds: Vec<_> = check(&wrong, &environment(), folder.path()).iter().map(Mistake::kind).collect();
    assert_eq!(kinds, ["part-missing", "wrong-type"]);
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_their_places() {
    let text = "format = 3\n[[compartment]]\nname = \"ringfence\"\nmemory = \"1 MB\"\nvcpus = 0\nboot = { kernel = \"nowhere\", initrd = \"neither\", protocol = \"x\" }\ncolour = 1\n[[network]]\nname = 7\n";
    let folder = folder();
    let mistakes = check(text, &environment(), folder.path());
    let found: Vec<_> = mistakes.iter().map(|mistake| (mistake.line(), mistake.kind())).collect();
    assert_eq!(
        found,
        [
            (1, "format"),
            (3, "name-reserved"),
            (4, "size"),
            (5, "vcpus-none"),
            (6, "file-missing"),
            (6, "file-missing"),
            (6, "wrong-word"),
            (7, "unknown-key"),
            (8, "part-missing"),
            (9, "wrong-type"),
        ]
    );
}

#[test]
fn a_diagnostic_shows_place_snippet_and_remedy() {
    let folder = folder();
    let text = lines("vcpus", "vcpus = 9");
    let error = Manifest::parse("two.ringfence.toml", &text, folder.path())
        .unwrap()
        .check(&environment())
        .unwrap_err();
    assert_eq!(error.to_string(), "the manifest two.ringfence.toml has a mistake");
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .render_report(&mut shown, &error)
        .unwrap();
    for piece in [
        "9 vCPUs are more than the 4 that profile lab",
        "two.ringfence.toml:7:9",
        "vcpus = 9",
        "Take fewer vCPUs",
    ] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
}
