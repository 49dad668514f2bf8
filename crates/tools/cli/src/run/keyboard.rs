//! The keyboard of an interactive run.
//!
//! Bytes go to the hypervisor as they are: Ctrl-] with a digit is its own way to switch compartments. Only Ctrl-] q is the
//! run's: it ends it.

use std::io::{self, IsTerminal, Read};
use std::thread;

use bench::Input;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

/// An attached keyboard. Dropping it gives the terminal back as it was.
pub struct Keyboard {
    before: Option<Termios>,
}

/// Attaches standard input to the machine's console; `quit` is called at Ctrl-] q.
pub fn attach(input: Input, quit: impl Fn() + Send + 'static) -> Keyboard {
    let before = raw();
    if before.is_some() {
        eprintln!("press Ctrl-] 1, Ctrl-] 2 … to attach the keyboard to a compartment, Ctrl-] q to end\r");
    }
    thread::spawn(move || {
        let mut escape = Escape::default();
        let mut buffer = [0; 1024];
        // The end of standard input detaches the keyboard; the run goes on.
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
            let (bytes, ends) = escape.feed(buffer.get(..count).unwrap_or_default());
            input.send(&bytes);
            if ends {
                quit();
            }
        }
    });
    Keyboard { before }
}

/// Puts the terminal, if it is one, into raw mode: no echo, no line editing, no signals; gives its mode before.
fn raw() -> Option<Termios> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    let before = tcgetattr(&stdin).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    // The consoles' lines end as lines of this program do.
    raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
    tcsetattr(&stdin, OptionalActions::Flush, &raw).ok()?;
    Some(before)
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Finds Ctrl-] q among the bytes.
#[derive(Default)]
struct Escape {
    pending: bool,
}

impl Escape {
    /// What goes to the machine, and whether the run ends.
    fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::new();
        for &byte in bytes {
            match (self.pending, byte) {
                (false, ESCAPE) => self.pending = true,
                (true, b'q') => return (passed, true),
                (true, _) => {
                    self.pending = false;
                    passed.extend([ESCAPE, byte]);
                }
                (false, _) => passed.push(byte),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_back() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(b"ls\x1d"), (b"ls".to_vec(), false));
        assert_eq!(escape.feed(b"2q"), (b"\x1d2q".to_vec(), false));
        assert_eq!(escape.feed(b"\x1d\x1dq"), (b"\x1d\x1dq".to_vec(), false));
        assert_eq!(escape.feed(b"a\x1dqb"), (b"a".to_vec(), true));
    }
}
