//! Breaks every rule once in a small tree, and sees it fail, with the place and nothing else.
#![allow(clippy::unwrap_used)]

use house::Outcome;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A small tree that keeps every rule: one crate in each room.
struct Tree(TempDir);

const LINTS_OF_METAL: &str = "\
[lints.rust]
unsafe_op_in_unsafe_fn = \"deny\"
[lints.clippy]
undocumented_unsafe_blocks = \"deny\"
";

impl Tree {
    fn new() -> Self {
        let tree = Self(TempDir::new().unwrap());
        tree.write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/pure/*\", \"crates/contracts\", \"crates/metal/*\", \
             \"crates/monitor\", \"crates/parts/*\", \"crates/image\", \"crates/tools/*\"]\n\
             [workspace.lints.rust]\nunsafe_code = \"forbid\"\n",
        );
        tree.member("crates/pure/numbers", "", "#![no_std]\npub const ONE: u8 = 1;\n");
        tree.member(
            "crates/contracts",
            "numbers = { path = \"../pure/numbers\" }",
            "#![no_std]\npub trait Device {}\n",
        );
        tree.member(
            "crates/monitor",
            "contracts = { path = \"../contracts\" }",
            "#![no_std]\npub fn turn() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn turns() { Some(1).unwrap(); }\n}\n",
        );
        tree.write(
            "crates/monitor/README.md",
            "# Monitor\n\n| Threat | Mitigation | Test |\n|---|---|---|\n| turns for ever | an end | `turns`, `whole` |\n",
        );
        tree.write("tests/system/main.rs", "#[test]\n#[ignore = \"long\"]\nfn whole() {}\nfn helper() {}\n");
        tree.member(
            "crates/parts/bell",
            "contracts = { path = \"../../contracts\" }",
            "#![no_std]\npub struct Bell;\nimpl contracts::Device for Bell {}\n#[test]\nfn limited() {}\nfn product() {}\n",
        );
        tree.write(
            "crates/parts/bell/README.md",
            "# Bell\n\n| Threat | Mitigation | Test |\n|---|---|---|\n| rings for ever | a limit | `limited` |\n",
        );
        tree.metal("memory", "");
        tree.metal(
            "engine",
            "/// Starts.\n///\n/// # Safety\n/// Once only.\npub unsafe fn start() {}\npub fn go() {\n    // SAFETY: this is the one caller.\n    unsafe { start() }\n}\n",
        );
        tree.write(
            "crates/image/Cargo.toml",
            "[package]\nname = \"image\"\nedition = \"2024\"\n[dependencies]\nmonitor = { path = \"../monitor\" }\n\
             bell = { path = \"../parts/bell\", optional = true }\nengine = { path = \"../metal/engine\", optional = true }\n\
             [build-dependencies]\nprofile = { path = \"../tools/profile\" }\n\
             [lints.rust]\nunsafe_code = \"deny\"\n",
        );
        tree.write(
            "crates/image/src/main.rs",
            "#![no_std]\n#![no_main]\nmod parts;\n#[unsafe(no_mangle)]\nextern \"C\" fn begin() {}\n",
        );
        tree.write(
            "crates/image/src/parts.rs",
            "#[cfg(feature = \"bell\")]\npub use bell::Bell;\n#[cfg(not(feature = \"bell\"))]\npub use contracts::absent::Absent as Bell;\n\
             #[cfg(feature = \"engine\")]\npub use engine::go;\n#[cfg(not(feature = \"engine\"))]\npub use contracts::absent::go;\n",
        );
        tree.member("crates/tools/profile", "numbers = { path = \"../../pure/numbers\" }", "");
        tree.write("crates/tools/house/unsafe-budget.toml", "engine = 2\nmemory = 0\n");
        tree.member("crates/tools/house", "", "");
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let old = fs::read_to_string(self.0.path().join(path)).unwrap();
        self.write(path, &(old + text));
    }

    fn replace(&self, path: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(text.contains(old), "{path} does not contain {old}");
        self.write(path, &text.replace(old, new));
    }

    fn member(&self, folder: &str, dependencies: &str, library: &str) {
        self.package(folder, dependencies, library, "[lints]\nworkspace = true\n");
    }

    fn metal(&self, name: &str, library: &str) {
        self.package(&format!("crates/metal/{name}"), "", &format!("#![no_std]\n{library}"), LINTS_OF_METAL);
    }

    fn package(&self, folder: &str, dependencies: &str, library: &str, lints: &str) {
        let name = Path::new(folder).file_name().unwrap().to_str().unwrap();
        self.write(
            &format!("{folder}/Cargo.toml"),
            &format!(
                "[package]\nname = \"{name}\"\nedition = \"2024\"\n{lints}[dependencies]\n{dependencies}\n"
            ),
        );
        self.write(&format!("{folder}/src/lib.rs"), library);
    }

    fn check(&self) -> Vec<Outcome> {
        house::check(self.0.path()).unwrap()
    }

    /// Checks that `rule` alone is broken, once, at a place that begins with `place` and says `what`.
    fn breaks(&self, rule: &str, place: &str, what: &str) {
        let broken: Vec<_> = self.check().into_iter().filter(|outcome| !outcome.holds()).collect();
        let shown = broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(broken.len(), 1, "one rule must be broken:\n{shown}");
        assert_eq!(broken[0].rule, rule, "{shown}");
        assert_eq!(broken[0].places.len(), 1, "{shown}");
        let found = broken[0].places[0].to_string();
        assert!(found.starts_with(place) && found.contains(what), "{found}");
        assert!(shown.starts_with("FAIL ") && shown.contains("remedy: "), "{shown}");
    }
}

#[test]
fn the_small_tree_keeps_every_rule() {
    for outcome in Tree::new().check() {
        assert!(outcome.holds(), "{outcome}");
        assert!(outcome.to_string().starts_with("ok   "), "{outcome}");
    }
}

#[test]
fn a_file_that_is_no_rust() {
    let tree = Tree::new();
    tree.write("crates/monitor/src/broken.rs", "fn a() {}\nfn (\n");
    tree.breaks("sources", "crates/monitor/src/broken.rs:2", "no Rust");
}

#[test]
fn a_dependency_upwards() {
    let tree = Tree::new();
    tree.append("crates/contracts/Cargo.toml", "monitor = { path = \"../monitor\" }\n");
    tree.replace("crates/monitor/Cargo.toml", "contracts = { path = \"../contracts\" }", "");
    tree.breaks("rows", "crates/contracts/Cargo.toml", "contracts (contracts) depends on monitor (monitor)");
}

#[test]
fn a_part_on_a_part() {
    let tree = Tree::new();
    tree.append("crates/parts/bell/Cargo.toml", "gong = { path = \"../gong\" }\n");
    tree.member("crates/parts/gong", "", "#![no_std]\n");
    tree.replace(
        "crates/image/Cargo.toml",
        "[build-dep",
        "gong = { path = \"../parts/gong\", optional = true }\n[build-dep",
    );
    tree.append(
        "crates/image/src/parts.rs",
        "#[cfg(feature = \"gong\")]\nuse gong as _;\n#[cfg(not(feature = \"gong\"))]\nuse core as _;\n",
    );
    tree.breaks("rows", "crates/parts/bell/Cargo.toml", "bell (parts) depends on gong (parts)");
}

#[test]
fn monitor_on_metal() {
    let tree = Tree::new();
    tree.append("crates/monitor/Cargo.toml", "memory = { path = \"../metal/memory\" }\n");
    tree.breaks("rows", "crates/monitor/Cargo.toml", "monitor (monitor) depends on memory (metal)");
}

#[test]
fn a_part_on_metal_by_its_build_script() {
    let tree = Tree::new();
    tree.append(
        "crates/parts/bell/Cargo.toml",
        "[build-dependencies]\nmemory = { path = \"../../metal/memory\" }\n",
    );
    tree.breaks("rows", "crates/parts/bell/Cargo.toml", "bell (parts) depends on memory (metal)");
}

#[test]
fn a_development_dependency_is_free() {
    let tree = Tree::new();
    tree.append(
        "crates/parts/bell/Cargo.toml",
        "[dev-dependencies]\nmemory = { path = \"../../metal/memory\" }\n",
    );
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn nobody_depends_on_the_image() {
    let tree = Tree::new();
    tree.append(
        "crates/tools/profile/Cargo.toml",
        "[dev-dependencies]\nimage = { path = \"../../image\" }\n",
    );
    tree.breaks("rows", "crates/tools/profile/Cargo.toml", "depends on the image");
}

#[test]
fn a_tool_on_a_contract() {
    let tree = Tree::new();
    tree.append("crates/tools/profile/Cargo.toml", "contracts = { path = \"../../contracts\" }\n");
    tree.breaks(
        "rows",
        "crates/tools/profile/Cargo.toml",
        "profile (tools) depends on contracts (contracts)",
    );
}

#[test]
fn the_image_links_no_tool() {
    let tree = Tree::new();
    tree.replace(
        "crates/image/Cargo.toml",
        "[dependencies]",
        "[dependencies]\nhouse = { path = \"../tools/house\" }",
    );
    tree.breaks("rows", "crates/image/Cargo.toml", "image (image) depends on house (tools)");
}

#[test]
fn a_crate_outside_the_rooms() {
    let tree = Tree::new();
    tree.member("crates/attic", "", "");
    tree.replace("Cargo.toml", "\"crates/contracts\"", "\"crates/contracts\", \"crates/attic\"");
    tree.breaks("rows", "crates/attic/Cargo.toml", "no room");
}

#[test]
fn a_crate_not_called_as_its_folder() {
    let tree = Tree::new();
    tree.replace("crates/metal/memory/Cargo.toml", "\"memory\"", "\"frames\"");
    tree.replace("crates/tools/house/unsafe-budget.toml", "memory", "frames");
    tree.breaks("rows", "crates/metal/memory/Cargo.toml", "not called as its folder");
}

#[test]
fn conditions_on_features_outside_the_table_of_contents() {
    for condition in [
        "#[cfg(feature = \"bell\")]\npub fn ring() {}",
        "#[cfg_attr(feature = \"bell\", inline)]\npub fn ring() {}",
        "pub fn ring() -> bool { cfg!(feature = \"bell\") }",
        "pub fn ring() -> bool { matches!(cfg!(not(feature = \"bell\")), true) }",
        "macro_rules! ring { () => { #[cfg(any(test, feature = \"bell\"))] fn rings() {} } }",
    ] {
        let tree = Tree::new();
        tree.write("crates/monitor/src/extra.rs", &format!("\n{condition}\n"));
        tree.breaks("feature-conditions", "crates/monitor/src/extra.rs:2", "condition on a feature");
    }
}

#[test]
fn a_condition_in_the_image_but_elsewhere() {
    let tree = Tree::new();
    tree.append("crates/image/src/main.rs", "#[cfg(feature = \"bell\")]\nfn ring() {}\n");
    tree.breaks("feature-conditions", "crates/image/src/main.rs:6", "condition on a feature");
}

#[test]
fn a_feature_of_another_crate() {
    let tree = Tree::new();
    tree.append("crates/monitor/Cargo.toml", "[features]\nloud = []\n");
    tree.breaks("feature-conditions", "crates/monitor/Cargo.toml", "features of its own");
}

#[test]
fn a_build_script_that_asks_for_features() {
    let tree = Tree::new();
    tree.write(
        "crates/monitor/build.rs",
        concat!("fn main() { let _ = std::env::var(\"CARGO_", "FEATURE_BELL\"); }"),
    );
    tree.breaks("feature-conditions", "crates/monitor/build.rs:1", "build script");
}

#[test]
fn unsafe_code_outside_metal() {
    for (code, what) in [
        ("pub fn a(b: *const u8) -> u8 { unsafe { *b } }", "unsafe block"),
        ("pub unsafe fn a() {}", "unsafe function"),
        ("pub struct A;\nunsafe impl Send for A {}", "unsafe implementation"),
        ("macro_rules! a { () => { unsafe { b() } } }", "unsafe block"),
        ("core::arch::global_asm!(\"nop\");", "assembly"),
        ("#[unsafe(no_mangle)]\nfn a() {}", "unsafe attribute"),
    ] {
        let tree = Tree::new();
        tree.write("crates/parts/bell/src/extra.rs", code);
        tree.breaks("unsafe-rooms", "crates/parts/bell/src/extra.rs:", what);
    }
}

#[test]
fn a_second_entry_symbol() {
    let tree = Tree::new();
    tree.append("crates/image/src/main.rs", "#[unsafe(no_mangle)]\nextern \"C\" fn end() {}\n");
    tree.breaks("unsafe-rooms", "crates/image/src/main.rs:6", "second entry symbol");
}

#[test]
fn an_unsafe_block_in_the_image() {
    let tree = Tree::new();
    tree.append("crates/image/src/main.rs", "fn end() { unsafe { end() } }\n");
    tree.breaks("unsafe-rooms", "crates/image/src/main.rs:6", "unsafe block");
}

#[test]
fn more_unsafe_code_than_the_budget() {
    let tree = Tree::new();
    tree.append(
        "crates/metal/engine/src/lib.rs",
        "pub struct Gear;\n// SAFETY: it has no state.\nunsafe impl Send for Gear {}\n",
    );
    tree.breaks(
        "unsafe-budget",
        "crates/tools/house/unsafe-budget.toml",
        "engine uses 3 (1 blocks, 1 functions, 1 implementations, 0 others), and the budget is 2",
    );
}

#[test]
fn less_unsafe_code_than_the_budget_is_said() {
    let tree = Tree::new();
    tree.write("crates/tools/house/unsafe-budget.toml", "engine = 5\nmemory = 0\n");
    let outcome = tree.check().into_iter().find(|outcome| outcome.rule == "unsafe-budget").unwrap();
    assert_eq!(outcome.summary, "engine 2 of 5 (3 below: lower it), memory 0 of 0");
    assert!(outcome.holds());
}

#[test]
fn unsafe_code_of_tests_is_not_counted() {
    let tree = Tree::new();
    tree.append(
        "crates/metal/engine/src/lib.rs",
        "#[cfg(test)]\nmod tests {\n    fn a() {\n        // SAFETY: a test.\n        unsafe { super::start() }\n    }\n}\n#[cfg(test)]\nmod more;\n",
    );
    tree.write(
        "crates/metal/engine/src/more.rs",
        "fn a() {\n    // SAFETY: a test.\n    unsafe { super::start() }\n}\n",
    );
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn a_metal_crate_without_a_budget() {
    let tree = Tree::new();
    tree.write("crates/tools/house/unsafe-budget.toml", "engine = 2\n");
    tree.breaks("unsafe-budget", "crates/tools/house/unsafe-budget.toml", "no number for memory");
}

#[test]
fn a_budget_without_a_crate() {
    let tree = Tree::new();
    tree.append("crates/tools/house/unsafe-budget.toml", "steam = 7\n");
    tree.breaks("unsafe-budget", "crates/tools/house/unsafe-budget.toml", "steam is no crate");
}

#[test]
fn a_missing_budget() {
    let tree = Tree::new();
    tree.write("crates/tools/house/unsafe-budget.toml", "= nothing");
    let outcome = tree.check().into_iter().find(|outcome| outcome.rule == "unsafe-budget").unwrap();
    assert!(outcome.places.iter().any(|place| place.what.contains("no TOML")), "{outcome}");
}

#[test]
fn an_unsafe_block_without_its_comment() {
    let tree = Tree::new();
    tree.replace("crates/metal/engine/src/lib.rs", "SAFETY: this", "This");
    tree.breaks("safety-comments", "crates/metal/engine/src/lib.rs:9", "// SAFETY:");
}

#[test]
fn an_unsafe_function_without_its_section() {
    let tree = Tree::new();
    tree.replace("crates/metal/engine/src/lib.rs", "# Safety", "Note");
    tree.breaks("safety-comments", "crates/metal/engine/src/lib.rs:6", "# Safety");
}

#[test]
fn lints_that_were_turned_off() {
    for (path, old, new, place) in [
        ("Cargo.toml", "\"forbid\"", "\"warn\"", "Cargo.toml"),
        ("crates/monitor/Cargo.toml", "workspace = true", "", "crates/monitor/Cargo.toml"),
        (
            "crates/metal/memory/Cargo.toml",
            "undocumented_unsafe_blocks = \"deny\"",
            "",
            "crates/metal/memory/Cargo.toml",
        ),
        ("crates/image/Cargo.toml", "unsafe_code = \"deny\"", "", "crates/image/Cargo.toml"),
    ] {
        let tree = Tree::new();
        tree.replace(path, old, new);
        tree.breaks("lints", place, "");
    }
}

#[test]
fn a_part_without_its_feature() {
    let tree = Tree::new();
    tree.member("crates/parts/gong", "", "#![no_std]\n");
    tree.append(
        "crates/image/src/parts.rs",
        "#[cfg(feature = \"gong\")]\nuse gong as _;\n#[cfg(not(feature = \"gong\"))]\nuse core as _;\n",
    );
    let outcome = tree.check().into_iter().find(|outcome| outcome.rule == "parts").unwrap();
    let all = outcome.to_string();
    assert!(all.contains("has no feature gong") && all.contains("gong is no optional dependency"), "{all}");
}

#[test]
fn a_part_that_the_image_cannot_leave_out() {
    let tree = Tree::new();
    tree.replace("crates/image/Cargo.toml", "\"../parts/bell\", optional = true", "\"../parts/bell\"");
    tree.append("crates/image/Cargo.toml", "[features]\nbell = []\n");
    tree.breaks("parts", "crates/image/Cargo.toml", "bell is no optional dependency");
}

#[test]
fn a_part_without_its_two_lines() {
    let tree = Tree::new();
    tree.replace("crates/image/src/parts.rs", "#[cfg(feature = \"bell\")]\n", "");
    tree.breaks("parts", "crates/image/src/parts.rs", "the part bell has no condition with it");
}

#[test]
fn a_feature_that_is_no_part() {
    let tree = Tree::new();
    tree.append("crates/image/Cargo.toml", "[features]\nloud = []\n");
    tree.breaks("parts", "crates/image/Cargo.toml", "the feature loud is no crate");
}

#[test]
fn a_condition_on_no_feature() {
    let tree = Tree::new();
    tree.append("crates/image/src/parts.rs", "#[cfg(feature = \"steam\")]\nuse core as _;\n");
    tree.breaks("parts", "crates/image/src/parts.rs", "the feature steam");
}

#[test]
fn an_image_without_a_table_of_contents() {
    let tree = Tree::new();
    fs::remove_file(tree.0.path().join("crates/image/src/parts.rs")).unwrap();
    tree.breaks("parts", "crates/image/src/parts.rs", "is missing");
}

#[test]
fn a_device_without_a_threat_table() {
    let tree = Tree::new();
    tree.write("crates/parts/bell/README.md", "# Bell\n\n| Threat | Mitigation | Test |\n|---|---|---|\n");
    tree.breaks("threat-tables", "crates/parts/bell/README.md", "no threat table");
    fs::remove_file(tree.0.path().join("crates/parts/bell/README.md")).unwrap();
    tree.breaks("threat-tables", "crates/parts/bell/README.md", "is missing");
}

#[test]
fn a_threat_without_a_test_that_exists() {
    for (test, what) in [
        ("by design", "a threat without a test"),
        ("`absent`", "no test is called absent"),
        ("`limited`, `product`", "no test is called product"),
    ] {
        let tree = Tree::new();
        tree.replace("crates/parts/bell/README.md", "`limited`", test);
        tree.breaks("threat-tables", "crates/parts/bell/README.md:5", what);
    }
    let tree = Tree::new();
    tree.replace("crates/parts/bell/README.md", "`limited`", "`tests::limited`");
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn a_monitor_without_a_threat_table() {
    let tree = Tree::new();
    tree.replace("crates/monitor/README.md", "`turns`", "`turn`");
    tree.breaks("threat-tables", "crates/monitor/README.md:5", "no test is called turn");
    tree.replace("crates/monitor/README.md", "`turn`, `whole`", "`turns`, `helper`");
    tree.breaks("threat-tables", "crates/monitor/README.md:5", "no test is called helper");
    tree.replace("crates/monitor/README.md", "`helper`", "`whole`");
    tree.append(
        "crates/monitor/README.md",
        "\n## More\n\n| threat | mitigation | test |\n|---|---|---|\n| stops | none | none |\n",
    );
    tree.breaks("threat-tables", "crates/monitor/README.md:11", "a threat without a test");
    fs::remove_file(tree.0.path().join("crates/monitor/README.md")).unwrap();
    tree.breaks("threat-tables", "crates/monitor/README.md", "is missing");
}

#[test]
fn a_table_of_metal_is_held_to_its_tests() {
    let tree = Tree::new();
    tree.write("crates/metal/memory/README.md", "# Memory\n");
    tree.breaks("threat-tables", "crates/metal/memory/README.md", "no threat table");
}

#[test]
fn an_attempt_that_names_a_test_that_is_none() {
    let tree = Tree::new();
    tree.write(
        "tests/guests/hostile/attempts.toml",
        "# `words`\n[ring]\nbecause = \"tested by `limited`\"\n",
    );
    assert!(tree.check().iter().all(Outcome::holds));
    tree.append("tests/guests/hostile/attempts.toml", "manual = \"`product`\"\n");
    tree.breaks("threat-tables", "tests/guests/hostile/attempts.toml:4", "no test is called product");
}

#[test]
fn a_room_with_an_operating_system_or_a_heap() {
    for code in
        ["extern crate alloc;", "use alloc::vec::Vec;", "fn a() { std::process::exit(0) }", "use std::fmt;"]
    {
        let tree = Tree::new();
        tree.write("crates/monitor/src/extra.rs", code);
        tree.breaks("freestanding", "crates/monitor/src/extra.rs:1", "uses `");
    }
    let tree = Tree::new();
    tree.replace("crates/pure/numbers/src/lib.rs", "#![no_std]\n", "");
    tree.breaks("freestanding", "crates/pure/numbers/src/lib.rs", "no_std");
}

#[test]
fn the_image_alone_may_have_an_operating_system_off_the_bare_metal() {
    let condition = "#![cfg_attr(target_os = \"none\", no_std, no_main)]\n";
    let tree = Tree::new();
    tree.replace("crates/image/src/main.rs", "#![no_std]\n#![no_main]\n", condition);
    assert!(tree.check().iter().all(Outcome::holds));
    tree.replace("crates/pure/numbers/src/lib.rs", "#![no_std]\n", condition);
    tree.breaks("freestanding", "crates/pure/numbers/src/lib.rs", "no_std");
}

#[test]
fn a_name_that_only_sounds_like_a_heap() {
    let tree = Tree::new();
    tree.write("crates/monitor/src/extra.rs", "fn a(b: crate::B) { b.alloc(); crate::alloc::c(); }");
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn words_that_panic() {
    for code in [
        "fn a() { b().unwrap(); }",
        "fn a() { b()\n.expect(\"c\"); }",
        "fn a() { panic!(\"c\"); }",
        "fn a() { unreachable!(); }",
        "macro_rules! a { ($b:expr) => { $b.unwrap() } }",
    ] {
        let tree = Tree::new();
        tree.write("crates/parts/bell/src/extra.rs", code);
        tree.breaks("panics", "crates/parts/bell/src/extra.rs:", "outside tests");
    }
}

#[test]
fn what_only_sounds_like_a_panic() {
    let tree = Tree::new();
    tree.write(
        "crates/parts/bell/src/extra.rs",
        "// b.unwrap()\nconst A: u8 = match B { Some(b) => b, None => panic!(\"c\") };\nfn a() { b().unwrap_or(1); }\n",
    );
    tree.write("crates/parts/bell/tests/a.rs", "fn a() { b().unwrap(); }");
    tree.write("crates/parts/bell/build.rs", "fn main() { a().unwrap(); }");
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn promises_of_later_work() {
    for (code, what) in [
        (concat!("// TO", "DO: more"), concat!("TO", "DO")),
        (concat!("// FIX", "ME"), concat!("FIX", "ME")),
        (concat!("fn a() { to", "do!() }"), concat!("to", "do!")),
        (concat!("fn a() { unimple", "mented!() }"), "mented!"),
    ] {
        let tree = Tree::new();
        tree.write("crates/tools/profile/src/extra.rs", code);
        tree.breaks("unfinished", "crates/tools/profile/src/extra.rs:1", what);
    }
}

#[test]
fn traces_of_the_workplace() {
    for (text, what) in [
        (concat!("see /ho", "me/somebody/notes"), "path of one machine"),
        (concat!("from https://crates", ".io"), "host of a registry"),
    ] {
        let tree = Tree::new();
        tree.write("docs/notes.md", &format!("\n{text}\n"));
        tree.breaks("workplace", "docs/notes.md:2", what);
    }
    let tree = Tree::new();
    tree.write("docs/notes.md", &tree.0.path().canonicalize().unwrap().display().to_string());
    tree.breaks("workplace", "docs/notes.md:1", "path of one machine");
}

#[test]
fn a_lock_file_may_name_the_default_registry() {
    let tree = Tree::new();
    tree.write(
        "tests/guests/a/Cargo.lock",
        concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"\n"),
    );
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn what_was_built_is_not_judged() {
    let tree = Tree::new();
    tree.write("target/debug/a.rs", concat!("/ho", "me/somebody"));
    assert!(tree.check().iter().all(Outcome::holds));
}

#[test]
fn a_folder_without_a_manifest_is_refused() {
    let empty = TempDir::new().unwrap();
    let error = house::check(empty.path()).unwrap_err();
    assert!(error.to_string().contains("has no Cargo.toml"), "{error}");
    assert!(!error.is_environment());
}

/// The program itself, on the small tree: its lines, its last line, its exit codes.
#[test]
fn the_program_counts_and_fails() {
    let run = |tree: &Tree| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_house")).arg(tree.0.path()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let tree = Tree::new();
    let (code, text) = run(&tree);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("\n13 passed, 0 failed\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok   ")).count(), 13);
    tree.append("crates/monitor/src/lib.rs", "fn a() { b().unwrap(); }\n");
    let (code, text) = run(&tree);
    assert_eq!(code, 1, "{text}");
    assert!(text.ends_with("\n12 passed, 1 failed\n"), "{text}");
    assert!(text.contains("FAIL panics"), "{text}");
}
