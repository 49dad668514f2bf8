//! The RAM of one compartment, as the hypervisor sees it while it serves that compartment.

use crate::{MOST_EXTENTS, OwnedFrames, PAYLOAD_OFFSET, copy};
use address::GuestPhysical;
use contracts::{GuestMemory, NotMemory};
use heapless::Vec;

/// Where RAM goes on after the hole below 4 GiB.
pub(crate) const HIGH_START: u64 = 1 << 32;
/// Most ranges of the boot module that a compartment is filled from.
pub const MOST_PAYLOADS: usize = 32;

/// A piece of RAM: where the guest sees it, and the frames that it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Guest-physical address of the first byte.
    pub at: GuestPhysical,
    /// The frames.
    pub frames: OwnedFrames,
}

/// Room for all extents: one of them may be cut in two by the hole.
pub(crate) type Extents = Vec<Extent, { MOST_EXTENTS + 1 }>;

/// Checked access to RAM at guest-physical 0 and, where there is more, at 4 GiB.
///
/// Borrowed only while the compartment's space is loaded: the addresses mean nothing elsewhere.
#[derive(Debug)]
pub struct Ram {
    /// Linear address of guest-physical 0.
    base: usize,
    /// Number of addresses from 0 at which eight bytes can be read: `low` less 7.
    quads: u64,
    /// Bytes from 0.
    low: u64,
    /// Bytes from 4 GiB.
    high: u64,
    /// Linear address of the boot module's first byte.
    module: usize,
    /// Which bytes of the boot module are mapped: offset and length.
    payloads: Vec<(u64, u64), MOST_PAYLOADS>,
    extents: Extents,
}

impl Ram {
    /// RAM that is mapped at `base` when the compartment's space is loaded. `misalignment` is the module's offset in its first
    /// 2 MiB page.
    pub(crate) fn new(
        base: usize,
        low: u64,
        high: u64,
        misalignment: u64,
        payloads: Vec<(u64, u64), MOST_PAYLOADS>,
        extents: Extents,
    ) -> Self {
        let module = base + PAYLOAD_OFFSET + misalignment as usize;
        Self { base, quads: low.saturating_sub(7), low, high, module, payloads, extents }
    }

    /// The frames that this RAM consists of, by rising guest-physical address.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes of RAM.
    pub fn bytes(&self) -> u64 {
        self.low + self.high
    }

    /// Where `length` bytes at `at` are mapped, if all of them are RAM.
    #[inline(always)]
    fn locate(&self, at: GuestPhysical, length: u64) -> Result<usize, NotMemory> {
        let at = at.get();
        let fits = |start: u64, size: u64| {
            at.checked_sub(start).is_some_and(|offset| offset <= size && size - offset >= length)
        };
        if fits(0, self.low) || fits(HIGH_START, self.high) {
            Ok(self.base.wrapping_add(at as usize))
        } else {
            Err(NotMemory)
        }
    }

    /// A quad that is not below the hole: seldom.
    #[cold]
    fn read_high_quad(&self, at: GuestPhysical) -> Result<u64, NotMemory> {
        let from = self.locate(at, 8)?;
        // SAFETY: `locate`: eight bytes of mapped RAM.
        Ok(unsafe { copy::load_quad(from as *const u8) })
    }
}

impl GuestMemory for Ram {
    #[inline]
    fn read(&self, at: GuestPhysical, into: &mut [u8]) -> Result<(), NotMemory> {
        let from = self.locate(at, into.len() as u64)?;
        // SAFETY: `locate`: all of it is mapped RAM. `into` is the hypervisor's own memory, which is never a compartment's RAM, so
        // that they do not overlap.
        unsafe { copy::copy(from as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    #[inline]
    fn write(&self, at: GuestPhysical, from: &[u8]) -> Result<(), NotMemory> {
        let to = self.locate(at, from.len() as u64)?;
        // SAFETY: As in `read`; no Rust reference ever points into RAM.
        unsafe { copy::copy(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    #[inline(always)]
    fn read_quad(&self, at: GuestPhysical) -> Result<u64, NotMemory> {
        match self.glance(at) {
            Some(quad) => Ok(quad),
            None => self.read_high_quad(at),
        }
    }

    #[inline(always)]
    fn glance(&self, at: GuestPhysical) -> Option<u64> {
        if at.get() < self.quads {
            // SAFETY: All eight bytes lie below `low` and are mapped.
            return Some(unsafe { copy::load_quad(self.base.wrapping_add(at.get() as usize) as *const u8) });
        }
        None
    }

    fn exchange_quad(&self, at: GuestPhysical, old: u64, new: u64) -> bool {
        match self.locate(at, 8) {
            // SAFETY: `locate`: eight bytes of mapped RAM; they are aligned, and nobody borrows them.
            Ok(place) if at.is_aligned(8) => unsafe { copy::exchange_quad(place as *mut u8, old, new) },
            _ => false,
        }
    }

    fn clear_from(&self, start: u64, length: u64) -> u64 {
        // Eight bytes are the least that is cleared at once; RAM is whole pages.
        let start = start & !7;
        let (at, left) = if start < self.low {
            (start, self.low - start)
        } else {
            let behind = start - self.low;
            (HIGH_START.saturating_add(behind), self.high.saturating_sub(behind))
        };
        let length = length.min(left).next_multiple_of(8).min(left);
        if length > 0 {
            // SAFETY: `length` bytes at `at` are what is left of mapped RAM, or less, and nobody borrows them.
            unsafe { copy::clear(self.base.wrapping_add(at as usize) as *mut u8, length as usize) };
        }
        length
    }

    fn load(&self, source: u64, length: u64, target: GuestPhysical) -> Result<(), NotMemory> {
        let named = self.payloads.iter().any(|(start, size)| {
            source.checked_sub(*start).is_some_and(|offset| offset <= *size && *size - offset >= length)
        });
        if !named {
            return Err(NotMemory);
        }
        let to = self.locate(target, length)?;
        let from = self.module.wrapping_add(source as usize);
        // SAFETY: The payload's pages are mapped and never written; `locate`: the target is mapped RAM, elsewhere.
        unsafe { copy::copy(from as *const u8, to as *mut u8, length as usize) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: usize = 0x4000;

    /// RAM of 16 KiB in an array of the test.
    fn ram(bytes: &mut [u8; LOW]) -> Ram {
        Ram::new(bytes.as_mut_ptr() as usize, LOW as u64, 0, 0, Vec::new(), Vec::new())
    }

    fn at(address: u64) -> GuestPhysical {
        GuestPhysical::new(address)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beside_it() {
        let mut bytes = [0; LOW];
        let ram = ram(&mut bytes);
        for length in [0usize, 1, 7, 8, 9, 15, 16, 33] {
            let data: std::vec::Vec<u8> = (1..=length as u8).collect();
            ram.clear();
            ram.write(at(0x1003), &data).unwrap();
            let mut back = vec![0xff; length + 2];
            ram.read(at(0x1002), &mut back).unwrap();
            assert_eq!(back[1..=length], data);
            assert_eq!((back[0], back[length + 1]), (0, 0));
        }
    }

    #[test]
    fn the_last_byte_is_memory_and_the_next_is_not() {
        let mut bytes = [0; LOW];
        let ram = ram(&mut bytes);
        let end = LOW as u64;
        assert!(ram.write(at(end - 3), &[1, 2, 3]).is_ok());
        assert_eq!(ram.write(at(end - 2), &[9, 9, 9]), Err(NotMemory));
        let mut back = [0; 3];
        ram.read(at(end - 3), &mut back).unwrap();
        assert_eq!(back, [1, 2, 3], "a refused write wrote something");
        assert!(ram.read_quad(at(end - 8)).is_ok());
        for address in [end - 7, end, HIGH_START - 8, HIGH_START - 1, HIGH_START, u64::MAX - 7, u64::MAX] {
            assert_eq!(ram.read_quad(at(address)), Err(NotMemory), "{address:#x}");
            assert_eq!(ram.read(at(address), &mut [0; 8]), Err(NotMemory), "{address:#x}");
        }
    }

    #[test]
    fn pieces_are_cleared_and_nothing_beside_them() {
        let mut bytes = [0xff; LOW];
        let ram = ram(&mut bytes);
        assert_eq!(ram.clear_from(0x1000, 0x800), 0x800);
        let mut around = [0; 10];
        ram.read(at(0xffb), &mut around).unwrap();
        assert_eq!(around, [0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]);
        ram.read(at(0x17fb), &mut around).unwrap();
        assert_eq!(around, [0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(ram.clear_from(LOW as u64 - 0x10, u64::MAX), 0x10);
        assert_eq!(ram.clear_from(LOW as u64, u64::MAX), 0);
        assert_eq!(ram.clear_from(u64::MAX, u64::MAX), 0);
        ram.clear();
        assert!((0..LOW as u64).step_by(8).all(|address| ram.read_quad(at(address)) == Ok(0)));
    }

    #[test]
    fn a_quad_is_exchanged_only_where_it_is_as_expected() {
        let mut bytes = [0; LOW];
        let ram = ram(&mut bytes);
        assert!(ram.exchange_quad(at(0x100), 0, 7));
        assert!(!ram.exchange_quad(at(0x100), 0, 9));
        assert_eq!(ram.read_quad(at(0x100)), Ok(7));
        assert!(!ram.exchange_quad(at(0x101), 0, 9), "unaligned");
        assert!(!ram.exchange_quad(at(LOW as u64), 0, 9), "no memory");
    }

    #[test]
    fn a_quad_is_little_endian_at_any_alignment() {
        let mut bytes = [0; LOW];
        let ram = ram(&mut bytes);
        ram.write(at(0x11), &0x1122_3344_5566_7788u64.to_le_bytes()).unwrap();
        assert_eq!(ram.read_quad(at(0x11)), Ok(0x1122_3344_5566_7788));
    }

    #[test]
    fn memory_above_the_hole_is_found_there() {
        let ram = Ram::new(0x1000, 0xc000_0000, 0x20_0000, 0, Vec::new(), Vec::new());
        assert_eq!(ram.locate(at(0xbfff_fff8), 8), Ok(0xbfff_fff8 + 0x1000));
        assert_eq!(ram.locate(at(0xbfff_fff9), 8), Err(NotMemory));
        assert_eq!(ram.locate(at(0xc000_0000), 1), Err(NotMemory));
        assert_eq!(ram.locate(at(HIGH_START - 1), 2), Err(NotMemory));
        assert_eq!(ram.locate(at(HIGH_START + 0x1f_fff8), 8), Ok(0x1_001f_fff8 + 0x1000));
        assert_eq!(ram.locate(at(HIGH_START + 0x1f_fff9), 8), Err(NotMemory));
        assert_eq!(ram.locate(at(HIGH_START), u64::MAX), Err(NotMemory));
    }

    #[test]
    fn only_named_payloads_are_copied() {
        let mut bytes = [0; LOW];
        let mut module = [0u8; 0x100];
        module.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
        let mut ram = ram(&mut bytes);
        ram.module = module.as_ptr() as usize;
        ram.payloads.push((0x20, 0x40)).unwrap();
        ram.load(0x21, 0x3f, at(5)).unwrap();
        let mut back = [0; 0x3f];
        ram.read(at(5), &mut back).unwrap();
        assert_eq!(back[..], module[0x21..0x60]);
        for (source, length) in [(0x1f, 1), (0x20, 0x41), (0x60, 1), (0, 0), (u64::MAX, 2), (0x20, u64::MAX)]
        {
            assert_eq!(ram.load(source, length, at(0)), Err(NotMemory), "{source:#x}+{length:#x}");
        }
        assert_eq!(ram.load(0x20, 0x40, at(LOW as u64 - 0x3f)), Err(NotMemory));
    }
}
