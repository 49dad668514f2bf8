//! Bytes that are read as numbers, each at most once.

use x86::Width;

/// What is left of an input. Behind its end all is zero.
#[derive(Debug)]
pub struct Tape {
    bytes: Vec<u8>,
    at: usize,
}

impl Tape {
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), at: 0 }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next bytes, at most `count` of them.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let end = (self.at + count).min(self.bytes.len());
        let bytes = self.bytes[self.at..end].to_vec();
        self.at = end;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> Vec<u8> {
        self.bytes(self.bytes.len())
    }

    fn number<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut number = [0; COUNT];
        let bytes = self.bytes(COUNT);
        number[..bytes.len()].copy_from_slice(&bytes);
        number
    }

    pub fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.number())
    }

    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.number())
    }

    pub fn double(&mut self) -> u32 {
        u32::from_le_bytes(self.number())
    }

    pub fn quad(&mut self) -> u64 {
        u64::from_le_bytes(self.number())
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// One of some.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A number that costs few bytes where it is one of those on which arithmetic breaks.
    pub fn value(&mut self) -> u64 {
        match self.byte() {
            0 => self.word().into(),
            1 => self.double().into(),
            2 => self.quad(),
            3 => !u64::from(self.word()),
            4 => (1 << 32) - 1 - u64::from(self.byte()),
            5 => 1 << (self.byte() & 63),
            6 => (1_u64 << (self.byte() & 63)) - 1,
            7 => 0x8000_0000_0000_0000 | self.quad(),
            small => u64::from(small - 8),
        }
    }

    /// 1, 2, 4 or 8 bytes.
    pub fn width(&mut self) -> Width {
        self.one_of(&[Width::Byte, Width::Word, Width::Double, Width::Quad])
    }

    /// The width of a port access: 1, 2 or 4 bytes.
    pub fn port_width(&mut self) -> Width {
        self.one_of(&[Width::Byte, Width::Word, Width::Double])
    }
}
