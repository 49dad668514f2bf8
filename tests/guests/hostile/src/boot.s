# From the loader to Rust. Intel syntax, assembled by rustc.
#
# Both protocols enter in 32-bit protected mode with flat segments, paging and interrupts off (Multiboot specification 0.6.96
# section 3.2; Xen's PVH ABI, docs/misc/pvh.pandoc). EBX holds the address of what they pass along.

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
    # What the registers hold at first is looked at later.
    mov [FIRST_REGISTERS + 8 * 0], eax
    mov [FIRST_REGISTERS + 8 * 1], ecx
    mov [FIRST_REGISTERS + 8 * 2], edx
    mov [FIRST_REGISTERS + 8 * 4], esp
    mov [FIRST_REGISTERS + 8 * 7], edi
    mov esp, offset boot_stack_end

    # The page tables may hold anything: every entry is written. One directory of 2 MiB pages for each of the first 4 GiB;
    # the last GiB holds device registers and is not cached. Ring 3 may use all of it.
    mov edi, offset page_directories
    mov eax, 0x87                         # present, writable, user, large
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
    mov ecx, 4 * 1024                     # page_map, pointers, window_directory, window_table
    rep stosd
    mov eax, offset page_directory_pointers + 7
    mov [page_map], eax
    mov eax, offset page_directories + 7
    mov edi, offset page_directory_pointers
    mov ecx, 4
4:  mov [edi], eax
    add eax, 4096
    add edi, 8
    loop 4b
    # At 256 GiB lies the window: 512 pages of 4 KiB, for whatever an attempt wants to look at.
    mov eax, offset window_directory + 7
    mov [page_directory_pointers + 256 * 8], eax
    mov eax, offset WINDOW_TABLE + 7
    mov [window_directory], eax

    # APM volume 2, section 14.6.1: PAE, CR3, EFER.LME, then paging. SSE is on for the compiler's sake and for the witness.
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, offset page_map
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb                   # EM
    or eax, 0x80000003                    # PG, MP, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    # A far jump by RETF: rustc's assembler knows no direct one in this syntax.
    push 0x08
    mov eax, offset long_mode
    push eax
    retf

.code64
long_mode:
    mov [FIRST_REGISTERS + 8 * 3], rbx
    mov [FIRST_REGISTERS + 8 * 5], rbp
    mov [FIRST_REGISTERS + 8 * 6], rsi
    .irp number, 8,9,10,11,12,13,14,15
    mov [FIRST_REGISTERS + 8 * \number], r\number
    .endr
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [boot_stack_end]
    mov edi, ebx
    call main
5:  hlt
    jmp 5b

# The start of a second processor. Copied to a page below 1 MiB and entered in real mode with CS at that page (APM volume 2, sections
# 14.1.3 and 15.24). At 256 it stores its registers, at 384 lies the pointer to the descriptor table, at 392 the page tables.
.section .rodata.second, "a", @progbits
.balign 16
.global second_trampoline
second_trampoline:
.code16
    cli
    mov cs:[256 + 8 * 0], eax
    mov cs:[256 + 8 * 1], ecx
    mov cs:[256 + 8 * 2], edx
    mov cs:[256 + 8 * 3], ebx
    mov cs:[256 + 8 * 4], esp
    mov cs:[256 + 8 * 5], ebp
    mov cs:[256 + 8 * 6], esi
    mov cs:[256 + 8 * 7], edi
    mov ax, cs
    mov ds, ax
    lgdt [384]
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, [392]
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3                   # caches on, EM and TS off
    or eax, 0x80000003                    # PG, MP, PE
    mov cr0, eax
    # JMP 08:second_start, 32 bits of offset.
    .byte 0x66, 0xea
    .long second_start
    .word 0x08
.global second_trampoline_end
second_trampoline_end:

.section .text.second, "ax", @progbits
.code64
second_start:
    .irp number, 8,9,10,11,12,13,14,15
    mov [SECOND_REGISTERS + 8 * \number], r\number
    .endr
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [second_stack_end]
    call second
6:  hlt
    jmp 6b

.section .note.pvh, "a", @note
.balign 4
    .long 4                               # length of the name
    .long 4                               # length of the descriptor
    .long 18                              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

.section .data.tables, "aw", @progbits
.balign 16
# Whose selectors are in `machine.rs`. The last eight are for attempts to fill.
.global GDT
GDT:
    .quad 0
    .quad 0x00209b0000000000              # 08: 64-bit code of ring 0
    .quad 0x00cf93000000ffff              # 10: data of ring 0
    .quad 0x00cf9b000000ffff              # 18: 32-bit code of ring 0
    .quad 0x00cff3000000ffff              # 20: data of ring 3
    .quad 0x0020fb0000000000              # 28: 64-bit code of ring 3
    .quad 0x00cffb000000ffff              # 30: 32-bit code of ring 3
    .quad 0x00009b000000ffff              # 38: 16-bit code of ring 0
    .quad 0x0000fb000000ffff              # 40: 16-bit code of ring 3
    .quad 0x000093000000ffff              # 48: 16-bit data of ring 0
    .quad 0, 0                            # 50: TSS
    .quad 0, 0, 0, 0, 0, 0, 0, 0          # 60
.global GDT_END
GDT_END:
gdt_pointer:
    .word GDT_END - GDT - 1
    .long GDT
    .long 0

.section .bss.boot, "aw", @nobits
.balign 4096
.global page_map
page_map:
    .skip 4096
.global page_directory_pointers
page_directory_pointers:
    .skip 4096
window_directory:
    .skip 4096
.global WINDOW_TABLE
WINDOW_TABLE:
    .skip 4096
.global page_directories
page_directories:
    .skip 4 * 4096
boot_stack:
    .skip 64 * 1024
boot_stack_end:
.global trap_stack
trap_stack:
    .skip 32 * 1024
.global trap_stack_end
trap_stack_end:
legacy_stack:
    .skip 4096
legacy_stack_end:
second_stack:
    .skip 16 * 1024
second_stack_end:
