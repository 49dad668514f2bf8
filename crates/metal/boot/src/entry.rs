//! The first instructions of every processor.
//!
//! All three protocols enter in 32-bit protected mode with flat segments, paging off and interrupts masked (PVH: Xen,
//! "x86/HVM direct boot ABI"; Multiboot Specification 0.6.96 §3.2; Multiboot2 Specification 2.0 §3.2).

use core::arch::global_asm;

/// Bytes of the stack of the first steps. The tables that give it a guard page come later; so does its processor's own stack.
const STACK: usize = 0x8000;

global_asm!(
    r#"
    .pushsection .boot.header, "a", @progbits
    .balign 8
    ringfence_multiboot1:
    .long 0x1badb002
    .long 0x00010003                            # modules at pages, memory information, addresses below
    .long -(0x1badb002 + 0x00010003)
    .long ringfence_multiboot1
    .long ringfence_image_start
    .long ringfence_loaded_end
    .long ringfence_image_end
    .long ringfence_entry
    .balign 8
    ringfence_multiboot2:
    .long 0xe85250d6
    .long 0
    .long ringfence_multiboot2_end - ringfence_multiboot2
    .long -(0xe85250d6 + (ringfence_multiboot2_end - ringfence_multiboot2))
    .word 6, 0                                  # modules at pages
    .long 8
    .word 0, 0
    .long 8
    ringfence_multiboot2_end:
    .popsection

    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18                              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long ringfence_entry
    .popsection

    .pushsection .rodata.boot, "a", @progbits
    .balign 16
    ringfence_boot_descriptors:
    .quad 0
    .quad {code}
    .quad {data}
    .quad 0x00cf9b000000ffff                    # 32-bit code, for the way up
    ringfence_boot_descriptors_end:
    ringfence_boot_descriptor_pointer:
    .word ringfence_boot_descriptors_end - ringfence_boot_descriptors - 1
    .quad ringfence_boot_descriptors
    ringfence_no_long_mode:
    .asciz "\r\nringfence| this processor has no 64-bit mode: stopped\r\n"
    .popsection

    .pushsection .bss.boot, "aw", @nobits
    .balign 4096
    .global ringfence_boot_tables
    ringfence_boot_tables:
    .skip 4096
    .global ringfence_boot_pointers
    ringfence_boot_pointers:
    .skip 4096
    ringfence_boot_directories:
    .skip 4 * 4096
    ringfence_boot_stack:
    .skip {stack}
    ringfence_boot_stack_top:
    .popsection

    .pushsection .boot.text, "ax", @progbits
    .code32
    .global ringfence_entry
    ringfence_entry:
    cli
    cld
    movl %eax, %ebp
    movl %ebx, %esi
    movl $ringfence_boot_stack_top, %esp
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb 8f
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc 8f
    # The first 4 GiB, by 2 MiB pages, at 0 and at slot 128.
    movl $ringfence_boot_pointers + 3, ringfence_boot_tables
    movl $ringfence_boot_pointers + 3, ringfence_boot_tables + 128 * 8
    movl $ringfence_boot_directories + 3, %eax
    movl $ringfence_boot_pointers, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $0x83, %eax
    movl $ringfence_boot_directories, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 2b
    lgdtl ringfence_boot_descriptor_pointer
    call ringfence_long_mode
    ljmpl $0x08, $3f

8:  movl $ringfence_no_long_mode, %esi
9:  movw $0x3fd, %dx
    inb %dx, %al
    testb $0x20, %al
    jz 9b
    movw $0x3f8, %dx
    lodsb
    testb %al, %al
    jz 7f
    outb %al, %dx
    jmp 9b
7:  cli
    hlt
    jmp 7b

    # Turns long mode on with the boot tables; still in 32-bit code on return.
    ringfence_long_mode:
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $ringfence_boot_tables, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80010001, %eax
    movl %eax, %cr0
    ret

    .code64
3:  movl ${data_selector}, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movl $ringfence_boot_stack_top, %esp
    movl %ebp, %edi
    movl %esi, %esi
    xorl %ebp, %ebp
    call {start}
    int3

    # The other processors: real mode, at the start of a page below 1 MiB to which this was copied.
    .code16
    .global ringfence_trampoline
    ringfence_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (ringfence_trampoline_pointer - ringfence_trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $4f
    .balign 8
    ringfence_trampoline_pointer:
    .word ringfence_boot_descriptors_end - ringfence_boot_descriptors - 1
    .long ringfence_boot_descriptors
    .global ringfence_trampoline_end
    ringfence_trampoline_end:

    .code32
4:  movl ${data_selector}, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    # On the way up a stack for one return address is enough; the first processor does not use this one any more.
    movl $ringfence_boot_stack_top, %esp
    call ringfence_long_mode
    ljmpl $0x08, $5f

    .code64
5:  xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    # What the neutral tables need before they are loaded: no-execute, where there is one.
    movl $0xc0000080, %ecx
    rdmsr
    orl {efer}(%rip), %eax
    wrmsr
    movq {root}(%rip), %rax
    movq %rax, %cr3
    movq {top}(%rip), %rsp
    xorl %ebp, %ebp
    call {arrive}
    int3
    .popsection
    "#,
    code = const cpu::block::CODE_DESCRIPTOR,
    data = const cpu::block::DATA_DESCRIPTOR,
    data_selector = const cpu::block::DATA_SELECTOR,
    stack = const STACK,
    start = sym crate::start::start,
    arrive = sym crate::processors::arrive,
    efer = sym crate::processors::EFER,
    root = sym crate::processors::ROOT,
    top = sym crate::processors::STACK_TOP,
    options(att_syntax)
);

// Symbols of this file and of the linker script. Their addresses count, not what lies there.
unsafe extern "C" {
    static mut ringfence_boot_tables: [u64; 512];
    static ringfence_boot_pointers: u8;
    static ringfence_trampoline: u8;
    static ringfence_trampoline_end: u8;
    static ringfence_text_start: u8;
    static ringfence_text_end: u8;
    static ringfence_constants_start: u8;
    static ringfence_constants_end: u8;
    static ringfence_data_start: u8;
    static ringfence_data_end: u8;
    static ringfence_sealed_start: u8;
    static ringfence_sealed_end: u8;
    static ringfence_zeroed_start: u8;
    static ringfence_zeroed_end: u8;
}

unsafe extern "Rust" {
    /// What the image is; the image defines it with this signature and `#[unsafe(no_mangle)]`.
    fn ringfence_product() -> crate::Product;
}

/// What the image is.
pub(crate) fn product() -> crate::Product {
    // SAFETY: The image defines the function with this signature, in Rust, from the same compiler.
    unsafe { ringfence_product() }
}

/// A panic is a bug of ours. It ends in UD2 where it happens, which the fault report names with its symbol and its callers: messages and
/// the names of source files would take a tenth of the image, for what must not happen.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    cpu::fault::bug()
}

/// Where the pieces of the image are.
pub(crate) fn borders() -> memory::ImageBorders {
    memory::ImageBorders {
        text: (&raw const ringfence_text_start as u64, &raw const ringfence_text_end as u64),
        constants: (&raw const ringfence_constants_start as u64, &raw const ringfence_constants_end as u64),
        data: (&raw const ringfence_data_start as u64, &raw const ringfence_data_end as u64),
        sealed: (&raw const ringfence_sealed_start as u64, &raw const ringfence_sealed_end as u64),
        zeroed: (&raw const ringfence_zeroed_start as u64, &raw const ringfence_zeroed_end as u64),
    }
}

/// Physical address of the table of pointers behind the boot window.
pub(crate) fn window_table() -> u64 {
    &raw const ringfence_boot_pointers as u64
}

/// Empties the tables of the first steps, which map everything with every right.
///
/// # Safety
///
/// No processor has them loaded or will load them.
pub(crate) unsafe fn forget_boot_tables() {
    // SAFETY: The caller's promise: nobody reads them, and they are this module's own data.
    unsafe { (&raw mut ringfence_boot_tables).write_volatile([0; 512]) };
}

/// The code that starts other processors, to be copied to the start of a page below 1 MiB.
pub(crate) fn trampoline() -> &'static [u8] {
    let start = &raw const ringfence_trampoline;
    let length = &raw const ringfence_trampoline_end as usize - start as usize;
    // SAFETY: Both symbols stand in one section above, in this order; code is mapped readable and never written.
    unsafe { core::slice::from_raw_parts(start, length) }
}
