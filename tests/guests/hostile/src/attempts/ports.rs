//! All 65,536 ports.

use super::{Attempt, attempts, say};
use crate::chain;
use crate::code;
use crate::console::{Console, print};
use crate::engine::{self, DATA, Mode, State};
use crate::machine::{
    self, HOLE, port_in, port_in_double, port_in_word, port_out, port_out_double, port_out_word, read64,
    write64,
};

pub const ATTEMPTS: &[Attempt] = attempts![Any: ins_from_unclaimed_port, ins_to_unmapped, outs_from_unmapped, ins_to_fault, outs_from_beyond_canonical];
pub const BELOW: &[Attempt] = attempts![Guest:
    read_every_port_by_byte, read_every_port_by_word, read_every_port_by_double, write_every_unclaimed_port, read_beyond_the_last_port,
];

/// Says the ports that answer something else than all ones, as ranges.
fn say_answers(mut answers: impl FnMut(u16) -> bool) {
    Console::finish();
    print(format_args!(" "));
    let mut begin = None;
    let mut said = false;
    for port in 0..=0x1_0000u32 {
        let inside = port <= 0xffff && answers(port as u16);
        match (inside, begin) {
            (true, None) => begin = Some(port),
            (false, Some(first)) => {
                print(format_args!("{}{first:x}-{:x}", if said { "," } else { "" }, port - 1));
                (begin, said) = (None, true);
            }
            _ => {}
        }
    }
}

fn read_every_port_by_byte() {
    say_answers(|port| port_in(port) != u8::MAX);
}

fn read_every_port_by_word() {
    say_answers(|port| port_in_word(port) != u16::MAX);
}

fn read_every_port_by_double() {
    say_answers(|port| port_in_double(port) != u32::MAX);
}

/// The ports that devices have: PIC, PIT, system control, RTC, serial port, power, PCI and reset.
fn is_claimed(port: u16) -> bool {
    matches!(port, 0x20..=0x21 | 0x40..=0x43 | 0x61 | 0x64 | 0x70..=0x71 | 0x92 | 0xa0..=0xa1 | 0x3f8..=0x3ff | 0x4d0..=0x4d1 | 0x600..=0x60b | 0xcf8..=0xcff)
}

/// Zeros, all ones and something, in bytes and in four bytes that begin where no device has any.
fn write_every_unclaimed_port() {
    let mut changed = 0;
    for port in (0..=0xffff).filter(|port| !is_claimed(*port)) {
        let random = chain::next(port.into()) as u32;
        port_out(port, 0);
        port_out(port, 0xff);
        port_out(port, random as u8);
        if !(0..4).any(|offset| is_claimed(port.wrapping_add(offset))) {
            port_out_double(port, random);
            port_out_word(port, random as u16);
            changed += u32::from(port % 64 == 0 && port_in_double(port) != u32::MAX);
        }
    }
    say(format_args!("changed={changed}"));
}

/// Two and four bytes from port 0xffff: the permission map has bits for them, and nobody answers.
fn read_beyond_the_last_port() {
    say(format_args!("{:x} {:x} {:x}", port_in_word(0xffff), port_in_double(0xffff), port_in_double(0xfffd)));
}

/// INS of a port that nobody claims gives all ones; the count and the index say how many.
fn ins_from_unclaimed_port() {
    write64(DATA, 0);
    let registers = State { rdi: DATA, rcx: 5, rdx: 0x2f0, ..State::default() };
    let trap = engine::run(Mode::Long, code!("rep insb"), registers);
    say(format_args!(
        "{trap} {:x} rcx={} rdi=+{}",
        read64(DATA),
        trap.state.rcx,
        trap.state.rdi.wrapping_sub(DATA)
    ));
}

fn ins_to_unmapped() {
    let registers = State { rdi: HOLE, rcx: 3, rdx: 0x2f0, ..State::default() };
    let trap = engine::run(Mode::Long, code!("rep insd"), registers);
    say(format_args!("{trap} rcx={} rdi=+{}", trap.state.rcx, trap.state.rdi.wrapping_sub(HOLE)));
}

fn outs_from_unmapped() {
    let registers = State { rsi: HOLE, rcx: 3, rdx: 0x2f0, ..State::default() };
    let trap = engine::run(Mode::Long, code!("rep outsw"), registers);
    say(format_args!("{trap} rcx={} rsi=+{}", trap.state.rcx, trap.state.rsi.wrapping_sub(HOLE)));
}

/// The second element lies in a page that is not there: the fault comes when one is done.
fn ins_to_fault() {
    let page = machine::window(0, DATA | 7);
    machine::window(1, 0);
    let registers = State { rdi: page + 0xffe, rcx: 3, rdx: 0x2f0, ..State::default() };
    let trap = engine::run(Mode::Long, code!("rep insw"), registers);
    say(format_args!("{trap} rcx={} rdi=+{:x}", trap.state.rcx, trap.state.rdi.wrapping_sub(page)));
}

fn outs_from_beyond_canonical() {
    let registers = State { rsi: 1 << 47, rcx: 1, rdx: 0x2f0, ..State::default() };
    say(format_args!("{}", engine::run(Mode::Long, code!("rep outsb"), registers)));
}
