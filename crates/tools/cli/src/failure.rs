//! How a command ends, and what it says when it does not hold.

use std::process::ExitCode;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// The end of a command, as an exit code.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It holds.
    Holds = 0,
    /// It does not hold: a guest failed, a test failed.
    DoesNotHold = 1,
    /// The words or the input are wrong.
    WrongInput = 2,
    /// The environment failed: no emulator, no toolchain.
    Environment = 4,
    /// The time limit was reached.
    TimeLimit = 5,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// A plain sentence with a remedy, and the exit code that goes with it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    outcome: Outcome,
    message: String,
    /// What was found out in detail: a diagnostic with its place, or a program's own words.
    detail: Option<Detail>,
    help: String,
}

#[derive(Debug)]
enum Detail {
    Diagnostic(Box<dyn Diagnostic + Send + Sync>),
    Place(Box<(NamedSource<String>, SourceSpan)>),
    Words(String),
}

impl Failure {
    /// It does not hold.
    pub fn does_not_hold(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Outcome::DoesNotHold, message, help)
    }

    /// The words or the input are wrong.
    pub fn wrong_input(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Outcome::WrongInput, message, help)
    }

    /// The environment failed.
    pub fn environment(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Outcome::Environment, message, help)
    }

    /// The time limit was reached.
    pub fn time_limit(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Outcome::TimeLimit, message, help)
    }

    fn new(outcome: Outcome, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), detail: None, help: help.into() }
    }

    /// The same, with a program's own words printed before it.
    #[must_use]
    pub fn with_words(mut self, words: impl Into<String>) -> Self {
        self.detail = Some(Detail::Words(words.into()));
        self
    }

    /// The exit code.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The remedy.
    pub fn remedy(&self) -> &str {
        &self.help
    }

    /// Says it on standard error.
    pub fn print(&self) {
        match &self.detail {
            Some(Detail::Words(words)) if !words.trim().is_empty() => eprintln!("{}", words.trim_end()),
            Some(Detail::Diagnostic(diagnostic)) => {
                let handler = miette::MietteHandlerOpts::new().build();
                eprintln!("{:?}", Shown(&handler, diagnostic.as_ref()));
                return;
            }
            _ => {}
        }
        let handler = miette::MietteHandlerOpts::new().build();
        eprintln!("{:?}", Shown(&handler, self));
    }
}

/// Prints a diagnostic through a handler of its own, without a global hook.
struct Shown<'a>(&'a miette::MietteHandler, &'a dyn Diagnostic);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        miette::ReportHandler::debug(self.0, self.1, formatter)
    }
}

impl Diagnostic for Failure {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        match &self.detail {
            Some(Detail::Place(place)) => Some(&place.0),
            _ => None,
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        match &self.detail {
            Some(Detail::Place(place)) => Some(Box::new(std::iter::once(
                miette::LabeledSpan::new_with_span(Some("here".into()), place.1),
            ))),
            _ => None,
        }
    }
}

impl From<profile::Error> for Failure {
    fn from(error: profile::Error) -> Self {
        let mut failure = Self::wrong_input(error.message, error.help);
        if let Some(place) = error.place {
            let span = SourceSpan::from(place.span);
            let source = NamedSource::new(place.file.to_string_lossy(), place.text);
            failure.detail = Some(Detail::Place(Box::new((source, span))));
        }
        failure
    }
}

impl From<manifest::Mistakes> for Failure {
    fn from(mistakes: manifest::Mistakes) -> Self {
        let mut failure = Self::wrong_input(mistakes.to_string(), "");
        failure.detail = Some(Detail::Diagnostic(Box::new(mistakes)));
        failure
    }
}

impl From<bench::Error> for Failure {
    fn from(error: bench::Error) -> Self {
        use bench::Error;
        let message = error.to_string();
        match error {
            Error::Unreadable { .. } | Error::Malformed { .. } => {
                Self::wrong_input(message, "bench machines are described in build-configs/NAME.toml")
            }
            Error::Unsupported(_) => Self::wrong_input(message, ""),
            Error::NoAcceleration(_) | Error::NoEmulator { .. } | Error::NoBuild { .. } => {
                Self::environment(message, "")
            }
            Error::NotStarted { .. } | Error::Files(_) => {
                Self::environment(message, "`./ringfence setup --check` says what is missing")
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::environment(error.to_string(), "check the free space and the access rights of target/")
    }
}
