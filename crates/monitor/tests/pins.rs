//! The PIC at LINT0 of the first vCPU: what comes of the fabric, the real PIC and the real local APIC together, on the fake back end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{OFF, PROFILE, Queue, console, memory, plan_of, port, run_plans};
use contracts::absent::Absent;
use contracts::fake::{FakeHost, FakeVcpu, Injected, Script};
use contracts::{
    Access, Attached, Context, Device, Direction, Effect, Exit, Image, LegacyPic, Line, PortExit, PortRange,
    Power, Profile, Savable, Vault as _,
};
use core::marker::PhantomData;
use monitor::slot::{Ending, Reason, State};
use plan::OnReset;
use x86::{General, Width, msr};

/// What a script has instead of values that it could load: of port 0x1nn, 0xnn is read, or 0xnn00 where 16 bits are. Port 0x80 plus the
/// number of a line drives it; line 15 is not there: port 0x8f lets line 0 rise by a timer that is due at once. Port 0x10 is the power
/// switch.
struct Board;

impl Device for Board {
    const NAME: &'static str = "board";
    const PORTS: &'static [PortRange] = &[
        PortRange { first: 0x10, last: 0x10 },
        PortRange { first: 0x80, last: 0x8f },
        PortRange { first: 0x100, last: 0x1ff },
    ];
    const BYTE_WIDE: bool = false;

    fn new(_: &contracts::Platform) -> Self {
        Self
    }
    fn savable(&self) -> Savable {
        Savable::Empty
    }
    fn read_port(&mut self, port: u16, width: Width, _: &mut Context<'_>) -> u32 {
        u32::from(port & 0xff) << if width == Width::Word { 8 } else { 0 }
    }
    fn write_port(&mut self, port: u16, _: Width, value: u32, context: &mut Context<'_>) {
        match port {
            0x10 => context.effects.push(Effect::Power(Power::Off)),
            0x8f => context.effects.timer(Some(context.now)),
            line => context.effects.line(Line(line as u8 & 0xf), value != 0),
        }
    }
    fn expire(&mut self, context: &mut Context<'_>) {
        context.effects.line(Line(0), true);
    }
}

/// The same exits on a processor that delivers the local APIC's interrupts by itself, where it is in x2APIC mode: the guest goes there first, and
/// what it would write to the registers' page it writes by WRMSR.
#[derive(Default)]
struct Delivering {
    exits: std::collections::VecDeque<Exit>,
    extended: bool,
}

impl Script for Delivering {
    const HOLDS_INTERRUPTS: bool = true;

    fn next(vcpu: &mut FakeVcpu<Self>) -> Exit {
        let write = |vcpu: &mut FakeVcpu<Self>, number: u64, value: u64| {
            let loaded = [(General::Rcx, number), (General::Rax, value), (General::Rdx, 0)];
            for (register, value) in loaded {
                vcpu.state.general[register as usize] = value;
            }
            Exit::WriteMsr
        };
        if !std::mem::replace(&mut vcpu.script.extended, true) {
            return write(vcpu, msr::APIC_BASE.into(), 0xfee0_0d00);
        }
        match vcpu.script.exits.pop_front() {
            Some(Exit::Memory(access)) => {
                let number = u64::from(msr::X2APIC_FIRST) + (access.address.get() & 0xfff) / 16;
                let exit = write(vcpu, number, vcpu.state.general[General::Rax as usize] & 0xffff);
                if access.access == Access::Read { Exit::ReadMsr } else { exit }
            }
            exit => exit.unwrap_or(Exit::Halt),
        }
    }
}

impl Extend<Exit> for Delivering {
    fn extend<E: IntoIterator<Item = Exit>>(&mut self, exits: E) {
        self.exits.extend(exits);
    }
}

/// A product whose processor is scripted so.
struct Product<S = heapless::Deque<Exit, 64>>(PhantomData<S>);

impl<S: Script + Send + 'static> Image for Product<S> {
    type Vcpu = FakeVcpu<S>;
    type Host = FakeHost;
    type Scheduler = Queue;
    type LocalApic = local_apic::LocalApic;
    type IoApic = Absent;
    type LegacyPic = pic::Pic;
    type Devices = (Attached<Board>, ());
    type ClockPage = Absent;
    const PROFILE: &'static Profile = &PROFILE;
}

/// AX becomes `value`.
fn load(value: u16) -> [Exit; 2] {
    let part = |byte, width| Exit::Port(PortExit { port: 0x100 | byte, width, direction: Direction::In });
    [part(value >> 8, Width::Word), part(value & 0xff, Width::Byte)]
}

/// `value` goes to a port.
fn port_write(number: u16, value: u16) -> [Exit; 3] {
    let [high, low] = load(value);
    [high, low, port(number, Direction::Out)]
}

/// `value` goes to a register of the local APIC.
fn apic_write(offset: u64, value: u16) -> [Exit; 3] {
    let [high, low] = load(value);
    [high, low, memory(0xfee0_0000 | offset, Access::Write)]
}

/// What is injected into the first vCPU of a guest that lets the PIC have lines 0 and 1, executes `steps` and switches off; and whether
/// the PIC still asks. The same on a processor that delivers interrupts by itself.
fn interrupts_of(steps: &[&[Exit]]) -> (Vec<Injected>, bool) {
    let found = interrupts_on::<heapless::Deque<Exit, 64>>(steps);
    assert_eq!(interrupts_on::<Delivering>(steps), found);
    found
}

fn interrupts_on<S: Script + Default + Extend<Exit> + Send + 'static>(
    steps: &[&[Exit]],
) -> (Vec<Injected>, bool) {
    // MOV [RAX], EAX, everywhere: its exit says which address that is.
    let code = [0x89, 0x00].repeat(0x800);
    let script = [port_write(0x21, 0xfc).as_slice(), &steps.concat(), &[OFF]].concat();
    let [office, banking] = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
    let guests = [(office, code.as_slice(), script.as_slice()), (banking, &[], &[OFF])];
    let (host, monitor, vault) = run_plans::<Product<S>>(true, &guests);
    assert_eq!(monitor.slots[0].state(), State::ShutDown, "{}", console(host));
    let found = vault.enter(0, |office, _| {
        let virt = &office.vcpus[0].lock().virt;
        assert_eq!(virt.held, None, "nobody runs it");
        (virt.injected.to_vec(), office.platform.lock().pic.device.output())
    });
    found.unwrap()
}

const LINT0: u64 = 0x350;

#[test]
fn the_pic_at_lint0_brings_what_the_entry_says() {
    let (rise, fall) = (&port_write(0x80, 1), &port_write(0x80, 0));
    let end = &apic_write(0xb0, 0);
    // As firmware leaves it: an external interrupt, which the PIC names and puts into service.
    assert_eq!(interrupts_of(&[rise, fall, rise]), (vec![Injected::Interrupt(0x08)], false));
    // Fixed: the entry's vector, for each rise. Nobody acknowledges anything at the PIC, which goes on asking.
    let fixed = &apic_write(LINT0, 0x41);
    let twice = vec![Injected::Interrupt(0x41); 2];
    assert_eq!(interrupts_of(&[fixed, rise, end, rise, end, fall, rise, end]), (twice.clone(), true));
    // By level: for as long as it asks.
    let level = &apic_write(LINT0, 0x8041);
    assert_eq!(interrupts_of(&[level, rise, end, fall, end]), (twice, false));
    // NMI, for each rise.
    let non_maskable = &apic_write(LINT0, 0x400);
    assert_eq!(interrupts_of(&[non_maskable, rise, fall, rise]), (vec![Injected::NonMaskable; 2], true));
    // Masked, as the APIC is switched off by software.
    assert_eq!(interrupts_of(&[&apic_write(0xf0, 0xff), rise]), (vec![], true));
}

#[test]
fn an_acknowledged_pic_has_let_go_of_lint0() {
    let acknowledged = Injected::Interrupt(0x09);
    let rise = &port_write(0x81, 1);
    // What is acknowledged is no level any more, and the next request, of line 0 while line 1 is in service, is another edge.
    let level = &apic_write(LINT0, 0x8041);
    assert_eq!(interrupts_of(&[rise, level]), (vec![acknowledged], false));
    let fixed = &apic_write(LINT0, 0x41);
    let both = vec![acknowledged, Injected::Interrupt(0x41)];
    assert_eq!(interrupts_of(&[rise, fixed, &port_write(0x80, 1)]), (both, true));
}

#[test]
fn a_timer_that_is_due_at_once_interrupts_before_the_next_instruction() {
    let fixed = &apic_write(LINT0, 0x41);
    assert_eq!(interrupts_of(&[fixed, &port_write(0x8f, 1)]), (vec![Injected::Interrupt(0x41)], true));
}

#[test]
fn a_level_that_the_processor_ended_comes_again_while_it_is_asserted() {
    let (rise, fall) = (&port_write(0x80, 1), &port_write(0x80, 0));
    let level = &apic_write(LINT0, 0x8041);
    let end = &[Exit::EndOfInterrupt(0x41)];
    let twice = vec![Injected::Interrupt(0x41); 2];
    assert_eq!(interrupts_on::<Delivering>(&[level, rise, end, fall, end]), (twice.clone(), false));
    // Looked at meanwhile, the service is the processor's again.
    let look = &[memory(0xfee0_0120, Access::Read)];
    assert_eq!(interrupts_on::<Delivering>(&[level, rise, look, end, fall]), (twice, false));
    // Nothing is known of an end that was none.
    let once = vec![Injected::Interrupt(0x41)];
    assert_eq!(interrupts_on::<Delivering>(&[level, rise, &[Exit::EndOfInterrupt(0x42)]]), (once, true));
}

#[test]
fn an_interrupt_waits_for_its_priority() {
    let (rise, fixed, high) = (&port_write(0x80, 1), &apic_write(LINT0, 0x41), &apic_write(0x80, 0x40));
    let taken = vec![Injected::Interrupt(0x41)];
    assert_eq!(interrupts_of(&[fixed, high, rise]).0, []);
    assert_eq!(interrupts_of(&[fixed, high, rise, &apic_write(0x80, 0x30)]).0, taken);
    // Disabled by software, what is requested stays so.
    let off = &apic_write(0xf0, 0xff);
    assert_eq!(interrupts_of(&[fixed, high, rise, off]).0, []);
    assert_eq!(interrupts_of(&[fixed, high, rise, off, &apic_write(0x80, 0)]).0, taken);
}

/// STI; HLT, and the host interrupts between the two, twice. The second time the guest's timer is due, and the processor has forgotten the
/// shadow: the interrupt is taken behind the HLT all the same. Before it, the guest would halt with nothing left to wake it.
#[test]
fn an_interrupt_between_sti_and_hlt_wakes_the_hlt() {
    let arm = [apic_write(0x320, 0x50), apic_write(0x3e0, 0xb), apic_write(0x380, 1_500)].concat();
    let script = [arm.as_slice(), &[Exit::Interrupted, Exit::Interrupted, OFF]].concat();
    let mut code = [0x89, 0x00].repeat(0x800);
    let halt = 2 * arm.len();
    for (instruction, length) in [(0xf4, 1), (0x90, 0)] {
        code[halt] = instruction;
        let [office, banking] = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
        let start = office.start.entry;
        let guests = [(office, code.as_slice(), script.as_slice()), (banking, &[], &[OFF])];
        let (host, _, vault) = run_plans::<Product>(true, &guests);
        let (injected, at) = vault
            .enter(0, |office, _| {
                let vcpu = office.vcpus[0].lock();
                (vcpu.virt.injected.to_vec(), vcpu.virt.state.instruction_pointer)
            })
            .unwrap();
        assert_eq!(injected, [Injected::Interrupt(0x50)], "{}", console(host));
        // The last instruction, OFF, has two bytes.
        assert_eq!(at, start + (halt + length + 2) as u64);
    }
}

/// A read of the count finds that the timer is due, and nobody else will: it is not due any more.
#[test]
fn a_timer_that_a_read_of_its_count_finds_due_interrupts() {
    let arm = [apic_write(0x320, 0x50), apic_write(0x3e0, 0xb), apic_write(0x380, 1_500)].concat();
    let read = [load(0x390).as_slice(), &[memory(0xfee0_0390, Access::Read)]].concat();
    let script = [arm.as_slice(), &read, &[OFF]].concat();
    // MOV [RAX], EAX, and where the count is read MOV EAX, [RAX].
    let mut code = [0x89, 0x00].repeat(0x800);
    code[2 * (arm.len() + read.len() - 1)] = 0x8b;
    let [office, banking] = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
    let guests = [(office, code.as_slice(), script.as_slice()), (banking, &[], &[OFF])];
    let (host, _, vault) = run_plans::<Product>(true, &guests);
    let injected = vault.enter(0, |office, _| office.vcpus[0].lock().virt.injected.to_vec()).unwrap();
    assert_eq!(injected, [Injected::Interrupt(0x50)], "{}", console(host));
}

/// INIT to itself makes the only processor wait for a start-up interrupt that nobody is left to send.
#[test]
fn a_processor_that_nobody_can_start_ends_its_compartment() {
    let code = [0x89, 0x00].repeat(0x800);
    let init = apic_write(0x300, 0x4500);
    let [office, banking] = ["office", "banking"].map(|name| plan_of(name, OnReset::Stop));
    let guests = [(office, code.as_slice(), init.as_slice()), (banking, &[], &[OFF])];
    let (host, monitor, _) = run_plans::<Product>(true, &guests);
    assert_eq!(monitor.slots[0].ending(), Some(Ending::Stopped(Reason::Dead)), "{}", console(host));
}
