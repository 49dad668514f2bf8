//! What a run has heard so far, and what that means. Nothing here touches a machine.

use bench::End as MachineEnd;

use crate::Failure;
use crate::console::{Filter, HYPERVISOR, Line};
use crate::report::{Compartment, End, Report, State};
use crate::until::Until;

/// What a run does next.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It goes on.
    GoOn,
    /// The hypervisor has said that every compartment has ended.
    Ended,
    /// The text that was waited for has appeared.
    Until,
    /// The time limit was reached.
    TimeLimit,
    /// The user has ended it.
    Interrupted,
    /// The machine has ended, and the hypervisor has not said that it is done.
    MachineGone,
}

/// How a run ended, for programs and for the exit code.
#[derive(Debug)]
pub struct Verdict {
    /// The closing line of `--json`.
    pub report: Report,
    /// Why it does not hold, if so.
    pub failure: Option<Failure>,
}

/// Hears the machine's console and keeps the books.
pub struct Judge {
    filter: Filter,
    until: Option<Until>,
    compartments: Vec<Compartment>,
    last_words: Vec<Line>,
    ended: bool,
    shown: bool,
    machine: Option<MachineEnd>,
}

/// How many of the hypervisor's last lines a failure repeats.
const LAST_WORDS: usize = 12;

impl Judge {
    /// A judge of a run of these compartments, which may wait for a text.
    pub fn new(names: Vec<String>, until: Option<Until>) -> Self {
        Self {
            compartments: names.iter().map(|name| Compartment::new(name)).collect(),
            filter: Filter::new(names),
            until,
            last_words: Vec::new(),
            ended: false,
            shown: false,
            machine: None,
        }
    }

    /// Hears bytes of the machine's console. Gives the console lines that they complete, up to the one that ends the run.
    pub fn console(&mut self, bytes: &[u8]) -> (Vec<Line>, Step) {
        let mut lines = self.filter.feed(bytes);
        for (index, line) in lines.iter().enumerate() {
            if let step @ (Step::Ended | Step::Until) = Self::hear(
                line,
                &mut self.compartments,
                &mut self.last_words,
                self.until.as_ref(),
                &mut self.ended,
            ) {
                lines.truncate(index + 1);
                return (lines, step);
            }
        }
        (lines, Step::GoOn)
    }

    fn hear(
        line: &Line,
        compartments: &mut [Compartment],
        last_words: &mut Vec<Line>,
        until: Option<&Until>,
        ended: &mut bool,
    ) -> Step {
        if line.name == HYPERVISOR {
            if last_words.len() == LAST_WORDS {
                last_words.remove(0);
            }
            last_words.push(line.clone());
            if let Some(report) = Compartment::parse(&line.text)
                && let Some(compartment) = compartments.iter_mut().find(|known| known.name == report.name)
            {
                *compartment = report;
            }
            if line.text == "end" {
                *ended = true;
            }
        }
        if until.is_some_and(|until| until.holds(line)) {
            return Step::Until;
        }
        if *ended { Step::Ended } else { Step::GoOn }
    }

    /// The bytes that an interactive run shows: all of them, once the hypervisor has spoken.
    pub fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.filter.begun() {
            return Vec::new();
        }
        if std::mem::replace(&mut self.shown, true) {
            return bytes.to_vec();
        }
        let mark = format!("{HYPERVISOR}| ").into_bytes();
        let start = bytes.windows(mark.len()).position(|window| window == mark).unwrap_or(0);
        bytes.get(start..).unwrap_or_default().to_vec()
    }

    /// The console has ended: gives a last line that came without its end.
    pub fn finish(&mut self) -> Option<Line> {
        let line = self.filter.finish()?;
        let (compartments, words) = (&mut self.compartments, &mut self.last_words);
        Self::hear(&line, compartments, words, self.until.as_ref(), &mut self.ended);
        Some(line)
    }

    /// The machine has ended.
    pub fn machine_ended(&mut self, end: &MachineEnd) -> Step {
        self.machine = Some(end.clone());
        if self.ended { Step::Ended } else { Step::MachineGone }
    }

    /// What all that means.
    pub fn verdict(self, step: Step, profile: &str, bench_machine: &str) -> Verdict {
        let stopped = self
            .compartments
            .iter()
            .filter(|compartment| compartment.state == State::Stopped)
            .map(|compartment| match &compartment.reason {
                Some(reason) => format!("{} ({reason})", compartment.name),
                None => compartment.name.clone(),
            })
            .collect::<Vec<_>>();
        let failure = match step {
            _ if !stopped.is_empty() => Some(Failure::does_not_hold(
                format!("Ringfence has stopped {}", stopped.join(", ")),
                "the console of that compartment says what it did before",
            )),
            Step::Until | Step::GoOn | Step::Interrupted => None,
            Step::Ended => self.until.as_ref().map(|until| {
                let place =
                    until.name.as_ref().map_or_else(String::new, |name| format!(" on the console of {name}"));
                Failure::does_not_hold(
                    format!("every compartment has ended, and \"{}\" never appeared{place}", until.text),
                    "look at the consoles above for what appeared instead",
                )
            }),
            Step::TimeLimit => Some(Failure::time_limit(
                "the time limit was reached",
                "give it more with `--timeout SECONDS`, or look at the consoles for what it waits for",
            )),
            Step::MachineGone => Some(self.gone()),
        };
        let result = match (step, &failure) {
            (Step::TimeLimit, _) => End::TimeLimit,
            (_, Some(_)) => End::Failed,
            (Step::Interrupted, None) => End::Interrupted,
            (Step::Until, None) => End::Until,
            (_, None) => End::Ended,
        };
        let report = Report {
            profile: profile.to_owned(),
            bench_machine: bench_machine.to_owned(),
            result,
            compartments: self.compartments,
        };
        Verdict { report, failure }
    }

    /// The machine ended before the hypervisor was done.
    fn gone(&self) -> Failure {
        let complaint = self.machine.as_ref().map_or("", |end| end.complaint.as_str());
        let how = match &self.machine {
            Some(MachineEnd { signal: Some(signal), .. }) => format!(" by signal {signal}"),
            Some(MachineEnd { code: Some(code), .. }) => format!(" with code {code}"),
            _ => String::new(),
        };
        if !self.filter.begun() {
            return Failure::environment(
                format!("the machine ended{how} before the hypervisor said a word"),
                "the emulator's own words, if any, are above",
            )
            .with_words(complaint);
        }
        let last = self.last_words.last().map_or_else(String::new, |line| format!(": {}", line.text));
        Failure::does_not_hold(
            format!("the machine ended{how} before the compartments did{last}"),
            "the hypervisor's lines above name the reason",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    const GREETING: &[u8] = b"SeaBIOS\r\nringfence| profile lab\r\n";

    fn judge(until: Option<&str>) -> Judge {
        let names = vec!["office".to_owned(), "banking".to_owned()];
        let until = until.map(|word| Until::parse(word, &names));
        let mut judge = Judge::new(names, until);
        assert_eq!(judge.console(GREETING).1, Step::GoOn);
        judge
    }

    fn outcome(verdict: &Verdict) -> Outcome {
        verdict.failure.as_ref().map_or(Outcome::Holds, Failure::outcome)
    }

    fn end(code: i32) -> MachineEnd {
        MachineEnd { code: Some(code), signal: None, complaint: String::new() }
    }

    #[test]
    fn all_ended_holds() {
        let mut judge = judge(None);
        let (_, step) = judge
            .console(b"ringfence| report office state=shut-down reason=\"\" restarts=0 exits a=1 audit\n");
        assert_eq!(step, Step::GoOn);
        judge.console(b"ringfence| report banking state=reset restarts=2 exits audit x=3\n");
        assert_eq!(judge.console(b"ringfence| end\n").1, Step::Ended);
        assert_eq!(judge.machine_ended(&end(1)), Step::Ended);
        let verdict = judge.verdict(Step::Ended, "lab", "qemu");
        assert_eq!(outcome(&verdict), Outcome::Holds);
        assert_eq!(verdict.report.result, End::Ended);
        let states = verdict.report.compartments.iter().map(|c| c.state).collect::<Vec<_>>();
        assert_eq!(states, [State::ShutDown, State::Reset]);
        assert_eq!(verdict.report.compartments[1].restarts, 2);
    }

    #[test]
    fn a_stopped_compartment_does_not_hold_whatever_else() {
        for step in [Step::Ended, Step::Until, Step::Interrupted] {
            let mut judge = judge(None);
            judge.console(
                b"ringfence| report office state=stopped reason=\"triple fault\" restarts=0 exits audit\n",
            );
            let verdict = judge.verdict(step, "lab", "qemu");
            assert_eq!(outcome(&verdict), Outcome::DoesNotHold);
            assert_eq!(verdict.report.result, End::Failed);
            assert!(verdict.failure.unwrap().to_string().contains("office (triple fault)"));
        }
    }

    #[test]
    fn only_the_hypervisor_reports() {
        let mut judge = judge(None);
        judge.console(b"office| report banking state=stopped restarts=0 exits audit\noffice| end\n");
        assert_eq!(judge.console(b"office| ringfence| end\n").1, Step::GoOn);
        let verdict = judge.verdict(Step::Interrupted, "lab", "qemu");
        assert_eq!(outcome(&verdict), Outcome::Holds);
        assert!(verdict.report.compartments.iter().all(|c| c.state == State::Running));
    }

    #[test]
    fn the_text_ends_the_run_and_nothing_after_it_is_shown() {
        let mut judge = judge(Some("banking:login"));
        assert_eq!(judge.console(b"office| login\n").1, Step::GoOn);
        let (lines, step) = judge.console(b"banking| a login:\nbanking| more\n");
        assert_eq!(step, Step::Until);
        assert_eq!(lines.len(), 1);
        let verdict = judge.verdict(step, "lab", "qemu");
        assert_eq!((outcome(&verdict), verdict.report.result), (Outcome::Holds, End::Until));
    }

    #[test]
    fn a_text_that_never_came_does_not_hold() {
        let mut judge = judge(Some("office:never"));
        assert_eq!(judge.console(b"ringfence| end\n").1, Step::Ended);
        let verdict = judge.verdict(Step::Ended, "lab", "qemu");
        assert_eq!((outcome(&verdict), verdict.report.result), (Outcome::DoesNotHold, End::Failed));
        assert!(
            verdict
                .failure
                .unwrap()
                .to_string()
                .contains("\"never\" never appeared on the console of office")
        );
    }

    #[test]
    fn the_time_limit_has_its_own_code() {
        let verdict = judge(None).verdict(Step::TimeLimit, "lab", "qemu");
        assert_eq!((outcome(&verdict), verdict.report.result), (Outcome::TimeLimit, End::TimeLimit));
    }

    #[test]
    fn a_hypervisor_that_gives_up_does_not_hold() {
        let mut judge = judge(None);
        judge.console(b"ringfence| this machine has no nested paging\nringf");
        assert_eq!(judge.finish(), None);
        assert_eq!(judge.machine_ended(&end(3)), Step::MachineGone);
        let verdict = judge.verdict(Step::MachineGone, "lab", "qemu");
        assert_eq!(outcome(&verdict), Outcome::DoesNotHold);
        assert!(verdict.failure.unwrap().to_string().ends_with("this machine has no nested paging"));
    }

    #[test]
    fn a_machine_that_never_spoke_is_the_environments_fault() {
        let mut judge = Judge::new(vec![], None);
        judge.console(b"SeaBIOS\r\n");
        judge.machine_ended(&end(1));
        assert_eq!(outcome(&judge.verdict(Step::MachineGone, "lab", "qemu")), Outcome::Environment);
    }

    #[test]
    fn raw_bytes_begin_with_the_hypervisor() {
        let mut judge = Judge::new(vec![], None);
        let mut shown = Vec::new();
        for piece in [&b"SeaBIOS\r\nxring"[..], b"fence| a\r\n> ", b"ls\r\n"] {
            judge.console(piece);
            shown.extend(judge.raw(piece));
        }
        assert!(shown.ends_with(b"> ls\r\n"), "{}", String::from_utf8_lossy(&shown));
        assert!(!shown.starts_with(b"SeaBIOS"));
    }
}
