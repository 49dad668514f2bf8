//! Work that takes more than a few seconds: a spinner on a terminal, plain lines otherwise. All on standard error.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// One piece of work that is under way.
pub struct Progress {
    bar: Option<ProgressBar>,
    title: String,
    begun: Instant,
}

impl Progress {
    /// Begins a piece of work, and says so.
    pub fn begin(title: impl Into<String>) -> Self {
        let progress = Self::begin_quietly(title);
        if progress.bar.is_none() {
            eprintln!("{} …", progress.title);
        }
        progress
    }

    /// Begins a piece of work that says a line of its own when it is done.
    pub fn begin_quietly(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, title, begun: Instant::now() }
    }

    /// What it is at now.
    pub fn detail(&self, words: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(words.trim().to_owned());
        }
    }

    /// It is done.
    pub fn done(self) {
        let seconds = self.begun.elapsed().as_secs();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        // What took no time is not worth a line.
        if seconds >= 2 {
            eprintln!("{}: done in {seconds} s", self.title);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs a command to its end, shows its last line meanwhile, and gives its end and all that it said on both streams.
pub fn watch(progress: &Progress, command: &mut Command) -> Result<(ExitStatus, String), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe()?;
    let copy = writer.try_clone()?;
    let mut child = command.stdin(Stdio::null()).stdout(copy).stderr(writer).spawn().map_err(|error| {
        Failure::environment(format!("{name} cannot be started: {error}"), "run `./ringfence setup`")
    })?;
    // The command keeps the pipe's writing ends; without this, the end of its words would never come.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let words = follow(progress, reader);
    let status = child.wait()?;
    Ok((status, words))
}

fn follow(progress: &Progress, reader: impl Read) -> String {
    let mut reader = BufReader::new(reader);
    let mut words = String::new();
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        progress.detail(&text);
        words.push_str(&text);
        line.clear();
    }
    words
}
