//! Numbers of model-specific registers (APM Vol. 2 Appendix A; SDM Vol. 4).

/// Time stamp counter.
pub const TSC: u32 = 0x10;
/// Platform identifier, which chooses microcode (Intel).
pub const PLATFORM_ID: u32 = 0x17;
/// Local APIC base address and mode.
pub const APIC_BASE: u32 = 0x1b;
/// Switches that firmware locks: bit 0 is the lock, bit 2 lets VMXON work (SDM Vol. 3C §24.7).
pub const FEATURE_CONTROL: u32 = 0x3a;
/// SPEC_CTRL: IBRS, STIBP, SSBD.
pub const SPEC_CTRL: u32 = 0x48;
/// PRED_CMD: IBPB.
pub const PRED_CMD: u32 = 0x49;
/// Microcode patch level.
pub const PATCH_LEVEL: u32 = 0x8b;
/// MTRR capabilities.
pub const MTRR_CAP: u32 = 0xfe;
/// What a processor is immune to (Intel).
pub const ARCH_CAPABILITIES: u32 = 0x10a;
/// FLUSH_CMD: bit 0 empties the first-level data cache (Intel).
pub const FLUSH_CMD: u32 = 0x10b;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER instruction pointer.
pub const SYSENTER_EIP: u32 = 0x176;
/// Machine-check capabilities.
pub const MCG_CAP: u32 = 0x179;
/// Machine-check status.
pub const MCG_STATUS: u32 = 0x17a;
/// Switches of a processor (Intel).
pub const MISC_ENABLE: u32 = 0x1a0;
/// Last-branch and debug control.
pub const DEBUG_CONTROL: u32 = 0x1d9;
/// First variable MTRR base; base and mask alternate up to 0x20f.
pub const MTRR_VARIABLE_FIRST: u32 = 0x200;
/// Last variable MTRR mask.
pub const MTRR_VARIABLE_LAST: u32 = 0x20f;
/// Fixed MTRR of 64 KiB pieces.
pub const MTRR_FIXED_64K: u32 = 0x250;
/// First fixed MTRR of 16 KiB pieces.
pub const MTRR_FIXED_16K_FIRST: u32 = 0x258;
/// Last fixed MTRR of 16 KiB pieces.
pub const MTRR_FIXED_16K_LAST: u32 = 0x259;
/// First fixed MTRR of 4 KiB pieces.
pub const MTRR_FIXED_4K_FIRST: u32 = 0x268;
/// Last fixed MTRR of 4 KiB pieces.
pub const MTRR_FIXED_4K_LAST: u32 = 0x26f;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// MTRR default type and enable bits.
pub const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// VMX: revision, size and type of the VMCS (SDM Vol. 3D appendix A, this and the following).
pub const VMX_BASIC: u32 = 0x480;
/// Pin-based controls.
pub const VMX_PIN: u32 = 0x481;
/// Primary processor-based controls.
pub const VMX_PRIMARY: u32 = 0x482;
/// VM-exit controls.
pub const VMX_EXIT: u32 = 0x483;
/// VM-entry controls.
pub const VMX_ENTRY: u32 = 0x484;
/// Miscellaneous facts.
pub const VMX_MISCELLANEOUS: u32 = 0x485;
/// Bits of CR0 that must be 1.
pub const VMX_CR0_ONES: u32 = 0x486;
/// Bits of CR0 that may be 1.
pub const VMX_CR0_POSSIBLE: u32 = 0x487;
/// Bits of CR4 that must be 1.
pub const VMX_CR4_ONES: u32 = 0x488;
/// Bits of CR4 that may be 1.
pub const VMX_CR4_POSSIBLE: u32 = 0x489;
/// Secondary processor-based controls.
pub const VMX_SECONDARY: u32 = 0x48b;
/// EPT and VPID.
pub const VMX_EPT_VPID: u32 = 0x48c;
/// Pin-based controls, those that may be 0 told apart.
pub const VMX_TRUE_PIN: u32 = 0x48d;
/// Primary processor-based controls, likewise.
pub const VMX_TRUE_PRIMARY: u32 = 0x48e;
/// VM-exit controls, likewise.
pub const VMX_TRUE_EXIT: u32 = 0x48f;
/// VM-entry controls, likewise.
pub const VMX_TRUE_ENTRY: u32 = 0x490;
/// Local APIC timer deadline in TSC ticks (SDM Vol. 3A §11.5.4.1).
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register (SDM Vol. 3A §11.12.1.2).
pub const X2APIC_FIRST: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Extended supervisor state mask.
pub const XSS: u32 = 0xda0;
/// Extended features.
pub const EFER: u32 = 0xc000_0080;
/// SYSCALL selectors.
pub const STAR: u32 = 0xc000_0081;
/// SYSCALL target in 64-bit mode.
pub const LSTAR: u32 = 0xc000_0082;
/// SYSCALL target in compatibility mode.
pub const CSTAR: u32 = 0xc000_0083;
/// SYSCALL flag mask.
pub const SFMASK: u32 = 0xc000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xc000_0101;
/// The base that SWAPGS exchanges.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// What RDTSCP returns in ECX.
pub const TSC_AUX: u32 = 0xc000_0103;
/// System configuration (AMD).
pub const SYSTEM_CONFIGURATION: u32 = 0xc001_0010;
/// Hardware configuration (AMD).
pub const HARDWARE_CONFIGURATION: u32 = 0xc001_0015;
/// Top of memory below 4 GiB (AMD).
pub const TOP_MEMORY: u32 = 0xc001_001a;
/// Top of memory above 4 GiB (AMD).
pub const TOP_MEMORY_2: u32 = 0xc001_001d;
/// Northbridge configuration (AMD).
pub const NORTHBRIDGE_CONFIGURATION: u32 = 0xc001_001f;
/// SVM switches that firmware sets: bit 4 turns SVM off (APM Vol. 2 §15.30.1).
pub const VM_CR: u32 = 0xc001_0114;
/// Physical address of the page where VMRUN saves the host (APM Vol. 2 §15.30.4).
pub const VM_HSAVE_PA: u32 = 0xc001_0117;
/// OS-visible workarounds: how many (AMD).
pub const OSVW_LENGTH: u32 = 0xc001_0140;
/// OS-visible workarounds: which (AMD).
pub const OSVW_STATUS: u32 = 0xc001_0141;
/// Decode configuration; bit 1 makes LFENCE serializing (AMD).
pub const DECODE_CONFIGURATION: u32 = 0xc001_1029;
