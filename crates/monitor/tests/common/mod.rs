//! What the tests of whole compartments share: a machine with one processor, and guests that run there until they have ended.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use address::GuestPhysical;
use contracts::absent::Absent;
use contracts::fake::{FakeHost, FakeVault, FakeVcpu, Script};
use contracts::{
    Access, Clock, CpuIndex, Direction, Exit, GuestMemory, Host, HostTime, Image, Leave, Limits, MemoryExit,
    PortExit, Profile, Scheduler, Turn, Vault as _, VcpuName,
};
use monitor::compartment::Compartment;
use monitor::{CpuidTable, Facts, Monitor};
use plan::{Mode, OnReset, OnUnclaimed, Start};
use spin::Mutex;
use x86::Width;

/// One processor, first come first served. A turn is over at the first interrupt.
pub struct Queue(Mutex<Vec<(VcpuName, bool, Option<HostTime>)>>);

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
                Turn::Run { vcpu: entry.0, until: Some(now) }
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

/// A virtual processor that plays back exits in order, and then halts for ever.
pub trait Played {
    fn of(interruptible: bool, script: &[Exit]) -> Self;
}

impl<S: Script + Default + Extend<Exit>> Played for FakeVcpu<S> {
    fn of(interruptible: bool, script: &[Exit]) -> Self {
        let mut vcpu = Self::new(S::default());
        vcpu.script.extend(script.iter().copied());
        vcpu.interruptible = interruptible;
        vcpu
    }
}

pub static PROFILE: Profile = Profile {
    name: "fake",
    limits: Limits { compartments: 2, vcpus_per_compartment: 2, cpus: 1 },
    parts: &[],
};

pub const RAM: usize = 0x4000;

pub fn plan_of(name: &str, on_reset: OnReset) -> plan::Compartment {
    plan::Compartment {
        name: name.try_into().unwrap(),
        memory: plan::MEMORY_LEAST,
        vcpus: 1,
        share: 100,
        cpus: heapless::Vec::new(),
        on_reset,
        on_unclaimed: OnUnclaimed::Answer,
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

pub type Vault<I> = FakeVault<Compartment<I, 2>, 2, RAM>;
pub type World<I> = Monitor<'static, I, Vault<I>, 2, 2>;

/// As `run_plans`, but does not run them yet.
pub fn world_of_plans<I: Image<Vcpu: Played, Host = FakeHost>>(
    interruptible: bool,
    guests: &[(plan::Compartment, &[u8], &[Exit]); 2],
) -> (&'static FakeHost, &'static World<I>, &'static Vault<I>) {
    let host: &'static FakeHost = Box::leak(Box::default());
    host.advance(1000);
    let states = std::array::from_fn(|index| {
        let (plan, _, script) = &guests[index];
        let vcpu = I::Vcpu::of(interruptible, script);
        let facts = Facts {
            index: index as u8,
            wall_clock: 0,
            origin: host.now(),
            clock: Clock::new(host.kilohertz()).unwrap(),
        };
        let cpuid = CpuidTable::freeze::<Absent, I::Vcpu>(|leaf, _| [leaf, 1, 2, 3], 1, host.kilohertz());
        let others = (1..plan.vcpus).map(|_| I::Vcpu::of(false, &[]));
        Compartment::new(facts, plan.clone(), cpuid, std::iter::once(vcpu).chain(others))
    });
    let vault: &'static Vault<I> = Box::leak(Box::new(FakeVault::new(states)));
    let slots = Box::leak(Box::default());
    let monitor: &'static World<I> = Box::leak(Box::new(Monitor::new(host, vault, slots, 1)));
    for (index, (plan, code, _)) in guests.iter().enumerate() {
        let entry = GuestPhysical::new(plan.start.entry);
        assert_eq!(vault.enter(index, |_, memory| memory.write(entry, code)), Some(Ok(())));
        assert!(monitor.admit(index as u8, plan));
    }
    (host, monitor, vault)
}

/// Runs guests with these plans, these bytes at their entry points and these scripts for their first vCPUs, until all have ended.
/// Interruptible, those take interrupts from their start on.
pub fn run_plans<I: Image<Vcpu: Played, Host = FakeHost, Scheduler = Queue>>(
    interruptible: bool,
    guests: &[(plan::Compartment, &[u8], &[Exit]); 2],
) -> (&'static FakeHost, &'static World<I>, &'static Vault<I>) {
    let (host, monitor, vault) = world_of_plans(interruptible, guests);
    monitor.run(CpuIndex(0));
    (host, monitor, vault)
}

pub fn console(host: &FakeHost) -> String {
    String::from_utf8(host.console().to_vec()).unwrap()
}

/// Switches off, at a port that the product must have.
pub const OFF: Exit = Exit::Port(PortExit { port: 0x10, width: Width::Byte, direction: Direction::Out });

pub const fn port(port: u16, direction: Direction) -> Exit {
    Exit::Port(PortExit { port, width: Width::Byte, direction })
}

pub fn memory(address: u64, access: Access) -> Exit {
    Exit::Memory(MemoryExit { address: GuestPhysical::new(address), access, during_walk: false })
}
