//! `build`: from a profile to a bootable image.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use manifest::{Checked, Environment, Manifest};
use profile::Profile;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::progress::{Progress, watch};
use crate::toolchain::{TARGET, Toolchain};
use crate::tree::Tree;
use crate::words::{BuildWords, Format};
use crate::{Failure, Outcome, symbol_table};

/// The stripped image: what is booted.
pub const ELF: &str = "ringfence.elf";
/// The image with its symbols and debug information.
pub const DEBUG: &str = "ringfence.debug";
/// The linker's map of it.
pub const MAP: &str = "ringfence.map";
/// The boot module.
pub const MODULE: &str = "ringfence.module";
/// The CD image.
pub const ISO: &str = "ringfence.iso";
/// The flat profile.
pub const PROFILE: &str = "profile.toml";
/// The digests of all of these.
pub const SUMS: &str = "SHA256SUMS";

/// Carries out `build`.
pub fn command(tree: &Tree, words: &BuildWords) -> Result<Outcome, Failure> {
    let profile = tree.profile(&words.profile)?;
    // The manifest is judged before anything takes time.
    let module = words.manifest.as_deref().map(|path| check(path, &environment(&profile))).transpose()?;
    let output = words.output.clone().unwrap_or_else(|| folder(tree, &profile));
    let stage = image(tree, &profile, &output)?;
    if let Some(checked) = module {
        fs::write(stage.path().join(MODULE), checked.into_module())?;
    }
    if words.format == Format::Iso {
        iso(stage.path(), &stage.path().join(ISO))?;
    }
    publish(&stage, &output)?;
    let size = fs::metadata(output.join(ELF))?.len();
    eprintln!("{}: {} bytes, in {}", profile.name, size, output.display());
    Ok(Outcome::Holds)
}

/// Where a profile's image lies, unless the user says otherwise.
pub fn folder(tree: &Tree, profile: &Profile) -> PathBuf {
    tree.target().join("ringfence").join(&profile.name)
}

/// Builds a profile's image into its own folder, and gives that folder.
pub fn profile_image(tree: &Tree, profile: &Profile) -> Result<PathBuf, Failure> {
    let output = folder(tree, profile);
    publish(&image(tree, profile, &output)?, &output)?;
    Ok(output)
}

/// Builds a bare-metal guest of the tests, `tests/guests/NAME`, and gives its program.
pub fn guest(tree: &Tree, name: &str) -> Result<PathBuf, Failure> {
    let target_folder = tree.target().join("guests");
    let progress = Progress::begin(format!("building the guest {name}"));
    let mut cargo =
        Toolchain::find()?.cargo(&tree.path(&format!("tests/guests/{name}")), "build", &target_folder);
    let (status, words) = watch(&progress, &mut cargo)?;
    progress.done();
    if !status.success() {
        let failure = Failure::does_not_hold(
            format!("the guest {name} cannot be built"),
            "the compiler says why, above",
        );
        return Err(failure.with_words(words));
    }
    Ok(target_folder.join(TARGET).join("release").join(name))
}

/// What a manifest is checked against when no machine is known.
pub fn environment(profile: &Profile) -> Environment {
    let limits = profile.limits;
    Environment {
        profile_name: profile.name.clone(),
        limits: manifest::Limits {
            compartments: limits.compartments,
            vcpus_per_compartment: limits.vcpus_per_compartment,
            cpus: limits.cpus,
        },
        parts: profile.parts.clone(),
        machine_memory: None,
        machine_cpus: None,
    }
}

/// Reads and checks a manifest, and prints its warnings.
pub fn check(path: &Path, environment: &Environment) -> Result<Checked, Failure> {
    let checked = Manifest::load(path)?.check(environment)?;
    for warning in checked.warnings() {
        eprintln!("{}:{}: warning: {warning}. {}", warning.file(), warning.line(), warning.remedy());
    }
    Ok(checked)
}

/// Builds a profile's image into a fresh folder beside `output`, so that it can be renamed into it.
fn image(tree: &Tree, profile: &Profile, output: &Path) -> Result<TempDir, Failure> {
    let toolchain = Toolchain::find()?;
    let target_folder = tree.target().join("image");
    fs::create_dir_all(&target_folder)?;
    let beside = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(beside)?;
    let stage = tempfile::Builder::new().prefix(".ringfence-").tempdir_in(beside)?;

    // The compiler leaves every profile's image under one name: nobody else builds until ours is copied.
    let lock = File::create(target_folder.join("lock"))?;
    lock.lock()?;
    let map = target_folder.join(MAP);
    // What lies here afterwards is of this link; if nothing had to be linked, there is none.
    let _ = fs::remove_file(&map);
    let mut cargo = toolchain.image(tree, "build", &target_folder, &profile.parts);
    if let Some(file) = profile.files.first() {
        cargo.env("RINGFENCE_PROFILE", file);
    }
    let progress = Progress::begin(format!("building the image of {}", profile.name));
    let (status, words) = watch(&progress, &mut cargo)?;
    progress.done();
    if !status.success() {
        let message = format!("the image of {} cannot be built", profile.name);
        return Err(Failure::does_not_hold(message, "the compiler says why, above").with_words(words));
    }
    let built = target_folder.join(TARGET).join("release/ringfence-image");
    let debug = stage.path().join(DEBUG);
    fs::copy(&built, &debug)?;
    keep_map(&target_folder, &map, &debug, &stage.path().join(MAP))?;
    drop(lock);

    symbol_table::install(&debug)?;
    let elf = stage.path().join(ELF);
    tool(Command::new("strip").arg("--strip-all").arg("-o").args([&elf, &debug]), "binutils")?;
    let mut bytes = fs::read(&elf)?;
    loaded_only(&mut bytes).ok_or_else(|| {
        Failure::environment(
            "strip has left no ELF file of 64 bits",
            "build again, with another version of binutils",
        )
    })?;
    fs::write(&elf, bytes)?;
    fs::write(stage.path().join(PROFILE), profile.to_toml())?;
    Ok(stage)
}

/// Cuts off what no loader reads: all that lies behind the last segment's bytes, which is the table of sections with the hole before it.
/// The debug file has them still. `None`: this is no ELF file of 64 bits, or it ends before its segments do.
fn loaded_only(bytes: &mut Vec<u8>) -> Option<()> {
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = object::elf::FileHeader64::<object::LittleEndian>::parse(bytes.as_slice()).ok()?;
    let order = header.endian().ok()?;
    let segments = header.program_headers(order, bytes.as_slice()).ok()?;
    let end = segments.iter().map(|segment| segment.p_offset(order) + segment.p_filesz(order)).max()?;
    let end = usize::try_from(end).ok().filter(|end| *end <= bytes.len())?;
    bytes.truncate(end);
    // Where the table of sections was (`e_shoff`), how many it had and which held their names (`e_shnum`, `e_shstrndx`).
    for place in [40..48, 60..64] {
        bytes.get_mut(place)?.fill(0);
    }
    Some(())
}

/// Maps are kept by the digest of what they map, because a build that finds everything up to date links nothing.
fn keep_map(target_folder: &Path, fresh: &Path, image: &Path, place: &Path) -> Result<(), Failure> {
    let maps = target_folder.join("maps");
    fs::create_dir_all(&maps)?;
    let kept = maps.join(format!("{}.map", digest(image)?));
    if fresh.is_file() {
        fs::copy(fresh, &kept)?;
    }
    if kept.is_file() {
        fs::copy(&kept, place)?;
    }
    Ok(())
}

/// Makes a CD image at `iso` from the image, and the module if there is one, in `folder`.
pub fn iso(folder: &Path, iso: &Path) -> Result<(), Failure> {
    iso_of(&folder.join(ELF), Some(folder.join(MODULE)).filter(|module| module.is_file()).as_deref(), iso)
}

/// Makes a CD image at `iso` that boots `image` with `module` through GRUB and multiboot2.
pub fn iso_of(image: &Path, module: Option<&Path>, iso: &Path) -> Result<(), Failure> {
    let tree = tempfile::tempdir()?;
    let boot = tree.path().join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    fs::copy(image, boot.join(ELF))?;
    let mut script = vec![format!("multiboot2 /boot/{ELF}")];
    if let Some(module) = module {
        fs::copy(module, boot.join(MODULE))?;
        script.push(format!("module2 /boot/{MODULE}"));
    }
    script.push("boot\n".to_owned());
    fs::write(boot.join("grub/grub.cfg"), script.join("\n"))?;
    let progress = Progress::begin("making the CD image");
    let mut command = Command::new("grub-mkrescue");
    // Only what booting takes: no fonts, languages and themes.
    command.args([
        "--locales=",
        "--fonts=",
        "--themes=",
        "--install-modules=multiboot2 normal iso9660 biosdisk",
    ]);
    command.arg("-o").args([iso, tree.path()]);
    let (status, words) = watch(&progress, &mut command)?;
    progress.done();
    if !status.success() {
        let help = "`./ringfence setup` installs grub-common, grub-pc-bin, xorriso and mtools";
        return Err(Failure::environment("grub-mkrescue failed", help).with_words(words));
    }
    Ok(())
}

/// Moves everything from `stage` into `output`, the digests last: who sees them sees the whole.
fn publish(stage: &TempDir, output: &Path) -> Result<(), Failure> {
    let mut names = Vec::new();
    for entry in fs::read_dir(stage.path())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut sums = Vec::new();
    for name in &names {
        sums.push(format!("{}  {name}\n", digest(&stage.path().join(name))?));
    }
    fs::write(stage.path().join(SUMS), sums.concat())?;
    fs::create_dir_all(output)?;
    let _ = fs::remove_file(output.join(SUMS));
    // What an earlier build made and this one did not would belong to another image.
    for name in [MAP, MODULE, ISO] {
        if !names.iter().any(|known| known == name) {
            let _ = fs::remove_file(output.join(name));
        }
    }
    for name in names.iter().map(String::as_str).chain([SUMS]) {
        fs::rename(stage.path().join(name), output.join(name))?;
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal.
pub fn digest(path: &Path) -> Result<String, Failure> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn tool(command: &mut Command, package: &str) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let remedy = format!("`./ringfence setup` installs it (package {package})");
    let output = command
        .output()
        .map_err(|error| Failure::environment(format!("{name} cannot be started: {error}"), &remedy))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::environment(format!("{name} failed"), remedy)
        .with_words(String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(files: &[(&str, &str)]) -> TempDir {
        let stage = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(stage.path().join(name), text).unwrap();
        }
        stage
    }

    #[test]
    fn sections_are_cut_off_and_segments_stay() {
        use object::{Object, ObjectSegment};
        // This test's own program stands for an image.
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        // The first segment begins with the header that is changed.
        let segments = |bytes: &[u8]| {
            let file = object::File::parse(bytes).unwrap();
            file.segments()
                .skip(1)
                .map(|segment| hex(&Sha256::digest(segment.data().unwrap())))
                .collect::<Vec<_>>()
        };
        let mut cut = whole.clone();
        loaded_only(&mut cut).unwrap();
        assert!(cut.len() < whole.len());
        assert_eq!(segments(&cut), segments(&whole));
        assert_eq!(object::File::parse(cut.as_slice()).unwrap().sections().count(), 0);
        assert_eq!(loaded_only(&mut whole[..1000].to_vec()), None);
        assert_eq!(loaded_only(&mut b"no ELF file".to_vec()), None);
    }

    #[test]
    fn what_is_published_has_its_digests() {
        let output = tempfile::tempdir().unwrap();
        publish(&stage(&[(ELF, "abc"), (PROFILE, "")]), output.path()).unwrap();
        let sums = fs::read_to_string(output.path().join(SUMS)).unwrap();
        // FIPS 180-4: the digests of "" and of "abc".
        assert_eq!(
            sums,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  profile.toml\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  ringfence.elf\n"
        );
    }

    #[test]
    fn nothing_of_an_earlier_build_stays() {
        let output = tempfile::tempdir().unwrap();
        fs::write(output.path().join("mine.txt"), "").unwrap();
        publish(&stage(&[(ELF, "1"), (MODULE, "1"), (ISO, "1")]), output.path()).unwrap();
        publish(&stage(&[(ELF, "2")]), output.path()).unwrap();
        let mut names = fs::read_dir(output.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, [SUMS, "mine.txt", ELF]);
        assert_eq!(fs::read_to_string(output.path().join(ELF)).unwrap(), "2");
    }

    #[test]
    fn a_map_is_found_again_by_what_it_maps() {
        let folder = tempfile::tempdir().unwrap();
        let (fresh, image, place) =
            (folder.path().join("fresh"), folder.path().join("image"), folder.path().join("place"));
        fs::write(&image, "image").unwrap();
        keep_map(folder.path(), &fresh, &image, &place).unwrap();
        assert!(!place.exists());
        fs::write(&fresh, "map").unwrap();
        keep_map(folder.path(), &fresh, &image, &place).unwrap();
        fs::remove_file(&fresh).unwrap();
        fs::remove_file(&place).unwrap();
        keep_map(folder.path(), &fresh, &image, &place).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "map");
    }
}
