//! The receiver's FIFO.

/// "16 byte FIFO" of the 16550.
pub(crate) const CAPACITY: u8 = 16;

/// Up to sixteen bytes in order.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fifo {
    bytes: [u8; CAPACITY as usize],
    first: u8,
    count: u8,
}

impl Fifo {
    pub(crate) const fn count(&self) -> u8 {
        self.count
    }

    const fn slot(&self, distance: u8) -> usize {
        (self.first.wrapping_add(distance) % CAPACITY) as usize
    }

    /// Adds a byte; false, and nothing changed, when it is full.
    pub(crate) const fn push(&mut self, byte: u8) -> bool {
        if self.count >= CAPACITY {
            return false;
        }
        self.bytes[self.slot(self.count)] = byte;
        self.count += 1;
        true
    }

    pub(crate) const fn pop(&mut self) -> Option<u8> {
        if self.count == 0 {
            return None;
        }
        let byte = self.bytes[self.slot(0)];
        self.first = (self.first + 1) % CAPACITY;
        self.count -= 1;
        Some(byte)
    }

    pub(crate) const fn clear(&mut self) {
        self.count = 0;
    }
}
