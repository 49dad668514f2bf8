//! The virtual-machine control structure and its life. A processor may hold one in its caches, so that only the processor that has loaded it
//! may use it, and it has to be cleared there before another one loads it (SDM Vol. 3C §25.1). Types say which is so: [`Cleared`] can go
//! anywhere, [`Loaded`] cannot leave its processor, and only the latter has fields.

use crate::field::{Field, Fields};
use core::arch::{asm, global_asm};
use core::marker::PhantomData;
use memory::Page;

/// A structure that no processor holds.
pub struct Cleared {
    page: Page,
    /// Whether a processor has initialized it: what its launch state is stored in is undefined before.
    initialized: bool,
}

/// A structure that this processor has loaded, and no other. Not `Send`.
pub struct Loaded {
    page: Page,
    launched: bool,
    bound: PhantomData<*const ()>,
}

/// A general register each by its number; RSP lives in the VMCS, in its place is the host's stack pointer that the VMCS knows.
pub type Registers = [u64; 16];

/// Why an entry did not take place: the instruction failed, the guest's state was not even looked at.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NotEntered;

impl Cleared {
    /// A structure of that revision in a zeroed page of its own.
    ///
    /// # Safety
    /// The page is mapped now, and nobody uses it but what comes of this value.
    pub unsafe fn new(page: Page, revision: u32) -> Self {
        // SAFETY: this function's contract; a page is aligned and has room.
        unsafe { page.pointer().cast::<u32>().write(revision) };
        Self { page, initialized: false }
    }

    /// Loads it on this processor.
    ///
    /// # Safety
    /// This processor is in VMX operation, and no other structure is loaded on it.
    pub unsafe fn load(self) -> Result<Loaded, Self> {
        let physical = self.page.physical().get();
        if !self.initialized {
            // SAFETY: this function's contract; the page is a structure's own.
            unsafe { clear(physical) };
        }
        let failed: u8;
        // SAFETY: as above; it begins with the revision (`new`), and no processor holds it, by this type.
        unsafe {
            asm!("push {0}", "vmptrld [rsp]", "setbe {1}", "pop {0}", in(reg) physical, out(reg_byte) failed);
        }
        if failed != 0 {
            return Err(Self { initialized: true, ..self });
        }
        Ok(Loaded { page: self.page, launched: false, bound: PhantomData })
    }
}

/// VMCLEAR.
///
/// # Safety
/// This processor is in VMX operation; `physical` is the page of a structure that no other processor holds.
unsafe fn clear(physical: u64) {
    // SAFETY: this function's contract. The processor writes the page and nothing else.
    unsafe { asm!("push {0}", "vmclear [rsp]", "pop {0}", in(reg) physical) };
}

// The world switch: RDI points to the general registers, ESI says whether the guest was launched. EAX is 0 after an exit.
//
// The stack pointer is told to the VMCS where it is another than last time. All registers that the guest may have changed are put back or
// are the caller's to lose by the ABI; FS, GS, TR and the descriptor tables come from the VMCS. Vector registers are not the hypervisor's.
global_asm!(
    r#"
    .pushsection .text.ringfence_vmx_enter, "ax", @progbits
    .balign 16
    .global ringfence_vmx_enter
    ringfence_vmx_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    cmp rsp, [rdi + 32]
    je 2f
    mov eax, 0x6c14
    vmwrite rax, rsp
    mov [rdi + 32], rsp
    2:
    test esi, esi
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
    jz 3f
    vmresume
    jmp 4f
    3:
    vmlaunch
    4:
    # The instruction failed: registers and stack are as before it.
    mov eax, 1
    pop rdi
    jmp 5f
    .global ringfence_vmx_exit
    ringfence_vmx_exit:
    # The guest's RDI goes where the pointer to the registers was, and from there to its place.
    xchg rdi, [rsp]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    pop qword ptr [rdi + 56]
    xor eax, eax
    5:
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .popsection
    "#
);

unsafe extern "C" {
    fn ringfence_vmx_enter(registers: *mut Registers, launched: u32) -> u32;
    /// Where the processor comes back to; never called.
    fn ringfence_vmx_exit();
}

/// The address for [`Field::HOST_RIP`].
pub fn exit_address() -> u64 {
    ringfence_vmx_exit as *const () as u64
}

impl Loaded {
    /// Takes it away from this processor: what is cached of it is in its page now.
    pub fn clear(self) -> Cleared {
        // SAFETY: this processor has loaded it, by this type, and so it is in VMX operation.
        unsafe { clear(self.page.physical().get()) };
        Cleared { page: self.page, initialized: true }
    }

    /// Enters the guest; comes back at the next VM exit, or at once where the instruction fails. Interrupts are masked before and after.
    ///
    /// # Safety
    /// The structure's host state is this processor's own, with [`exit_address`] as RIP, and its controls and its guest state give the guest nothing
    /// but its own memory.
    #[inline(always)]
    pub unsafe fn enter(&mut self, registers: &mut Registers) -> Result<(), NotEntered> {
        // SAFETY: this function's contract; this structure is the processor's current one, by this type. The function follows the C ABI.
        let failed = unsafe { ringfence_vmx_enter(registers, self.launched.into()) };
        if failed == 0 { Ok(()) } else { Err(NotEntered) }
    }

    /// The guest was entered and has come back. (Where the processor refuses its state, it was not: SDM Vol. 3C §27.8.)
    #[inline(always)]
    pub fn entered(&mut self) {
        self.launched = true;
    }
}

impl Fields for Loaded {
    #[inline(always)]
    fn read(&self, field: Field) -> u64 {
        let value: u64;
        // SAFETY: this structure is the processor's current one, by this type; VMREAD changes nothing but flags and its destination.
        unsafe {
            asm!("vmread {0}, {1}", out(reg) value, in(reg) u64::from(field.0), options(nomem, nostack));
        }
        value
    }

    #[inline(always)]
    fn write(&mut self, field: Field, value: u64) {
        // SAFETY: as in `read`; what a guest is entered with is `enter`'s contract. The structure's page is the processor's while it is
        // loaded, and no memory of the program: nothing that the compiler knows is changed.
        unsafe {
            asm!("vmwrite {0}, {1}", in(reg) u64::from(field.0), in(reg) value, options(nomem, nostack));
        }
    }
}

/// A structure in either of its states.
pub enum Structure {
    /// No processor holds it.
    Cleared(Cleared),
    /// This one does.
    Loaded(Loaded),
    /// It is on its way from one to the other.
    Between,
}

impl Structure {
    /// Loads it on this processor; whether it is loaded now.
    ///
    /// # Safety
    /// As [`Cleared::load`].
    pub unsafe fn load(&mut self) -> bool {
        *self = match core::mem::replace(self, Self::Between) {
            // SAFETY: this function's contract.
            Self::Cleared(cleared) => match unsafe { cleared.load() } {
                Ok(loaded) => Self::Loaded(loaded),
                Err(cleared) => Self::Cleared(cleared),
            },
            other => other,
        };
        matches!(self, Self::Loaded(_))
    }

    /// Takes it away from this processor, where that has it.
    pub fn clear(&mut self) {
        *self = match core::mem::replace(self, Self::Between) {
            Self::Loaded(loaded) => Self::Cleared(loaded.clear()),
            other => other,
        };
    }
}

/// Without a structure that is loaded, fields read as 0 and writes are lost: nobody reads another virtual processor's.
impl Fields for Structure {
    #[inline(always)]
    fn read(&self, field: Field) -> u64 {
        if let Self::Loaded(loaded) = self { loaded.read(field) } else { 0 }
    }

    #[inline(always)]
    fn write(&mut self, field: Field, value: u64) {
        if let Self::Loaded(loaded) = self {
            loaded.write(field, value);
        }
    }
}
