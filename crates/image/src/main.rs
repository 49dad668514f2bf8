//! The composition root: from a booted machine to compartments that run. Nothing is decided here but the order of things.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod image;
mod parts;
mod setup;

/// Plain cargo builds this for the host too, where there is nothing to boot.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this is the image of a hypervisor: ./ringfence build makes it for bare metal");
    let _: boot::Product = image::IMAGE;
}

/// What the boot code asks the image for.
#[cfg(target_os = "none")]
#[allow(unsafe_code)] // The one symbol that metal finds by its name.
// SAFETY: no other item of the image has this name.
#[unsafe(no_mangle)]
extern "Rust" fn ringfence_product() -> boot::Product {
    image::IMAGE
}
