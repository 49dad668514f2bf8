//! One exit at a time on the fake back end: a virtual processor in a known state, an exit, and what became of both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use contracts::absent::{Absent, NoScheduler};
use contracts::fake::{FakeHost, FakeVcpu, Injected, Memory};
use contracts::{
    Access, Attached, Clock, Context, ControlAccess, CpuIndex, Device, Direction, Exit, GuestMemory, Host,
    HostTime, Image, Limits, MemoryExit, MemoryRange, PortRange, Profile, Savable, Scheduler, StringOperand,
    StringPortExit, VcpuName,
};
use monitor::audit::Kind;
use monitor::compartment::{Compartment, VirtualProcessor};
use monitor::console::Console;
use monitor::serve::Serving;
use monitor::slot::{Ending, Reason, Slot, State};
use monitor::{CpuidTable, Facts};
use plan::{Mode, OnReset, Start};
use spin::Mutex;
use x86::{CodeSize, Cr4, Exception, General, Rflags, SegmentName, Width, msr};

/// Registers at [`REGISTERS`] and a port at [`PORT`] that remember what was written last, and read as [`READ`].
struct Registers {
    written: Option<(u64, Width)>,
}

const REGISTERS: u64 = 0x8000_0000;
const PORT: u16 = 0x20;
const READ: u32 = 0x1122_3344;

impl Device for Registers {
    const NAME: &'static str = "registers";
    const PORTS: &'static [PortRange] = &[PortRange { first: PORT, last: PORT }];
    const MEMORY: &'static [MemoryRange] = &[MemoryRange { start: REGISTERS, length: 0x1000 }];
    const BYTE_WIDE: bool = false;

    fn new(_: &contracts::Platform) -> Self {
        Self { written: None }
    }
    fn savable(&self) -> Savable {
        Savable::Empty
    }
    fn read_port(&mut self, _: u16, _: Width, _: &mut Context<'_>) -> u32 {
        READ
    }
    fn write_port(&mut self, _: u16, width: Width, value: u32, _: &mut Context<'_>) {
        self.written = Some((value.into(), width));
    }
    fn read_memory(&mut self, _: u64, _: Width, _: &mut Context<'_>) -> u64 {
        READ.into()
    }
    fn write_memory(&mut self, _: u64, width: Width, value: u64, _: &mut Context<'_>) {
        self.written = Some((value, width));
    }
}

struct Product;
static PROFILE: Profile = Profile {
    name: "fake",
    limits: Limits { compartments: 1, vcpus_per_compartment: 1, cpus: 1 },
    parts: &[],
};

impl Image for Product {
    type Vcpu = FakeVcpu;
    type Host = FakeHost;
    type Scheduler = NoScheduler<1>;
    type LocalApic = local_apic::LocalApic;
    type IoApic = Absent;
    type LegacyPic = Absent;
    type Devices = (Attached<Registers>, ());
    type ClockPage = kvm_clock::KvmClock;
    const PROFILE: &'static Profile = &PROFILE;
}

const RAM: usize = 0x4000;
/// An address in RAM for code.
const CODE: u64 = 0x1000;
/// An address where nothing is: whoever fetches from there stops the compartment.
const NOWHERE: u64 = 0x9000_0000;
/// What becomes of a compartment from whose [`NOWHERE`] was fetched.
const FETCHED_NOWHERE: Option<Ending> = Some(Ending::Stopped(Reason::OutsideMemory(NOWHERE)));

/// A compartment with one virtual processor, without paging, in 64-bit code at [`NOWHERE`].
struct Bench {
    host: FakeHost,
    scheduler: NoScheduler<1>,
    slot: Slot<1>,
    compartment: Compartment<Product, 1>,
    memory: Memory<RAM>,
    console: Mutex<Console>,
}

impl Bench {
    fn new() -> Self {
        Self::on(|_, _| [u32::MAX; 4])
    }

    /// On a host that answers so to CPUID.
    fn on(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let host = FakeHost::default();
        host.advance(1000);
        let plan = plan::Compartment {
            name: "office".try_into().unwrap(),
            memory: plan::MEMORY_LEAST,
            vcpus: 1,
            share: 100,
            cpus: heapless::Vec::new(),
            on_reset: OnReset::Stop,
            on_unclaimed: plan::OnUnclaimed::Answer,
            label: None,
            segments: heapless::Vec::new(),
            start: Start {
                mode: Mode::Protected,
                entry: CODE,
                rax: 0,
                rbx: 0,
                rsi: 0,
                rsp: 0,
                page_table: 0,
                descriptor_table: 0,
                descriptor_table_limit: 0x27,
            },
        };
        let facts = Facts {
            index: 0,
            wall_clock: 0,
            origin: HostTime(0),
            clock: Clock::new(host.kilohertz()).unwrap(),
        };
        let cpuid = CpuidTable::freeze::<Absent, FakeVcpu>(cpuid, 1, host.kilohertz());
        let slot = Slot::new();
        slot.occupy("office", 1);
        slot.set_state(State::Running);
        let mut vcpu = FakeVcpu::default();
        vcpu.state.instruction_pointer = NOWHERE;
        Self {
            host,
            scheduler: NoScheduler::new(1),
            slot,
            compartment: Compartment::new(facts, plan, cpuid, std::iter::once(vcpu)),
            memory: Memory::new(),
            console: Mutex::new(Console::new()),
        }
    }

    /// Changes the virtual processor, lets `exit` come, and gives the end that follows from it, if one does.
    fn exit(&self, exit: Exit, prepare: impl FnOnce(&mut FakeVcpu)) -> Option<Ending> {
        self.with(|serving, vcpu| {
            prepare(&mut vcpu.virt);
            serving.dispatch(vcpu, exit);
            serving.slot.ending()
        })
    }

    fn with<R>(
        &self,
        serve: impl FnOnce(&Serving<'_, Product, Memory<RAM>, 1>, &mut VirtualProcessor<Product>) -> R,
    ) -> R {
        let serving = Serving {
            host: &self.host,
            scheduler: &self.scheduler,
            slot: &self.slot,
            compartment: &self.compartment,
            memory: &self.memory,
            console: &self.console,
            name: VcpuName { compartment: 0, vcpu: 0 },
            cpu: CpuIndex(0),
            keyboard: &|| false,
        };
        serve(&serving, &mut self.compartment.vcpus[0].lock())
    }

    /// What the virtual processor holds.
    fn vcpu<R>(&self, look: impl FnOnce(&FakeVcpu) -> R) -> R {
        look(&self.compartment.vcpus[0].lock().virt)
    }

    fn general(&self, register: General) -> u64 {
        self.vcpu(|vcpu| vcpu.state.general[register as usize])
    }

    /// How far it has come from `start`.
    fn stepped(&self, start: u64) -> u64 {
        self.vcpu(|vcpu| vcpu.state.instruction_pointer.wrapping_sub(start))
    }

    /// What was written last to the device.
    fn written(&self) -> Option<(u64, Width)> {
        self.compartment.platform.lock().others.0.device.written
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write(address::GuestPhysical::new(at), bytes).unwrap();
    }

    fn read<const COUNT: usize>(&self, at: u64) -> [u8; COUNT] {
        let mut bytes = [0; COUNT];
        self.memory.read(address::GuestPhysical::new(at), &mut bytes).unwrap();
        bytes
    }
}

/// Fifteen bytes, of which the first are these.
fn bytes(first: &[u8]) -> [u8; 15] {
    std::array::from_fn(|at| first.get(at).copied().unwrap_or(0x90))
}

fn write_of_memory() -> Exit {
    Exit::Memory(MemoryExit {
        address: address::GuestPhysical::new(REGISTERS),
        access: Access::Write,
        during_walk: false,
    })
}

fn control(register: u8, write: bool, general: Option<General>) -> Exit {
    Exit::Control(ControlAccess { register, write, general })
}

/// MOV to memory at RAX of EBX.
const STORE: [u8; 2] = [0x89, 0x18];

#[test]
fn a_machine_check_is_the_hosts_business_and_reaches_it() {
    let bench = Bench::new();
    assert_eq!(bench.exit(Exit::Exception(Exception::MachineCheck, 0), |_| {}), None);
    assert_eq!(bench.host.machine_checks(), 1);
    assert_eq!(bench.stepped(NOWHERE), 0);
    assert!(bench.vcpu(|vcpu| vcpu.injected.is_empty()));
}

#[test]
fn a_move_to_a_control_register_whose_source_is_named_is_not_fetched() {
    let cr4 = Cr4::PAGE_SIZE | Cr4::GLOBAL_PAGES;
    let prepare = |vcpu: &mut FakeVcpu| {
        vcpu.instruction_length = Some(3);
        vcpu.state.general[General::R9 as usize] = cr4.bits();
    };
    let bench = Bench::new();
    assert_eq!(bench.exit(control(4, true, Some(General::R9)), prepare), None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.state.cr4), cr4);
    assert_eq!(bench.stepped(NOWHERE), 3);
    // The same without the name has to be fetched.
    let bench = Bench::new();
    assert_eq!(bench.exit(control(4, true, None), prepare), FETCHED_NOWHERE);
}

#[test]
fn a_move_from_a_control_register_fills_the_register_that_is_named() {
    let bench = Bench::new();
    let flow = bench.exit(control(8, false, Some(General::R15)), |vcpu| {
        vcpu.state.general[General::R15 as usize] = u64::MAX;
    });
    assert_eq!(flow, None);
    assert_eq!(bench.general(General::R15), 0, "the task priority is 0");
    assert_eq!(bench.stepped(NOWHERE), 2);
}

#[test]
fn values_that_are_named_are_checked_as_those_that_are_decoded() {
    let bench = Bench::new();
    let flow = bench.exit(control(4, true, Some(General::Rbx)), |vcpu| {
        vcpu.state.general[General::Rbx as usize] = 1 << 31;
    });
    assert_eq!(flow, None);
    assert_eq!(
        bench.vcpu(|vcpu| vcpu.injected.clone()).as_slice(),
        [Injected::Exception(Exception::GeneralProtection, Some(0))]
    );
    assert_eq!(bench.stepped(NOWHERE), 0);
    // Outside 64-bit code 32 bits move, whatever the register holds above them.
    let bench = Bench::new();
    let flow = bench.exit(control(4, true, Some(General::Rbx)), |vcpu| {
        vcpu.code = CodeSize::Bits32;
        vcpu.state.general[General::Rbx as usize] = 1 << 63 | Cr4::PAGE_SIZE.bits();
    });
    assert_eq!(flow, None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.state.cr4), Cr4::PAGE_SIZE);
}

#[test]
fn directory_pointers_are_loaded_with_the_register_that_asks_for_them() {
    let pointers = [0x2001, 0, 0x3001, 0xffff_ffff_ffff_fffe];
    let paging = |vcpu: &mut FakeVcpu| {
        vcpu.code = CodeSize::Bits32;
        vcpu.state.cr0 |= x86::Cr0::PROTECTION | x86::Cr0::PAGING;
        vcpu.state.cr4 = Cr4::PHYSICAL_ADDRESS;
    };
    let put = |bench: &Bench, pointers: &[u64]| {
        for (at, pointer) in (0x20..).step_by(8).zip(pointers) {
            bench.put(at, &pointer.to_le_bytes());
        }
    };
    let bench = Bench::new();
    put(&bench, &pointers);
    // Bits 4 to 0 of CR3 mean other things.
    let load = |vcpu: &mut FakeVcpu| {
        paging(vcpu);
        vcpu.state.general[General::Rbx as usize] = 0x38;
    };
    assert_eq!(bench.exit(control(3, true, Some(General::Rbx)), load), None);
    assert_eq!(bench.vcpu(|vcpu| (vcpu.state.cr3, vcpu.directory_pointers)), (0x38, pointers));
    assert_eq!(bench.stepped(NOWHERE), 2);
    // A write of CR4 that leaves PAE, and one of CR3 in long mode, have none to load.
    let leave = |vcpu: &mut FakeVcpu| vcpu.state.general[General::Rbx as usize] = Cr4::PAGE_SIZE.bits();
    assert_eq!(bench.exit(control(4, true, Some(General::Rbx)), leave), None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.directory_pointers), [0; 4]);
    let long = |vcpu: &mut FakeVcpu| {
        load(vcpu);
        vcpu.state.efer = x86::Efer::LONG_MODE_ACTIVE;
    };
    assert_eq!(bench.exit(control(3, true, Some(General::Rbx)), long), None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.directory_pointers), [0; 4]);
    // A pointer with reserved bits: nothing happens but #GP.
    for reserved in [0x2003, 0x2101, 1 << 63 | 1] {
        let bench = Bench::new();
        put(&bench, &[reserved]);
        assert_eq!(bench.exit(control(3, true, Some(General::Rbx)), load), None);
        let fault = Injected::Exception(Exception::GeneralProtection, Some(0));
        assert_eq!(bench.vcpu(|vcpu| vcpu.injected.clone()).as_slice(), [fault]);
        assert_eq!(bench.vcpu(|vcpu| (vcpu.state.cr3, vcpu.directory_pointers)), (0, [0; 4]));
    }
}

#[test]
fn without_the_next_address_a_move_is_decoded_although_its_register_is_named() {
    let bench = Bench::new();
    // MOV CR4, RCX: what stands there counts, since its length does.
    bench.put(CODE, &[0x0f, 0x22, 0xe1]);
    let flow = bench.exit(control(4, true, Some(General::Rbx)), |vcpu| {
        vcpu.instruction_length = None;
        vcpu.state.instruction_pointer = CODE;
        vcpu.state.general[General::Rbx as usize] = 1 << 31;
        vcpu.state.general[General::Rcx as usize] = Cr4::PAGE_SIZE.bits();
    });
    assert_eq!(flow, None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.state.cr4), Cr4::PAGE_SIZE);
    assert_eq!(bench.stepped(CODE), 3);
}

#[test]
fn other_writes_of_cr0_are_decoded() {
    // CLTS has no general register to name.
    let bench = Bench::new();
    bench.put(CODE, &[0x0f, 0x06]);
    let flow = bench.exit(control(0, true, None), |vcpu| {
        vcpu.state.instruction_pointer = CODE;
        vcpu.state.cr0 |= x86::Cr0::TASK_SWITCHED;
    });
    assert_eq!(flow, None);
    assert!(!bench.vcpu(|vcpu| vcpu.state.cr0.contains(x86::Cr0::TASK_SWITCHED)));
    assert_eq!(bench.stepped(CODE), 2);
    // A control register that does not exist is none that could have been moved to.
    let bench = Bench::new();
    assert_eq!(bench.exit(control(5, true, Some(General::Rbx)), |_| ()), FETCHED_NOWHERE);
}

/// What becomes of a write to the device by the processor in `code`, which fetched so many of `bytes`.
fn store(bench: &Bench, code: CodeSize, start: u64, fetched: u8, bytes: [u8; 15]) -> Option<Ending> {
    bench.exit(write_of_memory(), |vcpu| {
        vcpu.code = code;
        vcpu.state.instruction_pointer = start;
        vcpu.fetched = (fetched, bytes);
        vcpu.state.general[General::Rbx as usize] = 0x5_5566_7788;
    })
}

#[test]
fn bytes_that_came_with_an_access_are_not_fetched_again() {
    for code in [CodeSize::Bits64, CodeSize::Bits32] {
        // All there can be; as many as the short way looks at; fewer; just the instruction.
        for fetched in [15, 8, 7, 2] {
            let bench = Bench::new();
            assert_eq!(store(&bench, code, NOWHERE, fetched, bytes(&STORE)), None, "{fetched} bytes");
            assert_eq!(bench.written(), Some((0x5566_7788, Width::Double)), "{fetched} bytes");
            assert_eq!(bench.stepped(NOWHERE), 2, "{fetched} bytes");
        }
        let bench = Bench::new();
        assert_eq!(store(&bench, code, NOWHERE, 0, bytes(&STORE)), FETCHED_NOWHERE);
        assert_eq!(bench.written(), None);
    }
}

#[test]
fn bytes_of_an_instruction_that_is_longer_than_the_short_way_looks_are_all_used() {
    // MOV qword [RAX + 0x11223344], 0x55667788: eleven bytes.
    let long = [0x48, 0xc7, 0x80, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55];
    let bench = Bench::new();
    assert_eq!(store(&bench, CodeSize::Bits64, NOWHERE, 15, bytes(&long)), None);
    assert_eq!(bench.written(), Some((0x5566_7788, Width::Quad)));
    assert_eq!(bench.stepped(NOWHERE), 11);
}

#[test]
fn bytes_that_were_cut_off_are_fetched() {
    for fetched in [0, 1] {
        let bench = Bench::new();
        bench.put(CODE, &STORE);
        // What was cut off holds nothing: another instruction, were it believed.
        let cut = bytes(&[0x89, 0x08]);
        assert_eq!(store(&bench, CodeSize::Bits64, CODE, fetched, cut), None);
        assert_eq!(bench.written(), Some((0x5566_7788, Width::Double)));
        assert_eq!(bench.stepped(CODE), 2);
    }
    let bench = Bench::new();
    assert_eq!(store(&bench, CodeSize::Bits64, NOWHERE, 1, bytes(&STORE)), FETCHED_NOWHERE);
}

#[test]
fn bytes_that_came_with_an_access_count_whatever_stands_there_now() {
    let paged = |vcpu: &mut FakeVcpu| {
        vcpu.state.cr0 |= x86::Cr0::PAGING | x86::Cr0::PROTECTION;
        vcpu.state.cr3 = 0;
        vcpu.state.cr4 = Cr4::PHYSICAL_ADDRESS;
        vcpu.state.efer = x86::Efer::LONG_MODE_ENABLE | x86::Efer::LONG_MODE_ACTIVE;
    };
    // Another virtual processor has made it MOV to memory at RAX of ECX, in code that is easily had: 2 MiB, mapped to themselves.
    let changed = |fetched: u8| {
        let bench = Bench::new();
        for (at, entry) in [(0, 0x1007), (0x1000, 0x2007), (0x2000, 0x87u64)] {
            bench.put(at, &entry.to_le_bytes());
        }
        bench.put(0x3000, &[0x89, 0x08]);
        bench.exit(Exit::Pause, paged);
        assert_eq!(store(&bench, CodeSize::Bits64, 0x3000, fetched, bytes(&STORE)), None);
        bench.written()
    };
    for fetched in [2, 7, 8, 15] {
        assert_eq!(changed(fetched), Some((0x5566_7788, Width::Double)), "{fetched} bytes");
    }
    assert_eq!(changed(0), Some((0, Width::Double)));
}

#[test]
fn bytes_that_do_not_decode_have_their_own_ends() {
    let fault = |exception, code| [Injected::Exception(exception, code)];
    // FST dword [RAX], which no device register needs.
    let bench = Bench::new();
    let flow = store(&bench, CodeSize::Bits64, NOWHERE, 15, bytes(&[0xd9, 0x10]));
    assert_eq!(flow, Some(Ending::Stopped(Reason::Instruction(NOWHERE))));
    // LOCK MOV does not exist.
    let bench = Bench::new();
    assert_eq!(store(&bench, CodeSize::Bits64, NOWHERE, 15, bytes(&[0xf0, 0x89, 0x18])), None);
    let injected = bench.vcpu(|vcpu| vcpu.injected.clone());
    assert_eq!(injected.as_slice(), fault(Exception::InvalidOpcode, None));
    // Nothing but prefixes: more than 15 bytes.
    let bench = Bench::new();
    assert_eq!(store(&bench, CodeSize::Bits64, NOWHERE, 15, [0x2e; 15]), None);
    let injected = bench.vcpu(|vcpu| vcpu.injected.clone());
    assert_eq!(injected.as_slice(), fault(Exception::GeneralProtection, Some(0)));
    // DEC EAX, behind which stands something else; in 64-bit code this would be one MOV.
    let bench = Bench::new();
    store(&bench, CodeSize::Bits32, NOWHERE, 15, bytes(&[0x48, 0x89, 0x18]));
    assert_eq!(bench.written(), None);
    // MOV between registers touches no memory: the guest executes again.
    let bench = Bench::new();
    assert_eq!(store(&bench, CodeSize::Bits64, NOWHERE, 15, bytes(&[0x89, 0xd8])), None);
    assert!(bench.vcpu(|vcpu| vcpu.injected.is_empty()));
    assert_eq!((bench.stepped(NOWHERE), bench.written()), (0, None));
}

fn string(direction: Direction, repeat: bool, operand: Option<StringOperand>) -> Exit {
    Exit::StringPort(StringPortExit { port: PORT, width: Width::Word, direction, repeat, operand })
}

#[test]
fn a_string_whose_operand_is_named_is_not_fetched() {
    let operand = StringOperand { segment: SegmentName::Fs, size: Width::Word };
    let prepare = |vcpu: &mut FakeVcpu| {
        vcpu.state.general[General::Rsi as usize] = 0x7_1234_0010;
        vcpu.state.general[General::Rcx as usize] = 0x5_0002;
        vcpu.state.segments.fs.base = 0x2000;
    };
    let bench = Bench::new();
    bench.put(0x2010, &[0x22, 0x11]);
    assert_eq!(bench.exit(string(Direction::Out, true, Some(operand)), prepare), None);
    assert_eq!(bench.written(), Some((0x1122, Width::Word)));
    // Only 16 bits of the registers count, and one element of two is done.
    assert_eq!(bench.general(General::Rsi), 0x7_1234_0012);
    assert_eq!(bench.general(General::Rcx), 0x5_0001);
    assert_eq!(bench.stepped(NOWHERE), 0);
    assert_eq!(bench.exit(string(Direction::Out, true, Some(operand)), |_| ()), None);
    assert_eq!((bench.general(General::Rcx), bench.stepped(NOWHERE)), (0x5_0000, 2));
    // With nothing left to do it ends at once.
    assert_eq!(bench.exit(string(Direction::Out, true, Some(operand)), |_| ()), None);
    assert_eq!((bench.general(General::Rsi), bench.stepped(NOWHERE)), (0x7_1234_0014, 4));
    // The same without the operand has to be fetched.
    let bench = Bench::new();
    assert_eq!(bench.exit(string(Direction::Out, true, None), prepare), FETCHED_NOWHERE);
}

#[test]
fn a_string_into_memory_writes_to_es_and_may_not_repeat() {
    let operand = StringOperand { segment: SegmentName::Es, size: Width::Quad };
    let bench = Bench::new();
    let flow = bench.exit(string(Direction::In, false, Some(operand)), |vcpu| {
        vcpu.state.general[General::Rdi as usize] = 0x2ffe;
        vcpu.state.general[General::Rcx as usize] = 7;
    });
    assert_eq!(flow, None);
    assert_eq!(bench.read(0x2ffc), [0, 0, 0x44, 0x33]);
    assert_eq!((bench.general(General::Rdi), bench.general(General::Rcx)), (0x3000, 7));
    assert_eq!(bench.stepped(NOWHERE), 2);
}

/// A single step over a repeated instruction is one over each element.
#[test]
fn a_repeated_string_is_stepped_element_by_element() {
    let operand = StringOperand { segment: SegmentName::Ds, size: Width::Quad };
    let bench = Bench::new();
    let prepare = |vcpu: &mut FakeVcpu| {
        vcpu.state.flags |= Rflags::TRAP;
        vcpu.state.general[General::Rsi as usize] = 0x2000;
        vcpu.state.general[General::Rcx as usize] = 2;
    };
    let stepped = || bench.vcpu(|vcpu| vcpu.injected.clone());
    let debug = Injected::Exception(Exception::Debug, None);
    assert_eq!(bench.exit(string(Direction::Out, true, Some(operand)), prepare), None);
    assert_eq!((bench.general(General::Rcx), bench.stepped(NOWHERE)), (1, 0));
    assert_eq!(stepped().as_slice(), [debug]);
    assert_eq!(bench.exit(string(Direction::Out, true, Some(operand)), |_| ()), None);
    assert_eq!((bench.general(General::Rcx), bench.stepped(NOWHERE)), (0, 2));
    assert_eq!(stepped().as_slice(), [debug, debug]);
    // REP STOSD to a device's registers, which is decoded.
    let bench = Bench::new();
    bench.put(CODE, &[0xf3, 0xab]);
    let flow = bench.exit(write_of_memory(), |vcpu| {
        prepare(vcpu);
        vcpu.state.instruction_pointer = CODE;
        vcpu.state.general[General::Rdi as usize] = REGISTERS;
    });
    assert_eq!(flow, None);
    assert_eq!((bench.general(General::Rcx), bench.stepped(CODE)), (1, 0));
    assert_eq!(bench.vcpu(|vcpu| vcpu.injected.clone()).as_slice(), [debug]);
}

#[test]
fn a_string_whose_operand_is_not_named_is_decoded() {
    let bench = Bench::new();
    // REP OUTSW.
    bench.put(CODE, &[0xf3, 0x66, 0x6f]);
    bench.put(0x2000, &[0x22, 0x11]);
    let flow = bench.exit(string(Direction::Out, true, None), |vcpu| {
        vcpu.state.instruction_pointer = CODE;
        vcpu.state.general[General::Rsi as usize] = 0x2000;
        vcpu.state.general[General::Rcx as usize] = 1;
    });
    assert_eq!(flow, None);
    assert_eq!(bench.written(), Some((0x1122, Width::Word)));
    assert_eq!((bench.general(General::Rcx), bench.stepped(CODE)), (0, 3));
}

const IBPB: u32 = 1 << 12;
const IBRS: u32 = 1 << 14;
const STIBP: u32 = 1 << 15;
const SSBD: u32 = 1 << 24;
/// What those who ask for something that is not there get.
const REFUSED: [Injected; 1] = [Injected::Exception(Exception::GeneralProtection, Some(0))];

/// A compartment on a host that has these speculation controls, and all else.
fn speculating(controls: u32) -> Bench {
    Bench::on(move |leaf, _| if leaf == 0x8000_0008 { [u32::MAX, controls, 0, 0] } else { [u32::MAX; 4] })
}

impl Bench {
    /// WRMSR; false: #GP.
    fn write_msr(&self, number: u32, value: u64) -> bool {
        self.accepted(Exit::WriteMsr, |vcpu| {
            vcpu.state.general[General::Rcx as usize] = number.into();
            // The upper halves do not count.
            vcpu.state.general[General::Rax as usize] = value | 0xaaaa_aaaa << 32;
            vcpu.state.general[General::Rdx as usize] = value >> 32 | 0x5555_5555 << 32;
        })
    }

    /// RDMSR; `None`: #GP.
    fn read_msr(&self, number: u32) -> Option<u64> {
        let accepted = self.accepted(Exit::ReadMsr, |vcpu| {
            vcpu.state.general[General::Rcx as usize] = number.into();
        });
        accepted.then(|| self.general(General::Rdx) << 32 | self.general(General::Rax))
    }

    fn accepted(&self, exit: Exit, prepare: impl FnOnce(&mut FakeVcpu)) -> bool {
        let flow = self.exit(exit, |vcpu| {
            vcpu.injected.clear();
            vcpu.state.instruction_pointer = NOWHERE;
            prepare(vcpu);
        });
        assert_eq!(flow, None);
        let refused = self.vcpu(|vcpu| vcpu.injected.clone());
        if refused.is_empty() {
            assert_eq!(self.stepped(NOWHERE), 2);
            return true;
        }
        assert_eq!((refused.as_slice(), self.stepped(NOWHERE)), (REFUSED.as_slice(), 0));
        false
    }

    fn counted(&self, kind: Kind) -> u32 {
        self.slot.with_audit(|audit| audit.count(kind))
    }
}

#[test]
fn speculation_controls_that_the_host_has_are_set_and_read_back() {
    for (controls, bits) in
        [(IBRS, 1), (STIBP, 2), (SSBD, 4), (IBPB | IBRS | STIBP, 3), (IBRS | STIBP | SSBD, 7)]
    {
        let bench = speculating(controls);
        assert_eq!(bench.read_msr(msr::SPEC_CTRL), Some(0));
        for value in 0..=bits {
            let legal = value & !bits == 0;
            let before = bench.vcpu(|vcpu| vcpu.speculation_control);
            assert_eq!(bench.write_msr(msr::SPEC_CTRL, value), legal, "{value:#b} of {bits:#b}");
            let now = if legal { value } else { before.into() };
            assert_eq!(bench.read_msr(msr::SPEC_CTRL), Some(now));
            // The processor is told.
            assert_eq!(u64::from(bench.vcpu(|vcpu| vcpu.speculation_control)), now);
        }
        assert_eq!(bench.counted(Kind::Unknown), 0);
    }
}

#[test]
fn reserved_bits_of_the_speculation_controls_are_refused() {
    let bench = speculating(IBPB | IBRS | STIBP | SSBD);
    assert!(bench.write_msr(msr::SPEC_CTRL, 5));
    for bit in 3..64 {
        assert!(!bench.write_msr(msr::SPEC_CTRL, 1 << bit), "bit {bit}");
    }
    assert_eq!(bench.read_msr(msr::SPEC_CTRL), Some(5));
    for bit in 1..64 {
        assert!(!bench.write_msr(msr::PRED_CMD, 1 | 1 << bit), "bit {bit}");
    }
    assert_eq!(bench.vcpu(|vcpu| vcpu.barriers), 0);
    assert_eq!((bench.counted(Kind::Malformed), bench.counted(Kind::Unknown)), (61 + 63, 0));
}

#[test]
fn the_branch_barrier_is_the_host_s_and_cannot_be_read() {
    let bench = speculating(IBPB);
    assert!(bench.write_msr(msr::PRED_CMD, 0));
    assert_eq!(bench.vcpu(|vcpu| vcpu.barriers), 0);
    assert!(bench.write_msr(msr::PRED_CMD, 1));
    assert_eq!(bench.vcpu(|vcpu| vcpu.barriers), 1);
    assert_eq!(bench.read_msr(msr::PRED_CMD), None);
    assert_eq!((bench.counted(Kind::Malformed), bench.counted(Kind::Unknown)), (0, 1));
}

#[test]
fn speculation_controls_that_the_host_lacks_do_not_exist() {
    let bench = speculating(!(IBRS | STIBP | SSBD));
    assert_eq!(bench.read_msr(msr::SPEC_CTRL), None);
    assert!(!bench.write_msr(msr::SPEC_CTRL, 0));
    let bench = speculating(!IBPB);
    assert!(!bench.write_msr(msr::PRED_CMD, 1));
    let bench = speculating(0);
    assert!(!bench.write_msr(msr::SPEC_CTRL, 1) && !bench.write_msr(msr::PRED_CMD, 1));
    assert_eq!(bench.vcpu(|vcpu| (vcpu.speculation_control, vcpu.barriers)), (0, 0));
    assert_eq!((bench.counted(Kind::Malformed), bench.counted(Kind::Unknown)), (0, 2));
}

/// Where XSAVES is shown its register exists, and holds nothing.
#[test]
fn no_supervisor_state_can_be_chosen() {
    let bench = Bench::on(|_, _| [u32::MAX; 4]);
    assert_eq!(bench.read_msr(msr::XSS), Some(0));
    assert!(bench.write_msr(msr::XSS, 0));
    for bit in 0..64 {
        assert!(!bench.write_msr(msr::XSS, 1 << bit), "bit {bit}");
    }
    assert_eq!((bench.read_msr(msr::XSS), bench.counted(Kind::Malformed)), (Some(0), 64));
    let bench = Bench::on(|leaf, subleaf| if (leaf, subleaf) == (0xd, 1) { [!8; 4] } else { [u32::MAX; 4] });
    assert_eq!(bench.read_msr(msr::XSS), None);
    assert!(!bench.write_msr(msr::XSS, 0));
    assert_eq!((bench.counted(Kind::Malformed), bench.counted(Kind::Unknown)), (0, 2));
}

/// The local APIC's page has an address of as many bits as the compartment's physical addresses.
#[test]
fn the_local_apic_s_page_lies_within_physical_addresses() {
    const FLAGS: u64 = 1 << 11;
    let bench = Bench::on(|leaf, _| if leaf == 0x8000_0008 { [40, 0, 0, 0] } else { [u32::MAX; 4] });
    assert!(bench.write_msr(msr::APIC_BASE, 1 << 39 | FLAGS));
    for bit in 40..64 {
        assert!(!bench.write_msr(msr::APIC_BASE, 1 << bit | FLAGS), "bit {bit}");
    }
    assert_eq!(bench.read_msr(msr::APIC_BASE).map(|base| base & !0x100), Some(1 << 39 | FLAGS));
    assert_eq!(bench.counted(Kind::Malformed), 24);
}

#[test]
fn a_guest_finds_the_registers_of_its_processor_s_vendor() {
    let vendor = |name: &'static [u8; 12]| {
        let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
        let words = [u32::MAX >> 2, word(0), word(8), word(4)];
        move |leaf, _| if leaf == 0 { words } else { [u32::MAX; 4] }
    };
    let intel = [msr::MISC_ENABLE, msr::PLATFORM_ID];
    let amd = [
        msr::SYSTEM_CONFIGURATION,
        msr::HARDWARE_CONFIGURATION,
        msr::TOP_MEMORY,
        msr::TOP_MEMORY_2,
        msr::NORTHBRIDGE_CONFIGURATION,
        msr::DECODE_CONFIGURATION,
    ];
    for (name, own, others) in
        [(b"GenuineIntel", &intel[..], &amd[..]), (b"AuthenticAMD", &amd[..], &intel[..])]
    {
        let bench = Bench::on(vendor(name));
        assert!(own.iter().all(|number| bench.read_msr(*number).is_some()), "{name:?}");
        for number in others {
            assert_eq!(bench.read_msr(*number), None, "{number:#x}");
            assert!(!bench.write_msr(*number, 0), "{number:#x}");
        }
        assert!(bench.write_msr(own[0], 0) && bench.read_msr(msr::PATCH_LEVEL).is_some());
    }
}

#[test]
fn a_back_end_with_a_timer_of_its_own_is_told_the_deadline_and_the_host_is_not() {
    let until = HostTime(500);
    for (own, told, armed) in [(true, Some(until), None), (false, None, Some(until))] {
        let bench = Bench::new();
        bench.with(|serving, vcpu| {
            vcpu.virt.timer.0 = own;
            vcpu.set_activity(monitor::compartment::Activity::Running);
            // The deadline is past, so that the first interruption ends the turn.
            vcpu.virt.script.push_back(Exit::Interrupted).unwrap();
            serving.turn(vcpu, Some(until), false);
        });
        assert_eq!((bench.vcpu(|vcpu| vcpu.timer.1), bench.host.deadline()), (told, armed));
    }
}

/// Both registers of the clock page: an address in RAM gets the page, one that is none gets nothing, and one beyond is refused.
#[test]
fn a_clock_page_lies_in_memory_or_nowhere() {
    const PAGE: u64 = 0x2000;
    for (number, on) in [(kvm_clock::WALL_CLOCK, 0), (kvm_clock::SYSTEM_TIME, 1)] {
        let bench = Bench::new();
        bench.put(0, &[0xa5; 64]);
        // Nothing is written at 0 where the register is cleared.
        assert!(bench.write_msr(number, 0));
        assert_eq!(bench.read::<64>(0), [0xa5; 64], "{number:#x}");
        assert!(bench.write_msr(number, PAGE | on));
        assert_eq!(bench.read::<4>(PAGE), 2u32.to_le_bytes(), "{number:#x}: its version");
        assert_eq!(bench.read_msr(number), Some(PAGE | on));
        for beyond in [RAM as u64 - 8, RAM as u64, 1 << 40, u64::MAX - 0xf] {
            assert!(!bench.write_msr(number, beyond | on), "{number:#x} {beyond:#x}");
        }
        assert_eq!(bench.counted(Kind::Malformed), 4);
    }
}

/// The processor has begun a task switch and left it to whoever intercepts it: nothing of it is carried out.
#[test]
fn task_switches_are_refused() {
    let bench = Bench::new();
    assert_eq!(bench.exit(Exit::TaskSwitch, |_| {}), None);
    assert_eq!(bench.vcpu(|vcpu| vcpu.injected.clone()).as_slice(), REFUSED);
    assert_eq!((bench.stepped(NOWHERE), bench.counted(Kind::Malformed)), (0, 1));
}
