//! The boot module that comes out: deterministic, each payload once, and what the hypervisor reads is what was said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{BzImage, environment, fixed};
use manifest::Manifest;
use manifest::boot::Protocol;
use std::path::Path;

fn compile(text: &str, folder: &Path) -> Vec<u8> {
    Manifest::parse("m", text, folder).unwrap().check(&environment()).unwrap().compile()
}

fn compartment(name: &str, initrd: &str, line: &str) -> String {
    format!(
        "[[compartment]]\nname = \"{name}\"\nmemory = \"64 MiB\"\nvcpus = 2\nboot = {{ kernel = \"vmlinuz\", initrd = \"{initrd}\", command-line = \"{line}\" }}\n"
    )
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let code = (0..3 << 20).map(|byte: u32| (byte % 251) as u8 | 1).collect();
    write("vmlinuz", &BzImage { code, ..BzImage::default() }.build());
    write("one.img", &vec![1; 1 << 20]);
    write("same.img", &vec![1; 1 << 20]);
    write("other.img", &vec![2; 1 << 20]);
    folder
}

#[test]
fn the_same_manifest_gives_the_same_bytes() {
    let folder = folder();
    let text =
        format!("format = 1\n{}{}", compartment("a", "one.img", "x"), compartment("b", "other.img", "y"));
    assert_eq!(compile(&text, folder.path()), compile(&text, folder.path()));
}

#[test]
fn identical_payloads_are_stored_once_whatever_their_file() {
    let folder = folder();
    let one = format!("format = 1\n{}", compartment("a", "one.img", "x"));
    let alone = compile(&one, folder.path()).len();
    let second = |initrd: &str| {
        compile(&format!("{one}{}", compartment("b", initrd, "y")), folder.path()).len() - alone
    };
    // Only the zero page could differ, and with the same sizes it does not: what is left is the command line.
    assert!(second("same.img") <= 2 * 4096, "{}", second("same.img"));
    let grown = second("other.img");
    assert!((1 << 20..(1 << 20) + 3 * 4096).contains(&grown), "{grown}");
}

#[test]
fn the_plan_says_what_the_manifest_says_and_each_segment_holds_its_bytes() {
    let folder = folder();
    let text = format!(
        "format = 1\n{}cpus = [3, 1]\non-reset = \"stop\"\non-unclaimed = \"stop\"\n{}",
        compartment("a", "one.img", "x"),
        compartment("b", "other.img", "why not")
    );
    let checked = Manifest::parse("m", &text, folder.path()).unwrap().check(&fixed()).unwrap();
    let summaries: Vec<_> =
        checked.compartments().iter().map(|it| (it.name.as_str(), it.vcpus, it.protocol)).collect();
    assert_eq!(summaries, [("a", 2, Protocol::Linux), ("b", 2, Protocol::Linux)]);
    let module = checked.into_module();
    let plan = plan::read_whole(&module).unwrap();
    let [a, b] = plan.compartments.as_slice() else { panic!("two compartments") };
    assert_eq!((a.cpus.as_slice(), a.on_reset), (&[3, 1][..], plan::OnReset::Stop));
    assert_eq!((b.cpus.as_slice(), b.on_reset), (&[][..], plan::OnReset::Restart));
    assert_eq!(a.on_unclaimed, plan::OnUnclaimed::Stop);
    assert_eq!(b.on_unclaimed, plan::OnUnclaimed::Answer);
    let bytes = |compartment: &plan::Compartment, target: u64| {
        let segment =
            compartment.segments.iter().find(|segment| segment.target == target).expect("a segment");
        assert_eq!(segment.source % plan::PAYLOAD_ALIGNMENT, 0);
        module[segment.source as usize..][..segment.length as usize].to_vec()
    };
    assert_eq!(bytes(a, 63 << 20), vec![1; 1 << 20]);
    assert_eq!(bytes(b, 63 << 20), vec![2; 1 << 20]);
    assert_eq!(bytes(b, 0x1_0000), b"why not\0");
    assert_eq!(bytes(a, 16 << 20).len(), 3 << 20);
}

/// The kernel that `./ringfence` keeps for the demonstration, if it is there.
fn real_kernel() -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.ringfence/guests/vmlinuz-cloud");
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: no kernel in .ringfence/guests (`./ringfence setup` puts one there)");
    None
}

#[test]
fn the_demonstration_s_kernel_is_placed_by_both_protocols() {
    let Some(kernel) = real_kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(kernel, folder.path().join("vmlinuz")).unwrap();
    std::fs::write(folder.path().join("office.cpio"), vec![3; 2 << 20]).unwrap();
    let text = "format = 1\n[[compartment]]\nname = \"a\"\nmemory = \"256 MiB\"\nboot = { kernel = \"vmlinuz\", initrd = \"office.cpio\" }\n[[compartment]]\nname = \"b\"\nmemory = \"256 MiB\"\nboot = { kernel = \"vmlinuz\", initrd = \"office.cpio\", protocol = \"pvh\" }\n";
    let checked = Manifest::parse("m", text, folder.path()).unwrap().check(&environment()).unwrap();
    let protocols: Vec<_> = checked.compartments().iter().map(|it| it.protocol).collect();
    assert_eq!(protocols, [Protocol::Linux, Protocol::Pvh]);
    let module = checked.into_module();
    let plan = plan::read_whole(&module).unwrap();
    for (compartment, mode) in plan.compartments.iter().zip([plan::Mode::Long, plan::Mode::Protected]) {
        assert_eq!(compartment.start.mode, mode);
        let entry = compartment.start.entry;
        let inside = compartment
            .segments
            .iter()
            .find(|segment| (segment.target..segment.target + segment.length).contains(&entry))
            .expect("the entry point lies in a segment");
        // Debian links its kernel to 16 MiB.
        assert!(entry >= 16 << 20, "{entry:#x}");
        let offset = (inside.source + entry - inside.target) as usize;
        // Both entry points begin by clearing the direction flag: `cld`, after `endbr64` if any.
        assert!(module[offset..offset + 8].contains(&0xfc), "{:x?}", &module[offset..offset + 8]);
    }
    // The disk is in the module once.
    let disk = |index: usize| {
        plan.compartments[index].segments.iter().find(|segment| segment.length == 2 << 20).expect("the disk")
    };
    assert_eq!(disk(0).source, disk(1).source);
}

/// The shipped manifest has no mistake, once its files are beside it.
#[test]
fn the_demonstration_s_manifest_compiles() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/demonstration");
    let folder = folder();
    let manifest = folder.path().join("demonstration.ringfence.toml");
    std::fs::copy(shipped.join("demonstration.ringfence.toml"), &manifest).unwrap();
    let init = std::fs::read(shipped.join("init")).unwrap();
    let archive = manifest::initramfs::demonstration(b"\x7fELF".to_vec(), init).unwrap();
    std::fs::write(folder.path().join("initramfs.img"), archive).unwrap();
    let checked = Manifest::load(&manifest).unwrap().check(&environment()).unwrap();
    assert!(checked.warnings().is_empty());
    let names: Vec<_> =
        checked.compartments().iter().map(|it| (it.name.as_str(), it.memory >> 20, it.vcpus)).collect();
    assert_eq!(names, [("office", 256, 2), ("banking", 256, 2)]);
}
