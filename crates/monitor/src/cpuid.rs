//! What a guest sees of its processor: a table, frozen when the compartment is built.
//!
//! Every bit is named here or it is zero; of those named, only the ones that the host has too are shown. Host leaves never pass
//! through. What is taken from the host as it is: the vendor and the signature (software chooses its errata work-arounds
//! by them), the sizes of the vector state (they describe the memory layout of XSAVE), and the widths of addresses.

use contracts::Vcpu;
use contracts::absent::ClockPageChoice;
use x86::{Cr4, Xcr0};

/// EAX, EBX, ECX, EDX.
pub type Leaf = [u32; 4];

/// Our signature in leaf 0x4000_0000: EBX, ECX, EDX spell it.
pub const SIGNATURE: [u8; 12] = *b"Ringfence\0\0\0";
/// The hypervisor's leaves.
pub const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// The leaves of the clock page, where the image has it.
pub const CLOCK_BASE: u32 = 0x4000_0100;

/// Highest basic leaf.
const BASIC_LAST: u32 = 0xd;
/// Highest extended leaf.
const EXTENDED_LAST: u32 = 0x8000_0008;

// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF_1_ECX: u32 = 1 << 0
    | 1 << 1
    | 1 << 9
    | 1 << 12
    | 1 << 13
    | 1 << 19
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 25
    | XSAVE
    | AVX
    | 1 << 29
    | 1 << 30;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Bits of leaf 1 ECX that need AVX.
const NEED_AVX: u32 = 1 << 12 | 1 << 29;
// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PSE36, CLFSH, MMX, FXSR, SSE, SSE2.
const LEAF_1_EDX: u32 =
    0b1_0111_1111 | 1 << 11 | 1 << 13 | 1 << 15 | 1 << 17 | 1 << 19 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;
const VIRTUAL_8086: u32 = 1 << 1;
const DEBUGGING: u32 = 1 << 2;
/// APIC, MTRR and PAT are ours: always there.
const LEAF_1_EDX_OURS: u32 = 1 << 9 | 1 << 12 | 1 << 16;
const HYPER_THREADING: u32 = 1 << 28;
// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA.
const LEAF_7_EBX: u32 = 1 << 0
    | 1 << 3
    | 1 << 5
    | 1 << 7
    | 1 << 8
    | 1 << 9
    | 1 << 18
    | 1 << 19
    | 1 << 20
    | 1 << 23
    | 1 << 24
    | 1 << 29;
const AVX2: u32 = 1 << 5;
// Leaf 7 ECX: UMIP.
const LEAF_7_ECX: u32 = 1 << 2;
// Leaf 8000_0001 ECX: LAHF in 64-bit mode, ABM, SSE4A, misaligned SSE, PREFETCHW.
const EXTENDED_1_ECX: u32 = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
const COMPUTE_LEGACY: u32 = 1 << 1;
// Leaf 8000_0008 EBX: IBPB, IBRS, STIBP, SSBD. What tells of preferences and immunities stays hidden: without it software does more
// than it has to.
const EXTENDED_8_EBX: u32 = IBPB | IBRS | STIBP | SSBD;
const IBPB: u32 = 1 << 12;
const IBRS: u32 = 1 << 14;
const STIBP: u32 = 1 << 15;
const SSBD: u32 = 1 << 24;
// Leaf 8000_0001 EDX: the copies of leaf 1, SYSCALL, NX, MMX extensions, 1 GiB pages, RDTSCP, long mode.
const EXTENDED_1_EDX: u32 =
    LEAF_1_EDX & 0x0183_f3ff | 1 << 11 | 1 << 20 | 1 << 22 | 1 << 26 | 1 << 27 | 1 << 29;
const INTEL: Leaf =
    [0, u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ntel"), u32::from_le_bytes(*b"ineI")];
const AMD: Leaf =
    [0, u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"cAMD"), u32::from_le_bytes(*b"enti")];
/// Leaf 0xd, subleaf 1 EAX: XSAVEC.
const XSAVE_COMPACT: u32 = 1 << 1;
/// The same: XSAVES, XRSTORS and IA32_XSS.
const XSAVE_SUPERVISOR: u32 = 1 << 3;
/// The register that `text` spells at `at`, with zeros behind its end.
const fn spelled(text: &[u8], at: usize) -> u32 {
    let mut value = 0;
    let mut index = at + 4;
    while index > at {
        index -= 1;
        value = value << 8 | if index < text.len() { text[index] as u32 } else { 0 };
    }
    value
}
const HYPERVISOR_FIRST: Leaf =
    [HYPERVISOR_BASE + 1, spelled(&SIGNATURE, 0), spelled(&SIGNATURE, 4), spelled(&SIGNATURE, 8)];
const BRAND: &[u8] = b"Ringfence virtual processor";
/// The extended leaves as far as they are the same everywhere.
const EXTENDED: [Leaf; (EXTENDED_LAST - 0x8000_0000) as usize + 1] = {
    let mut extended = [[0; 4]; (EXTENDED_LAST - 0x8000_0000) as usize + 1];
    let mut register = 0;
    while register < 12 {
        extended[2 + register / 4][register % 4] = spelled(BRAND, 4 * register);
        register += 1;
    }
    // Caches of a plain processor, since guests size their work by them: 32 KiB, 8 ways, 64-byte lines; 512 KiB second level.
    extended[5] = [0, 0, 0x2008_0140, 0x2008_0140];
    extended[6] = [0, 0, 0x0200_6140, 0];
    // The time stamp counter runs at one rate in all states.
    extended[7] = [0, 0, 0, 1 << 8];
    extended
};
/// CR4 bits that a guest may set wherever it is 64-bit capable.
const CR4_ALWAYS: Cr4 = Cr4::TIME_STAMP_DISABLE
    .union(Cr4::PAGE_SIZE)
    .union(Cr4::PHYSICAL_ADDRESS)
    .union(Cr4::MACHINE_CHECK)
    .union(Cr4::GLOBAL_PAGES)
    .union(Cr4::PERFORMANCE_COUNTER)
    .union(Cr4::FXSR)
    .union(Cr4::SIMD_EXCEPTIONS);

/// The frozen table of one compartment.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    basic: [Leaf; BASIC_LAST as usize + 1],
    extended: [Leaf; (EXTENDED_LAST - 0x8000_0000) as usize + 1],
    /// Leaf 0xd, subleaf 1 and 2.
    state: [Leaf; 2],
    clock: [Leaf; 2],
    hypervisor: [Leaf; 2],
    vcpus: u8,
    xcr0: Xcr0,
    cr4: Cr4,
}

impl CpuidTable {
    /// Freezes what `host` (leaf, subleaf → registers) has of our table, for a compartment of `vcpus` vCPUs and a time stamp
    /// counter of `kilohertz`.
    #[inline(never)]
    pub fn freeze<C: ClockPageChoice, V: Vcpu>(
        host: impl Fn(u32, u32) -> Leaf,
        vcpus: u8,
        kilohertz: u32,
    ) -> Self {
        let [host_basic, vendor_b, vendor_c, vendor_d] = host(0, 0);
        let basic_or_zero = |leaf, subleaf| if leaf <= host_basic { host(leaf, subleaf) } else { [0; 4] };
        let host_extended = host(0x8000_0000, 0)[0];
        let extended_or_zero = |leaf| if leaf <= host_extended { host(leaf, 0) } else { [0; 4] };

        let one = basic_or_zero(1, 0);
        let seven = basic_or_zero(7, 0);
        let mut one_ecx = one[2] & LEAF_1_ECX;
        let mut seven_ebx = seven[1] & LEAF_7_EBX;
        let state_0 = basic_or_zero(0xd, 0);
        let mut xcr0 = Xcr0::X87;
        if one_ecx & XSAVE != 0 {
            xcr0 = Xcr0::from_bits_truncate(state_0[0] as u64) | Xcr0::X87;
        }
        if one_ecx & AVX == 0 || !xcr0.contains(Xcr0::AVX | Xcr0::SSE) {
            xcr0 -= Xcr0::AVX;
            one_ecx &= !(AVX | NEED_AVX);
            seven_ebx &= !AVX2;
        }
        let mut cr4 = CR4_ALWAYS;
        let virtual_8086 = Cr4::VIRTUAL_8086.union(Cr4::PROTECTED_VIRTUAL_INTERRUPTS);
        for (there, bit) in [
            (one[3] & VIRTUAL_8086 != 0, virtual_8086),
            (one[3] & DEBUGGING != 0, Cr4::DEBUGGING),
            (one_ecx & XSAVE != 0, Cr4::XSAVE),
            (seven_ebx & 1 << 0 != 0, Cr4::FSGSBASE),
            (seven_ebx & 1 << 7 != 0, Cr4::SUPERVISOR_EXECUTION),
            (seven_ebx & 1 << 20 != 0, Cr4::SUPERVISOR_ACCESS),
            (seven[2] & LEAF_7_ECX != 0, Cr4::USER_MODE_INSTRUCTION_PREVENTION),
        ] {
            cr4.set(bit, there);
        }
        let threads = if vcpus > 1 { HYPER_THREADING } else { 0 };
        let topology = u32::from(vcpus.saturating_sub(1));

        let mut basic = [[0; 4]; BASIC_LAST as usize + 1];
        basic[0] = [BASIC_LAST, vendor_b, vendor_c, vendor_d];
        basic[1] = [
            one[0],
            u32::from(vcpus) << 16 | 8 << 8,
            one_ecx | X2APIC | TSC_DEADLINE | HYPERVISOR,
            one[3] & LEAF_1_EDX | LEAF_1_EDX_OURS | threads,
        ];
        basic[7] = [0, seven_ebx, seven[2] & LEAF_7_ECX, 0];
        if one_ecx & XSAVE != 0 {
            let size = if xcr0.contains(Xcr0::AVX) { 832 } else { 576 };
            basic[0xd] = [xcr0.bits() as u32, 576, size, 0];
        }
        let mut state = [[0; 4]; 2];
        if one_ecx & XSAVE != 0 {
            // XSAVEOPT, and XSAVEC and XSAVES, whose area has a size of its own (APM Vol. 3, CPUID Fn0000_000D_EBX_x1). ECX and EDX are
            // what IA32_XSS can hold: nothing.
            let shown = 0b11 | if V::XSAVES { XSAVE_SUPERVISOR } else { 0 };
            let forms = basic_or_zero(0xd, 1)[0] & shown;
            let compacts = forms & (XSAVE_COMPACT | XSAVE_SUPERVISOR) != 0;
            state[0] = [forms, if compacts { 576 } else { 0 }, 0, 0];
            if xcr0.contains(Xcr0::AVX) {
                state[1] = basic_or_zero(0xd, 2);
            }
        }

        let first = extended_or_zero(0x8000_0001);
        let [widths, controls, ..] = extended_or_zero(0x8000_0008);
        let mut extended = EXTENDED;
        extended[0] = [EXTENDED_LAST, vendor_b, vendor_c, vendor_d];
        let is_amd = [0, vendor_b, vendor_c, vendor_d] == AMD;
        extended[1] = [
            one[0],
            0,
            first[2] & EXTENDED_1_ECX | if vcpus > 1 && is_amd { COMPUTE_LEGACY } else { 0 },
            first[3] & EXTENDED_1_EDX,
        ];
        extended[8] = [
            (widths & 0xff).clamp(36, 52) | 48 << 8,
            controls & EXTENDED_8_EBX,
            if is_amd { topology } else { 0 },
            0,
        ];

        let mut clock = [C::leaf(0), C::leaf(1)];
        clock[0][0] = CLOCK_BASE + 1;
        Self {
            basic,
            extended,
            state,
            clock: if C::PRESENT { clock } else { [[0; 4]; 2] },
            hypervisor: [HYPERVISOR_FIRST, [kilohertz, 0, 0, 0]],
            vcpus,
            xcr0,
            cr4,
        }
    }

    /// What CPUID answers on vCPU `number`, whose CR4 and XCR0 are these (the latter only if asked). Leaves that do not exist answer zeros.
    #[inline(always)]
    pub fn answer(&self, leaf: u32, subleaf: u32, number: u8, cr4: Cr4, xcr0: impl Fn() -> Xcr0) -> Leaf {
        if let Some(found) = self.basic.get(leaf as usize) {
            let mut answer = *found;
            match leaf {
                1 => {
                    answer[1] |= u32::from(number) << 24;
                    if cr4.contains(Cr4::XSAVE) {
                        answer[2] |= OSXSAVE;
                    }
                }
                7 if subleaf != 0 => return [0; 4],
                0xb => return self.topology(subleaf, number),
                0xd => {
                    if subleaf > 0 {
                        answer = self.state.get(subleaf as usize - 1).copied().unwrap_or_default();
                    }
                    // The size of what XCR0 has on: 64 bytes of header behind the 512 of FXSAVE, and AVX, the same if compacted.
                    if subleaf < 2 && answer[1] != 0 && xcr0().contains(Xcr0::AVX) {
                        answer[1] = 832;
                    }
                }
                _ => {}
            }
            return answer;
        }
        if let Some(found) = self.extended.get(leaf.wrapping_sub(0x8000_0000) as usize) {
            return *found;
        }
        if let Some(found) = self.hypervisor.get(leaf.wrapping_sub(HYPERVISOR_BASE) as usize) {
            return *found;
        }
        if let Some(found) = self.clock.get(leaf.wrapping_sub(CLOCK_BASE) as usize) {
            return *found;
        }
        [0; 4]
    }

    /// Leaf 0xb: one thread a core, all cores in one package.
    fn topology(&self, level: u32, number: u8) -> Leaf {
        let id = u32::from(number);
        match level {
            0 => [0, 1, 1 << 8, id],
            1 => [
                u32::from(self.vcpus).next_power_of_two().trailing_zeros(),
                u32::from(self.vcpus),
                2 << 8 | 1,
                id,
            ],
            _ => [0, 0, level & 0xff, id],
        }
    }

    /// CR4 bits that the guest may set.
    pub fn cr4(&self) -> Cr4 {
        self.cr4
    }

    /// XCR0 bits that the guest may set; only [`Xcr0::X87`] where there is no XSAVE.
    pub fn xcr0(&self) -> Xcr0 {
        self.xcr0
    }

    /// Whether the processor is one of Intel's, with the registers that software takes for granted there; the others have AMD's.
    pub fn is_intel(&self) -> bool {
        self.basic[0][1..] == INTEL[1..]
    }

    /// Whether XSAVES, and so IA32_XSS, exists.
    pub fn has_supervisor_state(&self) -> bool {
        self.state[0][0] & XSAVE_SUPERVISOR != 0
    }

    /// Whether RDTSCP, and so TSC_AUX, exists.
    pub fn has_tsc_aux(&self) -> bool {
        self.extended[1][3] & 1 << 27 != 0
    }

    /// Bits of SPEC_CTRL that the guest may set; 0: there is no such register.
    pub fn speculation_control(&self) -> u32 {
        let shown = self.extended[8][1];
        // IBRS, STIBP and SSBD become bits 0 to 2.
        (shown & (IBRS | STIBP)) >> 14 | (shown & SSBD) >> 22
    }

    /// Whether PRED_CMD exists.
    pub fn has_branch_barrier(&self) -> bool {
        self.extended[8][1] & IBPB != 0
    }

    /// Whether no-execute pages exist.
    pub fn has_no_execute(&self) -> bool {
        self.extended[1][3] & 1 << 20 != 0
    }

    /// The processor's signature, which INIT leaves in EDX.
    pub fn signature(&self) -> u32 {
        self.basic[1][0]
    }

    /// Width of physical addresses, in bits.
    pub fn physical_bits(&self) -> u8 {
        self.extended[8][0] as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::absent::{Absent, NoVcpu};
    use contracts::fake::FakeVcpu;

    /// A host that has every bit set, the AMD vendor, and absurd maxima.
    fn everything(leaf: u32, _: u32) -> Leaf {
        match leaf {
            0 => [u32::MAX >> 2, AMD[1], AMD[2], AMD[3]],
            1 => [0x0080_0f12, u32::MAX, u32::MAX, u32::MAX],
            0x8000_0000 => [0xffff_ffff, 0, 0, 0],
            0x8000_0008 => [0x3030, u32::MAX, u32::MAX, u32::MAX],
            _ => [u32::MAX; 4],
        }
    }

    fn nothing(leaf: u32, _: u32) -> Leaf {
        if leaf == 0 { [1, 0, 0, 0] } else { [0; 4] }
    }

    fn answer(table: &CpuidTable, leaf: u32) -> Leaf {
        table.answer(leaf, 0, 0, Cr4::empty(), || Xcr0::X87)
    }

    #[test]
    fn host_bits_that_are_not_in_the_table_never_show() {
        let table = CpuidTable::freeze::<Absent, NoVcpu>(everything, 2, 1_000_000);
        let one = answer(&table, 1);
        // Bits that must stay hidden: DTES64, MONITOR, VMX, SMX, TM2, PDCM, PCID; MCE, MCA, thermal monitor.
        assert_eq!(one[2] & (1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15 | 1 << 17), 0);
        assert_eq!(one[3] & (1 << 7 | 1 << 14 | 1 << 29), 0);
        assert_eq!(answer(&table, 7)[3], 0, "speculation controls have their place in leaf 8000_0008");
        assert_eq!(answer(&table, 0x8000_0008)[1], 1 << 12 | 1 << 14 | 1 << 15 | 1 << 24);
        // SVM, OSVW, IBS, SKINIT, TOPOEXT, performance counters.
        assert_eq!(
            answer(&table, 0x8000_0001)[2] & (1 << 2 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 22 | 1 << 23),
            0
        );
        for leaf in
            [2, 3, 4, 5, 6, 8, 9, 0xa, 0xc, 0xe, 0x10, 0x14, 0x8000_000a, 0x8000_001f, 0x8fff_fffe, u32::MAX]
        {
            assert_eq!(answer(&table, leaf), [0; 4], "leaf {leaf:#x}");
        }
        assert_eq!(answer(&table, CLOCK_BASE), [0; 4], "no clock part, no clock leaf");
    }

    #[test]
    fn xsaves_is_shown_where_host_and_product_have_it() {
        let frozen = |forms| {
            let host = move |leaf, subleaf| {
                if (leaf, subleaf) == (0xd, 1) {
                    [forms, 0, u32::MAX, u32::MAX]
                } else {
                    everything(leaf, subleaf)
                }
            };
            let with = CpuidTable::freeze::<Absent, FakeVcpu>(host, 1, 1_000_000);
            let without = CpuidTable::freeze::<Absent, NoVcpu>(host, 1, 1_000_000);
            [with, without].map(|table| {
                let leaf = table.answer(0xd, 1, 0, Cr4::XSAVE, Xcr0::all);
                assert_eq!(table.has_supervisor_state(), leaf[0] >> 3 & 1 == 1);
                assert_eq!(leaf[2..], [0, 0], "IA32_XSS holds nothing");
                (leaf[0], leaf[1])
            })
        };
        assert_eq!(frozen(u32::MAX), [(0b1011, 832), (0b11, 832)]);
        assert_eq!(frozen(0b1000), [(0b1000, 832), (0, 0)]);
        assert_eq!(frozen(0b0111), [(0b11, 832), (0b11, 832)]);
    }

    #[test]
    fn only_a_compacted_area_has_a_size_of_its_own() {
        let host = |leaf, subleaf| {
            if (leaf, subleaf) == (0xd, 1) { [1, 0, 0, 0] } else { everything(leaf, subleaf) }
        };
        let table = CpuidTable::freeze::<Absent, NoVcpu>(host, 1, 1_000_000);
        assert_eq!(table.answer(0xd, 1, 0, Cr4::XSAVE, Xcr0::all), [1, 0, 0, 0]);
    }

    #[test]
    fn bits_that_the_host_lacks_never_show() {
        let table = CpuidTable::freeze::<Absent, NoVcpu>(nothing, 1, 1_000_000);
        let one = answer(&table, 1);
        assert_eq!(one[2], X2APIC | TSC_DEADLINE | HYPERVISOR);
        assert_eq!(one[3], LEAF_1_EDX_OURS);
        assert_eq!(table.xcr0(), Xcr0::X87);
        assert!(!table.cr4().intersects(Cr4::XSAVE | Cr4::SUPERVISOR_ACCESS | Cr4::FSGSBASE));
        assert!(!table.has_tsc_aux() && !table.has_no_execute());
        assert_eq!(answer(&table, 0x8000_0008)[1], 0);
        assert!(table.speculation_control() == 0 && !table.has_branch_barrier());
    }

    #[test]
    fn control_bits_follow_what_is_shown() {
        for (bit, controls) in [
            (VIRTUAL_8086, Cr4::VIRTUAL_8086 | Cr4::PROTECTED_VIRTUAL_INTERRUPTS),
            (DEBUGGING, Cr4::DEBUGGING),
        ] {
            for there in [0, bit] {
                let host = |leaf, subleaf| {
                    let [a, b, c, d] = everything(leaf, subleaf);
                    if leaf == 1 { [a, b, c, d & !bit | there] } else { [a, b, c, d] }
                };
                let table = CpuidTable::freeze::<Absent, NoVcpu>(host, 1, 1_000_000);
                assert_eq!(answer(&table, 1)[3] & bit, there);
                assert_eq!(table.cr4() & controls, if there == 0 { Cr4::empty() } else { controls });
            }
        }
    }

    #[test]
    fn each_speculation_control_is_offered_where_the_host_has_it() {
        for (bit, control, barrier) in [(12, 0, true), (14, 1, false), (15, 2, false), (24, 4, false)] {
            let host = |leaf, subleaf| {
                let [a, _, c, d] = everything(leaf, subleaf);
                if leaf == 0x8000_0008 { [a, 1 << bit, c, d] } else { everything(leaf, subleaf) }
            };
            let table = CpuidTable::freeze::<Absent, NoVcpu>(host, 1, 1_000_000);
            assert_eq!(answer(&table, 0x8000_0008)[1], 1 << bit);
            assert_eq!((table.speculation_control(), table.has_branch_barrier()), (control, barrier));
        }
        // A host whose highest leaf is below has none of them, whatever it answers there.
        let old = |leaf, subleaf| {
            if leaf == 0x8000_0000 { [0x8000_0007, 0, 0, 0] } else { everything(leaf, subleaf) }
        };
        assert_eq!(CpuidTable::freeze::<Absent, NoVcpu>(old, 1, 1_000_000).speculation_control(), 0);
    }

    #[test]
    fn the_signature_is_ours() {
        let table = CpuidTable::freeze::<Absent, NoVcpu>(everything, 1, 2_000_000);
        let leaf = answer(&table, HYPERVISOR_BASE);
        let spelled: [u8; 12] = core::array::from_fn(|at| leaf[1 + at / 4].to_le_bytes()[at % 4]);
        assert_eq!(&spelled, &SIGNATURE);
        assert_eq!(answer(&table, HYPERVISOR_BASE + 1)[0], 2_000_000);
    }

    #[test]
    fn dynamic_bits_follow_the_vcpu() {
        let table = CpuidTable::freeze::<Absent, NoVcpu>(everything, 4, 1_000_000);
        assert_eq!(table.answer(1, 0, 3, Cr4::XSAVE, || Xcr0::X87)[1] >> 24, 3);
        assert_ne!(table.answer(1, 0, 3, Cr4::XSAVE, || Xcr0::X87)[2] & OSXSAVE, 0);
        assert_eq!(table.answer(1, 0, 3, Cr4::empty(), || Xcr0::X87)[2] & OSXSAVE, 0);
        assert_eq!(table.answer(0xd, 0, 0, Cr4::XSAVE, || Xcr0::X87)[1], 576);
        assert_eq!(table.answer(0xd, 0, 0, Cr4::XSAVE, Xcr0::all)[1], 832);
        assert_eq!(table.answer(0xd, 1, 0, Cr4::XSAVE, || Xcr0::X87), [0b11, 576, 0, 0]);
        assert_eq!(table.answer(0xd, 1, 0, Cr4::XSAVE, Xcr0::all), [0b11, 832, 0, 0]);
        assert_eq!(table.answer(0xd, 3, 0, Cr4::XSAVE, Xcr0::all), [0; 4]);
        assert_eq!(table.answer(0xb, 1, 3, Cr4::empty(), || Xcr0::X87), [2, 4, 2 << 8 | 1, 3]);
    }
}
