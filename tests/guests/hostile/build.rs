//! Names the linker script to the linker, and to cargo as something whose change asks for a new build. It is the friendly guest's.

fn main() {
    println!("cargo::rerun-if-changed=../friendly/friendly.ld");
    println!("cargo::rustc-link-arg-bins=-T{}/../friendly/friendly.ld", env!("CARGO_MANIFEST_DIR"));
}
