//! Judges the machine and the boot module, builds the compartments, and lets the processors go. Until everything was judged, no
//! compartment exists; where anything does not fit, one sentence says what, and the machine is turned off.

use crate::image::{COMPARTMENTS, PROFILE, Product, REQUIREMENTS, VCPUS};
use crate::parts::{ClockPage, Watch};
use address::HostPhysical;
use backend::{BackEnd as _, Stage as _, Watch as _};
use boot::{Boot, SpacePlan, refuse, say};
use contracts::{Clock, CpuIndex, Host, MapMode};
use cpu::Features;
use memory::{Frames, PrivateArea, PrivateVault, Ram};
use monitor::compartment::Compartment;
use monitor::slot::Slot;
use monitor::{CpuidTable, Facts, Monitor};
use plan::Plan;
use spin::{Mutex, MutexGuard};

type State<P> = Compartment<P, VCPUS>;
type Vault<P> = PrivateVault<State<P>, COMPARTMENTS>;
type TheMonitor<P> = Monitor<'static, P, Vault<P>, COMPARTMENTS, VCPUS>;

/// What a product keeps for ever. Empty lists are all zeros and take no bytes of the image's file.
pub struct Places<P: Product> {
    vault: Vault<P>,
    /// The monitor's place.
    place: Mutex<heapless::Vec<TheMonitor<P>, 1>>,
    /// What all processors work with, once the first has made it.
    monitor: Mutex<heapless::Vec<(&'static TheMonitor<P>, Features), 1>>,
}

impl<P: Product> Places<P> {
    /// With nobody in them.
    pub const fn new() -> Self {
        Self {
            vault: Vault::new(),
            place: Mutex::new(heapless::Vec::new()),
            monitor: Mutex::new(heapless::Vec::new()),
        }
    }
}

static SLOTS: [Slot<VCPUS>; COMPARTMENTS] = [const { Slot::new() }; COMPARTMENTS];
static BOOTED: Mutex<Booted> =
    Mutex::new(Booted { plan: Plan { compartments: heapless::Vec::new() }, frames: Frames::NONE });

/// What set-up works on and leaves behind. Too large for a processor's stack.
struct Booted {
    /// What the boot module says.
    plan: Plan,
    /// What is free once everything was carved. Nothing is carved or given back afterwards, and at the end of a run that is said.
    frames: Frames,
}

/// Extents that a compartment's RAM can come in: see [`memory::MOST_EXTENTS`], and one cut at 4 GiB.
const EXTENTS: usize = memory::MOST_EXTENTS + 1;

/// The place of the image's symbol table, which `./ringfence build` fills after linking: the names that a host fault is reported with.
static SYMBOL_TABLE: [u8; symbols::CAPACITY] = [0; symbols::CAPACITY];

/// An image that is one product.
pub const fn one<P: Product>() -> boot::Product {
    boot::Product { missing: missing::<P>, requirements: &REQUIREMENTS, run: run::<P> }
}

/// An image for processors of both vendors: the one that boots decides, here and nowhere else.
pub const fn either<A: Product, I: Product>() -> boot::Product {
    boot::Product {
        missing: |features| {
            let (amd, intel) = (missing::<A>(features)?, missing::<I>(features)?);
            Some(match (features.svm, features.vmx) {
                (true, _) => amd,
                (_, true) => intel,
                (false, false) => {
                    "this processor has neither AMD-V (SVM) nor VT-x, which parts svm and vmx need"
                }
            })
        },
        requirements: &REQUIREMENTS,
        run: |boot| match missing::<A>(&boot.features) {
            None => run::<A>(boot),
            Some(_) => run::<I>(boot),
        },
    }
}

/// What keeps a product from being used on a processor with these features.
fn missing<P: Product>(features: &Features) -> Option<&'static str> {
    P::BackEnd::missing(features)
        .or_else(|| P::Stage::missing(features))
        .or_else(|| REQUIREMENTS.unmet(features))
}

/// From a booted machine to compartments that run.
fn run<P: Product>(mut boot: Boot) -> ! {
    let machine = boot.machine;
    // The compiler must not conclude that the table is empty: it is filled behind its back.
    cpu::fault::set_symbols(core::hint::black_box(&SYMBOL_TABLE));
    say(format_args!("profile {}, processor signature {:#x}", PROFILE.name, boot.features.signature));
    let mut booted = BOOTED.lock();
    let Booted { plan, frames } = &mut *booted;
    judge(boot.module(), plan);
    Watch::begin(boot.frames(), &boot.features);
    let cpus = boot.start_processors(PROFILE.limits.cpus);
    if let Err(needed) = P::BackEnd::prepare(boot.frames_mut(), usize::from(cpus)) {
        refuse(format_args!(
            "{cpus} processors need {} KiB of their own, {} KiB are left",
            needed >> 10,
            boot.frames().free() >> 10
        ));
    }
    judge_memory::<P>(&boot, plan);
    let mut free = boot.frames().free();
    let own = boot.frames().total().wrapping_sub(free);
    let features = boot.features;
    let places = P::places();
    let place = MutexGuard::leak(places.place.lock());
    let _ = place.push(Monitor::new(machine, &places.vault, &SLOTS, cpus));
    let Some(monitor) = place.first() else { cpu::halt() };
    let _ = places.monitor.lock().push((monitor, features));
    let Some(clock) = Clock::new(machine.kilohertz()) else {
        refuse(format_args!("a time stamp counter of {} kHz is not believable", machine.kilohertz()));
    };
    admit(monitor, plan, cpus);
    let mut number = 0;
    for (index, compartment) in plan.compartments.iter().enumerate() {
        let index = index as u8;
        let facts = Facts { index, wall_clock: 0, origin: machine.now(), clock };
        if let Err(reason) = build::<P>(&mut boot, facts, compartment, number, &features) {
            refuse(format_args!("compartment {}: {reason}", compartment.name));
        }
        number += u32::from(compartment.vcpus);
        let before = core::mem::replace(&mut free, boot.frames().free());
        say(format_args!(
            "compartment {}: {} MiB, {} vCPUs, {} KiB beside",
            compartment.name,
            compartment.memory >> 20,
            compartment.vcpus,
            before.wrapping_sub(free).wrapping_sub(compartment.memory) >> 10
        ));
    }
    say(format_args!(
        "{cpus} processors, {} KiB of the hypervisor's own, {} KiB of boot module, {} KiB free, started after {} ticks",
        own >> 10,
        boot.module().len() >> 10,
        free >> 10,
        machine.now().0.wrapping_sub(boot.entry_ticks()),
    ));
    core::mem::swap(frames, boot.frames_mut());
    drop(booted);
    boot.enter(work::<P>)
}

/// What every processor does from now on.
fn work<P: Product>(cpu: CpuIndex) -> ! {
    let Some((monitor, features)) = P::places().monitor.lock().first().copied() else { cpu::halt() };
    Watch::enabled();
    if P::BackEnd::enable(cpu, &features) {
        monitor.run(cpu);
    } else {
        monitor.say(format_args!("virtualization cannot be switched on for processor {}", cpu.0));
    }
    if cpu == CpuIndex(0) {
        if let Some(looks) = Watch::looks() {
            monitor.say(format_args!("isolation: {looks} looks at all mappings, nothing found"));
        }
        monitor.say(format_args!("{} KiB free", BOOTED.lock().frames.free() >> 10));
        let [spurious, unexpected] = cpu::interrupt::strays();
        if spurious | unexpected != 0 {
            monitor.say(format_args!(
                "{spurious} spurious interrupts, {unexpected} on vectors that nobody uses"
            ));
        }
        monitor.say(format_args!("end"));
        monitor.host().power_off();
    }
    cpu::halt()
}

/// Private pages of a compartment.
fn private_pages<P: Product>(compartment: &plan::Compartment, features: &Features) -> usize {
    Vault::<P>::STATE_PAGES
        + usize::from(compartment.vcpus) * P::BackEnd::pages(features)
        + usize::from(P::BackEnd::SHOWN)
        + P::Stage::pages(compartment.memory, EXTENTS + usize::from(P::BackEnd::SHOWN))
        + Watch::PAGES
}

/// The payloads of a compartment: offset in the module and length.
fn payloads(compartment: &plan::Compartment) -> heapless::Vec<(u64, u64), { plan::SEGMENTS }> {
    let mut payloads = heapless::Vec::new();
    for segment in &compartment.segments {
        // There is room for as many as a compartment can have. What collects does not know that, and would panic.
        let _ = payloads.push((segment.source, segment.length));
    }
    payloads
}

fn space_plan<'plan, P: Product>(
    index: u8,
    compartment: &plan::Compartment,
    payloads: &'plan [(u64, u64)],
    features: &Features,
) -> SpacePlan<'plan> {
    let (low, high) = plan::memory_layout(compartment.memory);
    SpacePlan { index, low, high, private_pages: private_pages::<P>(compartment, features), payloads }
}

/// Judges the boot module: its form, and the profile's limits.
#[inline(never)]
fn judge(module: &[u8], plan: &mut Plan) {
    if let Err(refusal) = plan::read_into(module, module.len() as u64, plan) {
        refuse(format_args!("{refusal}"));
    }
    let payloads_hold = plan::payloads(module).is_some_and(|payloads| {
        module
            .get(payloads.start as usize..)
            .is_some_and(|bytes| plan::Checksum::new().with(bytes).value() == payloads.checksum)
    });
    if !payloads_hold {
        refuse(format_args!("{}", plan::Refusal::Payloads));
    }
    if plan.compartments.len() > COMPARTMENTS {
        refuse(format_args!(
            "the plan has {} compartments; profile {} holds {COMPARTMENTS}",
            plan.compartments.len(),
            PROFILE.name
        ));
    }
    for compartment in &plan.compartments {
        if usize::from(compartment.vcpus) > VCPUS {
            refuse(format_args!(
                "compartment {} has {} vCPUs; profile {} holds {VCPUS} each",
                compartment.name, compartment.vcpus, PROFILE.name
            ));
        }
    }
}

/// Judges whether there is memory for all compartments.
#[inline(never)]
fn judge_memory<P: Product>(boot: &Boot, plan: &Plan) {
    let mut lists = heapless::Vec::<_, { plan::COMPARTMENTS }>::new();
    for compartment in &plan.compartments {
        // The plan holds no more.
        let _ = lists.push(payloads(compartment));
    }
    let plans = plan.compartments.iter().zip(&lists).enumerate().map(|(index, (compartment, payloads))| {
        space_plan::<P>(index as u8, compartment, payloads, &boot.features)
    });
    if let Err((index, error)) = boot.fits(plans) {
        let name = plan.compartments.get(usize::from(index)).map_or("", |compartment| &compartment.name);
        refuse(format_args!("compartment {name}: {error}"));
    }
}

/// Gives the vCPUs their processors, of which `cpus` run.
#[inline(never)]
fn admit<P: Product>(monitor: &TheMonitor<P>, plan: &Plan, cpus: u8) {
    let mut others = 0;
    for (index, compartment) in plan.compartments.iter().enumerate() {
        if monitor.admit(index as u8, compartment) {
            others += u32::from(compartment.vcpus);
            continue;
        }
        let (name, vcpus) = (&compartment.name, compartment.vcpus);
        match compartment.cpus.iter().find(|cpu| **cpu >= cpus) {
            Some(cpu) => refuse(format_args!("compartment {name} needs processor {cpu}, {cpus} run, from 0")),
            None => refuse(format_args!(
                "compartment {name}: its {vcpus} vCPUs need a processor each, beside {others} of others; {cpus} run"
            )),
        }
    }
}

/// Builds one compartment in a space of its own. `number` counts vCPUs of the machine from 0.
#[inline(never)]
fn build<P: Product>(
    boot: &mut Boot,
    facts: Facts,
    compartment: &plan::Compartment,
    number: u32,
    features: &Features,
) -> Result<(), &'static str> {
    let payloads = payloads(compartment);
    let plan = space_plan::<P>(facts.index, compartment, &payloads, features);
    let space = boot.space(&plan).map_err(|_| "its space cannot be made")?;
    Watch::made(&space);
    let machine = boot.machine;
    let facts = Facts {
        // The compartment's time is 0 now; the wall clock is the host's at that moment.
        wall_clock: machine.wall_clock() + facts.origin.0 / 1000 / u64::from(machine.kilohertz()).max(1),
        ..facts
    };
    let mut failure = None;
    let installed = P::places().vault.install(usize::from(facts.index), space, |area, ram| {
        let root = second_stage::<P>(area, ram, facts.index, compartment, features);
        if root.is_none() {
            failure = Some("its second stage cannot be made");
        }
        let root = root.unwrap_or_default();
        Watch::built(facts.index, root, area);
        let vcpus = (0..u32::from(compartment.vcpus))
            .map_while(|vcpu| P::BackEnd::vcpu(area, root, number + vcpu, features));
        let cpuid =
            CpuidTable::freeze::<ClockPage, P::Vcpu>(cpu::cpuid, compartment.vcpus, machine.kilohertz());
        State::new(facts, compartment.clone(), cpuid, vcpus)
    });
    installed.map_err(|_| "its private area is too small")?;
    failure.map_or(Ok(()), Err)
}

/// Maps the compartment's RAM in its second stage; answers the root.
#[inline(never)]
fn second_stage<P: Product>(
    area: &mut PrivateArea,
    ram: &Ram,
    index: u8,
    compartment: &plan::Compartment,
    features: &Features,
) -> Option<HostPhysical> {
    use contracts::SecondStage as _;
    let count = P::Stage::pages(compartment.memory, EXTENTS + usize::from(P::BackEnd::SHOWN));
    let mut stage = P::Stage::new(index, area.pages(count)?, count, features);
    for extent in ram.extents() {
        stage.map(extent.at, &extent.frames, MapMode::RAM).ok()?;
    }
    if P::BackEnd::SHOWN {
        let (at, frames) = P::BackEnd::shown(area)?;
        stage.map(at, &frames, MapMode { write: false, execute: false }).ok()?;
    }
    Some(stage.root())
}
