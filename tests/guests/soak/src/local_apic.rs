//! The local APIC in x2APIC mode (APM volume 2, section 16.9 and 16.11).

use crate::machine::{APIC_BASE, read_msr, write_msr};

/// Task priority.
const TASK_PRIORITY: u32 = 0x808;
/// Spurious vector, and the software enable.
const SPURIOUS: u32 = 0x80f;
/// Interrupt command.
pub const COMMAND: u32 = 0x830;
/// The timer's local vector.
pub const TIMER: u32 = 0x832;
/// The timer's initial count.
pub const INITIAL_COUNT: u32 = 0x838;
/// The timer's divider.
pub const DIVIDE: u32 = 0x83e;
/// The time stamp counter's value at which the timer goes off, in deadline mode.
pub const DEADLINE: u32 = 0x6e0;

/// Bits of the timer's local vector.
pub const MASKED: u64 = 1 << 16;
/// The timer begins anew each time it goes off.
pub const PERIODIC: u64 = 1 << 17;
/// The timer goes off at a deadline.
pub const DEADLINE_MODE: u64 = 2 << 17;
/// Divide by one.
pub const DIVIDE_BY_ONE: u64 = 0xb;

/// Interrupt commands: to the sender, to all, to all but the sender; INIT and start-up.
pub const MYSELF: u64 = 1 << 18;
/// To all.
pub const ALL: u64 = 2 << 18;
/// To all but the sender.
pub const OTHERS: u64 = 3 << 18;
/// INIT, asserted.
pub const INIT: u64 = 5 << 8 | 1 << 14;
/// Start-up; the page is the vector.
pub const START_UP: u64 = 6 << 8;
/// A system management interrupt, which no compartment may send.
pub const SYSTEM_MANAGEMENT: u64 = 2 << 8;

/// Sends a command to the local APIC with that identifier, or, by shorthand, to whom that says.
pub fn command(target: u64, command: u64) {
    write_msr(COMMAND, target << 32 | command);
}

/// Switches the local APIC of this processor on, in x2APIC mode.
pub fn start() {
    let base = read_msr(APIC_BASE);
    write_msr(APIC_BASE, base | 1 << 11);
    write_msr(APIC_BASE, base | 1 << 11 | 1 << 10);
    write_msr(SPURIOUS, 0x1ff);
    write_msr(TASK_PRIORITY, 0);
}
