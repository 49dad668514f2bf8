//! The hypervisor's console: whole lines, each under the name of whoever speaks, so that no guest can forge one.
//!
//! `NAME| text` for a compartment, `ringfence| text` for the hypervisor. Control characters of a guest are escaped as `\xNN`;
//! what is not printable ASCII likewise. A compartment that the keyboard is attached to may also show a line that has no end
//! yet (a prompt), step back in it, and clear to its end; others never share that line.

use contracts::Host;
use core::fmt::Write;
use heapless::Vec;

/// Characters after which a line is broken.
pub const LINE_LIMIT: usize = 240;

/// The line that a compartment is writing. Private to it.
#[derive(Debug, Default)]
pub struct Line {
    text: Vec<u8, LINE_LIMIT>,
    /// What an escape sequence has come to: 0 none, 1 after ESC, 2 inside CSI.
    escape: u8,
}

/// What became of a byte.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fed {
    /// It is waiting in the line.
    Waiting,
    /// The line is complete: show it, then [`Line::clear`].
    Complete,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self { text: Vec::new(), escape: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> Fed {
        for byte in bytes {
            if self.text.push(*byte).is_err() {
                return Fed::Complete;
            }
        }
        if self.text.len() + 4 > LINE_LIMIT { Fed::Complete } else { Fed::Waiting }
    }

    /// Takes a byte of output. `attached` says that the keyboard is the compartment's, so that its line editing counts.
    pub fn feed(&mut self, byte: u8, attached: bool) -> Fed {
        if attached && self.edit(byte) {
            return Fed::Waiting;
        }
        match byte {
            b'\n' => Fed::Complete,
            b'\r' => Fed::Waiting,
            b'\t' | b' '..=b'~' => self.push(&[byte]),
            other => {
                let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
                self.push(&[b'\\', b'x', digit(other >> 4), digit(other & 15)])
            }
        }
    }

    /// Line editing of a shell: stepping back, and the escape sequences around a prompt. Answers whether the byte was one of these.
    fn edit(&mut self, byte: u8) -> bool {
        match (self.escape, byte) {
            (0, 0x1b) => self.escape = 1,
            (0, 0x08) => {
                self.text.pop();
            }
            (0, 0x07) => {}
            (1, b'[') => self.escape = 2,
            (1, _) => self.escape = 0,
            (2, 0x40..=0x7e) => self.escape = 0,
            (2, _) => {}
            _ => return false,
        }
        true
    }

    /// What is in it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Begins the next line.
    pub fn clear(&mut self) {
        self.text.clear();
    }
}

/// Who left a line open on the console, and how much of it is shown.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Open {
    who: u8,
    shown: usize,
}

/// The console that all share, behind a lock.
#[derive(Debug, Default)]
pub struct Console {
    open: Option<Open>,
}

impl Console {
    /// Nothing is shown yet.
    pub const fn new() -> Self {
        Self { open: None }
    }

    fn close(&mut self, host: &impl Host) {
        if self.open.take().is_some() {
            host.console_write(b"\r\n");
        }
    }

    /// Shows a complete line of compartment `who`.
    pub fn line(&mut self, host: &impl Host, who: u8, name: &str, text: &[u8]) {
        self.partial(host, who, name, text);
        self.open = None;
        host.console_write(b"\r\n");
    }

    /// Shows as much of a line as there is, and leaves it open.
    pub fn partial(&mut self, host: &impl Host, who: u8, name: &str, text: &[u8]) {
        let shown = match self.open {
            Some(open) if open.who == who => {
                // The line may have become shorter by stepping back: take back what is too much, on the screen too.
                for _ in text.len()..open.shown {
                    host.console_write(b"\x08 \x08");
                }
                open.shown.min(text.len())
            }
            _ => {
                self.close(host);
                host.console_write(name.as_bytes());
                host.console_write(b"| ");
                0
            }
        };
        host.console_write(text.get(shown..).unwrap_or_default());
        self.open = Some(Open { who, shown: text.len() });
    }

    /// Shows a line of the hypervisor's own.
    pub fn own(&mut self, host: &impl Host, text: core::fmt::Arguments<'_>) {
        self.close(host);
        host.console_write(b"ringfence| ");
        // Writing to the console cannot fail.
        let _ = Writer(host).write_fmt(text);
        host.console_write(b"\r\n");
    }
}

struct Writer<'host, H>(&'host H);

impl<H: Host> Write for Writer<'_, H> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.console_write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use contracts::fake::FakeHost;
    use std::string::String;

    fn show(bytes: &[u8], attached: bool) -> String {
        let (host, mut console, mut line) = (FakeHost::default(), Console::new(), Line::new());
        for byte in bytes {
            if line.feed(*byte, attached) == Fed::Complete {
                console.line(&host, 1, "office", line.text());
                line.clear();
            }
        }
        console.partial(&host, 1, "office", line.text());
        String::from_utf8(host.console().to_vec()).unwrap()
    }

    #[test]
    fn a_guest_cannot_forge_a_line() {
        let shown = show(b"hello\r\nringfence| all is well\n\x1b[2Jx\rbanking| y\n", false);
        assert_eq!(
            shown,
            "office| hello\r\noffice| ringfence| all is well\r\noffice| \\x1b[2Jxbanking| y\r\noffice| "
        );
        assert!(shown.split("\r\n").all(|line| line.starts_with("office| ")));
    }

    #[test]
    fn nor_can_it_when_the_keyboard_is_attached() {
        let shown = show(b"abc\x08\x08\x08\x08\x08\x08banking| \x1b[1;1Hx\n", true);
        assert_eq!(shown, "office| banking| x\r\noffice| ");
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let shown = show(&[b'a'; 1000], false);
        assert!(shown.split("\r\n").all(|line| line.len() <= LINE_LIMIT + 8));
        assert_eq!(shown.matches('a').count(), 1000);
    }

    #[test]
    fn an_open_line_is_closed_before_another_speaks() {
        let (host, mut console) = (FakeHost::default(), Console::new());
        console.partial(&host, 1, "office", b"$ ");
        console.own(&host, format_args!("report"));
        console.partial(&host, 1, "office", b"$ ls");
        console.partial(&host, 1, "office", b"$ l");
        console.line(&host, 2, "banking", b"x");
        assert_eq!(
            String::from_utf8(host.console().to_vec()).unwrap(),
            "office| $ \r\nringfence| report\r\noffice| $ ls\x08 \x08\r\nbanking| x\r\n"
        );
    }
}
