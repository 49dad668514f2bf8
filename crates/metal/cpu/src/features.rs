//! What a processor is capable of, read from CPUID and from nothing else.

use raw_cpuid::CpuIdResult;
use x86::Xcr0;

/// Who made the processor.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Vendor {
    /// `AuthenticAMD` or `HygonGenuine`: AMD-V.
    Amd,
    /// `GenuineIntel` and others with VT-x.
    Intel,
    /// Somebody else.
    #[default]
    Other,
}

/// Facts about one processor (APM Vol. 3 appendix E; SDM Vol. 2A, CPUID).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Features {
    /// Who made it.
    pub vendor: Vendor,
    /// Family, model and stepping as in EAX of leaf 1.
    pub signature: u32,
    /// Width of physical addresses in bits.
    pub physical_bits: u8,
    /// AMD-V (leaf 8000_0001 ECX bit 2). Firmware may still have turned it off: see [`Features::svm_locked_off`].
    pub svm: bool,
    /// VT-x (leaf 1 ECX bit 5).
    pub vmx: bool,
    /// Nested paging (leaf 8000_000A EDX bit 0).
    pub npt: bool,
    /// SVM lock (EDX bit 2).
    pub svm_lock: bool,
    /// The next instruction's address is saved at an exit (EDX bit 3).
    pub nrip_save: bool,
    /// TSC ratio (EDX bit 4).
    pub tsc_ratio: bool,
    /// VMCB clean bits (EDX bit 5).
    pub vmcb_clean: bool,
    /// Flush by ASID (EDX bit 6).
    pub flush_by_asid: bool,
    /// Decode assists (EDX bit 7).
    pub decode_assists: bool,
    /// PAUSE filter (EDX bit 10).
    pub pause_filter: bool,
    /// PAUSE filter threshold (EDX bit 12).
    pub pause_threshold: bool,
    /// Number of address-space identifiers, 0 included (leaf 8000_000A EBX); 0 without SVM.
    pub asids: u32,
    /// No-execute pages.
    pub nx: bool,
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// User-mode instruction prevention.
    pub umip: bool,
    /// 1 GiB pages.
    pub page_1g: bool,
    /// XSAVE and XCR0.
    pub xsave: bool,
    /// Those of x87, SSE and AVX that XCR0 can hold; x87 and SSE alone without XSAVE.
    pub xcr0: Xcr0,
    /// Bytes of the area that XSAVE needs for all of `xcr0`; 512 without XSAVE.
    pub vector_area: u32,
    /// Page attribute table.
    pub pat: bool,
    /// FXSAVE and FXRSTOR.
    pub fxsr: bool,
    /// x2APIC mode.
    pub x2apic: bool,
    /// Local APIC timer by TSC deadline.
    pub tsc_deadline: bool,
    /// The time stamp counter runs at one rate in all states (leaf 8000_0007 EDX bit 8).
    pub invariant_tsc: bool,
    /// Somebody else's hypervisor, or an emulator that says so, is underneath.
    pub hypervisor: bool,
    /// RDTSCP and TSC_AUX.
    pub rdtscp: bool,
    /// Machine checks and their MSRs (leaf 1 EDX bits 7 and 14).
    pub machine_check: bool,
    /// Indirect-branch prediction barrier by PRED_CMD.
    pub ibpb: bool,
    /// The barrier clears return predictions too (leaf 8000_0008 EBX bit 30).
    pub ibpb_returns: bool,
    /// Those bits of SPEC_CTRL that exist: IBRS (bit 0, restricts indirect branches), STIBP (bit 1, keeps their predictors to one
    /// thread), SSBD (bit 2, lets no load pass a store). There is no such register where none does.
    pub speculation_control: u8,
    /// SSBD through VIRT_SPEC_CTRL (leaf 8000_0008 EBX bit 25).
    pub virtual_ssbd: bool,
    /// Automatic IBRS: EFER bit 21 (leaf 8000_0021 EAX bit 8).
    pub automatic_ibrs: bool,
    /// VERW clears what buffers inside the processor still hold (leaf 7 EDX bit 10).
    pub buffer_clear: bool,
    /// FLUSH_CMD empties the first-level data cache (leaf 7 EDX bit 28).
    pub data_cache_flush: bool,
    /// ARCH_CAPABILITIES exists (leaf 7 EDX bit 29): see [`Features::immunities`].
    pub architecture: bool,
    /// LFENCE always waits for earlier instructions (leaf 8000_0021 EAX bit 2).
    pub lfence_serializes: bool,
    /// APIC identifier, all 32 bits where leaf 0Bh gives them.
    pub apic_id: u32,
    /// Lowest bits of the APIC identifier that number the threads of one core.
    pub thread_bits: u8,
}

/// What this processor answers for a leaf that is not behind `highest`; zeros otherwise.
#[inline(never)]
fn leaf(number: u32, sub: u32, highest: u32) -> CpuIdResult {
    if number <= highest {
        return raw_cpuid::cpuid!(number, sub);
    }
    CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 }
}

const fn bit(register: u32, number: u32) -> bool {
    register >> number & 1 == 1
}

impl Features {
    /// Asks the processor that runs this. Touches no MSR.
    pub fn probe() -> Self {
        let first = leaf(0, 0, u32::MAX);
        let vendor = match (first.ebx, first.edx, first.ecx) {
            // "AuthenticAMD" and "HygonGenuine" in EBX, EDX, ECX.
            (0x6874_7541, 0x6974_6e65, 0x444d_4163) | (0x6f67_7948, 0x6e65_476e, 0x656e_6975) => Vendor::Amd,
            (0x756e_6547, 0x4965_6e69, 0x6c65_746e) => Vendor::Intel,
            _ => Vendor::Other,
        };
        let highest = first.eax;
        let extended = leaf(0x8000_0000, 0, u32::MAX).eax;
        let standard = |number: u32, sub: u32| leaf(number, sub, highest);
        let beyond = |number: u32| leaf(number, 0, extended);

        let one = standard(1, 0);
        let seven = standard(7, 0);
        let e1 = beyond(0x8000_0001);
        let e7 = beyond(0x8000_0007);
        let e8 = beyond(0x8000_0008);
        let svm = bit(e1.ecx, 2);
        let e10 = beyond(if svm { 0x8000_000a } else { u32::MAX });
        let e21 = beyond(0x8000_0021);

        let xsave = bit(one.ecx, 26);
        let possible = if xsave {
            Xcr0::from_bits_truncate(u64::from(standard(0xd, 0).eax))
        } else {
            Xcr0::X87 | Xcr0::SSE
        };
        let (apic_id, thread_bits) = topology(highest, extended, &one);
        // Intel announces the speculation controls in leaf 7, AMD in leaf 8000_0008; each leaves the other's at zero.
        Self {
            vendor,
            signature: one.eax,
            physical_bits: if e8.eax & 0xff == 0 { 36 } else { e8.eax as u8 },
            svm,
            vmx: bit(one.ecx, 5),
            npt: bit(e10.edx, 0),
            svm_lock: bit(e10.edx, 2),
            nrip_save: bit(e10.edx, 3),
            tsc_ratio: bit(e10.edx, 4),
            vmcb_clean: bit(e10.edx, 5),
            flush_by_asid: bit(e10.edx, 6),
            decode_assists: bit(e10.edx, 7),
            pause_filter: bit(e10.edx, 10),
            pause_threshold: bit(e10.edx, 12),
            asids: e10.ebx,
            nx: bit(e1.edx, 20),
            smep: bit(seven.ebx, 7),
            smap: bit(seven.ebx, 20),
            umip: bit(seven.ecx, 2),
            page_1g: bit(e1.edx, 26),
            xsave,
            xcr0: possible,
            vector_area: if xsave { vector_area(possible, |sub| standard(0xd, sub)) } else { 512 },
            pat: bit(one.edx, 16),
            fxsr: bit(one.edx, 24),
            x2apic: bit(one.ecx, 21),
            tsc_deadline: bit(one.ecx, 24),
            invariant_tsc: bit(e7.edx, 8),
            hypervisor: bit(one.ecx, 31),
            rdtscp: bit(e1.edx, 27),
            machine_check: bit(one.edx, 7) && bit(one.edx, 14),
            ibpb: bit(e8.ebx, 12) || bit(seven.edx, 26),
            ibpb_returns: bit(e8.ebx, 30),
            speculation_control: speculation_control(e8.ebx, seven.edx),
            virtual_ssbd: bit(e8.ebx, 25),
            automatic_ibrs: bit(e21.eax, 8),
            buffer_clear: bit(seven.edx, 10),
            data_cache_flush: bit(seven.edx, 28),
            architecture: bit(seven.edx, 29),
            lfence_serializes: bit(e21.eax, 2),
            apic_id,
            thread_bits,
        }
    }

    /// Whether firmware turned SVM off: VM_CR.SVMDIS (APM Vol. 2 §15.4). False where there is no SVM to turn off.
    pub fn svm_locked_off(&self) -> bool {
        // SAFETY: VM_CR exists where SVM is announced (APM Vol. 2 §15.30.1); reading it changes nothing. Where an emulator forgot the
        // register, nothing is locked.
        self.svm
            && unsafe { crate::msr::read_checked(x86::msr::VM_CR) }.is_some_and(|value| value & 1 << 4 != 0)
    }

    /// What this processor says that it is immune to: ARCH_CAPABILITIES, 0 where there is no such register (SDM Vol. 4, table 2-2).
    pub fn immunities(&self) -> u64 {
        if !self.architecture {
            return 0;
        }
        // SAFETY: CPUID announces the register; reading it changes nothing.
        unsafe { crate::msr::read(x86::msr::ARCH_CAPABILITIES) }
    }

    /// The first fact in which `other` differs so that one image cannot serve both processors, named; `None` where they agree.
    /// APIC identifiers differ always.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        const NAMES: [&str; 17] = [
            "vendor",
            "svm",
            "vmx",
            "npt",
            "nrip-save",
            "decode-assists",
            "flush-by-asid",
            "pause-filter",
            "nx",
            "xsave",
            "vector area",
            "x2apic",
            "tsc-deadline",
            "1 GiB pages",
            "speculation controls",
            "buffer and cache clearing",
            "physical address width",
        ];
        let equal = [
            self.vendor == other.vendor,
            self.svm == other.svm,
            self.vmx == other.vmx,
            self.npt == other.npt,
            self.nrip_save == other.nrip_save,
            self.decode_assists == other.decode_assists,
            self.flush_by_asid == other.flush_by_asid,
            self.pause_filter == other.pause_filter,
            self.nx == other.nx,
            self.xsave == other.xsave && self.xcr0 == other.xcr0,
            self.vector_area == other.vector_area,
            self.x2apic == other.x2apic,
            self.tsc_deadline == other.tsc_deadline,
            self.page_1g == other.page_1g,
            self.ibpb == other.ibpb && self.speculation_control == other.speculation_control,
            self.buffer_clear == other.buffer_clear
                && self.data_cache_flush == other.data_cache_flush
                && self.architecture == other.architecture,
            self.physical_bits == other.physical_bits,
        ];
        NAMES.into_iter().zip(equal).find(|(_, equal)| !equal).map(|(name, _)| name)
    }

    /// Whether `apic_id` is the first thread of its core, by this processor's topology.
    pub const fn first_thread(&self, apic_id: u32) -> bool {
        apic_id & ((1u32 << self.thread_bits) - 1) == 0
    }
}

/// [`Features::speculation_control`] by EBX of leaf 8000_0008, bits 14, 15 and 24, or by EDX of leaf 7, bits 26, 27 and 31.
const fn speculation_control(amd: u32, intel: u32) -> u8 {
    (amd >> 14 & 0b11 | amd >> 22 & 0b100 | intel >> 26 & 0b11 | intel >> 29 & 0b100) as u8
}

/// Bytes of an XSAVE area in standard format that holds `components` (APM Vol. 2 §11.5.2): the end of the last one.
fn vector_area(components: Xcr0, leaf: impl Fn(u32) -> CpuIdResult) -> u32 {
    // 512 bytes of legacy area and 64 of header are there always.
    let mut end = 576;
    if components.contains(Xcr0::AVX) {
        let avx = leaf(2);
        end = end.max(avx.ebx.saturating_add(avx.eax));
    }
    end
}

/// The APIC identifier, and how many of its bits number threads.
fn topology(highest: u32, extended: u32, one: &CpuIdResult) -> (u32, u8) {
    let level = leaf(0xb, 0, highest);
    // Level type 1 is "thread"; EBX 0 means that the leaf is empty.
    if level.ebx != 0 && level.ecx >> 8 & 0xff == 1 {
        return (level.edx, (level.eax & 0x1f) as u8);
    }
    let initial = one.ebx >> 24;
    if extended >= 0x8000_001e && bit(leaf(0x8000_0001, 0, extended).ecx, 22) {
        let core = leaf(0x8000_001e, 0, extended);
        let threads = (core.ebx >> 8 & 0xff) + 1;
        return (core.eax, threads.next_power_of_two().trailing_zeros() as u8);
    }
    (initial, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_a_64_bit_processor_with_sse() {
        let features = Features::probe();
        assert!(features.fxsr && features.nx);
        assert!(features.xcr0.contains(Xcr0::X87 | Xcr0::SSE));
        assert!((36..=57).contains(&features.physical_bits));
        assert_eq!(features.difference(&features), None);
    }

    #[test]
    fn the_vector_area_ends_behind_its_last_component() {
        let leaf = |_| CpuIdResult { eax: 256, ebx: 576, ecx: 0, edx: 0 };
        assert_eq!(vector_area(Xcr0::X87 | Xcr0::SSE, leaf), 576);
        assert_eq!(vector_area(Xcr0::all(), leaf), 832);
    }

    #[test]
    fn a_processor_without_nested_paging_is_told_apart() {
        let with = Features { svm: true, npt: true, ..Features::default() };
        let without = Features { svm: true, ..Features::default() };
        assert_eq!(with.difference(&without), Some("npt"));
    }

    #[test]
    fn a_processor_that_lacks_a_speculation_control_is_told_apart() {
        let none = Features::default();
        for with in [Features { ibpb: true, ..none }, Features { speculation_control: 4, ..none }] {
            assert_eq!(with.difference(&none), Some("speculation controls"));
        }
    }

    #[test]
    fn either_vendor_announces_bits_of_the_same_register() {
        for (amd, intel, bits) in [(14, 26, 1), (15, 27, 2), (24, 31, 4)] {
            assert_eq!(speculation_control(1 << amd, 0), bits);
            assert_eq!(speculation_control(0, 1 << intel), bits);
            assert_eq!(speculation_control(!(1 << amd), 0), 7 ^ bits);
            assert_eq!(speculation_control(0, !(1 << intel)), 7 ^ bits);
        }
    }

    #[test]
    fn only_the_first_thread_of_a_core_counts() {
        let two_threads = Features { thread_bits: 1, ..Features::default() };
        assert!(two_threads.first_thread(4) && !two_threads.first_thread(5));
        let one_thread = Features::default();
        assert!(one_thread.first_thread(5));
    }
}
