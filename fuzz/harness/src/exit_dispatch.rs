//! The monitor: two compartments of two vCPUs, whose guests do and answer what the bytes say, from their start to their end.
//!
//! The whole of it is real: monitor, shared scheduler, all device models, console, lifecycle. Only the processor and the machine are fakes.
//! Between two exits the guest may change its registers, its memory and its modes, as far as a processor would let it.

use crate::tape::Tape;
use address::GuestPhysical;
use contracts::fake::{FakeHost, FakeVcpu, Memory, Script};
use contracts::{
    Access, Attached, Clock, ControlAccess, CpuIndex, Direction, EntryFailure, Exit, GuestMemory, Host,
    HostTime, Image, Limits, MemoryExit, PortExit, Profile, StringOperand, StringPortExit, Unsupported,
    Vault,
};
use monitor::compartment::Compartment;
use monitor::slot::Slot;
use monitor::{CpuidTable, Facts, Monitor};
use plan::{Mode, OnReset, OnUnclaimed, Start};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use x86::{CodeSize, Cr0, Cr4, Efer, Exception, General, Rflags, SegmentName, Width, msr};

const COMPARTMENTS: usize = 2;
const VCPUS: usize = 2;
/// RAM of each compartment, as far as the fake has it.
const RAM: usize = 0x4000;
/// Where code and data of the guests mostly lie.
const CODE: u64 = 0x1000;
/// How often the machine may wait in one run.
const MOST_WAITS: u32 = 300;
/// Entries behind the end of the input: each vCPU finds its end at the next, in this life or, after a reset that was on its way, in the next.
const LAST_ENTRIES: usize = 8;

struct Product;

static PROFILE: Profile = Profile {
    name: "fuzz",
    limits: Limits { compartments: COMPARTMENTS as u8, vcpus_per_compartment: VCPUS as u8, cpus: 1 },
    parts: &[],
};

impl Image for Product {
    type Vcpu = FakeVcpu<Guest>;
    type Host = Machine;
    type Scheduler = schedule_shared::ScheduleShared<{ COMPARTMENTS * VCPUS }>;
    type LocalApic = local_apic::LocalApic;
    type IoApic = io_apic::IoApic;
    type LegacyPic = pic::Pic;
    type Devices = (
        Attached<pit::Pit>,
        (
            Attached<rtc::Rtc>,
            (Attached<uart::Uart>, (Attached<pci_host::PciHost>, (Attached<acpi_power::AcpiPower>, ()))),
        ),
    );
    type ClockPage = kvm_clock::KvmClock;
    const PROFILE: &'static Profile = &PROFILE;
}

/// The machine would wait for ever, or has waited often enough: the run is over.
struct Over;

/// A machine that stops where a real one would sleep for ever.
#[derive(Default)]
struct Machine {
    fake: FakeHost,
    waits: AtomicU32,
    console: spin::Mutex<Vec<u8>>,
}

impl Host for Machine {
    fn now(&self) -> HostTime {
        self.fake.now()
    }
    fn kilohertz(&self) -> u32 {
        self.fake.kilohertz()
    }
    fn wall_clock(&self) -> u64 {
        self.fake.wall_clock()
    }
    fn machine_check(&self) {
        self.fake.machine_check();
    }
    fn arm(&self, deadline: Option<HostTime>) {
        self.fake.arm(deadline);
    }
    fn kick(&self, cpu: CpuIndex) {
        self.fake.kick(cpu);
    }
    fn service(&self) {}
    fn wait(&self) {
        if self.fake.deadline().is_none() || self.waits.fetch_add(1, Ordering::Relaxed) > MOST_WAITS {
            // No panic: what is unwound here calls no hook.
            resume_unwind(Box::new(Over));
        }
        self.fake.wait();
    }
    fn console_write(&self, bytes: &[u8]) {
        self.console.lock().extend_from_slice(bytes);
    }
    fn console_read(&self) -> Option<u8> {
        self.fake.console_read()
    }
    fn power_off(&self) -> ! {
        resume_unwind(Box::new(Over))
    }
}

/// What all vCPUs of a run share.
struct World {
    tape: spin::Mutex<Tape>,
    machine: Arc<Machine>,
    entries: AtomicU32,
}

/// What a vCPU's guest does.
struct Guest {
    world: Arc<World>,
    memory: Arc<Memory<RAM>>,
}

impl Script for Guest {
    fn next(vcpu: &mut FakeVcpu<Self>) -> Exit {
        let world = Arc::clone(&vcpu.script.world);
        world.entries.fetch_add(1, Ordering::Relaxed);
        world.machine.fake.advance(1000);
        may_be_entered(vcpu);
        let mut tape = world.tape.lock();
        loop {
            if tape.is_over() {
                return Exit::Shutdown;
            }
            match tape.byte() {
                0..=127 => return exit(vcpu, &mut tape),
                operation => change(vcpu, operation, &mut tape),
            }
        }
    }

    fn ticks(&self, _: u64) -> u64 {
        self.world.machine.now().0
    }
}

/// What a processor refuses at VMRUN (APM Vol. 2 §15.5.1), the monitor must never ask for.
fn may_be_entered(vcpu: &FakeVcpu<Guest>) {
    let (cr0, cr4, efer) = (vcpu.state.cr0, vcpu.state.cr4, vcpu.state.efer);
    assert!(!cr0.contains(Cr0::NOT_WRITETHROUGH) || cr0.contains(Cr0::CACHE_DISABLE), "CR0 {cr0:?}");
    assert!(!cr0.contains(Cr0::PAGING) || cr0.contains(Cr0::PROTECTION), "CR0 {cr0:?}");
    assert_eq!(cr0.bits() >> 32, 0);
    assert!(Cr4::from_bits(cr4.bits()).is_some(), "CR4 {cr4:?}");
    assert!(
        Efer::from_bits(efer.bits()).is_some() && !efer.contains(Efer::SECURE_VIRTUAL_MACHINE),
        "EFER {efer:?}"
    );
    let long = efer.contains(Efer::LONG_MODE_ENABLE) && cr0.contains(Cr0::PAGING);
    assert!(!long || cr4.contains(Cr4::PHYSICAL_ADDRESS), "long mode without PAE");
    assert_eq!(
        long,
        efer.contains(Efer::LONG_MODE_ACTIVE),
        "long mode is active and not enabled, or the other way"
    );
    assert!(long || !cr4.contains(Cr4::PROCESS_CONTEXT), "PCIDE outside long mode");
    assert!(vcpu.xcr0.contains(x86::Xcr0::X87), "XCR0 without x87 state");
    assert!(monitor::control::page_attributes(vcpu.page_attributes), "PAT {:#x}", vcpu.page_attributes);
}

/// Changes what a guest can change without an exit.
fn change(vcpu: &mut FakeVcpu<Guest>, operation: u8, tape: &mut Tape) {
    match operation {
        128..=159 => vcpu.state.general[usize::from(operation & 15)] = value(tape),
        160..=175 => {
            // Code where it runs, and the registers' best places for data.
            let at = vcpu.state.segments.cs.base.wrapping_add(vcpu.state.instruction_pointer);
            let count = usize::from(operation & 15) + 1;
            let bytes = tape.bytes(count);
            let _ = vcpu.script.memory.write(GuestPhysical::new(at), &bytes);
        }
        176..=183 => {
            let (at, count) = (u64::from(tape.word()) % RAM as u64, usize::from(operation & 7) + 1);
            let bytes = tape.bytes(count);
            let _ = vcpu.script.memory.write(GuestPhysical::new(at), &bytes);
        }
        184..=191 => {
            // A page-table entry that leads somewhere.
            let at = (u64::from(tape.word()) % RAM as u64) & !7;
            let entry = u64::from(tape.byte() & 3) << 12 | u64::from(tape.byte()) | 1;
            let _ = vcpu.script.memory.write(GuestPhysical::new(at), &entry.to_le_bytes());
        }
        192..=199 => {
            vcpu.state.instruction_pointer = match operation & 3 {
                0 => CODE,
                1 => CODE + u64::from(tape.word() & 0xfff),
                2 => tape.value(),
                _ => (CODE + 0x1000).wrapping_sub(u64::from(tape.byte() & 15)),
            };
        }
        200..=207 => {
            let flags = Rflags::from_bits_truncate(tape.double().into());
            vcpu.state.flags = flags | Rflags::ALWAYS_ONE;
            if operation & 1 != 0 {
                vcpu.state.flags |= Rflags::INTERRUPT;
            }
        }
        208..=211 => vcpu.code = tape.one_of(&[CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64]),
        212..=219 => {
            let segments = &mut vcpu.state.segments;
            let segment = match tape.byte() % 6 {
                0 => &mut segments.es,
                1 => &mut segments.cs,
                2 => &mut segments.ss,
                3 => &mut segments.ds,
                4 => &mut segments.fs,
                _ => &mut segments.gs,
            };
            segment.base = tape.value();
            segment.limit = tape.value() as u32;
            segment.attributes = tape.word();
        }
        220..=223 => mode(vcpu, tape),
        224..=227 => {
            vcpu.instruction_length = match tape.byte() {
                0..=127 => None,
                length => Some(1 + u64::from(length) % 15),
            };
        }
        228..=231 => {
            let count = operation & 3;
            let length = [15, 0, 4, tape.byte() & 15][usize::from(count)];
            let mut bytes = [0; 15];
            let some = tape.bytes(length.into());
            bytes[..some.len()].copy_from_slice(&some);
            vcpu.fetched = (length, bytes);
        }
        232..=239 => vcpu.script.world.machine.fake.advance(tape.value() & ((1 << 50) - 1)),
        240..=243 => vcpu.script.world.machine.fake.type_byte(tape.byte()),
        244..=247 => vcpu.state.cr3 = tape.value(),
        _ => {
            vcpu.state.general[General::Rcx as usize] = register(tape).into();
            vcpu.state.general[General::Rax as usize] = tape.double().into();
            vcpu.state.general[General::Rdx as usize] = tape.byte().into();
        }
    }
}

/// Another mode of the processor, one that there is.
fn mode(vcpu: &mut FakeVcpu<Guest>, tape: &mut Tape) {
    let state = &mut vcpu.state;
    let flags = tape.word();
    let on = |bit: u16| flags & 1 << bit != 0;
    state.cr0 = Cr0::EXTENSION_TYPE;
    state.cr0.set(Cr0::PROTECTION, on(0) || on(1));
    state.cr0.set(Cr0::PAGING, on(1));
    state.cr0.set(Cr0::WRITE_PROTECT, on(2));
    state.cr0.set(Cr0::CACHE_DISABLE, on(3));
    let long = on(1) && on(4);
    state.efer = Efer::empty();
    state.efer.set(Efer::LONG_MODE_ENABLE, on(4));
    state.efer.set(Efer::LONG_MODE_ACTIVE, long);
    state.efer.set(Efer::NO_EXECUTE, on(5));
    state.cr4 = Cr4::empty();
    state.cr4.set(Cr4::PHYSICAL_ADDRESS, long || on(6));
    state.cr4.set(Cr4::PAGE_SIZE, on(7));
    state.cr4.set(Cr4::SUPERVISOR_EXECUTION, on(8));
    state.cr4.set(Cr4::SUPERVISOR_ACCESS, on(9));
    state.cr4.set(Cr4::PROCESS_CONTEXT, long && on(10));
    let privilege = if on(11) { 3 << 5 } else { 0 };
    state.segments.ss.attributes = state.segments.ss.attributes & !(3 << 5) | privilege;
    state.cr3 = if on(12) { tape.value() } else { 0 };
}

/// A number, or an address that means something to the platform.
fn value(tape: &mut Tape) -> u64 {
    match tape.byte() {
        choice @ 0..=63 => address(choice, tape),
        _ => tape.value(),
    }
}

/// A guest-physical address, mostly of registers.
fn address(choice: u8, tape: &mut Tape) -> u64 {
    match choice & 7 {
        0 | 1 => 0xfee0_0000 | u64::from(tape.byte()) << 4,
        2 => 0xfec0_0000 | u64::from(tape.byte() & 0x1f) << 1,
        3 => 0xfee0_0000 | u64::from(tape.word() & 0xfff),
        4 => u64::from(tape.word()) % RAM as u64,
        5 => 0xd000_0000 + u64::from(tape.word()),
        6 => CODE + u64::from(tape.byte()),
        _ => tape.value(),
    }
}

/// The number of a register, mostly of one that there is.
fn register(tape: &mut Tape) -> u32 {
    match tape.byte() {
        choice @ 0..=63 => msr::X2APIC_FIRST + u32::from(choice),
        choice @ 64..=95 => msr::MTRR_VARIABLE_FIRST + u32::from(choice & 31),
        choice @ 96..=127 => msr::EFER + u32::from(choice & 31),
        choice @ 128..=143 => msr::FS_BASE + u32::from(choice & 15),
        choice @ 144..=159 => msr::MTRR_FIXED_64K + 2 * u32::from(choice & 15),
        choice @ 160..=191 => msr::SYSENTER_CS + u32::from(choice & 31),
        choice @ 192..=199 => kvm_clock::WALL_CLOCK + u32::from(choice & 7),
        choice @ 200..=223 => {
            const REST: [u32; 12] = [
                msr::TSC,
                msr::APIC_BASE,
                msr::SPEC_CTRL,
                msr::PRED_CMD,
                msr::PATCH_LEVEL,
                msr::MTRR_CAP,
                msr::PAT,
                msr::MTRR_DEFAULT_TYPE,
                msr::TSC_DEADLINE,
                msr::XSS,
                msr::VM_CR,
                msr::OSVW_LENGTH,
            ];
            REST[usize::from(choice) % REST.len()]
        }
        choice @ 224..=239 => msr::SYSTEM_CONFIGURATION + u32::from(choice & 15),
        _ => tape.double(),
    }
}

/// A port, mostly of a device.
fn port(tape: &mut Tape) -> u16 {
    const RANGES: [(u16, u16); 9] = [
        (0x20, 2),
        (0xa0, 2),
        (0x40, 4),
        (0x61, 1),
        (0x70, 2),
        (0x3f8, 8),
        (0xcf8, 8),
        (0x4d0, 2),
        (0x600, 16),
    ];
    match tape.byte() {
        choice @ 0..=223 => {
            let (first, length) = RANGES[usize::from(choice >> 4) % RANGES.len()];
            first + u16::from(choice & 15) % length
        }
        _ => tape.word(),
    }
}

fn exit(vcpu: &mut FakeVcpu<Guest>, tape: &mut Tape) -> Exit {
    let direction = |write| if write { Direction::Out } else { Direction::In };
    match tape.byte() {
        choice @ 0..=79 => {
            let write = choice & 1 != 0;
            let port = port(tape);
            if write {
                vcpu.state.general[General::Rax as usize] = tape.double().into();
            }
            let width = if choice & 6 == 0 { tape.port_width() } else { Width::Byte };
            Exit::Port(PortExit { port, width, direction: direction(write) })
        }
        choice @ 80..=95 => {
            let segment = [SegmentName::Es, SegmentName::Ds, SegmentName::Ss, SegmentName::Gs];
            let operand = (choice & 2 != 0)
                .then(|| StringOperand { segment: tape.one_of(&segment), size: tape.width() });
            Exit::StringPort(StringPortExit {
                port: port(tape),
                width: tape.port_width(),
                direction: direction(choice & 1 != 0),
                repeat: choice & 4 != 0,
                operand,
            })
        }
        choice @ 96..=143 => {
            let address = GuestPhysical::new(address(tape.byte(), tape) & ((1 << 48) - 1));
            let access =
                [Access::Read, Access::Write, Access::Execute, Access::Read][usize::from(choice & 3)];
            Exit::Memory(MemoryExit { address, access, during_walk: choice & 28 == 4 })
        }
        choice @ 144..=159 => Exit::Control(ControlAccess {
            register: [0, 3, 4, 8][usize::from(choice & 3)],
            write: choice & 4 != 0,
            general: (choice & 8 != 0).then(|| General::from_number(tape.byte())),
        }),
        160..=175 => Exit::ReadMsr,
        176..=199 => Exit::WriteMsr,
        200..=207 => Exit::Halt,
        208..=213 => Exit::Interrupted,
        214..=217 => Exit::InterruptWindow,
        218 | 219 => Exit::NonMaskableWindow,
        220..=223 => Exit::Cpuid,
        224 | 225 => Exit::SetExtendedControl,
        226 | 227 => Exit::Hypercall,
        228 | 229 => Exit::ReadPerformanceCounter,
        230 | 231 => Exit::Pause,
        232 | 233 => Exit::CacheInvalidation,
        choice @ 234..=238 => Exit::Unsupported(
            [
                Unsupported::Virtualization,
                Unsupported::MonitorWait,
                Unsupported::Launch,
                Unsupported::ResumeFromManagement,
                Unsupported::ProcessorRegisters,
            ][usize::from(choice - 234)],
        ),
        239..=244 => Exit::Exception(
            tape.one_of(&[
                Exception::Debug,
                Exception::AlignmentCheck,
                Exception::MachineCheck,
                Exception::GeneralProtection,
                Exception::Page,
            ]),
            tape.double(),
        ),
        245 | 246 => Exit::TaskSwitch,
        247 => Exit::HostInit,
        248 => Exit::Failed(EntryFailure { code: tape.quad(), rule: None }),
        249 => Exit::Unknown(tape.quad()),
        250 => Exit::Shutdown,
        _ => {
            // The guest sends its neighbour INIT or a start-up, through the interrupt command register.
            vcpu.state.general[General::Rcx as usize] = (msr::X2APIC_FIRST + 0x30).into();
            vcpu.state.general[General::Rdx as usize] = (tape.byte() & 3).into();
            vcpu.state.general[General::Rax as usize] = tape.double().into();
            Exit::WriteMsr
        }
    }
}

/// The compartments, and what of each vCPU the run looks at.
struct House {
    compartments: Vec<(Compartment<Product, VCPUS>, Arc<Memory<RAM>>)>,
    nested: AtomicU32,
}

impl Vault<Compartment<Product, VCPUS>> for House {
    type Memory = Memory<RAM>;

    fn enter<R>(
        &self,
        index: usize,
        serve: impl FnOnce(&Compartment<Product, VCPUS>, &Self::Memory) -> R,
    ) -> Option<R> {
        let (compartment, memory) = self.compartments.get(index)?;
        assert_eq!(
            self.nested.fetch_add(1, Ordering::Relaxed),
            0,
            "a compartment is mapped while another is"
        );
        let result = serve(compartment, memory);
        self.nested.store(0, Ordering::Relaxed);
        Some(result)
    }
}

/// Lets two compartments run and do what the bytes say.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let choices = [tape.byte(), tape.byte()];
    let machine = Arc::new(Machine::default());
    machine.fake.advance(1_000_000);
    let world = Arc::new(World {
        tape: spin::Mutex::new(tape),
        machine: Arc::clone(&machine),
        entries: AtomicU32::new(0),
    });
    let plans = [("office", choices[0]), ("banking", choices[1])].map(|(name, choice)| plan_of(name, choice));
    let compartments = (0_u8..)
        .zip(&plans)
        .map(|(index, plan)| {
            let memory = Arc::new(Memory::new());
            memory.set_module(&[0x90; 64]);
            let vcpus = (0..plan.vcpus)
                .map(|_| FakeVcpu::new(Guest { world: Arc::clone(&world), memory: Arc::clone(&memory) }));
            let facts = Facts {
                index,
                wall_clock: machine.wall_clock(),
                origin: machine.now(),
                clock: Clock::new(machine.kilohertz()).expect("a rate that a machine may have"),
            };
            // A processor that has everything, or next to nothing.
            let full = choices[0] & 64 == 0;
            let cpuid = CpuidTable::freeze::<kvm_clock::KvmClock, FakeVcpu<Guest>>(
                |leaf, _| if full { [u32::MAX; 4] } else { [leaf, 1, 2, 3] },
                plan.vcpus,
                machine.kilohertz(),
            );
            (Compartment::new(facts, plan.clone(), cpuid, vcpus), memory)
        })
        .collect();
    let house = House { compartments, nested: AtomicU32::new(0) };
    let slots: [Slot<VCPUS>; COMPARTMENTS] = Default::default();
    let monitor = Monitor::<Product, _, COMPARTMENTS, VCPUS>::new(&*machine, &house, &slots, 1);
    for (index, plan) in (0_u8..).zip(&plans) {
        assert!(monitor.admit(index, plan));
    }
    let ended = Cell::new(false);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
        monitor.run(CpuIndex(0));
        ended.set(true);
    })) && !payload.is::<Over>()
    {
        resume_unwind(payload);
    }
    let entries = world.entries.load(Ordering::Relaxed) as usize;
    assert!(entries <= bytes.len() + LAST_ENTRIES, "{entries} entries for {} bytes", bytes.len());
    if ended.get() {
        has_ended(&house, &slots, entries);
    }
    on_the_console(&machine.console.lock());
}

fn plan_of(name: &str, choice: u8) -> plan::Compartment {
    plan::Compartment {
        name: name.try_into().expect("a short name"),
        memory: plan::MEMORY_LEAST,
        vcpus: 1 + (choice & 1),
        share: 100,
        cpus: heapless::Vec::new(),
        on_reset: if choice & 2 == 0 { OnReset::Stop } else { OnReset::Restart },
        on_unclaimed: if choice & 4 == 0 { OnUnclaimed::Answer } else { OnUnclaimed::Stop },
        label: None,
        segments: (choice & 16 != 0)
            .then_some(plan::Segment {
                source: 0,
                length: if choice & 32 == 0 { 64 } else { 65 },
                target: CODE,
            })
            .into_iter()
            .collect(),
        start: Start {
            mode: if choice & 8 == 0 { Mode::Protected } else { Mode::Long },
            entry: CODE,
            rax: 0,
            rbx: 0,
            rsi: 0,
            rsp: 0,
            page_table: 0x2000,
            descriptor_table: 0,
            descriptor_table_limit: 0x27,
        },
    }
}

/// All compartments have ended: nothing of them is left, and every exit was counted.
fn has_ended(house: &House, slots: &[Slot<VCPUS>; COMPARTMENTS], entries: usize) {
    let mut counted = 0;
    for ((_, memory), slot) in house.compartments.iter().zip(slots) {
        assert!(slot.state().is_final() && slot.ending().is_some());
        let mut left = [0xff; RAM];
        assert_eq!(memory.read(GuestPhysical::new(0), &mut left), Ok(()));
        assert!(left.iter().all(|byte| *byte == 0), "memory of a compartment that has ended is not zero");
        counted += slot.exits().map(|(_, count)| count).sum::<u64>();
    }
    assert_eq!(counted, entries as u64, "exits were lost");
}

/// Whatever guests write, each line is whole, printable, and under the name of who wrote it.
fn on_the_console(shown: &[u8]) {
    let text = std::str::from_utf8(shown).expect("only ASCII is shown");
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        let named = ["ringfence| ", "office| ", "banking| "].iter().any(|name| line.starts_with(name));
        assert!(named, "a line of nobody: {line:?}");
    }
}

/// Every operation and every exit, to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for choices in [[0, 0], [1, 1], [7, 15], [27, 49]] {
        let mut exits = choices.to_vec();
        for exit in 0..=247 {
            exits.extend([192, 0, exit, exit, 1, 2, 3, 4]);
        }
        seeds.push(exits);
        let mut changes = choices.to_vec();
        for operation in 128..=255 {
            changes.extend([operation, 16, 1, 0, 0, 0, 0, 100, 1]);
        }
        seeds.push(changes);
    }
    seeds
}
