//! The virtual machine control block (APM Vol. 2 Appendix B), laid out as the processor reads it.

use bitflags::bitflags;
use core::mem::offset_of;
use x86::{DescriptorTable, Segment};

bitflags! {
    /// Intercept word 3 (offset 0x00c).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Intercepts3: u32 {
        const INTERRUPT = 1 << 0;
        const NON_MASKABLE = 1 << 1;
        const SYSTEM_MANAGEMENT = 1 << 2;
        const INIT = 1 << 3;
        const VIRTUAL_INTERRUPT = 1 << 4;
        const CR0_SELECTIVE = 1 << 5;
        const RDPMC = 1 << 15;
        const CPUID = 1 << 18;
        const RSM = 1 << 19;
        const IRET = 1 << 20;
        const INVD = 1 << 22;
        const PAUSE = 1 << 23;
        const HLT = 1 << 24;
        const INVLPGA = 1 << 26;
        const PORT = 1 << 27;
        const MSR = 1 << 28;
        const TASK_SWITCH = 1 << 29;
        const SHUTDOWN = 1 << 31;
    }
}

bitflags! {
    /// Intercept word 4 (offset 0x010).
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Intercepts4: u32 {
        const VMRUN = 1 << 0;
        const VMMCALL = 1 << 1;
        const VMLOAD = 1 << 2;
        const VMSAVE = 1 << 3;
        const STGI = 1 << 4;
        const CLGI = 1 << 5;
        const SKINIT = 1 << 6;
        const ICEBP = 1 << 8;
        const WBINVD = 1 << 9;
        const MONITOR = 1 << 10;
        const MWAIT = 1 << 11;
        const MWAIT_ARMED = 1 << 12;
        const XSETBV = 1 << 13;
        const RDPRU = 1 << 14;
    }
}

/// A segment register as the VMCB holds it.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct VmcbSegment {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

impl VmcbSegment {
    pub fn get(&self) -> Segment {
        Segment { selector: self.selector, attributes: self.attributes, limit: self.limit, base: self.base }
    }

    pub fn set(&mut self, value: &Segment) {
        *self = Self {
            selector: value.selector,
            attributes: value.attributes,
            limit: value.limit,
            base: value.base,
        };
    }

    pub fn set_table(&mut self, value: DescriptorTable) {
        *self = Self { selector: 0, attributes: 0, limit: value.limit as u32, base: value.base };
    }
}

/// The whole block: control area to 0x3ff, state save area behind it.
#[repr(C, align(4096))]
pub struct ControlBlock {
    pub control_reads: u16,
    pub control_writes: u16,
    pub debug_reads: u16,
    pub debug_writes: u16,
    pub exceptions: u32,
    pub intercepts_3: u32,
    pub intercepts_4: u32,
    pub intercepts_5: u32,
    reserved_018: [u8; 0x3c - 0x18],
    pub pause_threshold: u16,
    pub pause_count: u16,
    pub port_permissions: u64,
    pub msr_permissions: u64,
    pub ticks_offset: u64,
    pub address_space: u32,
    pub flush: u32,
    pub virtual_interrupt: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_information_1: u64,
    pub exit_information_2: u64,
    pub exit_interruption: u64,
    pub nested_paging: u64,
    reserved_098: [u8; 0xa8 - 0x98],
    pub event_injection: u64,
    pub nested_root: u64,
    pub branch_records: u64,
    pub clean: u64,
    pub next_instruction: u64,
    pub fetched: u8,
    pub instruction: [u8; 15],
    reserved_0e0: [u8; 0x400 - 0xe0],
    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    reserved_4a0: [u8; 0x4cb - 0x4a0],
    pub privilege: u8,
    reserved_4cc: [u8; 4],
    pub efer: u64,
    reserved_4d8: [u8; 0x548 - 0x4d8],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x5d8 - 0x580],
    pub rsp: u64,
    reserved_5e0: [u8; 0x5f8 - 0x5e0],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    reserved_648: [u8; 0x668 - 0x648],
    pub page_attributes: u64,
    pub debug_control: u64,
    reserved_678: [u8; 0x1000 - 0x678],
}

#[cfg(test)]
impl ControlBlock {
    /// As its page is at first.
    pub fn zeroed() -> Self {
        // SAFETY: every field is an integer or an array of them, for which all zeros are a value.
        unsafe { core::mem::zeroed() }
    }
}

const _: () = {
    assert!(size_of::<ControlBlock>() == 0x1000);
    assert!(offset_of!(ControlBlock, intercepts_3) == 0x00c);
    assert!(offset_of!(ControlBlock, pause_threshold) == 0x03c);
    assert!(offset_of!(ControlBlock, port_permissions) == 0x040);
    assert!(offset_of!(ControlBlock, address_space) == 0x058);
    assert!(offset_of!(ControlBlock, flush) == 0x05c);
    assert!(offset_of!(ControlBlock, virtual_interrupt) == 0x060);
    assert!(offset_of!(ControlBlock, interrupt_shadow) == 0x068);
    assert!(offset_of!(ControlBlock, exit_code) == 0x070);
    assert!(offset_of!(ControlBlock, exit_interruption) == 0x088);
    assert!(offset_of!(ControlBlock, nested_paging) == 0x090);
    assert!(offset_of!(ControlBlock, event_injection) == 0x0a8);
    assert!(offset_of!(ControlBlock, nested_root) == 0x0b0);
    assert!(offset_of!(ControlBlock, clean) == 0x0c0);
    assert!(offset_of!(ControlBlock, next_instruction) == 0x0c8);
    assert!(offset_of!(ControlBlock, fetched) == 0x0d0);
    assert!(offset_of!(ControlBlock, es) == 0x400);
    assert!(offset_of!(ControlBlock, tr) == 0x490);
    assert!(offset_of!(ControlBlock, privilege) == 0x4cb);
    assert!(offset_of!(ControlBlock, efer) == 0x4d0);
    assert!(offset_of!(ControlBlock, cr4) == 0x548);
    assert!(offset_of!(ControlBlock, rip) == 0x578);
    assert!(offset_of!(ControlBlock, rsp) == 0x5d8);
    assert!(offset_of!(ControlBlock, rax) == 0x5f8);
    assert!(offset_of!(ControlBlock, cr2) == 0x640);
    assert!(offset_of!(ControlBlock, page_attributes) == 0x668);
};

/// Fields of [`ControlBlock::virtual_interrupt`].
pub mod virtual_interrupt {
    /// V_IRQ: a virtual interrupt is pending. The processor clears it when the guest takes the interrupt.
    pub const PENDING: u64 = 1 << 8;
    /// A pending virtual interrupt of the highest priority, whatever the task priority: which interrupt comes next was decided by the
    /// local APIC's model.
    pub const REQUEST: u64 = PENDING | 0xf << 16 | 1 << 20;
    /// V_INTR_MASKING: the guest's IF does not hold off the host's interrupts.
    pub const MASKING: u64 = 1 << 24;

    /// V_INTR_VECTOR.
    pub const fn vector(vector: u8) -> u64 {
        (vector as u64) << 32
    }

    /// The vector of a request.
    pub const fn vector_of(value: u64) -> u8 {
        (value >> 32) as u8
    }
}

/// Fields of an event in [`ControlBlock::event_injection`] and [`ControlBlock::exit_interruption`].
pub mod event {
    /// The event is valid. Emulators leave the vector behind without this bit.
    pub const VALID: u64 = 1 << 31;
    /// An error code is in bits 63–32.
    pub const HAS_ERROR_CODE: u64 = 1 << 11;
    /// External interrupt.
    pub const INTERRUPT: u64 = 0;
    /// NMI.
    pub const NON_MASKABLE: u64 = 2 << 8;
    /// Exception.
    pub const EXCEPTION: u64 = 3 << 8;
    /// INTn.
    pub const SOFTWARE: u64 = 4 << 8;
    /// The bits that hold the type.
    pub const TYPE: u64 = 7 << 8;
}

/// Values of [`ControlBlock::flush`].
pub mod flush {
    /// Keep translations.
    pub const NOTHING: u32 = 0;
    /// Flush all of this processor's.
    pub const ALL: u32 = 1;
    /// Flush this address space's (needs flush-by-ASID).
    pub const OWN: u32 = 3;
}
