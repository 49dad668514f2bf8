//! `--until [NAME:]TEXT`.

use crate::console::{HYPERVISOR, Line};

/// What a run waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Until {
    /// The console on which it has to appear; on any if there is none.
    pub name: Option<String>,
    /// The text, which is part of one line.
    pub text: String,
}

impl Until {
    /// Reads the word. What stands before a colon is a console's name only if there is a compartment of that name.
    pub fn parse(word: &str, compartments: &[String]) -> Self {
        match word.split_once(':') {
            Some((name, text)) if name == HYPERVISOR || compartments.iter().any(|known| known == name) => {
                Self { name: Some(name.to_owned()), text: text.to_owned() }
            }
            _ => Self { name: None, text: word.to_owned() },
        }
    }

    /// Whether the line is what it waits for.
    pub fn holds(&self, line: &Line) -> bool {
        self.name.as_ref().is_none_or(|name| *name == line.name) && line.text.contains(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(word: &str) -> Until {
        Until::parse(word, &["office".to_owned(), "banking".to_owned()])
    }

    fn line(name: &str, text: &str) -> Line {
        Line { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_name_before_the_colon_means_that_console() {
        let until = until("office:login: ");
        assert_eq!(until.name.as_deref(), Some("office"));
        assert!(until.holds(&line("office", "debian login: ")));
        assert!(!until.holds(&line("banking", "debian login: ")));
    }

    #[test]
    fn another_word_before_a_colon_is_text() {
        let until = until("login: ");
        assert_eq!(until.name, None);
        assert!(until.holds(&line("banking", "debian login: ")));
        assert!(!until.holds(&line("banking", "debian login")));
    }

    #[test]
    fn the_hypervisor_has_a_console() {
        assert!(until("ringfence:started").holds(&line("ringfence", "office started")));
        assert!(!until("ringfence:started").holds(&line("office", "started")));
    }
}
