//! I/O ports. Every function is unsafe: a port can do anything to the machine, DMA included.

use core::arch::asm;

macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $register:tt, $words:literal) => {
        #[doc = concat!("Reads ", $words, " from `port`.")]
        ///
        /// # Safety
        ///
        /// The caller knows the device at that port and what reading it does.
        #[inline(always)]
        pub unsafe fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: IN changes no memory of ours; what the device does is the caller's promise.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $words, " to `port`.")]
        ///
        /// # Safety
        ///
        /// The caller knows the device at that port and what the value does to it.
        #[inline(always)]
        pub unsafe fn $write(port: u16, value: $type) {
            // SAFETY: OUT changes no memory of ours; what the device does is the caller's promise.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port!(read_u8, write_u8, u8, "al", "one byte");
port!(read_u16, write_u16, u16, "ax", "two bytes");
port!(read_u32, write_u32, u32, "eax", "four bytes");
