//! From the machine's serial bytes to console lines.
//!
//! The hypervisor writes whole lines, `NAME| text`, of which it has escaped everything that a guest could forge one with.
//! What firmware and boot loader say before its first line is not the product's, and is dropped.

/// The hypervisor's own name on its lines.
pub const HYPERVISOR: &str = "ringfence";
/// The longest line that is kept whole, in bytes. The hypervisor's own lines are far shorter.
const LINE_LIMIT: usize = 64 * 1024;

/// One line of a console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Whose it is: a compartment, or [`HYPERVISOR`].
    pub name: String,
    /// What it says, without the end of the line.
    pub text: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}| {}", self.name, self.text)
    }
}

/// Cuts a stream of bytes into console lines, and drops the rest.
#[derive(Clone, Debug)]
pub struct Filter {
    names: Vec<String>,
    begun: bool,
    partial: Vec<u8>,
}

impl Filter {
    /// A filter that knows these compartments.
    pub fn new(compartments: impl IntoIterator<Item = String>) -> Self {
        let names = compartments.into_iter().chain([HYPERVISOR.to_owned()]).collect();
        Self { names, begun: false, partial: Vec::new() }
    }

    /// Whether the hypervisor has spoken.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Takes bytes, gives the lines that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let partial = std::mem::take(&mut self.partial);
                lines.extend(self.line(&String::from_utf8_lossy(&partial)));
            } else if self.partial.len() < LINE_LIMIT {
                self.partial.push(byte);
            }
        }
        lines
    }

    /// The stream has ended: gives the last line if it is one without an end.
    pub fn finish(&mut self) -> Option<Line> {
        let partial = std::mem::take(&mut self.partial);
        self.line(&String::from_utf8_lossy(&partial))
    }

    fn line(&mut self, raw: &str) -> Option<Line> {
        let mut raw = raw.trim_end_matches('\r');
        if !self.begun {
            // Firmware may have left the cursor in the middle of a line.
            raw = raw.find("ringfence| ").and_then(|start| raw.get(start..))?;
            self.begun = true;
        }
        // A line without text may come without its space.
        let (name, text) = raw.split_once('|')?;
        let text = if text.is_empty() { text } else { text.strip_prefix(' ')? };
        let known = self.names.iter().any(|known| known == name);
        known.then(|| Line { name: name.to_owned(), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter::new(["office".to_owned(), "banking".to_owned()])
    }

    fn show(lines: &[Line]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn firmware_is_dropped() {
        let mut filter = filter();
        let noise = b"\x1bc\x1b[?7l\x1b[2JSeaBIOS (version 1.16.2)\r\niPXE| x\r\noffice| not yet\r\n";
        assert_eq!(filter.feed(noise), []);
        assert!(!filter.begun());
        let lines = filter.feed(b"Booting from ROM..ringfence| profile lab\r\noffice| hello\r\n");
        assert_eq!(show(&lines), ["ringfence| profile lab", "office| hello"]);
        assert!(filter.begun());
    }

    #[test]
    fn lines_may_come_in_any_pieces() {
        let stream = "ringfence| one\r\noffice| zwei \u{fc}\r\nbanking| \r\n".as_bytes();
        for cut in 0..stream.len() {
            let mut filter = filter();
            let mut lines = filter.feed(&stream[..cut]);
            lines.extend(filter.feed(&stream[cut..]));
            assert_eq!(show(&lines), ["ringfence| one", "office| zwei \u{fc}", "banking| "]);
        }
    }

    #[test]
    fn only_known_names_pass() {
        let mut filter = filter();
        let lines =
            filter.feed(b"ringfence| a\nstranger| b\nno bar\noffice|no space\noffice|\nbanking| c | d\n");
        assert_eq!(show(&lines), ["ringfence| a", "office| ", "banking| c | d"]);
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let mut filter = filter();
        filter.feed(b"ringfence| a\nringfence| host fault");
        assert_eq!(filter.finish().unwrap().to_string(), "ringfence| host fault");
        assert_eq!(filter.finish(), None);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut filter = filter();
        filter.feed(b"ringfence| a\noffice| ");
        filter.feed(&vec![b'x'; 10 * LINE_LIMIT]);
        let lines = filter.feed(b"\n");
        assert!(lines[0].text.len() <= LINE_LIMIT);
    }
}
