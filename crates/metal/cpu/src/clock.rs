//! The rates of the time stamp counter and of the local APIC's timer, measured against a clock whose rate is known.
//!
//! Each reading of the reference is bracketed by two readings of the TSC. Loose brackets are thrown away, so that an emulator's
//! thread or a host that was away in between spoils nothing; the mean of the tight ones stands for a moment much finer
//! than one tick of the reference.

use crate::{apic, port, ticks};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Nominal length of the measurement.
const MICROSECONDS: u64 = 5_000;
/// Readings at each end.
const SAMPLES: usize = 64;

static KILOHERTZ: AtomicU32 = AtomicU32::new(0);
/// Ticks of the local APIC's timer per TSC tick, 32 fractional bits.
static TIMER_RATIO: AtomicU64 = AtomicU64::new(0);

/// A clock of known rate.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reference {
    /// The ACPI power-management timer at an I/O port, 3.579545 MHz (ACPI 6.5 §4.8.3.3).
    PowerManagement {
        /// Its port.
        port: u16,
        /// Whether it has 32 bits, else 24.
        wide: bool,
    },
    /// The high-precision event timer, its registers mapped at [`HPET_ADDRESS`] (IA-PC HPET specification 1.0a §2.3).
    HighPrecision,
    /// Channel 2 of the 8254, 1.193182 MHz, counting down 16 bits once.
    IntervalTimer,
}

/// Where the registers of the HPET are mapped, if at all.
pub const HPET_ADDRESS: usize = crate::io_apic::ADDRESS + crate::io_apic::MOST * 0x1000;

impl Reference {
    /// Its name for the boot log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerManagement { .. } => "ACPI timer",
            Self::HighPrecision => "HPET",
            Self::IntervalTimer => "PIT",
        }
    }

    /// Femtoseconds per tick; `None` where it says nonsense.
    fn period(self) -> Option<u64> {
        match self {
            Self::PowerManagement { .. } => Some(279_365_115),
            Self::HighPrecision => {
                // SAFETY: The reference's promise: mapped uncached. The capabilities register has no effect when read.
                let capabilities = unsafe { core::ptr::read_volatile(HPET_ADDRESS as *const u64) };
                let period = capabilities >> 32;
                (1_000_000..=100_000_000).contains(&period).then_some(period)
            }
            Self::IntervalTimer => Some(838_095_110),
        }
    }

    const fn mask(self) -> u64 {
        match self {
            Self::PowerManagement { wide: false, .. } => 0xff_ffff,
            Self::PowerManagement { wide: true, .. } | Self::HighPrecision => 0xffff_ffff,
            Self::IntervalTimer => 0xffff,
        }
    }

    fn start(self) {
        match self {
            Self::PowerManagement { .. } => {}
            Self::HighPrecision => {
                // SAFETY: As in `period`. Bit 0 of the configuration lets the counter run; it disturbs nobody at boot.
                unsafe {
                    let configuration = (HPET_ADDRESS + 0x10) as *mut u64;
                    core::ptr::write_volatile(configuration, core::ptr::read_volatile(configuration) | 1);
                }
            }
            Self::IntervalTimer => {
                // SAFETY: Port 61h: gate of channel 2 on, speaker off. Channel 2, mode 0, low then high byte, counts from
                // FFFFh; it has no interrupt.
                unsafe {
                    port::write_u8(0x61, port::read_u8(0x61) & !3 | 1);
                    port::write_u8(0x43, 0b1011_0000);
                    port::write_u8(0x42, 0xff);
                    port::write_u8(0x42, 0xff);
                }
            }
        }
    }

    /// Counts up, wrapping at its mask.
    fn read(self) -> u64 {
        match self {
            // SAFETY: The FADT names the port; reading a timer has no effect.
            Self::PowerManagement { port, .. } => u64::from(unsafe { port::read_u32(port) }) & self.mask(),
            Self::HighPrecision => {
                // SAFETY: As in `period`; the main counter's low half.
                let counter = unsafe { core::ptr::read_volatile((HPET_ADDRESS + 0xf0) as *const u32) };
                u64::from(counter)
            }
            // SAFETY: Latches channel 2 and reads it; has no other effect.
            Self::IntervalTimer => unsafe {
                port::write_u8(0x43, 0b1000_0000);
                let low = port::read_u8(0x42);
                0xffff - (u64::from(port::read_u8(0x42)) << 8 | u64::from(low))
            },
        }
    }
}

/// A moment on two clocks: both with [`FRACTION`] fractional bits, from the first reading's own.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Moment {
    ticks: u64,
    reference: u64,
}

const FRACTION: u32 = 8;

/// One bracketed reading.
#[derive(Copy, Clone, Default)]
struct Sample {
    before: u64,
    after: u64,
    reference: u64,
}

/// The mean of those readings whose bracket is at most half as wide again as the tightest. `start` are the origins.
fn mean(samples: &[Sample], start: (u64, u64), mask: u64) -> Moment {
    let width = |sample: &Sample| sample.after.wrapping_sub(sample.before);
    let tightest = samples.iter().map(width).min().unwrap_or(0);
    let limit = tightest.saturating_add(tightest / 2).saturating_add(2);
    let (mut count, mut tick_sum, mut reference_sum) = (0u64, 0u128, 0u128);
    for sample in samples.iter().filter(|sample| width(sample) <= limit) {
        count += 1;
        tick_sum += u128::from(sample.before.wrapping_sub(start.0)) + u128::from(width(sample) / 2);
        reference_sum += u128::from(sample.reference.wrapping_sub(start.1) & mask);
    }
    let mean = |sum: u128| ((sum << FRACTION) / u128::from(count.max(1))) as u64;
    Moment { ticks: mean(tick_sum), reference: mean(reference_sum) }
}

#[inline(always)]
fn bracket(read: &impl Fn() -> u64) -> Sample {
    let before = ticks();
    let reference = read();
    let after = ticks();
    Sample { before, after, reference }
}

fn observe(read: &impl Fn() -> u64, start: (u64, u64), mask: u64) -> Moment {
    let mut samples = [Sample::default(); SAMPLES];
    for sample in &mut samples {
        *sample = bracket(read);
    }
    mean(&samples, start, mask)
}

/// TSC ticks per millisecond between two moments of a reference with that period; `None` if that is no rate of a processor.
fn kilohertz(first: Moment, second: Moment, period: u64) -> Option<u32> {
    let elapsed = u128::from(second.reference.checked_sub(first.reference)?) * u128::from(period);
    if elapsed == 0 {
        return None;
    }
    // Femtoseconds per millisecond; rounded to the nearest.
    let ticks = u128::from(second.ticks.checked_sub(first.ticks)?) * 1_000_000_000_000;
    let rate = u32::try_from((ticks + elapsed / 2) / elapsed).ok()?;
    contracts::RATE_LIMIT.contains(&rate).then_some(rate)
}

/// Some two thousand cycles of nothing, so that the reference is not read without pause: a reading costs an emulator much.
fn pause() {
    // SAFETY: Counts a register down.
    unsafe { core::arch::asm!("2: dec {0:e}", "jnz 2b", inout(reg) 1024u32 => _, options(nomem, nostack)) };
}

/// Measures both rates against the first of `references` that runs. On success [`rate`] and [`timer_ticks`] work on all
/// processors. `None` if no reference runs. Takes about five milliseconds.
///
/// # Safety
///
/// The references exist as described, and [`apic::prepare`] was called on this processor. Interrupts are masked.
#[inline(never)]
pub unsafe fn calibrate(references: &[Reference]) -> Option<(Reference, u32)> {
    references.iter().find_map(|reference| measure(*reference).map(|rate| (*reference, rate)))
}

fn measure(reference: Reference) -> Option<u32> {
    let period = reference.period()?;
    let mask = reference.mask();
    reference.start();
    let read = || reference.read();
    let first = read();
    // A timer that stands still is none.
    let mut patience = 10_000;
    while read() == first {
        patience -= 1;
        if patience == 0 {
            return None;
        }
    }
    let start = (ticks(), read());
    apic::start_measuring();
    let clock_start = observe(&read, start, mask);
    let timer_start = observe(&apic::measured, (start.0, 0), u64::from(u32::MAX));
    let wanted = (MICROSECONDS * 1_000_000_000).checked_div(period)?;
    let mut patience = 10_000_000u32;
    while read().wrapping_sub(start.1) & mask < wanted {
        pause();
        patience = patience.checked_sub(1)?;
    }
    let timer_end = observe(&apic::measured, (start.0, 0), u64::from(u32::MAX));
    let clock_end = observe(&read, start, mask);
    apic::stop_measuring();
    let rate = kilohertz(clock_start, clock_end, period)?;
    let timer = u128::from(timer_end.reference.checked_sub(timer_start.reference)?) << 32;
    let ratio = timer / u128::from(timer_end.ticks.checked_sub(timer_start.ticks)?.max(1));
    // Without a rate the timer could not be armed; with a TSC deadline it need not have one.
    if ratio == 0 && !apic::has_deadline() {
        return None;
    }
    TIMER_RATIO.store(u64::try_from(ratio).ok()?, Ordering::Relaxed);
    KILOHERTZ.store(rate, Ordering::Relaxed);
    Some(rate)
}

/// TSC ticks per millisecond; 0 before [`calibrate`].
pub fn rate() -> u32 {
    KILOHERTZ.load(Ordering::Relaxed)
}

/// Ticks of the local APIC's timer that cover so many ticks of the TSC.
#[inline]
pub fn timer_ticks(ticks: u64) -> u64 {
    // Rounded up, so that no timer is early by our arithmetic.
    let product = u128::from(ticks) * u128::from(TIMER_RATIO.load(Ordering::Relaxed));
    u64::try_from((product >> 32) + 1).unwrap_or(u64::MAX)
}

/// Local APIC timer ticks per millisecond, for the boot log.
pub fn timer_rate() -> u64 {
    timer_ticks(u64::from(rate()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulated TSC of `rate` kHz read against the ACPI timer, with a bracket of some 900 ticks that a thread switch widens
    /// once in `every` readings.
    fn simulated(rate: u64, begin: u64, seed: u64, every: usize) -> [Sample; SAMPLES] {
        let mut samples = [Sample::default(); SAMPLES];
        let mut now = begin;
        let mut noise = seed;
        for (index, sample) in samples.iter_mut().enumerate() {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jitter = noise >> 57;
            let spoiled = if index % every == 3 { 3_000_000 } else { 0 };
            sample.before = now;
            // The reading happens in the middle of a tight bracket, at the start of a spoiled one.
            let at = now + 400 + jitter / 2;
            let femtoseconds = u128::from(at) * 1_000_000_000_000 / u128::from(rate);
            sample.reference = (femtoseconds / 279_365_115) as u64 & 0xff_ffff;
            sample.after = now + 800 + jitter + spoiled;
            now = sample.after + 100;
        }
        samples
    }

    #[test]
    fn a_disturbed_measurement_is_within_a_hundred_millionths() {
        for rate in [1_000_000u64, 2_496_001, 3_700_000] {
            for seed in 1..50 {
                // Begins shortly before the 24-bit timer wraps.
                let begin =
                    (0xff_f000u128 * 279_365_115 * u128::from(rate) / 1_000_000_000_000) as u64 + seed * 977;
                let first = simulated(rate, begin, seed, 7);
                let start = (first[0].before, first[0].reference);
                let second = simulated(rate, first[SAMPLES - 1].after + 5 * rate, seed + 1_000, 5);
                let measured =
                    kilohertz(mean(&first, start, 0xff_ffff), mean(&second, start, 0xff_ffff), 279_365_115)
                        .unwrap();
                let error = u64::from(measured).abs_diff(rate) * 1_000_000 / rate;
                assert!(error < 100, "{rate} kHz measured as {measured}: {error} millionths off");
            }
        }
    }

    #[test]
    fn a_reference_that_stands_still_gives_no_rate() {
        let moment = Moment { ticks: 1 << FRACTION, reference: 5 };
        assert_eq!(kilohertz(moment, Moment { ticks: 1 << 40, reference: 5 }, 279_365_115), None);
        assert_eq!(kilohertz(moment, Moment { ticks: 1 << 40, reference: 4 }, 279_365_115), None);
    }

    #[test]
    fn timer_ticks_never_round_down_to_early() {
        TIMER_RATIO.store(1 << 28, Ordering::Relaxed);
        assert_eq!(timer_ticks(15), 1);
        assert_eq!(timer_ticks(16), 2);
        assert_eq!(timer_ticks(u64::MAX), (u64::MAX >> 4) + 1);
    }
}
