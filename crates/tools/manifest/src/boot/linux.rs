//! Linux bzImage (Linux kernel documentation, "The Linux/x86 Boot Protocol", 2.12 and later, and "Zero Page").
//!
//! The kernel goes to the address that it prefers, or, if it is relocatable and does not fit there, as high as it fits
//! below. It starts at the 64-bit entry point where it has one, else at the 32-bit one.

use super::layout::Layout;
use super::{
    COMMAND_LINE, Culprit, INFORMATION, LoadError, Request, memory_map, number, place_command_line,
    place_descriptors, place_page_tables, put, start, too_little_memory,
};
use crate::platform;

const MAGIC: &[u8] = b"HdrS";
/// Protocol 2.12: the first with `xloadflags`, which says whether there is a 64-bit entry point.
const OLDEST: u64 = 0x20c;
/// `xloadflags`: the entry point at 0x200 is 64-bit.
const XLF_KERNEL_64: u64 = 1;
/// `loadflags`: the protected-mode code belongs at 1 MiB or above.
const LOADED_HIGH: u64 = 1;
/// Where the setup header begins, in the file and in the zero page.
const HEADER: usize = 0x1f1;
/// Most entries of the E820 map in the zero page.
const MAP_ENTRIES: usize = 128;

/// Whether the file has a setup header.
pub(super) fn is_linux(kernel: &[u8]) -> bool {
    kernel.get(0x202..0x206) == Some(MAGIC) && number::<2>(kernel, 0x1fe) == Some(0xaa55)
}

/// The protected-mode code of a bzImage: what follows boot sector and setup code.
pub(super) fn protected_mode_code(kernel: &[u8]) -> Option<&[u8]> {
    // Of old, 0 means 4 sectors.
    let sectors = match *kernel.get(HEADER)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    kernel.get((sectors + 1) * 512..)
}

/// Places the kernel, the zero page and all that goes with them.
pub(super) fn place(
    layout: &mut Layout,
    kernel: &[u8],
    request: &Request<'_>,
) -> Result<plan::Start, LoadError> {
    let field = |at: usize, value: Option<u64>| {
        value.ok_or_else(|| {
            LoadError::broken(format!("the bzImage ends before its header's field at {at:#x}"))
        })
    };
    let byte = |at| field(at, number::<1>(kernel, at));
    let half = |at| field(at, number::<2>(kernel, at));
    let word = |at| field(at, number::<4>(kernel, at));
    let version = half(0x206)?;
    if version < OLDEST {
        return Err(LoadError::new(
            "kernel-too-old",
            Culprit::Kernel,
            format!(
                "the kernel speaks version {}.{} of the Linux boot protocol, and 2.12 is the oldest supported",
                version >> 8,
                version & 0xff
            ),
            "Take a Linux kernel of version 3.8 or later.",
        ));
    }
    if byte(0x211)? & LOADED_HIGH == 0 {
        return Err(LoadError::new(
            "kernel-too-old",
            Culprit::Kernel,
            "the kernel is a zImage, which only BIOS loaders can start",
            "Take the bzImage of that kernel.",
        ));
    }
    let code = protected_mode_code(kernel)
        .filter(|code| !code.is_empty())
        .ok_or_else(|| LoadError::broken("the bzImage ends before its protected-mode code"))?;
    let promised = word(0x1f4)? * 16;
    // The length counts paragraphs, so the file may end up to 15 bytes early.
    if (code.len() as u64).saturating_add(15) < promised {
        return Err(LoadError::broken(format!(
            "the bzImage is truncated: its header promises {promised} bytes of code, and {} are there",
            code.len()
        )));
    }
    let preferred = field(0x258, number::<8>(kernel, 0x258))?;
    let needed = word(0x260)?.max(code.len() as u64);
    let alignment = word(0x230)?;
    let relocatable = byte(0x234)? != 0 && alignment.is_power_of_two();
    let fits = preferred.checked_add(needed).is_some_and(|end| end <= layout.low_end());
    let load = if fits || !relocatable {
        preferred
    } else {
        layout.lowest(needed, platform::MEBIBYTE, alignment).ok_or_else(|| {
            too_little_memory(
                "the kernel",
                platform::MEBIBYTE.next_multiple_of(alignment).saturating_add(needed),
            )
        })?
    };
    layout.reserve("the kernel", load, needed)?;
    layout.fill(load, code.to_vec());

    let long = half(0x236)? & XLF_KERNEL_64 != 0;
    place_command_line(layout, request.command_line, word(0x238)? as usize)?;
    let mut zero_page = zero_page(kernel, request)?;
    put::<4>(&mut zero_page, 0x214, load);
    if let Some(initrd) = request.initrd {
        let length = initrd.len() as u64;
        // The last address that the kernel allows, as it says itself.
        let end = word(0x22c)?.saturating_add(1);
        let at = layout.highest(length, end).ok_or_else(|| {
            let needed = layout.used_end().saturating_add(length.next_multiple_of(4096));
            too_little_memory("the kernel with its initial RAM disk", needed)
        })?;
        layout.place("the initial RAM disk", at, initrd.to_vec())?;
        put::<4>(&mut zero_page, 0x218, at);
        put::<4>(&mut zero_page, 0x21c, length);
    }
    layout.place("the zero page", INFORMATION, zero_page)?;

    let mode = if long { plan::Mode::Long } else { plan::Mode::Protected };
    let limit = place_descriptors(layout, mode)?;
    let entry = if long { load.saturating_add(0x200) } else { load };
    let mut state = start(mode, entry, limit);
    state.rsi = INFORMATION;
    if long {
        state.page_table = place_page_tables(layout)?;
    }
    Ok(state)
}

/// The zero page without the fields that depend on where things lie.
fn zero_page(kernel: &[u8], request: &Request<'_>) -> Result<Vec<u8>, LoadError> {
    // The setup header's length follows from the jump over it ("The Linux/x86 Boot Protocol", 64-bit boot protocol); behind
    // it comes the E820 map.
    let end = 0x202 + number::<1>(kernel, 0x201).unwrap_or(0) as usize;
    let header = kernel
        .get(HEADER..end.min(0x290))
        .filter(|header| header.len() >= 0x264 - HEADER)
        .ok_or_else(|| LoadError::broken("the bzImage's setup header is too short"))?;
    let mut page = vec![0; 4096];
    page[HEADER..HEADER + header.len()].copy_from_slice(header);
    // No fields of the loader's own may come from the file.
    put::<8>(&mut page, 0x250, 0);
    // acpi_rsdp_addr
    put::<8>(&mut page, 0x070, platform::ACPI_TABLES);
    // A loader without a registered number.
    put::<1>(&mut page, 0x210, 0xff);
    // No mode setting: there is no video.
    put::<2>(&mut page, 0x1fa, 0xffff);
    put::<4>(&mut page, 0x228, COMMAND_LINE);
    put::<4>(&mut page, 0x218, 0);
    put::<4>(&mut page, 0x21c, 0);
    let map = memory_map(request.memory);
    put::<1>(&mut page, 0x1e8, map.len().min(MAP_ENTRIES) as u64);
    for (entry, slot) in map.iter().zip(page[0x2d0..].chunks_exact_mut(20)).take(MAP_ENTRIES) {
        put::<8>(slot, 0, entry.start);
        put::<8>(slot, 8, entry.length);
        put::<4>(slot, 16, u64::from(entry.kind.number()));
    }
    Ok(page)
}
