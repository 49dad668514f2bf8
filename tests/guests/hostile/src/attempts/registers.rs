//! Model-specific registers: all of the architectural ranges.

use super::{Attempt, attempts, say};
use crate::chain;
use crate::code;
use crate::console::print;
use crate::engine::{self, Mode, State, Trap};

pub const ATTEMPTS: &[Attempt] = attempts![Any: read_every_msr];
pub const BELOW: &[Attempt] = attempts![Guest: write_every_msr_that_cannot_be_read, write_all_ones_to_every_msr, write_random_to_every_msr];

/// Where processors and hypervisors have registers: `0..0x2000` and the two ranges of AMD's permission map, the hypervisors' own, KVM's, and some where
/// nothing is.
const RANGES: [core::ops::Range<u32>; 9] = [
    0..0x2000,
    0x2000..0x2010,
    0x4000_0000..0x4000_0200,
    0x4b56_4d00..0x4b56_4d10,
    0x8000_0000..0x8000_0010,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
    0xc002_0000..0xc002_0010,
    0xffff_fff0..0xffff_ffff,
];

fn read(number: u32) -> Trap {
    engine::start_at(Mode::Long, engine::CODE, State { rcx: number.into(), ..State::default() })
}

fn write(number: u32, value: u64) -> Trap {
    let registers =
        State { rcx: number.into(), rax: value & 0xffff_ffff, rdx: value >> 32, ..State::default() };
    engine::start_at(Mode::Long, engine::CODE, registers)
}

/// Says the numbers that hold, as ranges.
fn say_which(mut holds: impl FnMut(u32) -> bool) {
    print(format_args!(" "));
    let mut said = false;
    for range in RANGES {
        let mut begin = None;
        let end = range.end;
        for number in range.chain([end]) {
            let inside = number != end && holds(number);
            match (inside, begin) {
                (true, None) => begin = Some(number),
                (false, Some(first)) => {
                    print(format_args!("{}{first:x}", if said { "," } else { "" }));
                    if number - 1 != first {
                        print(format_args!("-{:x}", number - 1));
                    }
                    (begin, said) = (None, true);
                }
                _ => {}
            }
        }
    }
    if !said {
        print(format_args!("none"));
    }
}

/// Says which can be read, and how many did something else than fault.
fn read_every_msr() {
    engine::place(code!("rdmsr"));
    let mut other = 0;
    say_which(|number| {
        let trap = read(number);
        other += u32::from(!trap.is_done() && (trap.state.vector, trap.state.code) != (13, 0));
        trap.is_done()
    });
    say(format_args!("other={other}"));
}

/// Says which can be written though they cannot be read.
fn write_every_msr_that_cannot_be_read() {
    let mut other = 0;
    say_which(|number| {
        engine::place(code!("rdmsr"));
        if read(number).is_done() {
            return false;
        }
        engine::place(code!("wrmsr"));
        [0, u64::MAX, chain::next(number.into())].into_iter().any(|value| {
            let trap = write(number, value);
            other += u32::from(!trap.is_done() && (trap.state.vector, trap.state.code) != (13, 0));
            trap.is_done()
        })
    });
    say(format_args!("other={other}"));
}

/// Writes a value to all that can be read, puts back what was there, and says which took it.
fn write_to_all(value_for: impl Fn(u32) -> u64) {
    let mut other = 0;
    say_which(|number| {
        engine::place(code!("rdmsr"));
        let old = read(number);
        if !old.is_done() {
            return false;
        }
        let old = old.state.rdx << 32 | old.state.rax;
        engine::place(code!("wrmsr"));
        let trap = write(number, value_for(number));
        write(number, old);
        other += u32::from(!trap.is_done() && (trap.state.vector, trap.state.code) != (13, 0));
        trap.is_done()
    });
    say(format_args!("other={other}"));
}

fn write_all_ones_to_every_msr() {
    write_to_all(|_| u64::MAX);
}

fn write_random_to_every_msr() {
    write_to_all(|number| chain::next(number.into()) | 1 << 63 | 1 << 55);
}
