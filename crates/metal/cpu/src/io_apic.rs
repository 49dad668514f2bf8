//! The host's I/O APICs: all lines masked, but for the serial port's (Intel 82093AA data sheet, §3).

/// Where the first one's registers are mapped; each further one a page behind.
pub const ADDRESS: usize = crate::apic::ADDRESS + 0x1000;
/// The most I/O APICs that are used.
pub const MOST: usize = 8;

/// One I/O APIC, mapped.
#[derive(Copy, Clone, Debug)]
pub struct IoApic {
    registers: usize,
    first: u32,
}

impl IoApic {
    /// The I/O APIC whose page is mapped as number `index`, with its first global interrupt `first`.
    ///
    /// # Safety
    ///
    /// The page is mapped uncached at [`ADDRESS`] + `index` pages, holds an I/O APIC, and nobody else uses it.
    pub const unsafe fn new(index: usize, first: u32) -> Self {
        Self { registers: ADDRESS + index * 0x1000, first }
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: `new`'s promise: index at offset 0, data at offset 10h.
        unsafe {
            core::ptr::write_volatile(self.registers as *mut u32, register);
            core::ptr::read_volatile((self.registers + 0x10) as *const u32)
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: As in `read`.
        unsafe {
            core::ptr::write_volatile(self.registers as *mut u32, register);
            core::ptr::write_volatile((self.registers + 0x10) as *mut u32, value);
        }
    }

    /// Number of its lines, 1 to 240.
    pub fn lines(&self) -> u32 {
        ((self.read(1) >> 16 & 0xff) + 1).min(240)
    }

    /// Masks all lines.
    pub fn mask(&self) {
        for line in 0..self.lines() {
            self.write(0x10 + 2 * line, 1 << 16);
        }
    }

    /// Sends a global interrupt to the processor with the identifier `target` (8 bits) at `vector`. False if the line is
    /// not one of this I/O APIC's, or the target cannot be named.
    pub fn route(&self, interrupt: u32, vector: u8, target: u32, low_active: bool, level: bool) -> bool {
        let Some(line) = interrupt.checked_sub(self.first) else { return false };
        if line >= self.lines() || target > 0xff {
            return false;
        }
        self.write(0x11 + 2 * line, target << 24);
        self.write(0x10 + 2 * line, u32::from(vector) | u32::from(low_active) << 13 | u32::from(level) << 15);
        true
    }
}
