//! Writes the demonstration's initial RAM disk:
//! `cargo run -p manifest --example demonstration -- /bin/busybox init initramfs.img`.

use manifest::initramfs;
use miette::{IntoDiagnostic, Result, miette};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [busybox, init, output] = arguments.as_slice() else {
        return Err(miette!(help = "Usage: demonstration BUSYBOX INIT CPIO", "three file names are needed"));
    };
    let busybox = std::fs::read(busybox).into_diagnostic()?;
    let init = std::fs::read(init).into_diagnostic()?;
    std::fs::write(output, initramfs::demonstration(busybox, init).into_diagnostic()?).into_diagnostic()
}
