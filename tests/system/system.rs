//! Drives the command as a user does: its words in, its consoles and its exit code out.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use cli::demonstration;
use cli::tree::Tree;

/// After so many seconds a system that should have ended is a failure. Hosts that test are slow and busy.
pub const LIMIT: &str = "300";

/// The tree under test.
pub fn tree() -> Tree {
    Tree::at(fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")).unwrap())
}

/// The command, as built by the entry script if that runs the tests, else by cargo.
pub fn tool() -> Command {
    let tool = env::var_os("RINGFENCE_TOOL")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ringfence")), PathBuf::from);
    let mut command = Command::new(tool);
    command.env("RINGFENCE_ROOT", tree().root());
    command
}

/// A line of a console, and when it came.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub name: String,
    pub text: String,
}

/// A run that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub lines: Vec<Line>,
    pub errors: String,
    pub json: Value,
}

impl Ran {
    /// The lines of one console.
    pub fn console<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Line> + use<'a> {
        let name = name.to_owned();
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// The first line of a console that has `text`.
    pub fn find(&self, name: &str, text: &str) -> &Line {
        self.console(name).find(|line| line.text.contains(text)).unwrap_or_else(|| {
            panic!("{text:?} is not on the console of {name}:\n{}", self.transcript());
        })
    }

    /// How many lines of a console have `text`.
    pub fn count(&self, name: &str, text: &str) -> usize {
        self.console(name).filter(|line| line.text.contains(text)).count()
    }

    /// A console's text without its line ends: the hypervisor breaks lines that are too long.
    pub fn text(&self, name: &str) -> String {
        self.console(name).map(|line| line.text.as_str()).collect()
    }

    /// A compartment's part of the JSON.
    pub fn compartment(&self, name: &str) -> &Value {
        let compartments = self.json["compartments"].as_array().expect("a list of compartments");
        compartments.iter().find(|compartment| compartment["name"] == name).expect("the compartment")
    }

    /// Everything that was said, for a failure's message.
    pub fn transcript(&self) -> String {
        let lines = self
            .lines
            .iter()
            .map(|line| format!("{}| {}", line.name, line.text))
            .collect::<Vec<_>>()
            .join("\n");
        format!("{lines}\nexit code {:?}\n{}\n{}", self.code, self.json, self.errors)
    }

    /// Fails unless the exit code is `code`.
    pub fn expect_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.transcript());
    }
}

/// A run that is under way. Dropping it ends it.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    heard: Arc<Heard>,
    threads: Option<(JoinHandle<()>, JoinHandle<String>)>,
}

/// The lines so far; the second is true once there will be no more.
#[derive(Default)]
struct Heard {
    lines: Mutex<(Vec<(Instant, String)>, bool)>,
    news: Condvar,
}

/// Starts the command with these words.
pub fn start(words: &[&str]) -> Running {
    let mut child = tool()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let heard = Arc::new(Heard::default());
    let output = BufReader::new(child.stdout.take().unwrap());
    let listener = thread::spawn({
        let heard = Arc::clone(&heard);
        move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                // Interactive runs show the machine's own line ends.
                let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                heard.lines.lock().unwrap().0.push((Instant::now(), text));
                heard.news.notify_all();
            }
            heard.lines.lock().unwrap().1 = true;
            heard.news.notify_all();
        }
    });
    let mut stderr = child.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    Running { input: child.stdin.take(), child, heard, threads: Some((listener, errors)) }
}

impl Running {
    /// Types.
    pub fn send(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("the keyboard is attached");
        input.write_all(bytes).and_then(|()| input.flush()).expect("the run takes input");
    }

    /// Waits until the console of `name` has said `text` in `count` lines; fails if the run ends before.
    pub fn wait_for(&self, name: &str, text: &str, count: usize) {
        let prefix = format!("{name}| ");
        let mut heard = self.heard.lines.lock().unwrap();
        loop {
            let said = |line: &str| line.strip_prefix(&prefix).is_some_and(|rest| rest.contains(text));
            if heard.0.iter().filter(|(_, line)| said(line)).count() >= count {
                return;
            }
            let lines = || heard.0.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
            assert!(!heard.1, "{name} has not said {text:?} {count} times:\n{}", lines());
            heard = self.heard.news.wait(heard).unwrap();
        }
    }

    /// Waits until the console of `name` has said `text`, be it across lines that the hypervisor has broken; fails if the run ends before.
    pub fn wait_for_text(&self, name: &str, text: &str) {
        let prefix = format!("{name}| ");
        let mut heard = self.heard.lines.lock().unwrap();
        loop {
            let said = heard.0.iter().filter_map(|(_, line)| line.strip_prefix(&prefix)).collect::<String>();
            if said.contains(text) {
                return;
            }
            assert!(!heard.1, "{name} has not said {text:?}:\n{said}");
            heard = self.heard.news.wait(heard).unwrap();
        }
    }

    /// How many lines of the console of `name` have `text` so far.
    pub fn count(&self, name: &str, text: &str) -> usize {
        let prefix = format!("{name}| ");
        let said = |line: &str| line.strip_prefix(&prefix).is_some_and(|rest| rest.contains(text));
        self.heard.lines.lock().unwrap().0.iter().filter(|(_, line)| said(line)).count()
    }

    /// Shows `look` each line of the output as it comes, until there will be no more.
    pub fn follow(&self, mut look: impl FnMut(&str)) {
        let mut seen = 0;
        loop {
            let mut heard = self.heard.lines.lock().unwrap();
            while heard.0.len() == seen && !heard.1 {
                heard = self.heard.news.wait(heard).unwrap();
            }
            let new = heard.0[seen..].iter().map(|(_, line)| line.clone()).collect::<Vec<_>>();
            drop(heard);
            if new.is_empty() {
                return;
            }
            seen += new.len();
            for line in &new {
                look(line);
            }
        }
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).expect("the command runs");
    }

    /// The emulator that the command has started.
    pub fn emulator(&self) -> PathBuf {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(children).unwrap();
        Path::new("/proc").join(children.split_whitespace().next().expect("an emulator"))
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ran {
        drop(self.input.take());
        let code = self.child.wait().unwrap().code();
        let (listener, errors) = self.threads.take().unwrap();
        listener.join().unwrap();
        let errors = errors.join().unwrap();
        let texts = std::mem::take(&mut self.heard.lines.lock().unwrap().0);
        let json = texts.last().and_then(|(_, last)| serde_json::from_str(last).ok()).unwrap_or(Value::Null);
        let lines = texts
            .into_iter()
            .filter_map(|(at, text)| {
                let (name, text) = text.split_once("| ")?;
                Some(Line { at, name: name.to_owned(), text: text.to_owned() })
            })
            .collect();
        Ran { code, lines, errors, json }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails half-way leaves nothing behind: the command ends its emulator when it is ended.
        if self.threads.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs the command to its end.
pub fn run(words: &[&str]) -> Ran {
    start(words).wait()
}

/// A manifest of the demonstration's guests, in a folder with their files.
pub struct Guests {
    _folder: TempDir,
    manifest: PathBuf,
}

impl Guests {
    /// Compartments with the demonstration's kernel and RAM disk: name, further lines of the manifest, further words on the
    /// kernel's command line.
    pub fn new(compartments: &[(&str, &str, &str)]) -> Self {
        Self::with_memory("128 MiB", compartments)
    }

    /// The same, with so much memory each.
    pub fn with_memory(memory: &str, compartments: &[(&str, &str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        demonstration::guest_files(&tree(), folder.path())
            .expect("`./ringfence setup` has fetched the guests");
        let mut text = "format = 1\n".to_owned();
        for (name, settings, words) in compartments {
            let _ = write!(
                text,
                "\n[[compartment]]\nname = \"{name}\"\nmemory = \"{memory}\"\n{settings}\nboot = {{ kernel = \
                 \"vmlinuz\", initrd = \"initramfs.img\", command-line = \"console=ttyS0 quiet panic=-1 \
                 ringfence.name={name} {words}\" }}\n"
            );
        }
        let manifest = folder.path().join("test.ringfence.toml");
        fs::write(&manifest, text).unwrap();
        Self { _folder: folder, manifest }
    }

    /// Compartments with systems of others, see [`Foreign`].
    pub fn foreign(guests: &[Foreign<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "format = 1\n".to_owned();
        for Foreign { name, kernel, busybox, settings, words } in guests {
            let file =
                demonstration::cached(&tree(), kernel).expect("`./ringfence setup` has fetched the guests");
            let link = folder.path().join(kernel);
            if !link.exists() {
                symlink(file, link).unwrap();
            }
            let initrd = busybox.map_or_else(String::new, |busybox| {
                let file = format!("{busybox}.img");
                fs::write(folder.path().join(&file), demonstration::ram_disk(&tree(), busybox).unwrap())
                    .unwrap();
                format!("initrd = \"{file}\", ")
            });
            let _ = write!(
                text,
                "\n[[compartment]]\nname = \"{name}\"\n{settings}\non-reset = \"stop\"\nboot = {{ kernel = \"{kernel}\", \
                 {initrd}command-line = \"{words}\" }}\n"
            );
        }
        let manifest = folder.path().join("test.ringfence.toml");
        fs::write(&manifest, text).unwrap();
        Self { _folder: folder, manifest }
    }

    /// The manifest's path.
    pub fn manifest(&self) -> &str {
        self.manifest.to_str().unwrap()
    }
}

/// A compartment with a system that is none of ours.
#[derive(Copy, Clone)]
pub struct Foreign<'a> {
    /// The compartment's name.
    pub name: &'a str,
    /// The kernel's file in the cache.
    pub kernel: &'a str,
    /// For Linux: the file of the busybox in the cache, from which the demonstration's RAM disk is made.
    pub busybox: Option<&'a str>,
    /// Further lines of the manifest, `memory` among them.
    pub settings: &'a str,
    /// The kernel's command line.
    pub words: &'a str,
}

/// How long one moment came after another.
pub fn between(first: &Line, second: &Line) -> Duration {
    second.at.duration_since(first.at)
}
