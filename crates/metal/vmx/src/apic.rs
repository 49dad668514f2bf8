//! The virtual-APIC page: where the processor holds the local APIC's requests, services and priority while the guest runs (SDM Vol. 3C
//! §30.1.1).

use address::HostPhysical;
use core::ptr::NonNull;
use x86::interrupts::{InterruptRegisters, VectorSet};

/// Offsets of the registers in the page; those of a set of vectors follow each other at each 16th byte.
const TASK_PRIORITY: usize = 0x80;
const IN_SERVICE: usize = 0x100;
const REQUESTED: usize = 0x200;

/// A virtual-APIC page. While the processor holds no registers in it, its sets of vectors are empty.
pub struct RegisterPage {
    pointer: NonNull<u8>,
    physical: HostPhysical,
}

impl RegisterPage {
    /// That page.
    ///
    /// # Safety
    /// It is 4096 bytes of zeros that begin where 4096 divides the address, and nobody uses them but this value and the processor. They are mapped
    /// whenever [`Self::store`] or [`Self::load`] is called.
    pub const unsafe fn new(pointer: NonNull<u8>, physical: HostPhysical) -> Self {
        Self { pointer, physical }
    }

    /// Where it is on the bus.
    pub const fn physical(&self) -> HostPhysical {
        self.physical
    }

    fn write(&mut self, offset: usize, value: u32) {
        // SAFETY: the offsets are this file's, below 4096 and multiples of 4; the rest is `new`'s contract.
        unsafe { self.pointer.byte_add(offset).cast::<u32>().write_volatile(value) };
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: as in `write`.
        unsafe { self.pointer.byte_add(offset).cast::<u32>().read_volatile() }
    }

    /// Moves priority, requests and services into the page. Answers the guest interrupt status that goes with them: the highest vector that is
    /// requested below the highest one in service, 0 where there is none (SDM Vol. 3C §25.4.2).
    pub fn store(&mut self, registers: &mut InterruptRegisters) -> u64 {
        let highest = |set: &VectorSet| set.highest().map_or(0, |place| u64::from(place.vector()));
        let status = highest(&registers.in_service) << 8 | highest(&registers.requested);
        self.write(TASK_PRIORITY, core::mem::take(&mut registers.task_priority).into());
        registers.requested.drain(|number, bits| self.write(REQUESTED + 16 * usize::from(number), bits));
        registers.in_service.drain(|number, bits| self.write(IN_SERVICE + 16 * usize::from(number), bits));
        status
    }

    /// Moves back what [`Self::store`] moved, as the processor left it with that status: above the vectors there, the sets are empty. What was
    /// requested meanwhile stays.
    pub fn load(&mut self, registers: &mut InterruptRegisters, status: u64) {
        registers.task_priority = self.read(TASK_PRIORITY) as u8;
        self.load_set(REQUESTED, status as u8, &mut registers.requested);
        self.load_set(IN_SERVICE, (status >> 8) as u8, &mut registers.in_service);
    }

    fn load_set(&mut self, first: usize, highest: u8, set: &mut VectorSet) {
        if highest == 0 {
            return;
        }
        for number in 0..=highest >> 5 {
            let offset = first + 16 * usize::from(number);
            let bits = self.read(offset);
            if bits != 0 {
                set.add_word(number, bits);
                self.write(offset, 0);
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;
    use x86::interrupts::Place;

    #[repr(C, align(4096))]
    struct Bytes([u8; 4096]);

    /// A page that lives as long as the test, as if at 0x9000.
    pub fn page() -> RegisterPage {
        let bytes = NonNull::from(Box::leak(Box::new(Bytes([0; 4096]))));
        // SAFETY: the page was allocated a moment ago, aligned, and is never freed.
        unsafe { RegisterPage::new(bytes.cast(), HostPhysical::new(0x9000)) }
    }

    pub fn registers(task_priority: u8, in_service: &[u8], requested: &[u8]) -> InterruptRegisters {
        let set = |vectors: &[u8]| {
            let mut set = VectorSet::new();
            vectors.iter().for_each(|vector| set.insert(Place::of(*vector)));
            set
        };
        InterruptRegisters {
            task_priority,
            in_service: set(in_service),
            requested: set(requested),
            level: VectorSet::new(),
        }
    }

    #[test]
    fn registers_lie_where_the_manual_says() {
        let mut page = page();
        let mut moved = registers(0x35, &[0x31, 0xff], &[0x10, 0x41]);
        assert_eq!(page.store(&mut moved), 0xff41, "the status names the highest of both");
        assert_eq!(moved, registers(0, &[], &[]));
        // SDM Vol. 3A table 11-1: TPR, ISR 32 to 63 and 224 to 255, IRR 0 to 31 and 64 to 95.
        let offsets = [0x80, 0x110, 0x170, 0x200, 0x220];
        assert_eq!(offsets.map(|offset| page.read(offset)), [0x35, 1 << 17, 1 << 31, 1 << 16, 2]);
        let sum: u32 = (0..1024).map(|word| page.read(4 * word).count_ones()).sum();
        assert_eq!(sum, 4 + 4, "and nothing else");
        page.load(&mut moved, 0xff41);
        assert_eq!(moved, registers(0x35, &[0x31, 0xff], &[0x10, 0x41]));
        assert_eq!(offsets[1..].iter().map(|offset| page.read(*offset)).sum::<u32>(), 0);
        assert_eq!(page.store(&mut registers(0, &[], &[])), 0);
    }

    #[test]
    fn what_the_processor_left_comes_back() {
        let mut page = page();
        let mut moved = registers(0x20, &[0x31], &[0x41]);
        page.store(&mut moved);
        // It delivers 41h, after the guest has sent itself 22h, which waits.
        page.write(0x120, 2);
        page.write(0x220, 0);
        page.write(0x210, 4);
        page.write(TASK_PRIORITY, 0x30);
        moved.requested.insert(Place::of(0xec));
        page.load(&mut moved, 0x4122);
        assert_eq!(moved, registers(0x30, &[0x31, 0x41], &[0x22, 0xec]));
    }
}
