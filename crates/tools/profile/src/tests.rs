use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{Catalogue, Error, Limits, Profile, REQUIREMENTS, RequirementSource};

fn catalogue() -> Catalogue {
    let names = [
        "svm",
        "npt",
        "nrip-save",
        "vmx",
        "ept",
        "vpid",
        "isolation-check",
        "schedule-shared",
        "schedule-static",
        "local-apic",
        "uart",
        "default",
    ];
    Catalogue::new(names.map(str::to_owned))
}

const BASE: &str = r#"
format = 1
name = "base"
summary = "What every profile has"
parts = ["local-apic", "uart"]
limits = { compartments = 2 }
"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(text: &str) -> Result<Profile, Error> {
    let folder = folder(&[("base.toml", BASE), ("lab.toml", text)]);
    Profile::load_with(&folder.path().join("lab.toml"), &catalogue())
}

const HEAD: &str = "format = 1\nname = \"lab\"\nsummary = \"s\"\n";

fn refused(rest: &str) -> Error {
    load(&format!("{HEAD}{rest}")).expect_err("it has to be refused")
}

#[test]
fn flattens_what_it_inherits() {
    let profile = load(&format!(
        "{HEAD}inherit = \"base\"\nparts = [\"svm\", \"npt\", \"schedule-static\"]\nwithout = [\"uart\"]\n\
         limits = {{ cpus = 3 }}\nbench-machines = [\"qemu\"]\n"
    ))
    .unwrap();
    assert_eq!(profile.name, "lab");
    assert_eq!(profile.parts, ["local-apic", "npt", "schedule-static", "svm"]);
    assert_eq!(profile.limits, Limits { compartments: 2, vcpus_per_compartment: 4, cpus: 3 });
    assert_eq!(profile.bench_machines, ["qemu"]);
    assert_eq!(profile.files.len(), 2);
    assert!(profile.files[0].ends_with("lab.toml"));
}

#[test]
fn the_flat_profile_says_the_same() {
    let profile = load(&format!(
        "{HEAD}inherit = \"base\"\nparts = [\"svm\", \"npt\", \"schedule-static\"]\nrequires = [\"x2apic\"]\n"
    ))
    .unwrap();
    let again = load(&profile.to_toml()).unwrap();
    assert_eq!(Profile { files: vec![], ..profile }, Profile { files: vec![], ..again });
}

#[test]
fn parts_and_profile_require() {
    let profile = load(&format!(
        "{HEAD}parts = [\"svm\", \"npt\", \"schedule-static\"]\nrequires = [\"one-gib-pages\"]\n"
    ))
    .unwrap();
    let names = profile.requirements().iter().map(|requirement| requirement.name).collect::<Vec<_>>();
    assert_eq!(names, ["svm", "npt", "one-gib-pages"]);
}

/// A product of its own name with these parts.
fn product(name: &str, parts: &[&str]) -> Profile {
    let profile = load(&format!("{HEAD}parts = {parts:?}\n")).unwrap();
    Profile { name: name.to_owned(), ..profile }
}

fn alternatives(profile: &Profile, shipped: &[Profile]) -> Vec<String> {
    profile.alternatives(shipped).into_iter().map(|other| other.name).collect()
}

#[test]
fn alternatives_ask_for_less_and_the_most_alike_comes_first() {
    let shared = product("shared", &["svm", "npt", "schedule-shared"]);
    let alike = product("alike", &["svm", "npt", "schedule-static"]);
    let saving = product("saving", &["svm", "npt", "nrip-save", "schedule-static"]);
    let checked = product("a-checked", &["svm", "npt", "isolation-check", "schedule-static"]);
    let plain = product("plain", &["vmx", "ept", "schedule-static"]);
    let tagged = product("tagged", &["vmx", "ept", "vpid", "schedule-static"]);
    let shipped = [shared.clone(), checked, alike, saving.clone(), plain, tagged];
    assert_eq!(alternatives(&saving, &shipped), ["alike", "tagged", "plain"]);
    // Who has nRIP save has the rest.
    assert_eq!(alternatives(&shared, &shipped), ["tagged", "plain"]);
}

#[test]
fn a_product_for_two_vendors_is_one_for_each() {
    let both = product("both", &["svm", "npt", "vmx", "ept", "schedule-shared"]);
    let tagged = product("tagged", &["vmx", "ept", "vpid", "schedule-shared"]);
    let parts = both.for_each_vendor().into_iter().map(|side| side.parts).collect::<Vec<_>>();
    assert_eq!(parts, [["npt", "schedule-shared", "svm"], ["ept", "schedule-shared", "vmx"]]);
    let amd = product("amd", &["svm", "npt", "schedule-shared"]);
    assert_eq!(alternatives(&amd, &[both.clone(), tagged.clone(), amd.clone()]), ["tagged", "both"]);
    // Of two that are alike the one for this vendor alone comes first, whatever their names are.
    let static_one = product("static", &["svm", "npt", "nrip-save", "schedule-static"]);
    assert_eq!(
        alternatives(&static_one, &[Profile { name: "a-both".to_owned(), ..both.clone() }, amd.clone()])[0],
        "amd"
    );
    assert!(alternatives(&both, &[amd, tagged]).is_empty());
}

#[test]
fn each_hardware_part_of_this_tree_asks_for_its_feature() {
    let metal = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../metal");
    let catalogue = Catalogue::of_this_tree().unwrap();
    let parts = catalogue.names().filter(|part| metal.join(part).is_dir() && *part != "isolation-check");
    let parts = parts.collect::<Vec<_>>();
    assert!(parts.contains(&"svm") && parts.contains(&"vpid"), "{parts:?}");
    for part in parts {
        assert!(REQUIREMENTS.iter().any(|requirement| requirement.name == part), "{part}");
    }
}

/// The registers that tell of secondary controls, and of EPT and VPID, exist only where another one says so.
#[test]
fn no_register_is_asked_before_the_one_that_announces_it() {
    let asked = |name: &str| REQUIREMENTS.iter().filter(move |row| row.name == name).collect::<Vec<_>>();
    for name in ["ept", "unrestricted-guest", "vpid", "xsaves"] {
        let mut rows = asked(name);
        rows.retain(|row| matches!(row.source, RequirementSource::Capability(_)));
        assert_eq!((rows[0].source, rows[0].bit), (RequirementSource::Capability(0x482), 63), "{name}");
        let last = rows.iter().position(|row| row.source == RequirementSource::Capability(0x48c));
        let announced = rows.iter().position(|row| row.source == RequirementSource::Capability(0x48b));
        assert!(announced < last || last.is_none(), "{name}");
    }
}

#[test]
fn an_unknown_key_gets_its_place_and_a_suggestion() {
    let error = refused("part = [\"svm\"]\n");
    assert_eq!(error.message, "a profile has no key \"part\"");
    assert_eq!(error.help, "did you mean \"parts\"?");
    assert_eq!(error.place.as_ref().unwrap().line_and_column(), (4, 1));
    assert!(error.to_string().ends_with("lab.toml:4:1: a profile has no key \"part\""));
}

#[test]
fn mistakes_get_a_sentence() {
    let all = "parts = [\"svm\", \"npt\", \"schedule-static\"]\n";
    for (rest, message, help) in [
        ("parts = [\"svn\"]", "there is no part \"svn\"", "did you mean \"svm\"?"),
        ("parts = [\"svm\", \"svm\"]", "\"svm\" is named twice", "remove one of them"),
        ("parts = [1]", "a text in quotes is wanted here, not an integer", "write a text in quotes"),
        ("parts = \"svm\"", "a list in brackets is wanted here, not a string", "write a list in brackets"),
        ("limits = { cpu = 1 }", "there is no limit \"cpu\"", "did you mean \"cpus\"?"),
        ("limits = { cpus = 0 }", "a number from 1 to 256 is wanted here", "write a number from 1 to 256"),
        (
            "limits = { compartments = 17 }",
            "a number from 1 to 16 is wanted here",
            "write a number from 1 to 16",
        ),
        ("limits = 3", "a table in braces is wanted here, not an integer", "write a table in braces"),
        ("inherit = \"bass\"", "there is no profile \"bass\" beside this one", "did you mean \"base\"?"),
        ("inherit = \"lab\"", "\"lab\" inherits from itself", "take one `inherit` of the circle out"),
        (
            "without = [\"uart\"]",
            "\"uart\" is not inherited, so it cannot be taken out",
            "remove it from `without`",
        ),
        ("requires = [\"svn\"]", "there is no requirement \"svn\"", "did you mean \"svm\"?"),
        (
            "inherit = \"base\"",
            "profile \"lab\" has no processor back end: no image can be built from it",
            "add one of these parts: svm, vmx",
        ),
        (
            "parts = [\"svm\", \"npt\", \"schedule-static\", \"schedule-shared\"]",
            "profile \"lab\" has more than one scheduler: schedule-shared, schedule-static",
            "keep one of them; take an inherited one out with `without`",
        ),
    ] {
        let error = refused(rest);
        assert_eq!((error.message.as_str(), error.help.as_str()), (message, help), "{rest}");
    }
    assert!(load(&format!("{HEAD}{all}")).is_ok());
    let format = load(&format!("{HEAD}{all}").replace("format = 1", "format = 2")).unwrap_err();
    assert_eq!(format.message, "the number 1 is wanted here");
    let missing = load(all).unwrap_err();
    assert_eq!(missing.message, "the key \"format\" is missing");
    let name = load(&format!("{HEAD}{all}").replace("\"lab\"", "\"other\"")).unwrap_err();
    assert_eq!(name.message, "the profile is called \"other\", but its file is not");
    let broken = refused("parts = [");
    assert!(broken.place.is_some(), "{broken:?}");
}

/// What the check would find wrong is so on purpose.
#[test]
fn the_isolation_check_needs_unrestricted_guests_on_intel() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let catalogue = Catalogue::of_tree(&root).unwrap();
    let load = |parts: &str| {
        let text = format!("{HEAD}parts = [\"ept\", \"schedule-static\", \"isolation-check\", {parts}]\n");
        let folder = folder(&[("lab.toml", &text)]);
        Profile::load_with(&folder.path().join("lab.toml"), &catalogue)
    };
    let error = load("\"vmx\"").unwrap_err();
    assert!(error.message.contains("isolation-check, and not unrestricted-guest"), "{error:?}");
    assert!(load("\"vmx\", \"unrestricted-guest\"").is_ok());
    assert!(load("\"svm\"").is_ok());
}

#[test]
fn a_circle_of_two_is_refused() {
    let other = "format = 1\nname = \"other\"\nsummary = \"s\"\ninherit = \"lab\"\n";
    let folder = folder(&[("lab.toml", &format!("{HEAD}inherit = \"other\"\n")), ("other.toml", other)]);
    let error = Profile::load_with(&folder.path().join("lab.toml"), &catalogue()).unwrap_err();
    assert_eq!(error.message, "\"lab\" inherits from itself");
}

#[test]
fn a_fragment_is_no_product() {
    let folder = folder(&[("base.toml", BASE)]);
    let path = folder.path().join("base.toml");
    assert!(Profile::load_with(&path, &catalogue()).is_err());
    assert!(Profile::load_fragment(&path, &catalogue()).is_ok());
}

/// Every profile that this tree ships can be read with the parts that this tree has.
#[test]
fn shipped_profiles_are_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let catalogue = Catalogue::of_tree(&root).unwrap();
    let mut complete = 0;
    for entry in fs::read_dir(root.join("profiles")).unwrap() {
        let path = entry.unwrap().path();
        let profile = Profile::load_fragment(&path, &catalogue).unwrap_or_else(|error| panic!("{error}"));
        complete += usize::from(Profile::load_with(&path, &catalogue).is_ok());
        for machine in &profile.bench_machines {
            let file = root.join("build-configs").join(format!("{machine}.toml"));
            assert!(file.is_file(), "{} names the bench machine {machine}", path.display());
        }
    }
    assert!(complete >= 2);
}
