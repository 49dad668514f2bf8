//! Fields of the virtual-machine control structure (SDM Vol. 3D appendix B), by the numbers that VMREAD and VMWRITE take.

/// A field.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Field(pub u32);

#[rustfmt::skip]
#[allow(missing_docs)] // The names are the manual's own.
impl Field {
    // 16-bit controls and state.
    pub const VPID: Self = Self(0x0000);
    pub const GUEST_ES_SELECTOR: Self = Self(0x0800);
    pub const GUEST_CS_SELECTOR: Self = Self(0x0802);
    pub const GUEST_SS_SELECTOR: Self = Self(0x0804);
    pub const GUEST_DS_SELECTOR: Self = Self(0x0806);
    pub const GUEST_FS_SELECTOR: Self = Self(0x0808);
    pub const GUEST_GS_SELECTOR: Self = Self(0x080a);
    pub const GUEST_LDTR_SELECTOR: Self = Self(0x080c);
    pub const GUEST_TR_SELECTOR: Self = Self(0x080e);
    pub const GUEST_INTERRUPT_STATUS: Self = Self(0x0810);
    pub const HOST_ES_SELECTOR: Self = Self(0x0c00);
    pub const HOST_CS_SELECTOR: Self = Self(0x0c02);
    pub const HOST_SS_SELECTOR: Self = Self(0x0c04);
    pub const HOST_DS_SELECTOR: Self = Self(0x0c06);
    pub const HOST_FS_SELECTOR: Self = Self(0x0c08);
    pub const HOST_GS_SELECTOR: Self = Self(0x0c0a);
    pub const HOST_TR_SELECTOR: Self = Self(0x0c0c);
    // 64-bit controls, exit information, guest and host state.
    pub const MSR_BITMAP: Self = Self(0x2004);
    pub const TICKS_OFFSET: Self = Self(0x2010);
    pub const VIRTUAL_APIC: Self = Self(0x2012);
    pub const EPT_POINTER: Self = Self(0x201a);
    pub const END_EXITS_0: Self = Self(0x201c);
    pub const END_EXITS_1: Self = Self(0x201e);
    pub const END_EXITS_2: Self = Self(0x2020);
    pub const END_EXITS_3: Self = Self(0x2022);
    pub const XSS_EXITING: Self = Self(0x202c);
    pub const GUEST_PHYSICAL: Self = Self(0x2400);
    pub const LINK_POINTER: Self = Self(0x2800);
    pub const GUEST_DEBUG_CONTROL: Self = Self(0x2802);
    pub const GUEST_PAT: Self = Self(0x2804);
    pub const GUEST_EFER: Self = Self(0x2806);
    pub const GUEST_POINTER_0: Self = Self(0x280a);
    pub const GUEST_POINTER_1: Self = Self(0x280c);
    pub const GUEST_POINTER_2: Self = Self(0x280e);
    pub const GUEST_POINTER_3: Self = Self(0x2810);
    pub const HOST_PAT: Self = Self(0x2c00);
    pub const HOST_EFER: Self = Self(0x2c02);
    // 32-bit controls.
    pub const PIN_CONTROLS: Self = Self(0x4000);
    pub const PRIMARY_CONTROLS: Self = Self(0x4002);
    pub const EXCEPTIONS: Self = Self(0x4004);
    pub const PAGE_FAULT_MASK: Self = Self(0x4006);
    pub const PAGE_FAULT_MATCH: Self = Self(0x4008);
    pub const CR3_TARGETS: Self = Self(0x400a);
    pub const EXIT_CONTROLS: Self = Self(0x400c);
    pub const EXIT_MSR_STORES: Self = Self(0x400e);
    pub const EXIT_MSR_LOADS: Self = Self(0x4010);
    pub const ENTRY_CONTROLS: Self = Self(0x4012);
    pub const ENTRY_MSR_LOADS: Self = Self(0x4014);
    pub const ENTRY_EVENT: Self = Self(0x4016);
    pub const ENTRY_ERROR_CODE: Self = Self(0x4018);
    pub const ENTRY_LENGTH: Self = Self(0x401a);
    pub const PRIORITY_THRESHOLD: Self = Self(0x401c);
    pub const SECONDARY_CONTROLS: Self = Self(0x401e);
    // 32-bit exit information.
    pub const INSTRUCTION_ERROR: Self = Self(0x4400);
    pub const EXIT_REASON: Self = Self(0x4402);
    pub const EXIT_EVENT: Self = Self(0x4404);
    pub const EXIT_ERROR_CODE: Self = Self(0x4406);
    pub const VECTORING_EVENT: Self = Self(0x4408);
    pub const VECTORING_ERROR_CODE: Self = Self(0x440a);
    pub const EXIT_LENGTH: Self = Self(0x440c);
    pub const EXIT_INSTRUCTION: Self = Self(0x440e);
    // 32-bit guest and host state.
    pub const GUEST_ES_LIMIT: Self = Self(0x4800);
    pub const GUEST_GDTR_LIMIT: Self = Self(0x4810);
    pub const GUEST_IDTR_LIMIT: Self = Self(0x4812);
    pub const GUEST_ES_ACCESS: Self = Self(0x4814);
    pub const GUEST_CS_ACCESS: Self = Self(0x4816);
    pub const GUEST_SS_ACCESS: Self = Self(0x4818);
    pub const GUEST_LDTR_ACCESS: Self = Self(0x4820);
    pub const GUEST_TR_ACCESS: Self = Self(0x4822);
    pub const GUEST_INTERRUPTIBILITY: Self = Self(0x4824);
    pub const GUEST_ACTIVITY: Self = Self(0x4826);
    pub const GUEST_SYSENTER_CS: Self = Self(0x482a);
    pub const PREEMPTION_TIMER: Self = Self(0x482e);
    pub const HOST_SYSENTER_CS: Self = Self(0x4c00);
    // Natural width: controls, exit information, guest and host state.
    pub const CR0_MASK: Self = Self(0x6000);
    pub const CR4_MASK: Self = Self(0x6002);
    pub const CR0_SHADOW: Self = Self(0x6004);
    pub const CR4_SHADOW: Self = Self(0x6006);
    pub const QUALIFICATION: Self = Self(0x6400);
    pub const GUEST_CR0: Self = Self(0x6800);
    pub const GUEST_CR3: Self = Self(0x6802);
    pub const GUEST_CR4: Self = Self(0x6804);
    pub const GUEST_ES_BASE: Self = Self(0x6806);
    pub const GUEST_LDTR_BASE: Self = Self(0x6812);
    pub const GUEST_TR_BASE: Self = Self(0x6814);
    pub const GUEST_GDTR_BASE: Self = Self(0x6816);
    pub const GUEST_IDTR_BASE: Self = Self(0x6818);
    pub const GUEST_DR7: Self = Self(0x681a);
    pub const GUEST_RSP: Self = Self(0x681c);
    pub const GUEST_RIP: Self = Self(0x681e);
    pub const GUEST_RFLAGS: Self = Self(0x6820);
    pub const GUEST_PENDING_DEBUG: Self = Self(0x6822);
    pub const GUEST_SYSENTER_ESP: Self = Self(0x6824);
    pub const GUEST_SYSENTER_EIP: Self = Self(0x6826);
    pub const HOST_CR0: Self = Self(0x6c00);
    pub const HOST_CR3: Self = Self(0x6c02);
    pub const HOST_CR4: Self = Self(0x6c04);
    pub const HOST_FS_BASE: Self = Self(0x6c06);
    pub const HOST_GS_BASE: Self = Self(0x6c08);
    pub const HOST_TR_BASE: Self = Self(0x6c0a);
    pub const HOST_GDTR_BASE: Self = Self(0x6c0c);
    pub const HOST_IDTR_BASE: Self = Self(0x6c0e);
    pub const HOST_SYSENTER_ESP: Self = Self(0x6c10);
    pub const HOST_SYSENTER_EIP: Self = Self(0x6c12);
    pub const HOST_RSP: Self = Self(0x6c14);
    pub const HOST_RIP: Self = Self(0x6c16);
}

/// The four fields of a segment register. Those of ES, CS, SS, DS, FS, GS, LDTR and TR follow each other in this order.
#[derive(Copy, Clone)]
pub struct SegmentFields(pub u32);

impl SegmentFields {
    /// The selector.
    pub const fn selector(self) -> Field {
        Field(Field::GUEST_ES_SELECTOR.0 + 2 * self.0)
    }

    /// The limit, in bytes.
    pub const fn limit(self) -> Field {
        Field(Field::GUEST_ES_LIMIT.0 + 2 * self.0)
    }

    /// The access rights.
    pub const fn access(self) -> Field {
        Field(Field::GUEST_ES_ACCESS.0 + 2 * self.0)
    }

    /// The base.
    pub const fn base(self) -> Field {
        Field(Field::GUEST_ES_BASE.0 + 2 * self.0)
    }
}

/// Something that has the fields: a VMCS that is loaded, or what stands for one in tests.
pub trait Fields {
    /// Reads a field; those of fewer than 64 bits have zeros above.
    fn read(&self, field: Field) -> u64;

    /// Writes a field.
    fn write(&mut self, field: Field, value: u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_the_numbers_of_the_manual() {
        // SDM Vol. 3D appendix B: ES, GS, LDTR and TR.
        for (segment, numbers) in [
            (SegmentFields(0), [0x800, 0x4800, 0x4814, 0x6806]),
            (SegmentFields(5), [0x80a, 0x480a, 0x481e, 0x6810]),
            (SegmentFields(6), [0x80c, 0x480c, 0x4820, 0x6812]),
            (SegmentFields(7), [0x80e, 0x480e, 0x4822, 0x6814]),
        ] {
            let found = [segment.selector(), segment.limit(), segment.access(), segment.base()];
            assert_eq!(found.map(|field| field.0), numbers);
        }
        assert_eq!(SegmentFields(1).access(), Field::GUEST_CS_ACCESS);
        assert_eq!(SegmentFields(2).access(), Field::GUEST_SS_ACCESS);
    }
}
