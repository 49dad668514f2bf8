//! Names the friendly guest's linker script to the linker, and to cargo as something whose change asks for a new build.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../friendly/friendly.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
