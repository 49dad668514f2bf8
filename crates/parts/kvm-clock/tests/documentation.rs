//! The clock page against the Linux kernel's documentation, `Documentation/virt/kvm/x86/msr.rst` and `cpuid.rst`.

use contracts::Clock;
use contracts::absent::{ClockPageChoice, ClockRegister};
use kvm_clock::KvmClock;

/// The time page as a guest reads it (`struct pvclock_vcpu_time_info`).
struct Page([u8; 32]);

impl Page {
    fn field<const SIZE: usize>(&self, at: usize) -> [u8; SIZE] {
        std::array::from_fn(|byte| self.0[at + byte])
    }

    /// msr.rst, "guests can derive per-CPU time by doing": with the multiplication in 96 bits, as guests do it.
    fn time(&self, ticks: u64) -> u64 {
        let since = ticks - u64::from_le_bytes(self.field(8));
        let shift = i8::from_le_bytes(self.field(28));
        let shifted = if shift >= 0 { since << shift } else { since >> -shift };
        let multiplier = u32::from_le_bytes(self.field(24));
        let passed = (u128::from(shifted) * u128::from(multiplier)) >> 32;
        passed as u64 + u64::from_le_bytes(self.field(16))
    }
}

/// "struct pvclock_vcpu_time_info": where each field lies.
#[test]
fn layout_of_the_time_page() {
    // 1 GHz: one nanosecond per tick is 2^31 * 2 / 2^32.
    let page = KvmClock::time_page(0x0a0b_0c0e, 0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00, 1 << 32);
    let expected = [
        0x0e, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0, //
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, //
        0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, //
        0x00, 0x00, 0x00, 0x80, 1, 1, 0, 0,
    ];
    assert_eq!(page, expected);
}

/// "struct pvclock_wall_clock": version, sec, nsec.
#[test]
fn layout_of_the_wall_page() {
    assert_eq!(KvmClock::wall_page(6, 0x6543_21fe), [6, 0, 0, 0, 0xfe, 0x21, 0x43, 0x65, 0, 0, 0, 0]);
    // Beyond what the layout holds.
    assert_eq!(KvmClock::wall_page(2, 1 << 32)[4..8], [0xff; 4]);
}

/// The guest's formula gives the time within a millionth, at 1 MHz to 5 GHz and after a tick, a second, a day, a year.
#[test]
fn the_guests_formula_tells_the_time() {
    let kilohertz = (1_000..1_000_000).step_by(77_777).chain((1_000_000..=5_000_000).step_by(123_457));
    for rate in kilohertz.chain([1_000, 1_000_000, 2_496_001, 4_294_967, 5_000_000]) {
        let clock = Clock::new(rate).unwrap();
        let page = Page(KvmClock::time_page(2, 1 << 40, 1 << 50, clock.nanoseconds_per_tick()));
        for seconds in [1, 3_600, 86_400, 31_536_000] {
            let ticks = u64::from(rate) * 1_000 * seconds;
            let expected = seconds * 1_000_000_000;
            let told = page.time((1 << 40) + ticks) - (1 << 50);
            assert!(told.abs_diff(expected) <= expected / 1_000_000, "{rate} kHz: {told} for {expected}");
        }
        // Short intervals: within a nanosecond and the ticks that a right shift drops.
        for ticks in 0..100 {
            let expected = ticks * 1_000_000 / u64::from(rate);
            assert!(
                (page.time((1 << 40) + ticks) - (1 << 50)).abs_diff(expected) <= 2,
                "{rate} kHz, {ticks}"
            );
        }
    }
}

/// It never runs backwards, and it agrees with the compartment's own clock: a guest that mixes page and timers sees one
/// time.
#[test]
fn the_page_agrees_with_the_clock() {
    for rate in [1_000, 999_983, 2_496_001, 5_000_000, 100_000_000] {
        let clock = Clock::new(rate).unwrap();
        let page = Page(KvmClock::time_page(2, 0, 0, clock.nanoseconds_per_tick()));
        let mut last = 0;
        for step in 0..10_000u64 {
            let ticks = step * step * 17;
            let time = page.time(ticks);
            assert!(time >= last);
            assert!(time.abs_diff(clock.nanoseconds(ticks)) <= 4 + clock.nanoseconds(ticks) / 1_000_000_000);
            last = time;
        }
    }
}

/// Every rate that the type can hold has a scale; the shift fits its byte, and the multiplier uses all its bits.
#[test]
fn all_rates_scale() {
    for bit in 0..64 {
        let page = Page(KvmClock::time_page(2, 0, 0, 1 << bit));
        assert_eq!(u32::from_le_bytes(page.field(24)), 1 << 31);
        assert_eq!(i8::from_le_bytes(page.field(28)), bit - 31);
    }
    assert_eq!(Page(KvmClock::time_page(2, 0, 0, 0)).time(1 << 60), 0);
    let fastest = Page(KvmClock::time_page(2, 0, 0, u64::MAX));
    assert_eq!((fastest.field(24), fastest.field(28)), ([0xff; 4], [32]));
}

/// cpuid.rst: "KVMKVMKVM", and the features that Linux asks for before it believes the clock.
#[test]
fn leaves() {
    let [highest, ebx, ecx, edx] = KvmClock::leaf(0);
    let signature: Vec<u8> = [ebx, ecx, edx].iter().flat_map(|part| part.to_le_bytes()).collect();
    assert_eq!((highest, signature.as_slice()), (1, b"KVMKVMKVM\0\0\0".as_slice()));
    assert_eq!(KvmClock::leaf(1), [1 << 1 | 1 << 3 | 1 << 24, 0, 0, 0]);
    assert_eq!(KvmClock::leaf(2), [0; 4]);
    const { assert!(KvmClock::PRESENT) };
}

/// msr.rst: the two registers, and none of the others of KVM's range nor the old numbers.
#[test]
fn registers() {
    for msr in (0x4b56_4d00..=0x4b56_4dff).chain([0x11, 0x12]) {
        let expected = match msr {
            0x4b56_4d00 => Some(ClockRegister::Wall),
            0x4b56_4d01 => Some(ClockRegister::Time),
            _ => None,
        };
        assert_eq!(KvmClock::register(msr), expected, "{msr:#x}");
    }
}
