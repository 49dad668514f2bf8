//! Names the linker script to the linker, and to cargo as something whose change asks for a new build.

fn main() {
    println!("cargo::rerun-if-changed=friendly.ld");
    println!("cargo::rustc-link-arg-bins=-T{}/friendly.ld", env!("CARGO_MANIFEST_DIR"));
}
