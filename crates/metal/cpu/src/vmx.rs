//! What the VT-x of a processor can do: the capability MSRs (SDM Vol. 3D appendix A).

use crate::Features;
use x86::msr;

/// Bits of [`Capabilities::feature_control`] (SDM Vol. 3C §24.7).
pub mod feature_control {
    /// The register is locked until the next reset.
    pub const LOCKED: u64 = 1 << 0;
    /// VMXON works outside SMX operation.
    pub const VMX: u64 = 1 << 2;
}

/// Bits of [`Capabilities::ept_vpid`] (SDM Vol. 3D appendix A.10).
pub mod ept {
    /// Walks of four levels.
    pub const FOUR_LEVELS: u64 = 1 << 6;
    /// The tables themselves may be cached write-back.
    pub const WRITE_BACK: u64 = 1 << 14;
    /// Pages of 2 MiB.
    pub const LARGE_2M: u64 = 1 << 16;
    /// Pages of 1 GiB.
    pub const LARGE_1G: u64 = 1 << 17;
    /// INVEPT.
    pub const INVALIDATE: u64 = 1 << 20;
    /// INVEPT of all contexts.
    pub const INVALIDATE_ALL: u64 = 1 << 26;
    /// INVVPID.
    pub const INVALIDATE_TAG: u64 = 1 << 32;
    /// INVVPID of a single context.
    pub const INVALIDATE_ONE_TAG: u64 = 1 << 41;
}

/// What the capability MSRs say. In the words for controls, bits 31 to 0 are those that must be 1, bits 63 to 32 those that may be 1.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// FEATURE_CONTROL; its [`feature_control`].
    pub feature_control: u64,
    /// VMX_BASIC: revision of the VMCS in bits 30 to 0, its size in bits 44 to 32, its memory type in bits 53 to 50, and whether INS and
    /// OUTS are described in bit 54.
    pub basic: u64,
    /// Pin-based controls.
    pub pin: u64,
    /// Primary processor-based controls.
    pub primary: u64,
    /// Secondary processor-based controls; 0 where there are none.
    pub secondary: u64,
    /// VM-exit controls.
    pub exit: u64,
    /// VM-entry controls.
    pub entry: u64,
    /// VMX_MISC: ticks of the preemption timer per TSC tick as a shift in bits 4 to 0.
    pub miscellaneous: u64,
    /// Bits of CR0 that must be 1 in VMX operation.
    pub cr0_ones: u64,
    /// Bits of CR0 that may be 1.
    pub cr0_possible: u64,
    /// Bits of CR4 that must be 1.
    pub cr4_ones: u64,
    /// Bits of CR4 that may be 1.
    pub cr4_possible: u64,
    /// EPT and VPID; its bits in [`ept`]. 0 where there is neither.
    pub ept_vpid: u64,
}

impl Capabilities {
    /// Asks the processor that runs this; zeros where it has no VT-x.
    #[inline(never)]
    pub fn of(features: &Features) -> Self {
        if !features.vmx {
            return Self::default();
        }
        // SAFETY: these registers exist where CPUID announces VT-x (SDM Vol. 4, table 2-2), the others where those say so; reading
        // them changes nothing.
        let read = |number| unsafe { crate::msr::read(number) };
        let basic = read(msr::VMX_BASIC);
        // Where bit 55 is set, the true registers tell which of the bits that used to be 1 may be 0 (SDM Vol. 3D appendix A.2).
        let (pin, primary, exit, entry) = if basic >> 55 & 1 == 1 {
            (msr::VMX_TRUE_PIN, msr::VMX_TRUE_PRIMARY, msr::VMX_TRUE_EXIT, msr::VMX_TRUE_ENTRY)
        } else {
            (msr::VMX_PIN, msr::VMX_PRIMARY, msr::VMX_EXIT, msr::VMX_ENTRY)
        };
        let primary = read(primary);
        let secondary = if primary >> 63 == 1 { read(msr::VMX_SECONDARY) } else { 0 };
        // EPT is secondary control 1, VPID 5.
        let tagged = secondary >> 32 & (1 << 1 | 1 << 5) != 0;
        Self {
            feature_control: read(msr::FEATURE_CONTROL),
            basic,
            pin: read(pin),
            primary,
            secondary,
            exit: read(exit),
            entry: read(entry),
            miscellaneous: read(msr::VMX_MISCELLANEOUS),
            cr0_ones: read(msr::VMX_CR0_ONES),
            cr0_possible: read(msr::VMX_CR0_POSSIBLE),
            cr4_ones: read(msr::VMX_CR4_ONES),
            cr4_possible: read(msr::VMX_CR4_POSSIBLE),
            ept_vpid: if tagged { read(msr::VMX_EPT_VPID) } else { 0 },
        }
    }
}
