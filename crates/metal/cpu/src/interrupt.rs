//! The host's interrupt descriptor table. Exceptions end in a report; interrupts are only acknowledged: whoever waited for one
//! looks at its mailbox and at the clock afterwards.
//!
//! The handlers are assembly, since a handler must keep every register, and since their instructions are counted on the path
//! that wakes a guest.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// First vector of the two 8259As, which are masked: only their spurious interrupts arrive here.
pub const LEGACY: u8 = 0x20;
/// Vector of the serial port.
pub const SERIAL: u8 = 0x40;
/// Vector of the local APIC's timer.
pub const TIMER: u8 = 0xe0;
/// Vector of a kick by another processor.
pub const KICK: u8 = 0xe8;
/// Vector of the local APIC's spurious interrupt.
pub const SPURIOUS: u8 = 0xff;

/// Spurious interrupts.
static SPURIOUS_COUNT: AtomicU64 = AtomicU64::new(0);
/// Interrupts on vectors that nobody uses.
static UNEXPECTED: AtomicU64 = AtomicU64::new(0);

/// How many spurious interrupts came, and how many on vectors that nobody uses.
pub fn strays() -> [u64; 2] {
    [&SPURIOUS_COUNT, &UNEXPECTED].map(|count| count.load(Ordering::Relaxed))
}

type Gate = [u64; 2];

/// The table. It lies in its own pages, which the final page tables map read-only: it is written before they are loaded.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: `prepare` writes it while one processor runs, before anything reads it; afterwards it is only read, by processors.
unsafe impl Sync for Table {}

// The name begins with .bss so that it takes no room in the file.
#[unsafe(link_section = ".bss.sealed")]
static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

/// An interrupt gate of ring 0 (APM Vol. 2 §4.8.4); `stack` is 0 or an index into the interrupt stack table.
const fn gate(handler: u64, stack: u8) -> Gate {
    let low = handler & 0xffff
        | (super::block::CODE_SELECTOR as u64) << 16
        | (stack as u64) << 32
        | 0x8e00 << 32
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Interrupt stack of an exception: double fault, NMI and machine check can come where the stack is not to be trusted.
const fn stack(vector: u8) -> u8 {
    match vector {
        8 => 1,
        2 => 2,
        18 => 3,
        _ => 0,
    }
}

mod stubs {
    use crate::apic::{ADDRESS, END_OF_INTERRUPT};
    use crate::block::{DEADLINE_OFFSET, NO_DEADLINE, STRIDE};
    use core::arch::{global_asm, naked_asm};

    // Exceptions: vector and error code (0 where the processor pushes none) below the processor's frame, then all general
    // registers; `fault::report` reads that as `fault::Frame` and does not come back. Stubs are 16 bytes apart.
    global_asm!(
        r#"
        .pushsection .text.exception_stubs, "ax", @progbits
        .balign 16
        .global ringfence_exception_stubs
        ringfence_exception_stubs:
        .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        .balign 16
        .if (0x60227d00 >> \vector) & 1
        .else
        push 0
        .endif
        push \vector
        jmp ringfence_exception
        .endr
        ringfence_exception:
        # Vector, error code, RIP. A #GP at the one RDMSR that may fault is mended.
        cmp qword ptr [rsp], 13
        jne 2f
        push rax
        lea rax, [rip + ringfence_read_checked_fault]
        cmp qword ptr [rsp + 24], rax
        jne 3f
        lea rax, [rip + ringfence_read_checked_resume]
        mov qword ptr [rsp + 24], rax
        pop rax
        add rsp, 16
        iretq
        3: pop rax
        2:
        push rax
        push rbx
        push rcx
        push rdx
        push rsi
        push rdi
        push rbp
        push r8
        push r9
        push r10
        push r11
        push r12
        push r13
        push r14
        push r15
        cld
        mov rdi, rsp
        and rsp, -16
        call {report}
        int3
        .popsection
        "#,
        report = sym crate::fault::report,
    );

    unsafe extern "C" {
        #[link_name = "ringfence_exception_stubs"]
        pub static EXCEPTIONS: [[u8; 16]; 32];
    }

    /// The timer fired: no deadline is armed any more. x2APIC.
    #[unsafe(naked)]
    pub extern "C" fn timer_x2apic() {
        naked_asm!(
            "push rax",
            "push rcx",
            "push rdx",
            "mov rax, rsp",
            "and rax, {block}",
            "mov qword ptr [rax + {deadline}], {none}",
            "mov ecx, 0x80b",
            "xor eax, eax",
            "xor edx, edx",
            "wrmsr",
            "pop rdx",
            "pop rcx",
            "pop rax",
            "iretq",
            block = const -(STRIDE as i64),
            deadline = const DEADLINE_OFFSET,
            none = const NO_DEADLINE as i64,
        )
    }

    /// The timer fired. xAPIC.
    #[unsafe(naked)]
    pub extern "C" fn timer_xapic() {
        naked_asm!(
            "push rax",
            "mov rax, rsp",
            "and rax, {block}",
            "mov qword ptr [rax + {deadline}], {none}",
            "movabs rax, {end}",
            "mov dword ptr [rax], 0",
            "pop rax",
            "iretq",
            block = const -(STRIDE as i64),
            deadline = const DEADLINE_OFFSET,
            none = const NO_DEADLINE as i64,
            end = const ADDRESS + END_OF_INTERRUPT,
        )
    }

    /// Somebody wants this processor to look at its mailbox. x2APIC.
    #[unsafe(naked)]
    pub extern "C" fn kick_x2apic() {
        naked_asm!(
            "push rax",
            "push rcx",
            "push rdx",
            "mov ecx, 0x80b",
            "xor eax, eax",
            "xor edx, edx",
            "wrmsr",
            "pop rdx",
            "pop rcx",
            "pop rax",
            "iretq",
        )
    }

    /// Somebody wants this processor to look at its mailbox. xAPIC.
    #[unsafe(naked)]
    pub extern "C" fn kick_xapic() {
        naked_asm!(
            "push rax",
            "movabs rax, {end}",
            "mov dword ptr [rax], 0",
            "pop rax",
            "iretq",
            end = const ADDRESS + END_OF_INTERRUPT,
        )
    }

    macro_rules! rust_handler {
        ($(#[$documentation:meta])* $name:ident => $function:path) => {
            $(#[$documentation])*
            #[unsafe(naked)]
            pub extern "C" fn $name() {
                // The processor aligned the stack to 16 bytes before it pushed five words; ten more leave it 8 off.
                naked_asm!(
                    "push rbp",
                    "mov rbp, rsp",
                    "push rax",
                    "push rcx",
                    "push rdx",
                    "push rsi",
                    "push rdi",
                    "push r8",
                    "push r9",
                    "push r10",
                    "push r11",
                    "cld",
                    "and rsp, -16",
                    "call {function}",
                    "lea rsp, [rbp - 72]",
                    "pop r11",
                    "pop r10",
                    "pop r9",
                    "pop r8",
                    "pop rdi",
                    "pop rsi",
                    "pop rdx",
                    "pop rcx",
                    "pop rax",
                    "pop rbp",
                    "iretq",
                    function = sym $function,
                )
            }
        };
    }

    rust_handler!(
        /// The serial port has received bytes.
        serial => super::on_serial
    );
    rust_handler!(
        /// A vector that nobody uses, or one of spurious interrupts.
        stray => super::on_stray
    );
}

extern "C" fn on_serial() {
    crate::serial::collect();
    crate::apic::end_of_interrupt();
}

extern "C" fn on_stray() {
    // Handlers acknowledge before they return, so that whatever is in service is what came. Without it the interrupt is spurious, and
    // must not be acknowledged (SDM Vol. 3A §11.9; 8259A data sheet, "default IR7"). The vectors of spurious interrupts are no proof: a
    // device that sends one is in service, and nothing below it would ever come again.
    let Some(vector) = crate::apic::in_service() else {
        SPURIOUS_COUNT.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // Named once, counted always: a device that storms must not drown the console.
    if UNEXPECTED.fetch_add(1, Ordering::Relaxed) == 0 {
        crate::serial::line(format_args!(
            "unexpected interrupt, vector {vector:#x}; others are only counted"
        ));
    }
    crate::apic::end_of_interrupt();
}

/// Fills the table and loads it on this processor. `stacks` tells whether the interrupt stacks are there
/// ([`crate::block::load`] was called); before, every exception uses the stack that it finds. `x2apic` tells how interrupts are
/// acknowledged.
///
/// # Safety
///
/// One processor runs, the table's pages are writable (they are no longer once the final page tables are loaded), interrupts
/// are masked.
pub unsafe fn prepare(stacks: bool, x2apic: bool) {
    let (timer, kick): (extern "C" fn(), extern "C" fn()) = if x2apic {
        (stubs::timer_x2apic, stubs::kick_x2apic)
    } else {
        (stubs::timer_xapic, stubs::kick_xapic)
    };
    let exceptions = (&raw const stubs::EXCEPTIONS) as u64;
    for vector in 0..=u8::MAX {
        let entry = match vector {
            0..32 => gate(exceptions + 16 * u64::from(vector), if stacks { stack(vector) } else { 0 }),
            TIMER => gate(timer as *const () as u64, 0),
            KICK => gate(kick as *const () as u64, 0),
            SERIAL => gate(stubs::serial as *const () as u64, 0),
            _ => gate(stubs::stray as *const () as u64, 0),
        };
        // SAFETY: The caller's promise: writable, and nobody else looks. The index is below 256.
        unsafe { (*TABLE.0.get())[usize::from(vector)] = entry };
    }
    // SAFETY: The table is complete and stays where it is.
    unsafe { load() };
}

/// Loads the table on this processor.
///
/// # Safety
///
/// It was filled by [`prepare`], and if that was with stacks, this processor has called [`crate::block::load`].
pub unsafe fn load() {
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: (core::mem::size_of::<[Gate; 256]>() - 1) as u16,
        base: x86_64::VirtAddr::new_truncate(TABLE.0.get() as u64),
    };
    // SAFETY: The caller's promise: every gate leads to a handler of ours.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

/// Where the table is.
pub fn table_address() -> u64 {
    TABLE.0.get() as u64
}

/// Raises an NMI that a guest's exit has taken from this processor. Its handler ends in a report.
#[cold]
pub fn raise_non_maskable() {
    // SAFETY: The gate leads to the handler of NMIs, on a stack of its own, as the processor would.
    unsafe { core::arch::asm!("int 2") };
}

/// Raises a machine check that a guest's exit has taken from this processor. Its handler ends in a report.
#[cold]
pub fn raise_machine_check() {
    // SAFETY: As in `raise_non_maskable`.
    unsafe { core::arch::asm!("int 18") };
}

/// Sets both 8259As up so that their spurious interrupts come at [`LEGACY`], and masks all their lines (8259A data sheet,
/// "Programming the 8259A"). Boot loaders leave the PIT's line live.
pub fn mask_legacy_controllers() {
    const FIRST: u16 = 0x20;
    const SECOND: u16 = 0xa0;
    let sequence = [
        (FIRST, 0x11),
        (SECOND, 0x11),
        (FIRST + 1, LEGACY),
        (SECOND + 1, LEGACY + 8),
        (FIRST + 1, 4),
        (SECOND + 1, 2),
        (FIRST + 1, 1),
        (SECOND + 1, 1),
        (FIRST + 1, 0xff),
        (SECOND + 1, 0xff),
    ];
    for (port, value) in sequence {
        // SAFETY: The 8259As' own registers on every PC, or nothing: they reach no memory.
        unsafe { crate::port::write_u8(port, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_has_the_bits_of_the_manual() {
        let [low, high] = gate(0x1122_3344_5566_7788, 2);
        assert_eq!(low & 0xffff, 0x7788);
        assert_eq!(low >> 16 & 0xffff, u64::from(super::super::block::CODE_SELECTOR));
        assert_eq!(low >> 32 & 7, 2);
        // Present, ring 0, 64-bit interrupt gate.
        assert_eq!(low >> 40 & 0xff, 0x8e);
        assert_eq!(low >> 48, 0x5566);
        assert_eq!(high, 0x1122_3344);
    }

    #[test]
    fn only_exceptions_that_distrust_the_stack_have_their_own() {
        let own: Vec<u8> = (0..32).filter(|vector| stack(*vector) != 0).collect();
        assert_eq!(own, [2, 8, 18]);
        assert!(stack(8) != stack(2) && stack(2) != stack(18) && stack(8) != stack(18));
    }
}
