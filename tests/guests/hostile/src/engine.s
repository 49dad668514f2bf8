# Runs code in some mode until a trap of any kind ends it, and comes back with what the processor held then.
#
# `Entry` and `Trap` in engine.rs have the layouts that are used here: RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8 to R15, then
# vector, error code, RIP, CS, RFLAGS, RSP, SS, eight bytes each.

.section .text.engine, "ax", @progbits

# engage(entry: &Entry): long mode, whatever CS says.
.global engage
engage:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    mov [ENGINE_STACK], rsp
    push qword ptr [rdi + 168]            # SS
    push qword ptr [rdi + 160]            # RSP
    push qword ptr [rdi + 152]            # RFLAGS
    push qword ptr [rdi + 144]            # CS
    push qword ptr [rdi + 136]            # RIP
    # Ring 3 gets data segments that it may use: outside 64-bit code they are looked at.
    test byte ptr [rdi + 144], 3
    jz 2f
    mov eax, [rdi + 168]
    mov ds, eax
    mov es, eax
2:  mov rax, [rdi]
    mov rbx, [rdi + 8]
    mov rcx, [rdi + 16]
    mov rdx, [rdi + 24]
    mov rsi, [rdi + 32]
    mov rbp, [rdi + 48]
    mov r8, [rdi + 56]
    mov r9, [rdi + 64]
    mov r10, [rdi + 72]
    mov r11, [rdi + 80]
    mov r12, [rdi + 88]
    mov r13, [rdi + 96]
    mov r14, [rdi + 104]
    mov r15, [rdi + 112]
    mov rdi, [rdi + 40]
    iretq

# The entry points of all vectors, 16 bytes apart.
.balign 16
.global vectors
vectors:
.set number, 0
.rept 256
    .balign 16
    .if (number == 8) || ((number >= 10) && (number <= 14)) || (number == 17) || (number == 21) || (number == 29) || (number == 30)
    .else
    push 0
    .endif
    push number
    jmp trap
    .set number, number + 1
.endr

trap:
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rbp
    push rdi
    push rsi
    push rdx
    push rcx
    push rbx
    push rax
    cld
    mov rdi, rsp
    call trap_taken
    test al, al
    jnz leave
    pop rax
    pop rbx
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq

# By IRET, which also ends the blocking of NMIs.
leave:
    mov rax, [ENGINE_STACK]
    lea rcx, [landing]
    push 0x10
    push rax
    push 2
    push 8
    push rcx
    iretq
landing:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov qword ptr [ENGINE_STACK], 0
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# engage_legacy(entry: &Entry, way: u32): outside long mode. 0: protected mode without paging, as CS says; 1: real mode; 2: protected mode as
# well, by an IRET to ring 3 or to virtual-8086 mode.
.global engage_legacy
engage_legacy:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    mov [ENGINE_STACK], rsp
    mov [LEGACY_ENTRY], edi
    mov [LEGACY_WAY], esi
    lidt [LEGACY_IDT_POINTER]
    push 0x18
    lea rax, [legacy_code]
    push rax
    retfq
.code32
legacy_code:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset legacy_stack_end
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    # Ring 3 may use these too.
    mov eax, 0x23
    mov ds, eax
    mov es, eax
    mov edi, [LEGACY_ENTRY]
    cmp dword ptr [LEGACY_WAY], 1
    je 2f
    ja 3f
    mov eax, [edi + 168]
    mov ss, eax
    mov esp, [edi + 160]
    jmp 4f
3:  push 0                                # GS, FS, DS, ES of virtual-8086 mode
    push 0
    push 0
    push 0
    push dword ptr [edi + 168]
    push dword ptr [edi + 160]
4:
    push dword ptr [edi + 152]
    push dword ptr [edi + 144]
    push dword ptr [edi + 136]
    mov eax, [edi]
    mov ebx, [edi + 8]
    mov ecx, [edi + 16]
    mov edx, [edi + 24]
    mov esi, [edi + 32]
    mov ebp, [edi + 48]
    mov edi, [edi + 40]
    iretd
2:  push 0x38
    push 0x6000
    retf

.balign 16
.global legacy_vectors
legacy_vectors:
.set number, 0
.rept 256
    .balign 16
    .if (number == 8) || ((number >= 10) && (number <= 14)) || (number == 17) || (number == 21) || (number == 29) || (number == 30)
    .else
    push 0
    .endif
    push number
    jmp legacy_trap
    .set number, number + 1
.endr

legacy_trap:
    push eax
    mov eax, 0x10
    mov ds, eax
    pop eax
    mov [LEGACY_TRAP], eax
    mov [LEGACY_TRAP + 8], ebx
    mov [LEGACY_TRAP + 16], ecx
    mov [LEGACY_TRAP + 24], edx
    mov [LEGACY_TRAP + 32], esi
    mov [LEGACY_TRAP + 40], edi
    mov [LEGACY_TRAP + 48], ebp
    mov eax, [esp]
    mov [LEGACY_TRAP + 120], eax
    mov eax, [esp + 4]
    mov [LEGACY_TRAP + 128], eax
    mov eax, [esp + 8]
    mov [LEGACY_TRAP + 136], eax
    movzx eax, word ptr [esp + 12]
    mov [LEGACY_TRAP + 144], eax
    mov eax, [esp + 16]
    mov [LEGACY_TRAP + 152], eax
    lea eax, [esp + 20]
    mov [LEGACY_TRAP + 160], eax
legacy_back:
    mov eax, 0x10
    mov es, eax
    mov ss, eax
    mov esp, offset legacy_stack_end
    # An attempt may have turned paging on.
    mov eax, cr0
    and eax, 0x7ffeffff
    mov cr0, eax
    mov eax, 0x620
    mov cr4, eax
    mov eax, offset page_map
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000003
    and eax, 0xfffffffb
    mov cr0, eax
    push 0x08
    mov eax, offset legacy_landing
    push eax
    retf
.code64
legacy_landing:
    lidt [IDT_POINTER]
    mov rsp, [ENGINE_STACK]
    jmp landing

# What runs in real mode lies at 0x6000: `engine.rs` copies it there. The entry lies at 0x7000, the trap is left at 0x7100.
.code16
.global real_begin
real_begin:
    mov ax, 0x48
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word 2f - real_begin + 0x6000, 0
2:  xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x8ff0
    .byte 0x0f, 0x01, 0x1e                # LIDT
    .word real_pointer - real_begin + 0x6000
    mov ax, [0x7000 + 152]
    push ax
    push 0
    mov ax, [0x7000 + 136]
    push ax
    mov eax, [0x7000]
    mov ebx, [0x7000 + 8]
    mov ecx, [0x7000 + 16]
    mov edx, [0x7000 + 24]
    mov esi, [0x7000 + 32]
    mov edi, [0x7000 + 40]
    mov ebp, [0x7000 + 48]
    iret
real_trap:
    push eax
    xor ax, ax
    mov ds, ax
    pop eax
    mov [0x7100], eax
    mov [0x7100 + 8], ebx
    mov [0x7100 + 16], ecx
    mov [0x7100 + 24], edx
    mov [0x7100 + 32], esi
    mov [0x7100 + 40], edi
    mov [0x7100 + 48], ebp
    xor eax, eax
    pop ax
    mov [0x7100 + 120], eax
    pop ax
    mov [0x7100 + 136], eax
    pop ax
    mov [0x7100 + 144], eax
    pop ax
    mov [0x7100 + 152], eax
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long real_back
    .word 0x18
real_pointer:
    .word 0x3ff
    .long 0
.global real_vectors
real_vectors:
.set number, 0
.rept 256
    .byte 0x68                            # PUSH of a word
    .word number
    .byte 0xe9                            # JMP
    .word real_trap - 2f
2:
    .set number, number + 1
.endr
.global real_end
real_end:
.code32
real_back:
    mov eax, 0x10
    mov ds, eax
    jmp legacy_back
.code64
