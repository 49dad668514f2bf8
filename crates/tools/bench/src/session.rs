//! One run of an emulator.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tempfile::TempDir;

use crate::{BenchMachine, Emulator, Error, Start, bochs, qemu};

/// How long Bochs may take until it opens its console.
const CONNECTION_LIMIT: Duration = Duration::from_secs(20);
/// How much of an emulator's own complaints is kept, in bytes.
const COMPLAINT_LIMIT: u64 = 16 * 1024;

/// What a session tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Bytes of the serial console, in order.
    Console(Vec<u8>),
    /// The emulator has ended; nothing more will come.
    Ended(End),
}

/// How an emulator ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it, if any.
    pub signal: Option<i32>,
    /// What it complained about on its standard error, at most 16 KiB.
    pub complaint: String,
}

/// The way to the machine's serial console. Bytes that a machine no longer takes are dropped.
#[derive(Clone)]
pub struct Input(Arc<Mutex<Box<dyn Write + Send>>>);

impl Input {
    /// Sends bytes.
    pub fn send(&self, bytes: &[u8]) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A machine that has gone takes no input; that it has gone is an event of its own.
        let _ = writer.write_all(bytes).and_then(|()| writer.flush());
    }
}

/// A running bench machine. Dropping it ends the emulator.
///
/// The kernel ends the emulator when the thread that started the session dies, so that nothing stays behind after a panic or
/// a kill: start a session on a thread that lives as long as the session.
pub struct Session {
    child: Arc<Mutex<Child>>,
    input: Input,
    threads: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

impl Session {
    /// Boots `machine`; its console and its end come as events to `events`.
    ///
    /// # Errors
    /// The emulator is not there, cannot do what is asked, or ends at once.
    pub fn start<E: From<Event> + Send + 'static>(
        machine: &BenchMachine,
        start: &Start,
        events: SyncSender<E>,
    ) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("ringfence-").tempdir()?;
        match machine.emulator {
            Emulator::Qemu => {
                let mut arguments = qemu::arguments(machine, start)?;
                let build = qemu::Build::of(machine, &start.builds)?;
                let program =
                    build.as_ref().map_or(Path::new(qemu::PROGRAM), |build| build.program.as_path());
                if let Some(build) = &build {
                    arguments.extend(build.arguments());
                }
                let mut command = command(program, &arguments);
                if let Some(build) = &build {
                    command.env("QEMU_MODULE_DIR", &build.modules);
                }
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                if build.is_none() && !find(qemu::PROGRAM) {
                    return Err(Error::NoEmulator { program: qemu::PROGRAM });
                }
                let mut child = spawn(qemu::PROGRAM, &mut command)?;
                let (Some(reader), Some(writer)) = (child.stdout.take(), child.stdin.take()) else {
                    return Err(not_started(qemu::PROGRAM, "it has no standard streams"));
                };
                Ok(Self::attach(child, reader, Box::new(writer), folder, events))
            }
            Emulator::Bochs => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let port = listener.local_addr()?.port();
                let arguments = bochs::arguments(machine, start, folder.path(), port)?;
                let mut command = command(Path::new(bochs::PROGRAM), &arguments);
                command.stdin(Stdio::null()).stdout(Stdio::null()).env("SDL_VIDEODRIVER", "dummy");
                if !find(bochs::PROGRAM) {
                    return Err(Error::NoEmulator { program: bochs::PROGRAM });
                }
                let mut child = spawn(bochs::PROGRAM, &mut command)?;
                let stream = match accept(&listener, &child) {
                    Ok(stream) => stream,
                    Err(error) => {
                        let _ = child.kill();
                        let complaint = child.stderr.take().map(complaint).unwrap_or_default();
                        let _ = child.wait();
                        return Err(not_started(bochs::PROGRAM, &format!("{error}\n{complaint}")));
                    }
                };
                let writer = stream.try_clone()?;
                Ok(Self::attach(child, stream, Box::new(writer), folder, events))
            }
        }
    }

    fn attach<E: From<Event> + Send + 'static>(
        mut child: Child,
        mut reader: impl Read + Send + 'static,
        writer: Box<dyn Write + Send>,
        folder: TempDir,
        events: SyncSender<E>,
    ) -> Self {
        let complaints = child.stderr.take();
        let pid = Pid::from_child(&child);
        let child = Arc::new(Mutex::new(child));
        let complaints = thread::spawn(move || complaints.map(complaint).unwrap_or_default());
        let console = thread::spawn({
            let child = Arc::clone(&child);
            move || {
                let mut buffer = [0; 4096];
                loop {
                    match reader.read(&mut buffer) {
                        Ok(count @ 1..) => {
                            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                            if events.send(Event::Console(bytes).into()).is_err() {
                                return;
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        // A machine that is gone takes its console with it.
                        Ok(0) | Err(_) => break,
                    }
                }
                // Wait without reaping, so that `stop` can take the lock and never signals a stranger.
                let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
                while matches!(wait(), Err(Errno::INTR)) {}
                let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
                let complaint = complaints.join().unwrap_or_default();
                let _ = events.send(Event::Ended(End::new(status.ok(), complaint)).into());
            }
        });
        Self { child, input: Input(Arc::new(Mutex::new(writer))), threads: vec![console], _folder: folder }
    }

    /// The way to the machine's serial console; may be given to another thread.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Ends the emulator at once. [`Event::Ended`] still comes.
    pub fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// The emulator's process number.
    pub fn process(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        // The console's thread may still be handing over events; it ends by itself when nobody takes them.
        self.threads.clear();
    }
}

impl End {
    fn new(status: Option<ExitStatus>, complaint: String) -> Self {
        Self { code: status.and_then(|s| s.code()), signal: status.and_then(|s| s.signal()), complaint }
    }
}

/// The command that runs `program` and lets the kernel end it with its parent (`setpriv` is part of util-linux), in its own
/// process group, so that Ctrl-C on the terminal reaches only the one who decides what it means.
fn command(program: &Path, arguments: &[String]) -> Command {
    let guarded = find("setpriv");
    let mut command = if guarded { Command::new("setpriv") } else { Command::new(program) };
    if guarded {
        command.args(["--pdeathsig", "KILL"]).arg(program);
    }
    command.args(arguments).stderr(Stdio::piped()).process_group(0);
    command
}

fn spawn(program: &'static str, command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|error| not_started(program, &error.to_string()))
}

fn not_started(program: &'static str, message: &str) -> Error {
    Error::NotStarted { program, message: message.trim().to_owned() }
}

/// Whether `program` is on the search path.
fn find(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Waits until the emulator connects its console, ends, or takes too long.
fn accept(listener: &TcpListener, child: &Child) -> io::Result<TcpStream> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + CONNECTION_LIMIT;
    loop {
        let mut sources = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
        ];
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut sources, Some(&limit)) {
            Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "its console did not open in time")),
            Ok(_) if !sources[0].revents().is_empty() => return Ok(listener.accept()?.0),
            Ok(_) => return Err(io::Error::new(ErrorKind::BrokenPipe, "it ended before its console opened")),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Everything that is complained about, to the end; the first [`COMPLAINT_LIMIT`] bytes are kept.
fn complaint(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let _ = stream.by_ref().take(COMPLAINT_LIMIT).read_to_end(&mut kept);
    // The rest is read all the same: a full pipe would stop the emulator.
    let _ = io::copy(&mut stream, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}
