//! The register page (SDM §11.4.1 and table 11-1) and the MSRs (§11.12.1 and table 11-6).

use crate::Bench;
use contracts::{DeliveryMode, LocalApic as _, LocalPin};

/// SDM §11.4.7.1: "Local APIC State After Power-Up or Reset".
#[test]
fn values_after_reset() {
    let mut bench = Bench::reset(3);
    let mut expected = vec![(0x20, 0x0300_0000), (0x30, 0x0005_0014), (0xe0, u32::MAX), (0xf0, 0xff)];
    expected.extend((0x320..=0x370).step_by(16).map(|offset| (offset, 0x1_0000)));
    for offset in (0..0x1000).step_by(16) {
        let value = expected.iter().find(|(at, _)| *at == offset).map_or(0, |(_, value)| *value);
        assert_eq!(bench.read(offset), value, "{offset:#x}");
    }
    assert_eq!(bench.apic.base(), 0xfee0_0800);
}

/// MultiProcessor Specification 1.4 §3.6.2.2: firmware leaves the bootstrap processor in virtual wire mode.
#[test]
fn bootstrap_processor_is_a_virtual_wire() {
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.apic.base(), 0xfee0_0900);
    assert_eq!(bench.read(0xf0), 0x10f);
    assert_eq!((bench.read(0x350), bench.read(0x360)), (0x700, 0x400));
    for (mut bench, wired) in [(bench, true), (Bench::reset(1), false)] {
        assert_eq!((bench.pin(LocalPin::Lint0, true), bench.external()), (None, wired));
        assert_eq!(bench.pin(LocalPin::Lint1, true), wired.then_some(DeliveryMode::NonMaskable));
    }
}

/// SDM §11.4.8: version 0x1X is an integrated APIC; bits 23–16 are the number of LVT entries less one; bit 24 says
/// whether EOI broadcasts can be suppressed.
#[test]
fn version() {
    let version = Bench::bootstrap().read(0x30);
    assert_eq!(version & 0xf0, 0x10);
    assert_eq!((version >> 16 & 0xff) + 1, 6);
    assert_eq!(version >> 24 & 1, 0);
}

/// SDM §11.4.1: bytes 4 to 15 of a register are not accessed; §11.4.6: software does not write the id.
#[test]
fn what_the_page_ignores() {
    let mut bench = Bench::bootstrap();
    let before = bench.apic.clone();
    for offset in (0..0x1000).filter(|offset| offset % 16 != 0) {
        assert_eq!(bench.read(offset), 0);
        bench.write(offset, u32::MAX);
    }
    for offset in [0x20, 0x30, 0x90, 0xa0, 0xc0, 0x100, 0x180, 0x200, 0x390] {
        bench.write(offset, 0x5a5a_5a5a);
    }
    bench.write(0x1000, 1);
    assert_eq!((bench.read(0x1000), bench.read(u16::MAX)), (0, 0));
    assert_eq!(bench.apic, before);
}

/// Figures 11-8, 11-10, 11-14, 11-18, 11-22, 11-23: what is kept of a write in xAPIC mode.
#[test]
fn reserved_bits_are_not_kept_in_the_page() {
    let kept = [
        (0x80, 0xff),
        (0xd0, 0xff00_0000),
        (0xf0, 0x3ff),
        (0x300, 0x000c_cfff),
        (0x310, 0xff00_0000),
        (0x320, 0x0007_00ff),
        (0x330, 0x0001_07ff),
        (0x340, 0x0001_07ff),
        (0x350, 0x0001_a7ff),
        (0x360, 0x0001_a7ff),
        (0x370, 0x0001_00ff),
        (0x380, 0xffff_ffff),
        (0x3e0, 0xb),
    ];
    for (offset, mask) in kept {
        let mut bench = Bench::bootstrap();
        bench.write(offset, u32::MAX);
        assert_eq!(bench.read(offset), mask, "{offset:#x}");
    }
    // Figure 11-14: bits 27–0 of the destination format are ones.
    let mut bench = Bench::bootstrap();
    bench.write(0xe0, 0);
    assert_eq!(bench.read(0xe0), 0x0fff_ffff);
}

/// Table 11-6: register, whether it can be read, and which bits can be written.
const EXTENDED_REGISTERS: [(u32, bool, Option<u64>); 19] = [
    (0x802, true, None),
    (0x803, true, None),
    (0x808, true, Some(0xff)),
    (0x80a, true, None),
    (0x80b, false, Some(0)),
    (0x80d, true, None),
    (0x80f, true, Some(0x3ff)),
    (0x828, true, Some(0)),
    (0x830, true, Some(0xffff_ffff_000c_cfff)),
    (0x832, true, Some(0x0007_10ff)),
    (0x833, true, Some(0x0001_17ff)),
    (0x834, true, Some(0x0001_17ff)),
    (0x835, true, Some(0x0001_f7ff)),
    (0x836, true, Some(0x0001_f7ff)),
    (0x837, true, Some(0x0001_10ff)),
    (0x838, true, Some(0xffff_ffff)),
    (0x839, true, None),
    (0x83e, true, Some(0xb)),
    (0x83f, false, Some(0xff)),
];

fn semantics(msr: u32) -> (bool, Option<u64>) {
    // ISR, TMR and IRR.
    if (0x810..=0x827).contains(&msr) {
        return (true, None);
    }
    let found = EXTENDED_REGISTERS.iter().find(|(register, ..)| *register == msr);
    found.map_or((false, None), |(_, read, write)| (*read, *write))
}

/// Table 11-6 and §11.12.1.2: all others are reserved, and accesses to them are #GP.
#[test]
fn every_msr_reads_as_the_table_says() {
    let mut bench = Bench::extended(1);
    for msr in 0x800..0x900 {
        assert_eq!(bench.rdmsr(msr).is_some(), semantics(msr).0, "{msr:#x}");
    }
    assert_eq!((bench.rdmsr(0x7ff), bench.rdmsr(0x900)), (None, None));
}

/// §11.12.1.3: non-zero writes to reserved bits are #GP; so are writes of read-only registers. Nothing changes then.
#[test]
fn every_bit_of_every_msr_writes_as_the_table_says() {
    for msr in 0x7ff..=0x900 {
        let writable = semantics(msr).1;
        for value in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
            let mut bench = Bench::extended(1);
            let before = bench.apic.clone();
            let legal = writable.is_some_and(|mask| value & !mask == 0);
            assert_eq!(bench.wrmsr(msr, value), legal, "{msr:#x} {value:#x}");
            if !legal {
                assert_eq!(bench.apic, before, "{msr:#x} {value:#x}");
            }
        }
    }
}

/// §11.12.2: the MSRs are there in x2APIC mode only, and the page in xAPIC mode only.
#[test]
fn each_mode_has_its_own_access() {
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.apic.page(), Some(0xfee0_0000));
    assert!((0x800..0x900).all(|msr| bench.rdmsr(msr).is_none() && !bench.wrmsr(msr, 0)));
    let mut bench = Bench::extended(1);
    assert_eq!(bench.apic.page(), None);
    let before = bench.apic.clone();
    bench.write(0x80, 0x20);
    assert_eq!((bench.read(0x30), bench.apic == before), (0, true));
}

/// §11.12.1.2: the command is one 64-bit MSR; the id has 32 bits; §11.12.10.2: the logical id is derived from it.
#[test]
fn registers_that_differ_in_extended_mode() {
    let mut bench = Bench::extended(0x25);
    assert_eq!(bench.rdmsr(0x802), Some(0x25));
    assert_eq!(bench.rdmsr(0x80d), Some(2 << 16 | 1 << 5));
    assert!(bench.wrmsr(0x830, 0x0000_0007_0000_0040));
    assert_eq!(bench.rdmsr(0x830), Some(0x0000_0007_0000_0040));
}
