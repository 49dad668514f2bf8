//! Instructions of the machine behind safe functions. This program owns its whole machine, which is what they rest on.

use core::arch::asm;

/// EFER.
pub const EFER: u32 = 0xc000_0080;
/// The guest-physical and linear address of the local APIC's page.
pub const APIC: u64 = 0xfee0_0000;
/// Physical addresses at which nothing lies, below Ringfence and on a bare PC.
pub const HOLE: u64 = 0xd000_0000;
/// Where the window's pages lie, linearly.
pub const WINDOW: u64 = 256 << 30;

unsafe extern "C" {
    static mut WINDOW_TABLE: [u64; 512];
    /// The global descriptor table.
    pub static mut GDT: [u64; 20];
    /// The page table's second level from above: entries from 4 to 255 are free.
    pub static mut page_directory_pointers: [u64; 512];
    /// The four directories of the first 4 GiB.
    pub static mut page_directories: [u64; 4 * 512];
}

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

/// IN of two bytes.
pub fn port_in_word(port: u16) -> u16 {
    let value;
    // SAFETY: as for bytes.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// OUT of two bytes.
pub fn port_out_word(port: u16, value: u16) {
    // SAFETY: as for bytes.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// IN of four bytes.
pub fn port_in_double(port: u16) -> u32 {
    let value;
    // SAFETY: as for bytes.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// OUT of four bytes.
pub fn port_out_double(port: u16, value: u32) {
    // SAFETY: as for bytes.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
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

/// WRMSR of a register that exists, with a value that it takes.
pub fn write_msr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: what the callers write does not change how this program runs.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// Reads a register of the local APIC's page.
pub fn apic(offset: u64) -> u32 {
    read32(APIC + offset)
}

/// Writes a register of the local APIC's page.
pub fn set_apic(offset: u64, value: u32) {
    write32(APIC + offset, value);
}

/// Reads four bytes at a linear address that is mapped.
pub fn read32(address: u64) -> u32 {
    // SAFETY: the callers read device registers, holes, and memory of this program.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes four bytes at a linear address that is mapped.
pub fn write32(address: u64, value: u32) {
    // SAFETY: the callers write device registers, holes, and memory that only attempts use.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// Reads eight bytes at a linear address that is mapped.
pub fn read64(address: u64) -> u64 {
    // SAFETY: as for four bytes.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes eight bytes at a linear address that is mapped.
pub fn write64(address: u64, value: u64) {
    // SAFETY: as for four bytes.
    unsafe { (address as *mut u64).write_volatile(value) };
}

/// Puts `entry` into page `number` of the window, and gives the page's linear address.
pub fn window(number: usize, entry: u64) -> u64 {
    assert!(number < 512);
    let linear = WINDOW + ((number as u64) << 12);
    // SAFETY: nothing of this program lies in the window.
    unsafe { (&raw mut WINDOW_TABLE).cast::<u64>().add(number).write_volatile(entry) };
    flush(linear);
    linear
}

/// INVLPG.
pub fn flush(linear: u64) {
    // SAFETY: drops a translation, which is read anew.
    unsafe { asm!("invlpg [{}]", in(reg) linear, options(nostack, preserves_flags)) };
}

/// A control register by its number.
macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        /// Reads the register.
        #[allow(dead_code, reason = "registers come in pairs")]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        /// Writes the register, with a value that lets this program go on.
        pub fn $write(value: u64) {
            // SAFETY: what the callers write lets this program go on.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}
control_register!(cr0, set_cr0, "cr0");
control_register!(cr2, set_cr2, "cr2");
control_register!(cr3, set_cr3, "cr3");
control_register!(cr4, set_cr4, "cr4");
control_register!(dr0, set_dr0, "dr0");
control_register!(dr1, set_dr1, "dr1");
control_register!(dr2, set_dr2, "dr2");
control_register!(dr3, set_dr3, "dr3");
control_register!(dr6, set_dr6, "dr6");
control_register!(dr7, set_dr7, "dr7");

/// CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let found = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [found.eax, found.ebx, found.ecx, found.edx]
}

/// Whether Ringfence says that it is there: leaf 4000_0000 spells its name.
pub fn is_below_ringfence() -> bool {
    let [_, first, second, third] = cpuid(0x4000_0000, 0);
    cpuid(1, 0)[2] >> 31 == 1
        && [first, second, third].map(u32::to_le_bytes).as_flattened() == b"Ringfence\0\0\0"
}

/// Masks every input of the two 8259A controllers: firmware may leave the timer's line open.
pub fn mask_legacy_interrupts() {
    port_out(0x21, 0xff);
    port_out(0xa1, 0xff);
}

/// Turns the machine off: sleep state S5 as Ringfence's ACPI tables give it (type 5), S5 of an emulated PIIX4 (type 0), and the debug exit of
/// QEMU. ACPI 6.5 section 4.8.3.2.1: SLP_TYP in bits 12–10, SLP_EN in bit 13.
pub fn power_off() -> ! {
    const CONTROL: u16 = 0x604;
    const SLEEP_ENABLE: u16 = 1 << 13;
    crate::console::Console::finish();
    port_out_word(CONTROL, 5 << 10 | SLEEP_ENABLE);
    port_out_word(CONTROL, SLEEP_ENABLE);
    port_out(0xf4, 0x10);
    loop {
        // SAFETY: nothing is left to do.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The time stamp counter, after everything before has been executed.
pub fn now() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// The linear address of entry `number` of the window's page table.
pub fn window_entry(number: usize) -> u64 {
    (&raw const WINDOW_TABLE as u64) + number as u64 * 8
}
