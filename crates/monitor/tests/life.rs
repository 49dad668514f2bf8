//! Compartments on the fake back end: what a guest does, as a script of exits; what becomes of it, as the console tells it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use contracts::absent::Absent;
use contracts::fake::{FakeHost, FakeVault, FakeVcpu, Injected};
use contracts::{
    Attached, Clock, Context, CpuIndex, Device, Direction, Effects, Exit, Host, HostTime, Image, Leave,
    Limits, PortExit, PortRange, Power, Profile, Savable, Scheduler, Turn, VcpuName,
};
use monitor::compartment::Compartment;
use monitor::slot::State;
use monitor::{CpuidTable, Facts, Monitor};
use plan::{Mode, OnReset, Start};
use spin::Mutex;
use x86::{General, Width};

/// A power switch at port 0x10 (1: off, 2: reset), a console at 0x11, a clock that rings at 0x12 milliseconds from now.
struct Switch {
    rang: bool,
}

impl Device for Switch {
    const NAME: &'static str = "switch";
    const PORTS: &'static [PortRange] = &[PortRange { first: 0x10, last: 0x12 }];

    fn new(_: &contracts::Platform) -> Self {
        Self { rang: false }
    }
    fn savable(&self) -> Savable {
        Savable::Empty
    }
    fn read_port(&mut self, _: u16, _: Width, _: &mut Context<'_>) -> u32 {
        self.rang.into()
    }
    fn write_port(&mut self, port: u16, _: Width, value: u32, context: &mut Context<'_>) {
        match (port, value) {
            (0x10, 1) => context.effects.push(contracts::Effect::Power(Power::Off)),
            (0x10, _) => context.effects.push(contracts::Effect::Power(Power::Reset)),
            (0x11, byte) => context.effects.push(contracts::Effect::Console(byte as u8)),
            (_, milliseconds) => {
                context.effects.timer(Some(context.now.after(u64::from(milliseconds) * 1_000_000)));
            }
        }
    }
    fn expire(&mut self, _: &mut Context<'_>) {
        self.rang = true;
    }
}

/// One processor, first come first served.
struct Queue(Mutex<Vec<(VcpuName, bool, Option<HostTime>)>>);

impl Scheduler for Queue {
    fn new(_: u8) -> Self {
        Self(Mutex::new(Vec::new()))
    }
    fn admit(&self, vcpu: VcpuName, _: u32, _: Option<CpuIndex>) -> bool {
        self.0.lock().push((vcpu, false, None));
        true
    }
    fn retire(&self, vcpu: VcpuName) {
        self.0.lock().retain(|entry| entry.0 != vcpu);
    }
    fn next(&self, _: CpuIndex, now: HostTime) -> Turn {
        let mut queue = self.0.lock();
        for (_, ready, wake_at) in queue.iter_mut() {
            if wake_at.is_some_and(|at| at <= now) {
                (*ready, *wake_at) = (true, None);
            }
        }
        match queue.iter().position(|entry| entry.1) {
            Some(index) => {
                let entry = queue.remove(index);
                queue.push((entry.0, false, None));
                Turn::Run { vcpu: entry.0, until: None }
            }
            None => Turn::Idle { until: queue.iter().filter_map(|entry| entry.2).min() },
        }
    }
    fn leave(&self, _: CpuIndex, vcpu: VcpuName, _: HostTime, why: Leave) {
        for entry in self.0.lock().iter_mut().filter(|entry| entry.0 == vcpu) {
            match why {
                Leave::Halted { wake_at } => entry.2 = wake_at,
                _ => entry.1 = true,
            }
        }
    }
    fn wake(&self, vcpu: VcpuName, _: HostTime) -> Option<CpuIndex> {
        self.0.lock().iter_mut().filter(|entry| entry.0 == vcpu).for_each(|entry| entry.1 = true);
        None
    }
    fn contended(&self, _: CpuIndex) -> bool {
        false
    }
}

struct Product;
static PROFILE: Profile = Profile {
    name: "fake",
    limits: Limits { compartments: 2, vcpus_per_compartment: 2, cpus: 1 },
    parts: &[],
};

impl Image for Product {
    type Vcpu = FakeVcpu;
    type Host = FakeHost;
    type Scheduler = Queue;
    type LocalApic = Absent;
    type IoApic = Absent;
    type LegacyPic = Absent;
    type Devices = (Attached<Switch>, ());
    type ClockPage = Absent;
    const PROFILE: &'static Profile = &PROFILE;
}

const RAM: usize = 0x4000;

fn out(port: u16, value: u8) -> Exit {
    let _ = value;
    Exit::Port(PortExit { port, width: Width::Byte, direction: Direction::Out })
}

fn plan_of(name: &str, on_reset: OnReset) -> plan::Compartment {
    plan::Compartment {
        name: name.try_into().unwrap(),
        memory: plan::MEMORY_LEAST,
        vcpus: 1,
        share: 100,
        cpus: heapless::Vec::new(),
        on_reset,
        label: None,
        segments: heapless::Vec::new(),
        start: Start {
            mode: Mode::Protected,
            entry: 0x1000,
            rax: 0,
            rbx: 0,
            rsi: 0,
            rsp: 0,
            page_table: 0,
            descriptor_table: 0,
            descriptor_table_limit: 0x27,
        },
    }
}

type Fake = Compartment<Product, 2>;
type World = Monitor<Product, FakeVault<Fake, 2, RAM>, 2, 2>;

/// Runs guests with these scripts, `rax` in RAX, until all have ended.
fn run(guests: [(&str, u64, OnReset, &[Exit]); 2]) -> (&'static FakeHost, &'static World) {
    let host: &'static FakeHost = Box::leak(Box::default());
    host.advance(1000);
    let states = std::array::from_fn(|index| {
        let (name, rax, on_reset, script) = &guests[index];
        let mut plan = plan_of(name, *on_reset);
        plan.start.rax = *rax;
        let mut vcpu = FakeVcpu::default();
        for exit in *script {
            vcpu.script.push_back(*exit).unwrap();
        }
        let facts = Facts {
            index: index as u8,
            wall_clock: 0,
            origin: host.now(),
            clock: Clock::new(host.kilohertz()).unwrap(),
        };
        let cpuid = CpuidTable::freeze::<Absent>(|leaf, _| [leaf, 1, 2, 3], 1, host.kilohertz());
        Fake::new(facts, plan, cpuid, std::iter::once(vcpu))
    });
    let vault: &'static FakeVault<Fake, 2, RAM> = Box::leak(Box::new(FakeVault::new(states)));
    let monitor: &'static World = Box::leak(Box::new(Monitor::new(host, vault, 1)));
    for (index, (name, _, on_reset, _)) in guests.iter().enumerate() {
        assert!(monitor.admit(index as u8, &plan_of(name, *on_reset)));
    }
    monitor.run(CpuIndex(0));
    (host, monitor)
}

fn console(host: &FakeHost) -> String {
    String::from_utf8(host.console().to_vec()).unwrap()
}

const OFF: Exit = Exit::Port(PortExit { port: 0x10, width: Width::Byte, direction: Direction::Out });

#[test]
fn a_compartment_that_switches_off_is_reported() {
    let (host, monitor) =
        run([("office", 1, OnReset::Stop, &[OFF]), ("banking", 1, OnReset::Stop, &[Exit::Interrupted, OFF])]);
    let shown = console(host);
    assert!(
        shown.contains(
            "ringfence| report office state=shut-down reason=\"\" restarts=0 exits port=1 audit denied=0"
        ),
        "{shown}"
    );
    assert!(monitor.slots.iter().all(|slot| slot.state() == State::ShutDown));
}

#[test]
fn a_triple_fault_stops_its_own_compartment_and_no_other() {
    let (host, monitor) = run([
        ("office", 1, OnReset::Stop, &[Exit::Shutdown]),
        ("banking", 1, OnReset::Stop, &[Exit::Interrupted, Exit::Interrupted, OFF]),
    ]);
    let shown = console(host);
    assert!(shown.contains("ringfence| office stopped: triple fault"), "{shown}");
    assert!(shown.contains("report office state=stopped reason=\"triple fault\""), "{shown}");
    assert_eq!(monitor.slots[1].state(), State::ShutDown);
}

#[test]
fn a_reset_starts_again_where_the_manifest_says_so() {
    let (host, monitor) = run([
        ("office", 2, OnReset::Restart, &[OFF, OFF, Exit::Shutdown]),
        ("banking", 2, OnReset::Stop, &[OFF]),
    ]);
    let shown = console(host);
    assert!(shown.contains("report office state=stopped reason=\"triple fault\" restarts=2"), "{shown}");
    assert_eq!(monitor.slots[1].state(), State::Reset);
}

#[test]
fn halting_for_ever_is_an_end() {
    let (host, _) = run([("office", 1, OnReset::Stop, &[]), ("banking", 1, OnReset::Stop, &[OFF])]);
    assert!(
        console(host).contains("office stopped: all processors halted with interrupts off"),
        "{}",
        console(host)
    );
}

#[test]
fn unknown_registers_fault_and_are_counted() {
    let (host, monitor) = run([
        ("office", 1, OnReset::Stop, &[Exit::ReadMsr, Exit::ReadMsr, Exit::WriteMsr, OFF]),
        ("banking", 1, OnReset::Stop, &[out(0x99, 0), OFF]),
    ]);
    let shown = console(host);
    // RCX is 0: no such register.
    assert!(shown.contains("audit office unknown times=2 first="), "{shown}");
    assert!(shown.contains("read of MSR 0x0"), "{shown}");
    assert!(shown.contains("audit denied=0 malformed=0 unknown=3"), "{shown}");
    assert!(shown.contains("audit banking unknown times=1"), "{shown}");
    assert!(monitor.slots[0].exits().any(|(kind, count)| kind == "msr-read" && count == 2));
}

#[test]
fn exits_that_nobody_knows_stop_the_guilty() {
    for (exit, reason) in [
        (Exit::Unknown(0x1234), "unknown exit 0x1234"),
        (Exit::Failed(contracts::EntryFailure { code: 7 }), "the processor refused the guest's state (0x7)"),
    ] {
        let (host, _) = run([("office", 1, OnReset::Stop, &[exit]), ("banking", 1, OnReset::Stop, &[OFF])]);
        assert!(console(host).contains(&format!("office stopped: {reason}")), "{}", console(host));
    }
}

#[test]
fn faults_of_missing_instructions_are_undefined_opcodes() {
    // The script's vCPU is inside the vault; what was injected is seen through the audit log and the guest going on.
    let (host, _) = run([
        (
            "office",
            1,
            OnReset::Stop,
            &[Exit::Unsupported(contracts::Unsupported::Virtualization), Exit::Hypercall, OFF],
        ),
        ("banking", 1, OnReset::Stop, &[OFF]),
    ]);
    let shown = console(host);
    assert!(shown.contains("audit office denied times=1"), "{shown}");
    assert!(shown.contains("instruction for virtualization"), "{shown}");
    assert!(shown.contains("report office state=shut-down"), "{shown}");
    // A fake vCPU by itself: what the monitor's word becomes.
    let mut vcpu = FakeVcpu::default();
    contracts::Vcpu::inject_fault(&mut vcpu, x86::Fault::InvalidOpcode);
    assert_eq!(vcpu.injected.as_slice(), [Injected::Exception(x86::Exception::InvalidOpcode, None)]);
    assert_eq!(contracts::Vcpu::general(&vcpu, General::Rax), 0);
    assert!(Effects::new().is_empty());
}
