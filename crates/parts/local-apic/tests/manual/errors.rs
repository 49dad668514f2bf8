//! The error status register (SDM §11.5.3).

use crate::Bench;
use contracts::{LocalApic as _, Trigger};

const SEND_ILLEGAL: u32 = 1 << 5;
const RECEIVE_ILLEGAL: u32 = 1 << 6;
const ILLEGAL_REGISTER: u32 = 1 << 7;

/// "This write clears any previously logged errors and updates the ESR with any errors detected since the last write."
#[test]
fn written_before_it_is_read() {
    let mut bench = Bench::bootstrap();
    bench.accept(0x05);
    assert_eq!(bench.read(0x280), 0);
    bench.write(0x280, 0);
    assert_eq!((bench.read(0x280), bench.read(0x280)), (RECEIVE_ILLEGAL, RECEIVE_ILLEGAL));
    bench.write(0x280, 0);
    assert_eq!(bench.read(0x280), 0);

    let mut bench = Bench::extended(1);
    bench.accept(0x05);
    assert!(bench.wrmsr(0x828, 0));
    assert_eq!(bench.rdmsr(0x828), Some(RECEIVE_ILLEGAL.into()));
}

/// "the local APIC will never set an IRR bit in the range 0 to 15".
#[test]
fn illegal_vectors_arrive_nowhere() {
    for vector in 0..16 {
        let mut bench = Bench::bootstrap();
        bench.apic.accept(vector, Trigger::Level);
        assert_eq!((bench.read(0x200), bench.apic.pending()), (0, None));
        assert_eq!(bench.status(), RECEIVE_ILLEGAL);
        for low in [0, 1 << 8, 1 << 18, 3 << 18] {
            assert_eq!(bench.write(0x300, low | u32::from(vector)).command, None);
            assert_eq!((bench.status(), bench.apic.pending()), (SEND_ILLEGAL, None));
        }
        let mut bench = Bench::extended(1);
        assert_eq!(bench.command(0x83f, vector.into()), None);
        assert!(bench.wrmsr(0x828, 0));
        assert_eq!(bench.rdmsr(0x828), Some(SEND_ILLEGAL.into()));
    }
}

/// Table 11-1: reserved addresses of the page, read and written.
#[test]
fn illegal_registers() {
    let reserved =
        [0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0x290, 0x2f0, 0x3a0, 0x3d0, 0x3f0, 0x400, 0x800, 0xff0];
    for offset in reserved {
        let mut bench = Bench::bootstrap();
        assert_eq!(bench.read(offset), 0);
        assert_eq!(bench.status(), ILLEGAL_REGISTER, "{offset:#x}");
        bench.write(offset, 0);
        assert_eq!(bench.status(), ILLEGAL_REGISTER, "{offset:#x}");
    }
    for offset in (0x20..0x400).step_by(16).filter(|offset| !reserved.contains(offset)) {
        if !(0x290..0x300).contains(&offset) && !(0x3a0..0x3e0).contains(&offset) {
            let mut bench = Bench::bootstrap();
            bench.read(offset);
            assert_eq!(bench.status(), 0, "{offset:#x}");
        }
    }
}

/// "The LVT error register allows selection of the interrupt vector"; the write of the ESR "rearms the APIC error
/// interrupt triggering mechanism": one interrupt until then, so that errors cannot storm.
#[test]
fn error_interrupt() {
    let mut bench = Bench::bootstrap();
    bench.write(0x370, 0xfe);
    bench.accept(0);
    assert_eq!(bench.serve(), Some(0xfe));
    bench.accept(0);
    bench.read(0x400);
    assert_eq!(bench.serve(), None);
    assert_eq!(bench.status(), RECEIVE_ILLEGAL | ILLEGAL_REGISTER);
    bench.accept(0);
    assert_eq!(bench.serve(), Some(0xfe));
    // The lowest legal vector.
    bench.status();
    bench.write(0x370, 0x10);
    bench.accept(0);
    assert_eq!(bench.serve(), Some(0x10));
    // Masked: the error is noted all the same.
    bench.status();
    bench.write(0x370, 0x1_00fe);
    bench.accept(0);
    assert_eq!((bench.serve(), bench.status()), (None, RECEIVE_ILLEGAL));
}

/// An error entry that has an illegal vector itself, and a timer entry that does.
#[test]
fn illegal_vectors_in_the_table() {
    let mut bench = Bench::bootstrap();
    bench.write(0x370, 0x0e);
    bench.write(0x300, 0x01);
    assert_eq!((bench.serve(), bench.status()), (None, SEND_ILLEGAL | RECEIVE_ILLEGAL));
    bench.write(0x320, 0x0f);
    bench.write(0x380, 10);
    bench.pass(100);
    assert_eq!((bench.serve(), bench.status()), (None, RECEIVE_ILLEGAL));
}
