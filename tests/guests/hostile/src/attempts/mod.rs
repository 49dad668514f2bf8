//! The attempts: one function each, named after it. What a function prints is its verdict.

mod control;
mod debug;
mod devices;
mod ends;
mod forms;
mod instructions;
mod memory;
mod messages;
mod ports;
mod processors;
mod registers;
mod tables;

use crate::console::print;
use crate::engine::{self, Mode, State, Trap};
use crate::{interrupts, machine};
use core::fmt;

/// Something that is tried.
pub struct Attempt {
    /// Its name, with underscores for dashes.
    name: &'static str,
    /// Tries it, and says each word of the verdict.
    run: fn(),
    /// Where it is tried.
    kind: Kind,
}

/// Where an attempt is tried.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    /// Everywhere, one after the other.
    Any,
    /// Only below a hypervisor: a bare machine has something there that must not be touched.
    Guest,
    /// It ends the machine: only when it is asked for by name.
    End,
}

/// A list of attempts, from the functions' names.
macro_rules! attempts {
    ($kind:ident: $($name:ident),+ $(,)?) => {
        &[$($crate::attempts::Attempt { name: stringify!($name), run: $name, kind: $crate::attempts::Kind::$kind }),+]
    };
}
use attempts;

/// All of them.
const GROUPS: &[&[Attempt]] = &[
    instructions::ATTEMPTS,
    instructions::BELOW,
    memory::ATTEMPTS,
    memory::BELOW,
    control::ATTEMPTS,
    control::BELOW,
    control::ENDS,
    registers::ATTEMPTS,
    registers::BELOW,
    debug::ATTEMPTS,
    forms::ATTEMPTS,
    forms::BELOW,
    forms::ENDS,
    tables::ATTEMPTS,
    tables::ENDS,
    ports::ATTEMPTS,
    ports::BELOW,
    messages::ATTEMPTS,
    messages::BELOW,
    messages::ENDS,
    processors::ENDS,
    devices::BELOW,
    ends::ATTEMPTS,
];

/// Tries all that end nothing.
pub fn all() {
    let bare = !machine::is_below_ringfence();
    for attempt in GROUPS.iter().flat_map(|group| group.iter()) {
        if attempt.kind == Kind::Any || attempt.kind == Kind::Guest && !bare {
            attempt.carry_out();
        }
    }
}

/// Tries one, whatever it does.
pub fn one(name: &str) {
    let mut all = GROUPS.iter().flat_map(|group| group.iter());
    match all.find(|attempt| attempt.is_called(name)) {
        Some(attempt) => attempt.carry_out(),
        None => print(format_args!("hostile failed: there is no attempt {name}\n")),
    }
}

impl Attempt {
    fn is_called(&self, name: &str) -> bool {
        let dashed = self.name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        dashed.eq(name.bytes())
    }

    fn carry_out(&self) {
        print(format_args!("attempt "));
        for (index, part) in self.name.split('_').enumerate() {
            print(format_args!("{}{part}", if index == 0 { "" } else { "-" }));
        }
        (self.run)();
        print(format_args!("\n"));
        restore();
    }
}

/// What the attempts before have changed is put back.
fn restore() {
    machine::set_cr4(CR4);
    if machine::dr7() != 0x400 {
        machine::set_dr7(0x400);
    }
    interrupts::quiet();
    engine::fill_real_vectors();
}

/// CR4 as boot.s sets it: PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;

/// Says a word of the verdict.
fn say(word: fmt::Arguments<'_>) {
    print(format_args!(" {word}"));
}

/// Runs the same bytes in several modes and says how they ended; modes in which they ended alike share a word.
fn in_modes(modes: &[Mode], code: &[u8], registers: State) {
    try_in_modes(modes, |mode| engine::run(mode, code, registers));
}

/// Runs the same bytes in all modes.
fn everywhere(code: &[u8], registers: State) {
    in_modes(&Mode::ALL, code, registers);
}

/// As [`in_modes`], for what needs more than bytes.
fn try_in_modes(modes: &[Mode], run: impl Fn(Mode) -> Trap) {
    let mut traps: [Option<(Mode, Trap)>; Mode::ALL.len()] = [None; Mode::ALL.len()];
    let tried = || modes.iter().filter(|mode| mode.is_tried());
    for (place, mode) in traps.iter_mut().zip(tried()) {
        *place = Some((*mode, run(*mode)));
    }
    for index in 0..traps.len() {
        let Some((_, trap)) = traps[index] else { continue };
        let alike = |other: &Option<(Mode, Trap)>| other.is_some_and(|(_, other)| other.ended_as(&trap));
        let count = traps.iter().filter(|other| alike(other)).count();
        if count == tried().count() && count > 1 {
            say(format_args!("everywhere={trap}"));
            return;
        }
        print(format_args!(" "));
        let mut first = true;
        for other in &mut traps {
            if alike(other)
                && let Some((mode, _)) = other.take()
            {
                print(format_args!("{}{}", if first { "" } else { "," }, mode.name()));
                first = false;
            }
        }
        print(format_args!("={trap}"));
    }
}
