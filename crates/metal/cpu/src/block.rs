//! One block of addresses for each processor: its descriptor tables, its stacks, and nothing between them.
//!
//! Blocks lie in the part of the address space that all compartments' tables share, at fixed places, so that a processor
//! finds its own from its stack pointer: no segment register is needed, and a guest's FS and GS may stay loaded.
//!
//! | offset | what |
//! |---|---|
//! | 0x00000 | [`Local`], one page |
//! | 0x02000–0x11fff | stack, 64 KiB |
//! | 0x13000–0x14fff | stack for double faults |
//! | 0x16000–0x17fff | stack for NMI |
//! | 0x19000–0x1afff | stack for machine checks |
//! | everything else | not mapped: guards |

use contracts::CpuIndex;
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use x86_64::structures::tss::TaskStateSegment;

/// Where the blocks begin.
pub const REGION: usize = 0x40_0000_0000;
/// From one block to the next, in bytes.
pub const STRIDE: usize = 0x2_0000;
/// The most processors that can be started.
pub const PROCESSORS: usize = 64;
/// Pieces of a block that are mapped, as offset and length in bytes; the gaps are guard pages.
pub const PIECES: [(usize, usize); 5] =
    [(0, 0x1000), (0x2000, 0x1_0000), (0x1_3000, 0x2000), (0x1_6000, 0x2000), (0x1_9000, 0x2000)];
/// Bytes mapped of a block.
pub const MAPPED: usize = 0x1000 + 0x1_0000 + 3 * 0x2000;
/// Bytes of the stack that a processor works on.
pub const STACK_SIZE: usize = 0x1_0000;

const STACK_TOP: usize = 0x1_2000;
/// Tops of the stacks for double faults, NMIs and machine checks, in the order of the interrupt stack table.
const INTERRUPT_STACK_TOPS: [usize; 3] = [0x1_5000, 0x1_8000, 0x1_b000];

/// No deadline is armed.
pub const NO_DEADLINE: u64 = u64::MAX;
/// Where in [`Local`] the armed deadline is, for the timer's handler.
pub const DEADLINE_OFFSET: usize = core::mem::offset_of!(Local, deadline);

const _: () = {
    assert!(core::mem::size_of::<Local>() <= 0x1000);
    assert!(STRIDE.is_power_of_two() && REGION.is_multiple_of(STRIDE));
    let mut sum = 0;
    let mut index = 0;
    while index < PIECES.len() {
        let (offset, length) = PIECES[index];
        assert!(offset.is_multiple_of(0x1000) && length.is_multiple_of(0x1000) && offset + length <= STRIDE);
        // A guard page above each piece; the first piece of the next block begins behind one, too.
        let next = if index + 1 < PIECES.len() { PIECES[index + 1].0 } else { STRIDE };
        assert!(offset + length < next);
        sum += length;
        index += 1;
    }
    assert!(sum == MAPPED);
    assert!(PIECES[1].0 + STACK_SIZE == STACK_TOP && PIECES[1].1 == STACK_SIZE);
};

/// What a processor has to itself.
#[repr(C, align(4096))]
pub struct Local {
    /// The deadline that its timer is armed for, [`NO_DEADLINE`] if none. The handler sets it to none.
    pub deadline: AtomicU64,
    descriptors: [u64; 5],
    task: TaskStateSegment,
}

/// Selector of the hypervisor's code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the hypervisor's data segment.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the task state segment.
pub const TASK_SELECTOR: u16 = 0x18;
/// A flat 64-bit code segment of ring 0, accessed (APM Vol. 2 §4.8.1).
pub const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// A flat data segment of ring 0, accessed.
pub const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// The address of a processor's block.
pub const fn address(cpu: CpuIndex) -> usize {
    REGION + cpu.0 as usize * STRIDE
}

/// Where the task state segment of a processor is.
pub const fn task_address(cpu: CpuIndex) -> u64 {
    (address(cpu) + core::mem::offset_of!(Local, task)) as u64
}

/// Where the global descriptor table of a processor is.
pub const fn descriptors_address(cpu: CpuIndex) -> u64 {
    (address(cpu) + core::mem::offset_of!(Local, descriptors)) as u64
}

/// Top of a processor's stack.
pub const fn stack_top(cpu: CpuIndex) -> usize {
    address(cpu) + STACK_TOP
}

/// Whose stack an address lies in, guards included.
pub const fn owner(address: usize) -> Option<CpuIndex> {
    let offset = address.wrapping_sub(REGION);
    if offset < PROCESSORS * STRIDE { Some(CpuIndex((offset / STRIDE) as u8)) } else { None }
}

/// Top of the stack that a processor works on, where `address` lies in one.
pub const fn stack_above(address: usize) -> Option<usize> {
    match owner(address) {
        Some(cpu) if stack_top(cpu) > address && stack_top(cpu) - address <= STACK_SIZE => {
            Some(stack_top(cpu))
        }
        _ => None,
    }
}

/// The processor that runs this. Before it has its own block that is the first one.
#[inline(always)]
pub fn current() -> CpuIndex {
    owner(stack_pointer()).unwrap_or_default()
}

#[inline(always)]
fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: Reads RSP, changes nothing.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// This processor's block.
///
/// # Safety
///
/// This processor runs on its own stack in its block: [`load`] was called for it.
#[inline(always)]
pub unsafe fn local() -> &'static Local {
    let address = stack_pointer() & !(STRIDE - 1);
    // SAFETY: The stack lies in the block, whose first page is a `Local` that `load` filled and that stays mapped for ever.
    // Only atomics in it change afterwards.
    unsafe { &*(address as *const Local) }
}

/// Fills the block of `cpu` and loads its descriptor tables on this processor.
///
/// # Safety
///
/// The block is mapped, zeroed or used before by this processor alone, `cpu` is the processor that runs this, and no other one
/// has its number.
pub unsafe fn load(cpu: CpuIndex) {
    let base = address(cpu);
    let local = base as *mut Local;
    let mut task = TaskStateSegment::new();
    // The task state segment is packed: its table is written as a whole.
    let mut stacks = task.interrupt_stack_table;
    for (slot, top) in stacks.iter_mut().zip(INTERRUPT_STACK_TOPS) {
        *slot = x86_64::VirtAddr::new_truncate((base + top) as u64);
    }
    task.interrupt_stack_table = stacks;
    // SAFETY: The block is mapped and this processor's own. It stays mapped for ever, so that the descriptor tables may point
    // into it.
    unsafe {
        (*local).deadline = AtomicU64::new(NO_DEADLINE);
        (*local).task = task;
        let descriptor = x86_64::structures::gdt::Descriptor::tss_segment_unchecked(&raw const (*local).task);
        let (low, high) = match descriptor {
            x86_64::structures::gdt::Descriptor::SystemSegment(low, high) => (low, high),
            x86_64::structures::gdt::Descriptor::UserSegment(low) => (low, 0),
        };
        (*local).descriptors = [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, low, high];
        let pointer = x86_64::structures::DescriptorTablePointer {
            limit: (core::mem::size_of::<[u64; 5]>() - 1) as u16,
            base: x86_64::VirtAddr::new_truncate(&raw const (*local).descriptors as u64),
        };
        x86_64::instructions::tables::lgdt(&pointer);
        // The selectors are those of the table before, with the same descriptors behind them: CS need not be reloaded.
        asm!("mov ds, {0:x}", "mov es, {0:x}", "mov ss, {0:x}", "mov fs, {1:x}", "mov gs, {1:x}",
            in(reg) u32::from(DATA_SELECTOR), in(reg) 0u32, options(nostack, preserves_flags));
        asm!("ltr {0:x}", in(reg) u32::from(TASK_SELECTOR), options(nostack, preserves_flags));
    }
}

/// Goes on with `work` on the stack of `cpu`.
///
/// # Safety
///
/// The block of `cpu` is mapped, this processor is `cpu`, and nothing runs on that stack. What `argument` points to outlives the use
/// that `work` makes of it.
pub unsafe fn switch_stack(cpu: CpuIndex, argument: *mut u8, work: extern "C" fn(*mut u8) -> !) -> ! {
    // SAFETY: The caller's promise. The call leaves the stack as the ABI wants it at a function's first instruction; the frames
    // below are never returned to. INT3 ends what nobody comes back to; UD2 is the mark of panics.
    unsafe {
        asm!("mov rsp, {top}", "xor ebp, ebp", "call {work}", "int3",
            top = in(reg) stack_top(cpu), work = in(reg) work, in("rdi") argument, options(noreturn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_its_processor_from_any_of_its_stacks() {
        for cpu in [0, 1, 63] {
            let base = address(CpuIndex(cpu));
            for top in INTERRUPT_STACK_TOPS.into_iter().chain([STACK_TOP]) {
                assert_eq!(owner(base + top - 8), Some(CpuIndex(cpu)));
            }
        }
        assert_eq!(owner(REGION - 1), None);
        assert_eq!(owner(REGION + PROCESSORS * STRIDE), None);
    }

    #[test]
    fn only_addresses_in_a_stack_have_its_top_above_them() {
        let cpu = CpuIndex(5);
        let top = stack_top(cpu);
        assert_eq!(stack_above(top - 1), Some(top));
        assert_eq!(stack_above(top - STACK_SIZE), Some(top));
        for outside in [top, top - STACK_SIZE - 1, address(cpu), REGION - 8, 0, usize::MAX] {
            assert_eq!(stack_above(outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn each_stack_top_is_the_end_of_a_mapped_piece() {
        for top in INTERRUPT_STACK_TOPS.into_iter().chain([STACK_TOP]) {
            assert!(PIECES.iter().any(|(offset, length)| offset + length == top));
        }
    }
}
