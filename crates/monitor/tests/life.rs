//! Compartments on the fake back end: what a guest does, as a script of exits; what becomes of it, as the console tells it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use address::GuestPhysical;
use common::{
    OFF, PROFILE, Queue, RAM, Vault, World, console, memory, plan_of, port, run_plans, world_of_plans,
};
use contracts::absent::Absent;
use contracts::fake::{FakeHost, FakeVcpu, Injected};
use contracts::{
    Access, Attached, Context, CpuIndex, Device, Direction, Effects, Exit, GuestMemory, Host as _, HostTime,
    Image, Leave, MemoryRange, PortExit, PortRange, Power, Profile, Savable, Scheduler as _, StartState,
    StringPortExit, Turn, Unsupported, Vault as _, VcpuName,
};
use core::marker::PhantomData;
use monitor::compartment::Activity;
use monitor::slot::State;
use plan::{OnReset, OnUnclaimed};
use x86::{General, Width};

/// A power switch at port 0x10 (1: off, 2: reset), a console at 0x11, a clock that rings at 0x12 milliseconds from now; in memory the
/// number of the register EFER, and behind it a one.
struct Switch {
    rang: bool,
}

impl Device for Switch {
    const NAME: &'static str = "switch";
    const PORTS: &'static [PortRange] = &[PortRange { first: 0x10, last: 0x12 }];
    const MEMORY: &'static [MemoryRange] = &[MemoryRange { start: CLAIMED, length: 16 }];

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
    fn read_memory(&mut self, address: u64, _: Width, _: &mut Context<'_>) -> u64 {
        if address == CLAIMED { x86::msr::EFER.into() } else { 1 }
    }
    fn expire(&mut self, _: &mut Context<'_>) {
        self.rang = true;
    }
}

struct Product<S = Queue>(PhantomData<S>);

impl<S: contracts::Scheduler + 'static> Image for Product<S> {
    type Vcpu = FakeVcpu;
    type Host = FakeHost;
    type Scheduler = S;
    type LocalApic = Absent;
    type IoApic = Absent;
    type LegacyPic = Absent;
    type Devices = (Attached<Switch>, ());
    type ClockPage = Absent;
    const PROFILE: &'static Profile = &PROFILE;
}

/// Where the switch has memory, and where nobody has any.
const CLAIMED: u64 = 0xc000_0000;
const HOLE: u64 = 0xd000_0000;

fn out(port: u16, value: u8) -> Exit {
    let _ = value;
    Exit::Port(PortExit { port, width: Width::Byte, direction: Direction::Out })
}

/// Runs guests with these scripts, `rax` in RAX, until all have ended.
fn run(guests: [(&str, u64, OnReset, &[Exit]); 2]) -> (&'static FakeHost, &'static World<Product>) {
    let guests = guests.map(|(name, rax, on_reset, script)| {
        let mut plan = plan_of(name, on_reset);
        plan.start.rax = rax;
        (plan, &[][..], script)
    });
    let (host, monitor, _) = run_plans(false, &guests);
    (host, monitor)
}

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

/// Nobody but a start-up interrupt starts the second processor, which finds it attached and resets less than power-on does.
#[test]
fn every_processor_is_reset_when_its_compartment_starts() {
    let mut office = plan_of("office", OnReset::Restart);
    (office.vcpus, office.start.rax) = (2, 2);
    let banking = plan_of("banking", OnReset::Stop);
    let guests = [(office, &[][..], &[OFF, Exit::Shutdown][..]), (banking, &[], &[Exit::Shutdown][..])];
    let (_, monitor, vault): (_, &World<Product>, &Vault<Product>) = world_of_plans(false, &guests);
    let second = |change: &dyn Fn(&mut FakeVcpu)| {
        vault
            .enter(0, |state, _| {
                let mut vcpu = state.vcpus[1].lock();
                change(&mut vcpu.virt);
                vcpu.virt.state
            })
            .unwrap()
    };
    let old = second(&|virt| virt.state.general[0] = 0x77);
    assert_eq!(old.general[0], 0x77);
    monitor.run(CpuIndex(0));
    assert_eq!(second(&|_| ()), StartState::start_up(0, 0));
}

/// One processor, whose turns have no end.
struct Endless(Queue);

impl contracts::Scheduler for Endless {
    fn new(cpus: u8) -> Self {
        Self(Queue::new(cpus))
    }
    fn admit(&self, vcpu: VcpuName, weight: u32, pinned: Option<CpuIndex>) -> bool {
        self.0.admit(vcpu, weight, pinned)
    }
    fn retire(&self, vcpu: VcpuName) {
        self.0.retire(vcpu);
    }
    fn next(&self, cpu: CpuIndex, now: HostTime) -> Turn {
        match self.0.next(cpu, now) {
            Turn::Run { vcpu, .. } => Turn::Run { vcpu, until: None },
            idle @ Turn::Idle { .. } => idle,
        }
    }
    fn leave(&self, cpu: CpuIndex, vcpu: VcpuName, now: HostTime, why: Leave) {
        self.0.leave(cpu, vcpu, now, why);
    }
    fn wake(&self, vcpu: VcpuName, now: HostTime) -> Option<CpuIndex> {
        self.0.wake(vcpu, now)
    }
    fn contended(&self, _: CpuIndex) -> bool {
        false
    }
}

/// A guest that reads its keyboard by polling has no exit that ends its turn: what waits for room there is offered again all the same.
#[test]
fn what_was_typed_is_offered_again_in_a_turn_without_an_end() {
    let deadline = |typed: &[u8]| {
        let mut plans = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
        for plan in &mut plans {
            plan.start.rax = 1;
        }
        let [office, banking] = plans;
        let guests = [(office, &[][..], &[OFF][..]), (banking, &[], &[OFF][..])];
        let (host, monitor, vault): (_, &World<Product<Endless>>, &Vault<Product<Endless>>) =
            world_of_plans(false, &guests);
        monitor.slots[0].set_state(State::Running);
        vault.enter(0, |state, _| {
            let mut vcpu = state.vcpus[0].lock();
            vcpu.set_activity(Activity::Running);
            vcpu.virt.state.general[0] = 1;
            vcpu.virt.timer.0 = true;
        });
        // The switch is no console: it has no room for anything.
        for byte in typed {
            host.type_byte(*byte);
        }
        let now = host.now().0;
        monitor.run(CpuIndex(0));
        let armed = vault.enter(0, |state, _| state.vcpus[0].lock().virt.timer.1).unwrap();
        armed.map(|at| at.0 - now)
    };
    assert_eq!(deadline(b""), None);
    assert_eq!(deadline(b"\x1d1x"), Some(5_000_000), "five milliseconds");
}

/// What one vCPU taught a processor's predictors is not for the next: be that of another compartment or of the same.
#[test]
fn predictors_are_cleared_between_vcpus() {
    let mut plans = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
    for plan in &mut plans {
        (plan.vcpus, plan.start.rax) = (2, 1);
    }
    let [office, banking] = plans;
    // Long enough for office's end.
    let mut alone = [Exit::Interrupted; 10];
    alone[9] = OFF;
    let guests = [(office, &[][..], &[Exit::Interrupted, OFF][..]), (banking, &[], &alone)];
    let (_, monitor, vault): (_, &World<Product>, &Vault<Product>) = world_of_plans(false, &guests);
    // Runs between the first two turns of banking's first, and has not been started: it goes back to wait at once.
    let second = VcpuName { compartment: 1, vcpu: 1 };
    monitor.scheduler().wake(second, HostTime(0));
    monitor.run(CpuIndex(0));
    let strangers = |compartment, vcpu: usize| {
        let came = vault.enter(compartment, |state, _| state.vcpus[vcpu].lock().virt.attachments.clone());
        came.unwrap().iter().map(|how| how.stranger).collect::<Vec<_>>()
    };
    assert_eq!(strangers(0, 0), [true, true]);
    assert_eq!(strangers(1, 1), [true, true]);
    let turns = strangers(1, 0);
    assert!(turns.starts_with(&[true, true]) && turns.ends_with(&[false, false]), "{turns:?}");
}

/// Whom it waits for may wait for its processor. Where it does not spin, its turn would go on.
#[test]
fn a_guest_that_spins_leaves_its_processor_to_others() {
    let turns = |exit| {
        let mut plans = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
        for plan in &mut plans {
            plan.start.rax = 1;
        }
        let [office, banking] = plans;
        let guests = [(office, &[][..], &[exit, OFF][..]), (banking, &[], &[OFF][..])];
        let (_, monitor, vault): (_, &World<Product>, &Vault<Product>) = world_of_plans(false, &guests);
        monitor.run(CpuIndex(0));
        let came = vault.enter(0, |state, _| state.vcpus[0].lock().virt.attachments.len());
        (came, monitor.slots[0].state())
    };
    assert_eq!(turns(Exit::CacheInvalidation), (Some(1), State::ShutDown));
    assert_eq!(turns(Exit::Pause), (Some(2), State::ShutDown));
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
        (
            Exit::Failed(contracts::EntryFailure { code: 7, rule: None }),
            "the processor refused the guest's state (0x7)",
        ),
        (
            Exit::Failed(contracts::EntryFailure { code: 7, rule: Some("CR3 is too wide") }),
            "the processor refused the guest's state (0x7): CR3 is too wide",
        ),
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

const fn string_port(port: u16, direction: Direction) -> Exit {
    Exit::StringPort(StringPortExit { port, width: Width::Byte, direction, repeat: false, operand: None })
}

const MOVSB: &[u8] = &[0xa4];
const LODSB: &[u8] = &[0xac];

/// Office does what the bytes and the exit say, then asks to be switched off; banking goes on for a while.
fn run_unclaimed(
    on_unclaimed: OnUnclaimed,
    code: &[u8],
    script: &[Exit],
) -> (String, &'static World<Product>, &'static Vault<Product>) {
    let mut office = plan_of("office", OnReset::Stop);
    (office.vcpus, office.on_unclaimed) = (2, on_unclaimed);
    office.start.rsi = if code == MOVSB || code == LODSB { HOLE } else { 0 };
    let mut banking = plan_of("banking", OnReset::Stop);
    (banking.on_unclaimed, banking.start.rax) = (OnUnclaimed::Stop, 1);
    let quiet = [Exit::Interrupted, Exit::Interrupted, Exit::Interrupted, Exit::Interrupted, OFF];
    let (host, monitor, vault) = run_plans(false, &[(office, code, script), (banking, &[], &quiet)]);
    let shown = console(host);
    assert_eq!(monitor.slots[1].state(), State::ShutDown, "the neighbour does not notice: {shown}");
    assert!(shown.contains("report banking state=shut-down reason=\"\""), "{shown}");
    (shown, monitor, vault)
}

#[test]
fn what_is_unclaimed_is_answered_or_the_end() {
    // What the guest executes, the exit that follows, and the words for it.
    let cases: [(&[u8], Exit, &str); 12] = [
        (&[0xec], port(0x1234, Direction::In), "read of port 0x1234"),
        (&[0xee], port(0x1234, Direction::Out), "write of port 0x1234"),
        // INSB and OUTSB, to and from address 0.
        (&[0x6c], string_port(0x1234, Direction::In), "read of port 0x1234"),
        (&[0x6e], string_port(0x1234, Direction::Out), "write of port 0x1234"),
        // MOV ECX, [RBX] and back; MOVSB, from the hole to address 0.
        (&[0x8b, 0x0b], memory(HOLE | 0x123, Access::Read), "read of memory page 0xd0000000"),
        (&[0x89, 0x0b], memory(HOLE | 0x123, Access::Write), "write of memory page 0xd0000000"),
        (MOVSB, memory(HOLE, Access::Read), "read of memory page 0xd0000000"),
        // INC DWORD [RBX]: reads, then writes; the first is what counts.
        (&[0xff, 0x03], memory(HOLE, Access::Write), "read of memory page 0xd0000000"),
        // LODSB reads once.
        (LODSB, memory(HOLE, Access::Read), "read of memory page 0xd0000000"),
        (&[], memory(HOLE | 0x123, Access::Execute), "fetch from memory page 0xd0000000"),
        (&[0x0f, 0x32], Exit::ReadMsr, "read of MSR 0x0"),
        (&[0x0f, 0x30], Exit::WriteMsr, "write of MSR 0x0"),
    ];
    for (code, exit, words) in cases {
        let script = [exit, OFF];
        let (shown, monitor, vault) = run_unclaimed(OnUnclaimed::Stop, code, &script);
        assert_eq!(monitor.slots[0].state(), State::Stopped, "{words}: {shown}");
        assert!(
            shown.contains(&format!("ringfence| office stopped: unclaimed access: {words}\r\n")),
            "{shown}"
        );
        let report =
            format!("report office state=stopped reason=\"unclaimed access: {words}\" restarts=0 exits");
        assert!(shown.contains(&report), "{shown}");
        // The registers are those with which the guilty vCPU came to the instruction.
        assert!(shown.contains("office vcpu 0 rip=0x1000 "), "{words}: {shown}");
        assert_eq!(shown.matches(" stopped: ").count(), 1, "{shown}");
        // It was noted as ever, and was the last thing that the guest did.
        let noted = shown.lines().find(|line| line.contains("audit office unknown times=1 first=")).unwrap();
        assert!(noted.ends_with(words), "{words}: {noted}");
        assert_eq!(monitor.slots[0].exits().map(|(_, count)| count).sum::<u64>(), 1, "{words}: {shown}");
        let mut left = [0xff; RAM];
        assert_eq!(vault.enter(0, |_, memory| memory.read(GuestPhysical::new(0), &mut left)), Some(Ok(())));
        assert!(left.iter().all(|byte| *byte == 0), "{words}: its memory is not zero");

        let (shown, monitor, _) = run_unclaimed(OnUnclaimed::Answer, code, &script);
        // Where the answer, all ones, came to AL, it asks for a reset instead.
        assert!(matches!(monitor.slots[0].state(), State::ShutDown | State::Reset), "{words}: {shown}");
        assert!(!shown.contains("stopped"), "{shown}");
        let noted = shown.lines().find(|line| line.contains("audit office unknown times=1 first=")).unwrap();
        assert!(noted.ends_with(words), "{words}: {noted}");
        assert_eq!(monitor.slots[0].exits().map(|(_, count)| count).sum::<u64>(), 2, "{words}: {shown}");
    }
}

#[test]
fn what_is_claimed_never_stops() {
    let code = [
        0xe4, 0x12, // IN AL, 0x12
        0xe6, 0x11, // OUT 0x11, AL
        0x6c, // INSB
        0x8b, 0x0b, // MOV ECX, [RBX]: EFER's number
        0x89, 0x0b, // MOV [RBX], ECX
        0x0f, 0x32, // RDMSR
        0x0f, 0x30, // WRMSR
        0x8b, 0x03, // MOV EAX, [RBX]: one
    ];
    let script = [
        port(0x12, Direction::In),
        port(0x11, Direction::Out),
        string_port(0x12, Direction::In),
        memory(CLAIMED, Access::Read),
        memory(CLAIMED, Access::Write),
        Exit::ReadMsr,
        Exit::WriteMsr,
        // Neither of these is an access.
        Exit::Hypercall,
        Exit::Unsupported(Unsupported::MonitorWait),
        memory(CLAIMED + 8, Access::Read),
        OFF,
    ];
    let (shown, monitor, _) = run_unclaimed(OnUnclaimed::Stop, &code, &script);
    assert_eq!(monitor.slots[0].state(), State::ShutDown, "{shown}");
    assert!(shown.contains("audit office unknown times=1 "), "{shown}");
    assert!(shown.contains(" hypercall 0x"), "{shown}");
    assert!(shown.contains("report office state=shut-down reason=\"\""), "{shown}");
    assert!(shown.contains("audit denied=1 malformed=0 unknown=1"), "{shown}");
}
