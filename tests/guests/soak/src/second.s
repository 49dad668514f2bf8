# The start of the second processor, the interrupt handlers, and what both processors compute. Intel syntax.

# Copied to a page below 1 MiB; entered in real mode with CS at that page (APM volume 2, section 15.24 and 14.1.3). All that it needs
# of the first processor's state is written into its last two words. Straight from real mode to long mode.
.section .rodata.trampoline, "a", @progbits
.balign 16
.global trampoline
trampoline:
.code16
    cli
    mov ax, cs
    mov ds, ax
    lgdt [112]
    mov eax, cr4
    or eax, 0x620                         # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, [120]
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
    # At 112 the pointer to the descriptor table, at 120 the page tables.
    .skip 112 - (. - trampoline)
    .quad 0
    .quad 0
.global trampoline_end
trampoline_end:

.section .text.second, "ax", @progbits
.code64
second_start:
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

# Each handler counts, and ends its interrupt in x2APIC mode. It leaves the vector registers alone: they are part of what is computed.
.macro handler name, counter
.global \name
\name:
    push rax
    push rcx
    push rdx
    lock inc qword ptr [\counter]
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
.endm
handler timer_interrupt, TIMER_INTERRUPTS
handler processor_interrupt, PROCESSOR_INTERRUPTS

# RDI: the value, RSI: how many steps, more than 0. Answers the value behind them in RAX. The vector registers stay what they become.
.global compute_steps
compute_steps:
    mov rax, rdi
    movabs rcx, 6364136223846793005
    movabs rdx, 1442695040888963407
7:  imul rax, rcx
    add rax, rdx
    paddq xmm0, xmm1
    paddq xmm2, xmm3
    paddq xmm4, xmm5
    paddq xmm6, xmm7
    paddq xmm8, xmm9
    paddq xmm10, xmm11
    paddq xmm12, xmm13
    paddq xmm14, xmm15
    dec rsi
    jnz 7b
    ret

# RDI: 16 values for both halves of the vector registers, then four for the debug registers.
.global load_lanes
load_lanes:
    .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movq xmm\number, [rdi + 8 * \number]
    punpcklqdq xmm\number, xmm\number
    .endr
    .irp number, 0,1,2,3
    mov rax, [rdi + 128 + 8 * \number]
    mov dr\number, rax
    .endr
    ret

# RDI: room for both halves of the vector registers, then the debug registers.
.global store_lanes
store_lanes:
    .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movdqu [rdi + 16 * \number], xmm\number
    .endr
    .irp number, 0,1,2,3
    mov rax, dr\number
    mov [rdi + 256 + 8 * \number], rax
    .endr
    ret

.section .bss.second, "aw", @nobits
.balign 16
    .skip 32 * 1024
second_stack_end:
