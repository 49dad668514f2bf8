# From the loader to Rust, and the shortest handlers that the measured operations allow. Intel syntax, assembled by rustc.
#
# Both protocols enter in 32-bit protected mode with flat segments, paging and interrupts off (Multiboot specification 0.6.96
# section 3.2; Xen's PVH ABI, docs/misc/pvh.pandoc). Nothing that they pass along is needed.

.section .boot, "ax", @progbits
.balign 8
multiboot_header:
    .long 0x1badb002                      # magic
    .long 0x00010000                      # flags: the address fields below count, not the ELF header
    .long -(0x1badb002 + 0x00010000)      # checksum
    .long multiboot_header
    .long image_start
    .long image_data_end
    .long image_end
    .long start

.code32
.global start
start:
    cli
    cld
    mov esp, offset boot_stack_end

    # The page tables may hold anything: every entry is written. One directory of 2 MiB pages for each of the first 4 GiB;
    # the last GiB holds device registers and is not cached.
    mov edi, offset page_directories
    mov eax, 0x83                         # present, writable, large
    xor edx, edx
2:  mov [edi], eax
    mov [edi + 4], edx
    add eax, 0x200000
    add edi, 8
    cmp edi, offset page_directories + 3 * 4096
    jne 2b
    or eax, 0x18                          # PWT, PCD
3:  mov [edi], eax
    mov [edi + 4], edx
    add eax, 0x200000
    add edi, 8
    cmp edi, offset page_directories + 4 * 4096
    jne 3b

    mov edi, offset page_map
    xor eax, eax
    mov ecx, 2 * 1024
    rep stosd
    mov eax, offset page_directory_pointers + 3
    mov [page_map], eax
    mov eax, offset page_directories + 3
    mov edi, offset page_directory_pointers
    mov ecx, 4
4:  mov [edi], eax
    add eax, 4096
    add edi, 8
    loop 4b

    # APM volume 2, section 14.6.1: PAE, CR3, EFER.LME, then paging.
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset page_map
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    lgdt [descriptor_table_pointer]
    # A far jump by RETF: rustc's assembler knows no direct one in this syntax.
    push 0x08
    mov eax, offset long_mode
    push eax
    retf

.code64
long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [boot_stack_end]
    call main
5:  hlt
    jmp 5b

.balign 8
descriptor_table:
    .quad 0
    .quad 0x00209b0000000000              # 64-bit code of ring 0
    .quad 0x00cf93000000ffff              # data
descriptor_table_pointer:
    .word . - descriptor_table - 1
    .long descriptor_table
    .long 0

.section .note.pvh, "a", @note
.balign 4
    .long 4                               # length of the name
    .long 4                               # length of the descriptor
    .long 18                              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

.section .text.handlers, "ax", @progbits

# Faults that a measured operation expects: execution goes on at R9. EXPECTED says whether one is expected.
.global invalid_opcode
invalid_opcode:
    cmp dword ptr [EXPECTED], 0
    je exception_6
    mov [rsp], r9
    iretq

.global general_protection
general_protection:
    cmp dword ptr [EXPECTED], 0
    je exception_13
    add rsp, 8
    mov [rsp], r9
    iretq

# Interrupts that a measured operation waits for. Their end is signalled outside of what is measured.
.global counted_interrupt
counted_interrupt:
    inc dword ptr [INTERRUPTS]
    iretq

# A spurious interrupt has no end to be signalled (APM volume 2, section 16.4.7).
.global spurious_interrupt
spurious_interrupt:
    iretq

# Everything else names itself and ends the guest.
.macro exception vector, has_code
exception_\vector:
    .if \has_code == 0
    push 0
    .endif
    push \vector
    jmp fatal
.endm
exception 0, 0
exception 1, 0
exception 2, 0
exception 3, 0
exception 4, 0
exception 5, 0
exception 6, 0
exception 7, 0
exception 8, 1
exception 9, 0
exception 10, 1
exception 11, 1
exception 12, 1
exception 13, 1
exception 14, 1
exception 15, 0
exception 16, 0
exception 17, 1
exception 18, 0
exception 19, 0
exception 20, 0
exception 21, 1
exception 22, 0
exception 23, 0
exception 24, 0
exception 25, 0
exception 26, 0
exception 27, 0
exception 28, 0
exception 29, 1
exception 30, 1
exception 31, 0
unexpected_interrupt:
    push 0
    push 32
fatal:
    mov rdi, [rsp]                        # vector
    mov rsi, [rsp + 8]                    # error code
    mov rdx, [rsp + 16]                   # RIP
    mov rcx, cr2
    and rsp, -16
    call report_fatal
6:  hlt
    jmp 6b

# Where each vector's handler lies: 0 to 31, and the one of all others.
.section .rodata.handlers, "a", @progbits
.balign 8
.global handlers
handlers:
    .quad exception_0, exception_1, exception_2, exception_3, exception_4, exception_5, invalid_opcode, exception_7
    .quad exception_8, exception_9, exception_10, exception_11, exception_12, general_protection, exception_14
    .quad exception_15, exception_16, exception_17, exception_18, exception_19, exception_20, exception_21
    .quad exception_22, exception_23, exception_24, exception_25, exception_26, exception_27, exception_28
    .quad exception_29, exception_30, exception_31
    .quad unexpected_interrupt

.section .bss.boot, "aw", @nobits
.balign 4096
page_map:
    .skip 4096
page_directory_pointers:
    .skip 4096
page_directories:
    .skip 4 * 4096
boot_stack:
    .skip 32 * 1024
boot_stack_end:
