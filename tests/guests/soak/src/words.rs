//! The command line, and lines whose length must be known before they are printed.

use core::fmt;

/// What the command line says.
pub struct Settings {
    /// `seed=`, hexadecimal.
    pub seed: u64,
    /// `seconds=`: how long the compartment lives, all its lives together.
    pub seconds: u64,
}

/// `hvm_start_info.magic`.
const MAGIC: u32 = 0x336e_c578;
/// Offset of `hvm_start_info.cmdline_paddr`.
const COMMAND_LINE: u64 = 24;
/// Longer command lines are cut.
const LIMIT: usize = 512;

impl Settings {
    /// Reads PVH's start information at that address.
    pub fn read(information: u64) -> Self {
        let mut settings = Self { seed: 0, seconds: 0 };
        // SAFETY: the loader's information lies in memory, all of which is mapped to itself.
        let (magic, line) = unsafe {
            (
                (information as *const u32).read_unaligned(),
                ((information + COMMAND_LINE) as *const u64).read_unaligned() as *const u8,
            )
        };
        assert!(magic == MAGIC && !line.is_null(), "not started by PVH with a command line");
        let mut text = [0; LIMIT];
        for (index, byte) in text.iter_mut().enumerate() {
            // SAFETY: the loader ends the line with a zero, behind which nothing is read.
            *byte = unsafe { line.add(index).read() };
            if *byte == 0 {
                break;
            }
        }
        let length = text.iter().position(|byte| *byte == 0).unwrap_or(LIMIT);
        for word in core::str::from_utf8(&text[..length]).unwrap_or("").split(' ') {
            if let Some(digits) = word.strip_prefix("seed=") {
                settings.seed = u64::from_str_radix(digits, 16).unwrap_or(0);
            } else if let Some(digits) = word.strip_prefix("seconds=") {
                settings.seconds = digits.parse().unwrap_or(0);
            }
        }
        settings
    }
}

/// A line of at most 240 bytes, which is what the hypervisor's console shows in one.
pub struct Line {
    text: [u8; 240],
    length: usize,
}

impl Line {
    /// An empty one.
    pub fn new() -> Self {
        Self { text: [0; 240], length: 0 }
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.text.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
