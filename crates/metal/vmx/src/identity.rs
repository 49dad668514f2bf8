//! Protected mode without paging, on a processor that has paging on in a guest always: a page table that translates each address to
//! itself (SDM Vol. 3A §4.3, 32-bit paging with pages of 4 MiB). The guest can read it, where nothing else is, and cannot change it.

use address::GuestPhysical;
use x86::Cr4;

/// Where the table lies in the guest's physical memory: below the reset vector, above all devices.
pub const ADDRESS: GuestPhysical = GuestPhysical::new(0xfffb_c000);

/// Bits of CR4 that stay off meanwhile: they would give the table another form, or forbid what no paging allows.
pub const CR4_OFF: Cr4 = Cr4::PHYSICAL_ADDRESS
    .union(Cr4::PROCESS_CONTEXT)
    .union(Cr4::SUPERVISOR_EXECUTION)
    .union(Cr4::SUPERVISOR_ACCESS)
    .union(Cr4::PROTECTION_KEYS);

/// The table's entry for the 4 MiB from `number` times 4 MiB on: present, written and executed by everybody; accessed and dirty already, so that the
/// processor never has to write them.
pub const fn entry(number: u32) -> u32 {
    number << 22 | 0xe7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_leads_to_itself() {
        // SDM Vol. 3A table 4-4: P, R/W, U/S, A, D, PS; the page's address in bits 31 to 22.
        assert_eq!([entry(0), entry(1), entry(1023)], [0x0000_00e7, 0x0040_00e7, 0xffc0_00e7]);
    }
}
