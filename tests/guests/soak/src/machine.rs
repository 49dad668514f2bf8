//! The friendly guest's instructions, with those counted that end in the hypervisor: its counters are compared with these.

#[path = "../../friendly/src/machine.rs"]
#[allow(dead_code, reason = "the friendly guest's, of which this one needs a part")]
mod plain;

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};

pub use plain::{APIC_BASE, now, power_off};

/// Something that is counted.
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `times` more.
    pub fn add(&self, times: u64) {
        self.0.fetch_add(times, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// IN and OUT.
pub static PORTS: Counter = Counter::new();
/// Elements of OUTS.
pub static STRINGS: Counter = Counter::new();
/// RDMSR.
pub static MSR_READS: Counter = Counter::new();
/// WRMSR, but for those of interrupt handlers.
pub static MSR_WRITES: Counter = Counter::new();
/// CPUID.
pub static CPUIDS: Counter = Counter::new();
/// Accesses to memory that is not RAM.
pub static MEMORY: Counter = Counter::new();

/// IN of a byte.
pub fn port_in(port: u16) -> u8 {
    PORTS.add(1);
    plain::port_in(port)
}

/// OUT of a byte.
pub fn port_out(port: u16, value: u8) {
    PORTS.add(1);
    plain::port_out(port, value);
}

/// OUTS of `length` bytes of this program's own, to a port where nobody listens.
pub fn port_out_string(port: u16, bytes: &[u8]) {
    STRINGS.add(bytes.len() as u64);
    // SAFETY: reads the slice, no more.
    unsafe {
        asm!(
            "rep outsb",
            in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(readonly, nostack, preserves_flags)
        );
    }
}

/// RDMSR of a register that exists.
pub fn read_msr(msr: u32) -> u64 {
    MSR_READS.add(1);
    plain::read_msr(msr)
}

/// WRMSR of a register that exists.
pub fn write_msr(msr: u32, value: u64) {
    MSR_WRITES.add(1);
    plain::write_msr(msr, value);
}

/// Reads where no RAM is.
pub fn read_register(address: u64) -> u32 {
    MEMORY.add(1);
    plain::read_register(address)
}

/// Writes where no RAM is.
pub fn write_register(address: u64, value: u32) {
    MEMORY.add(1);
    plain::write_register(address, value);
}

/// EAX of a leaf of CPUID.
pub fn cpuid(leaf: u32) -> u32 {
    CPUIDS.add(1);
    __cpuid(leaf).eax
}
