//! A compartment's memory as the hypervisor sees it: by checked copies only.

use address::GuestPhysical;

/// The range named is not wholly the compartment's RAM. Nothing was read or written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NotMemory;

/// Checked copies to and from the RAM of the compartment that is being served.
///
/// The guest's other processors may change any byte at any time: a value read once may differ when read again, so
/// read once, then check, then use what was read.
pub trait GuestMemory {
    /// Copies `into.len()` bytes from `at`; all or nothing.
    fn read(&self, at: GuestPhysical, into: &mut [u8]) -> Result<(), NotMemory>;

    /// Copies `from` to `at`; all or nothing.
    fn write(&self, at: GuestPhysical, from: &[u8]) -> Result<(), NotMemory>;

    /// Reads eight bytes, little-endian, as one access where `at` is aligned. The hot half of every page walk.
    fn read_quad(&self, at: GuestPhysical) -> Result<u64, NotMemory> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Replaces the aligned eight bytes at `at` by `new` if they are `old`, in one access; answers whether they were. False too where
    /// they are unaligned or no RAM.
    fn exchange_quad(&self, at: GuestPhysical, old: u64, new: u64) -> bool;

    /// Sets at most `length` bytes of RAM to zero, from byte number `start` on, counted without holes. Answers how many there were: 0
    /// behind the last.
    fn clear_from(&self, start: u64, length: u64) -> u64;

    /// As [`GuestMemory::read_quad`], where that costs a comparison; `None` where it costs more, or is refused: ask the other.
    #[inline(always)]
    fn glance(&self, at: GuestPhysical) -> Option<u64> {
        self.read_quad(at).ok()
    }

    /// Sets all of the compartment's RAM to zero.
    fn clear(&self) {
        let mut start = 0;
        loop {
            match self.clear_from(start, u64::MAX) {
                0 => return,
                cleared => start += cleared,
            }
        }
    }

    /// Copies `length` bytes of the boot module, from `source` bytes behind its first, to `target`; all or nothing.
    /// Refused where they are not bytes that this compartment's plan names.
    fn load(&self, source: u64, length: u64, target: GuestPhysical) -> Result<(), NotMemory>;
}
