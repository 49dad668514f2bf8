//! Instructions of the machine behind safe functions. This program owns its whole machine, which is what they rest on.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

/// IA32_APIC_BASE.
pub const APIC_BASE: u32 = 0x1b;
/// EFER.
pub const EFER: u32 = 0xc000_0080;

/// IN of a byte.
pub fn port_in(port: u16) -> u8 {
    let value;
    // SAFETY: reading a port has no effect on memory of this program.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// OUT of a byte.
pub fn port_out(port: u16, value: u8) {
    // SAFETY: no device of this machine is set up to write memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// OUT of a word.
fn port_out_word(port: u16, value: u16) {
    // SAFETY: no device of this machine is set up to write memory.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// RDMSR of a register that exists: one that does not ends the guest by #GP.
pub fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR of a register that exists, with a value that does not change how this program runs.
pub fn write_msr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the callers write registers of the local APIC only.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// Reads a register of a device at a physical address below 4 GiB, all of which is mapped to itself.
pub fn read_register(address: u64) -> u32 {
    // SAFETY: the boot code mapped the address; device registers are no memory of this program.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes a register of a device at a physical address in the last of the first four GiB.
pub fn write_register(address: u64, value: u32) {
    assert!((0xc000_0000..0x1_0000_0000).contains(&address), "no device register");
    // SAFETY: the boot code mapped the address, and this program has no memory there.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// What the processor has.
pub struct Features {
    /// It calls itself Intel's.
    pub intel: bool,
    /// A local APIC.
    pub apic: bool,
    /// x2APIC mode.
    pub x2apic: bool,
    /// The local APIC's timer has the TSC-deadline mode.
    pub tsc_deadline: bool,
    /// A hypervisor says that it is there.
    pub hypervisor: bool,
}

/// Asks CPUID what the processor has.
pub fn features() -> Features {
    let vendor = __cpuid(0);
    let leaf = __cpuid(1);
    Features {
        intel: vendor.ebx == u32::from_le_bytes(*b"Genu"),
        apic: leaf.edx & 1 << 9 != 0,
        x2apic: leaf.ecx & 1 << 21 != 0,
        tsc_deadline: leaf.ecx & 1 << 24 != 0,
        hypervisor: leaf.ecx & 1 << 31 != 0,
    }
}

/// The signature of the hypervisor, if one says that it is there.
pub fn hypervisor() -> Option<[u8; 12]> {
    if !features().hypervisor {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let mut signature = [0; 12];
    for (part, register) in signature.chunks_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    Some(signature)
}

/// Masks every input of the two 8259A controllers: firmware may leave the timer's line open.
pub fn mask_legacy_interrupts() {
    port_out(0x21, 0xff);
    port_out(0xa1, 0xff);
}

/// Turns the machine off, by each door that one of our machines may have: sleep state S5 as Ringfence's ACPI tables give it
/// (type 5), S5 of an emulated PIIX4 (type 0), and the debug exits of QEMU and Bochs. ACPI 6.5 section 4.8.3.2.1: SLP_TYP in bits
/// 12–10, SLP_EN in bit 13.
///
/// An emulator takes a request to turn off when it next looks, so that this program runs on for a while: the next door is
/// tried only after [`PATIENCE`].
pub fn power_off() -> ! {
    const CONTROL: u16 = 0x604;
    const SLEEP_ENABLE: u16 = 1 << 13;
    crate::console::Console::finish();
    port_out_word(CONTROL, 5 << 10 | SLEEP_ENABLE);
    port_out_word(CONTROL, SLEEP_ENABLE);
    let asked = now();
    while now().wrapping_sub(asked) < PATIENCE {}
    port_out(0xf4, 0x10);
    for letter in *b"Shutdown" {
        port_out(0x8900, letter);
    }
    loop {
        // SAFETY: nothing is left to do.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Ticks for which an emulator may take its time to turn off.
const PATIENCE: u64 = 50_000_000;

/// The time stamp counter, after everything before has been executed.
pub fn now() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}
