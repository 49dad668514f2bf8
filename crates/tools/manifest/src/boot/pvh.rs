//! PVH (Xen, "x86/HVM direct boot ABI"; structure of version 1 in `arch-x86/hvm/start_info.h`).

use super::elf::Elf;
use super::layout::Layout;
use super::{
    COMMAND_LINE, INFORMATION, LISTS, LoadError, Request, memory_map, place_command_line, place_descriptors,
    put, start, too_little_memory,
};
use crate::platform;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with bit 31 set.
const MAGIC: u64 = 0x336e_c578;
/// Bytes of `hvm_start_info`.
const INFORMATION_LENGTH: usize = 56;
/// Bytes of an entry of the module list.
const MODULE_LENGTH: usize = 32;
/// Bytes of an entry of the memory map.
const MAP_ENTRY_LENGTH: usize = 24;
/// The longest command line that Linux keeps (`COMMAND_LINE_SIZE`, less its end).
const COMMAND_LINE_MOST: usize = 2047;
/// 32-bit kernels reach no higher with their linear map.
const INITRD_END_32: u64 = 0x3800_0000;

/// Places the kernel, its start information and all that goes with it.
pub(super) fn place(
    layout: &mut Layout,
    kernel: &[u8],
    request: &Request<'_>,
) -> Result<plan::Start, LoadError> {
    let elf = Elf::parse(kernel)?;
    let entry = elf.pvh_entry()?.ok_or_else(|| LoadError::broken("the kernel's PVH note is gone"))?;
    elf.place(layout)?;
    place_command_line(layout, request.command_line, COMMAND_LINE_MOST)?;

    let mut information = vec![0; INFORMATION_LENGTH];
    put::<4>(&mut information, 0, MAGIC);
    put::<4>(&mut information, 4, 1);
    put::<8>(&mut information, 24, COMMAND_LINE);
    put::<8>(&mut information, 32, platform::ACPI_TABLES);

    let mut lists = Vec::new();
    for entry in memory_map(request.memory) {
        let mut slot = [0; MAP_ENTRY_LENGTH];
        put::<8>(&mut slot, 0, entry.start);
        put::<8>(&mut slot, 8, entry.length);
        put::<4>(&mut slot, 16, u64::from(entry.kind.number()));
        lists.extend_from_slice(&slot);
    }
    put::<8>(&mut information, 40, LISTS);
    put::<4>(&mut information, 48, (lists.len() / MAP_ENTRY_LENGTH) as u64);

    if let Some(initrd) = request.initrd {
        let length = initrd.len() as u64;
        let end = if elf.wide { u64::MAX } else { INITRD_END_32 };
        let at = layout.highest(length, end).ok_or_else(|| {
            let needed = layout.used_end().saturating_add(length.next_multiple_of(4096));
            too_little_memory("the kernel with its initial RAM disk", needed)
        })?;
        layout.place("the initial RAM disk", at, initrd.to_vec())?;
        let mut slot = [0; MODULE_LENGTH];
        put::<8>(&mut slot, 0, at);
        put::<8>(&mut slot, 8, length);
        put::<4>(&mut information, 12, 1);
        put::<8>(&mut information, 16, LISTS + lists.len() as u64);
        lists.extend_from_slice(&slot);
    }
    layout.place("the start information's lists", LISTS, lists)?;
    layout.place("the start information", INFORMATION, information)?;

    let limit = place_descriptors(layout, plan::Mode::Protected)?;
    let mut state = start(plan::Mode::Protected, entry, limit);
    state.rbx = INFORMATION;
    Ok(state)
}
