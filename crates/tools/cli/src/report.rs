//! What the hypervisor reports of each compartment, and the JSON that `run` closes with.
//!
//! `report NAME state=shut-down reason="…" restarts=0 exits cpuid=12 port=345 audit denied=0 unknown=3`: words
//! `key=value`, a text in quotes with `\"` and `\\`; the words `exits` and `audit` begin the two lists of counters.

use std::collections::BTreeMap;

use serde::Serialize;

/// Where a compartment is in its life.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs, or has said nothing else.
    Running,
    /// It has shut itself down.
    ShutDown,
    /// It has reset itself, and stays down by its manifest.
    Reset,
    /// It is suspended.
    Suspended,
    /// Ringfence has stopped it.
    Stopped,
}

impl State {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "running" => Self::Running,
            "shut-down" => Self::ShutDown,
            "reset" => Self::Reset,
            "suspended" => Self::Suspended,
            "stopped" => Self::Stopped,
            _ => return None,
        })
    }
}

/// One compartment at the end of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Compartment {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// Why it ended, if anything is to be said.
    pub reason: Option<String>,
    /// How often it has started again.
    pub restarts: u64,
    /// Exits by kind.
    pub exits: BTreeMap<String, u64>,
    /// Audit entries by kind.
    pub audit: BTreeMap<String, u64>,
}

impl Compartment {
    /// A compartment that has reported nothing.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Running,
            reason: None,
            restarts: 0,
            exits: BTreeMap::new(),
            audit: BTreeMap::new(),
        }
    }

    /// Reads a line of the hypervisor; `None` if it is no report, or a malformed one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = split(text)?.into_iter();
        if words.next()? != "report" {
            return None;
        }
        let mut compartment = Self::new(&words.next()?);
        let mut state = None;
        let mut section = Section::Own;
        for word in words {
            match (word.as_str(), section) {
                ("exits", _) => section = Section::Exits,
                ("audit", _) => section = Section::Audit,
                _ => {
                    let (key, value) = word.split_once('=')?;
                    match section {
                        Section::Exits => drop(compartment.exits.insert(key.to_owned(), value.parse().ok()?)),
                        Section::Audit => drop(compartment.audit.insert(key.to_owned(), value.parse().ok()?)),
                        Section::Own => match key {
                            "state" => state = Some(State::parse(value)?),
                            "reason" => compartment.reason = Some(value.to_owned()).filter(|v| !v.is_empty()),
                            "restarts" => compartment.restarts = value.parse().ok()?,
                            // A newer hypervisor may say more.
                            _ => {}
                        },
                    }
                }
            }
        }
        compartment.state = state?;
        Some(compartment)
    }
}

#[derive(Copy, Clone)]
enum Section {
    Own,
    Exits,
    Audit,
}

/// Splits at spaces outside quotes, and takes the quotes away; `None` if a quote is not closed.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    let mut any = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                inside = !inside;
                any = true;
            }
            '\\' if inside => word.push(characters.next()?),
            ' ' if !inside => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(character),
        }
    }
    if inside {
        return None;
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    Some(words)
}

/// How a run ended, as a word.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Every compartment has ended.
    Ended,
    /// The text that was waited for has appeared.
    Until,
    /// A compartment was stopped, the hypervisor ended early, or the text never appeared.
    Failed,
    /// The time limit was reached.
    TimeLimit,
    /// The user ended it.
    Interrupted,
}

/// The closing line of `run --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// The profile.
    pub profile: String,
    /// The bench machine.
    pub bench_machine: String,
    /// How it ended.
    pub result: End,
    /// The compartments, in the manifest's order.
    pub compartments: Vec<Compartment>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "report office state=shut-down reason=\"ACPI power-off\" restarts=1 exits cpuid=12 port=345 \
                        audit denied=0 malformed=0 unknown=3";

    #[test]
    fn a_report_is_read() {
        let compartment = Compartment::parse(LINE).unwrap();
        assert_eq!(compartment.name, "office");
        assert_eq!(compartment.state, State::ShutDown);
        assert_eq!(compartment.reason.as_deref(), Some("ACPI power-off"));
        assert_eq!(compartment.restarts, 1);
        assert_eq!(compartment.exits, [("cpuid".to_owned(), 12), ("port".to_owned(), 345)].into());
        assert_eq!(compartment.audit["unknown"], 3);
    }

    #[test]
    fn quotes_hide_words() {
        let text = r#"report a state=stopped reason="say \"exits\" \\ audit x=1" restarts=0 exits"#;
        let compartment = Compartment::parse(text).unwrap();
        assert_eq!(compartment.reason.as_deref(), Some(r#"say "exits" \ audit x=1"#));
        assert!(compartment.exits.is_empty() && compartment.audit.is_empty());
    }

    #[test]
    fn what_is_malformed_is_no_report() {
        for text in [
            "report",
            "report a",
            "report a state=dead",
            "report a state=stopped exits cpuid=many",
            "report a state=stopped exits cpuid",
            "report a state=stopped reason=\"open",
            "report a state=stopped restarts=-1",
            "reports a state=stopped",
            "",
        ] {
            assert_eq!(Compartment::parse(text), None, "{text}");
        }
        assert!(Compartment::parse("report a state=running later=1").is_some());
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let report = Report {
            profile: "lab".to_owned(),
            bench_machine: "qemu".to_owned(),
            result: End::TimeLimit,
            compartments: vec![Compartment::parse(LINE).unwrap(), Compartment::new("banking")],
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"profile\":\"lab\",\"bench_machine\":\"qemu\",\"result\":\"time-limit\",\"compartments\":[{\"name\":\
             \"office\",\"state\":\"shut-down\",\"reason\":\"ACPI power-off\",\"restarts\":1,\"exits\":{\"cpuid\":12,\
             \"port\":345},\"audit\":{\"denied\":0,\"malformed\":0,\"unknown\":3}},{\"name\":\"banking\",\"state\":\
             \"running\",\"reason\":null,\"restarts\":0,\"exits\":{},\"audit\":{}}]}"
        );
    }
}
