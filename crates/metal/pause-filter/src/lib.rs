//! Hardware part: the processor counts a guest's PAUSEs, and brings back one that spins (APM Vol. 2 §15.14.4).
//!
//! With it a virtual processor that waits for a lock lets others run, among them the one that holds the lock; without it, it waits until its
//! turn is over.
#![no_std]

use contracts::SpinDetector;

/// CPUID 8000_000A EDX bit 10.
#[derive(Debug)]
pub struct PauseFilter;

impl SpinDetector for PauseFilter {
    const PRESENT: bool = true;
}
