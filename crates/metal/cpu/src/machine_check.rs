//! Machine checks: hardware that noticed an error of its own (APM Vol. 2 chapter 9; SDM Vol. 3B chapter 15). They are reported and
//! stop the machine; nothing is mended.

use crate::{Features, msr, serial};
use x86::msr::{MCG_CAP, MCG_STATUS};

/// Control register of bank 0; each bank has four: control, status, address, miscellaneous.
const BANKS: u32 = 0x400;
/// Most banks that are looked at: those whose registers follow each other.
const MOST: u32 = 32;
const VALID: u64 = 1 << 63;
const HAS_ADDRESS: u64 = 1 << 58;

/// How many banks there are.
///
/// # Safety
///
/// CPUID announces machine-check architecture.
unsafe fn banks() -> u32 {
    // SAFETY: The caller's promise: MCG_CAP should exist, and reading it has no effect. Bochs announces it and has none.
    (unsafe { msr::read_checked(MCG_CAP) }.unwrap_or(0) as u32 & 0xff).min(MOST)
}

/// Lets every bank report, and forgets what they hold from before.
pub(crate) fn prepare(features: &Features) {
    if !features.machine_check {
        return;
    }
    // SAFETY: CPUID announces the architecture; MCG_CAP says how many banks there are. All ones in a control register turn on what the
    // bank can do; zero clears a status.
    unsafe {
        for bank in 0..banks() {
            msr::write(BANKS + 4 * bank, u64::MAX);
            msr::write(BANKS + 4 * bank + 1, 0);
        }
    }
}

/// Prints what the banks say, in the report of a machine check: without CR4.MCE there is none, so the registers are there.
pub(crate) fn report() {
    // SAFETY: A machine-check exception comes only where CPUID announces the architecture and `prepare` was called.
    unsafe {
        serial::line(format_args!("machine check status={:x}", msr::read(MCG_STATUS)));
        for bank in 0..banks() {
            let status = msr::read(BANKS + 4 * bank + 1);
            if status & VALID != 0 {
                let address = if status & HAS_ADDRESS != 0 { msr::read(BANKS + 4 * bank + 2) } else { 0 };
                serial::line(format_args!("bank {bank} status={status:016x} address={address:016x}"));
            }
        }
    }
}
