//! The platform's devices in every illegal state. Afterwards each works as it does for anybody.

use super::{Attempt, attempts, say};
use crate::chain;
use crate::engine;
use crate::interrupts::{let_in, wait};
use crate::machine::{
    cpuid, now, port_in, port_in_double, port_in_word, port_out, port_out_double, port_out_word, read32,
    set_apic, write32,
};

pub const BELOW: &[Attempt] = attempts![Guest:
    pic_initialized_out_of_order, pic_every_command, pic_still_works, pit_modes_changed_amid_count, pit_half_written_counts, pit_every_control_word,
    pit_still_works, io_apic_reserved_registers, io_apic_illegal_vectors, io_apic_every_entry, uart_fifo_overrun, uart_every_register, rtc_every_register,
    rtc_illegal_times, pci_every_address, power_registers, power_illegal_sleep, reset_control_without_reset, system_control, keyboard_controller,
];

const IO_APIC: u64 = 0xfec0_0000;

fn random(number: u32) -> u8 {
    (chain::next(number.into()) >> 24) as u8
}

/// Initialization words too few, too many, in the wrong order, and of one chip in the middle of the other's.
fn pic_initialized_out_of_order() {
    for first in 0..=255u8 {
        port_out(0x20, first | 0x10);
        for count in 0..first % 5 {
            port_out(0x21, random(u32::from(first) << 8 | u32::from(count)));
        }
        port_out(0xa0, 0x11);
        port_out(0x20, 0x0a);
        port_in(0x20);
        port_out(0xa1, first);
    }
    start_pic();
    say(format_args!("{:x} {:x}", port_in(0x21), port_in(0xa1)));
}

/// Both chips as a PC has them: vectors 0x20 and 0x28, cascade at input 2, all masked.
fn start_pic() {
    for (port, base, cascade) in [(0x20u16, 0x20, 4), (0xa0, 0x28, 2)] {
        port_out(port, 0x11);
        port_out(port + 1, base);
        port_out(port + 1, cascade);
        port_out(port + 1, 1);
        port_out(port + 1, 0xff);
    }
}

/// Operation commands 2 and 3 with every value, in every state of rotation and special mask.
fn pic_every_command() {
    for value in (0..=255u8).filter(|value| value & 0x10 == 0) {
        for port in [0x20, 0xa0] {
            port_out(port, value);
            port_in(port);
            port_in(port + 1);
        }
    }
    start_pic();
    port_out(0x20, 0x0b);
    say(format_args!("in-service={:x}", port_in(0x20)));
}

/// The timer's line through PIC and LINT0, as an operating system of old has it.
fn pic_still_works() {
    start_pic();
    engine::count(0x20, true);
    crate::interrupts::ENDED.store(false, core::sync::atomic::Ordering::Relaxed);
    set_apic(0x350, 0x700);
    port_out(0x43, 0x30);
    port_out(0x40, 0xe8);
    port_out(0x40, 3);
    port_out(0x21, 0xfe);
    let_in(2_000_000);
    port_out(0x21, 0xff);
    port_out(0x20, 0x20);
    set_apic(0x350, 0x1_0000);
    crate::interrupts::ENDED.store(true, core::sync::atomic::Ordering::Relaxed);
    say(format_args!("count={}", engine::counted(0x20)));
    engine::count(0x20, false);
}

/// What the read-back command says of a counter: whether a control word is what was written, modes 6 and 7 being 2 and 3, and, bit 6, that no
/// count is loaded yet.
fn pit_took(word: u8) -> bool {
    let (counter, mode) = (word >> 6, word >> 1 & 7);
    port_out(0x43, 0xe0 | 2 << counter);
    let status = port_in(0x40 + u16::from(counter));
    let plain = |mode: u8| if mode > 5 { mode - 4 } else { mode };
    status & 0x71 == word & 0x31 | 0x40 && plain(status >> 1 & 7) == plain(mode)
}

/// Each mode after each other, with the count half-way.
fn pit_modes_changed_amid_count() {
    let mut wrong = 0;
    for from in 0..8u8 {
        for to in 0..8u8 {
            for counter in 0..3u8 {
                port_out(0x43, counter << 6 | 0x30 | from << 1);
                port_out(0x40 + u16::from(counter), 3);
                port_out(0x40 + u16::from(counter), 0);
                port_in(0x40 + u16::from(counter));
                port_out(0x43, counter << 6 | 0x30 | to << 1);
                wrong += u32::from(!pit_took(counter << 6 | 0x30 | to << 1));
                port_in(0x40 + u16::from(counter));
            }
        }
    }
    say(format_args!("wrong={wrong}"));
}

/// How fast the 8254 counts.
const COUNTS_PER_SECOND: u64 = 1_193_182;

/// One byte of two, then another mode; latches of latches; read-back of nothing.
fn pit_half_written_counts() {
    for round in 0..256u32 {
        let counter = round as u16 % 3;
        port_out(0x43, (counter as u8) << 6 | 0x30);
        port_out(0x40 + counter, random(round));
        port_out(0x43, (counter as u8) << 6);
        port_out(0x43, (counter as u8) << 6);
        port_in(0x40 + counter);
        port_out(0x43, 0xc0 | random(round) & 0x3f);
        port_in(0x40 + counter);
    }
    // Whole counts afterwards count, and a latch gives them whole, as old as they are: below Ringfence the processor's rate is known.
    let kilohertz = u64::from(cpuid(0x4000_0001, 0)[0]);
    let mut works = 0;
    for counter in 0..3u8 {
        let port = 0x40 + u16::from(counter);
        port_out(0x43, counter << 6 | 0x30);
        port_out(port, 0xff);
        let before = now();
        port_out(port, 0xff);
        port_out(0x43, counter << 6);
        let passed = ((now() - before) * COUNTS_PER_SECOND / 1000).checked_div(kilohertz).unwrap_or(0);
        let low = port_in(port);
        let counted = 0xffff - u64::from(u16::from_le_bytes([low, port_in(port)]));
        // Fewer than these 4095 were counted, or the host has kept the processor to itself meanwhile.
        works += u32::from(counted < passed + 0xfff);
    }
    say(format_args!("works={works}"));
}

fn pit_every_control_word() {
    let mut wrong = 0;
    for word in 0..=255u8 {
        port_out(0x43, word);
        // Latches and read-backs are no control words.
        if word >> 6 != 3 && word & 0x30 != 0 {
            wrong += u32::from(!pit_took(word));
        }
        for port in 0x40..=0x42 {
            port_out(port, word);
            port_in(port);
        }
        port_in(0x43);
    }
    say(format_args!("wrong={wrong}"));
}

/// Counter 2, gated and read at port 0x61, counts down to its end.
fn pit_still_works() {
    port_out(0x61, 1);
    port_out(0x43, 0xb0);
    port_out(0x42, 0xff);
    port_out(0x42, 0);
    let before = port_in(0x61) >> 5 & 1;
    wait(2_000_000);
    say(format_args!("before={before} after={}", port_in(0x61) >> 5 & 1));
}

fn io_apic(index: u32) -> u32 {
    write32(IO_APIC, index);
    read32(IO_APIC + 0x10)
}

fn set_io_apic(index: u32, value: u32) {
    write32(IO_APIC, index);
    write32(IO_APIC + 0x10, value);
}

/// Every index: those that do not exist read alike and keep nothing.
fn io_apic_reserved_registers() {
    let mut changed = 0;
    for index in (3..0x10).chain(0x40..0x100) {
        let old = io_apic(index);
        set_io_apic(index, !old);
        changed += u32::from(io_apic(index) != old);
    }
    set_io_apic(1, u32::MAX);
    say(format_args!("changed={changed} version={:x}", io_apic(1)));
}

/// Vectors below 16, reserved delivery modes, to nobody: with lines that rise.
fn io_apic_illegal_vectors() {
    let mut seen = 0;
    for mode in 0..8u32 {
        for vector in [0, 1, 15, 2] {
            set_io_apic(0x14, mode << 8 | vector | 1 << 15);
            set_io_apic(0x15, 0xff00_0000 & !0xff00_0000 | 0x0e00_0000);
            set_io_apic(0x14, mode << 8 | vector);
            port_out(0x43, 0x30);
            port_out(0x40, 2);
            port_out(0x40, 0);
            wait(2000);
            // Remote IRR: nobody accepted anything.
            seen |= io_apic(0x14) >> 14 & 1;
        }
    }
    set_io_apic(0x14, 0x1_0000);
    let_in(50);
    say(format_args!("accepted={seen}"));
}

/// All ones and patterns into every redirection entry: reserved bits and read-only ones stay 0.
fn io_apic_every_entry() {
    let mut seen = 0;
    for entry in 0..24 {
        set_io_apic(0x10 + entry * 2, 0xffff_ffff);
        set_io_apic(0x11 + entry * 2, 0xffff_ffff);
        seen |= io_apic(0x10 + entry * 2);
        set_io_apic(0x10 + entry * 2, 0x1_0000);
        set_io_apic(0x11 + entry * 2, 0);
    }
    say(format_args!("{seen:x}"));
}

/// In loop-back, more bytes than the receiver holds: overrun, and sixteen of them are there.
fn uart_fifo_overrun() {
    crate::console::Console::finish();
    port_out(0x3fc, 0x10);
    port_out(0x3fa, 7);
    // Reading the status clears what it says of overruns.
    let mut status = 0;
    for byte in 0..40 {
        port_out(0x3f8, byte);
        while status & 0x20 == 0 {
            status |= port_in(0x3fd);
        }
        status &= !0x20;
    }
    wait(100_000);
    status |= port_in(0x3fd);
    let mut count = 0;
    while port_in(0x3fd) & 1 != 0 && count < 100 {
        port_in(0x3f8);
        count += 1;
    }
    port_out(0x3fa, 7);
    port_out(0x3fc, 3);
    say(format_args!("overrun={} bytes={count}", status >> 1 & 1));
}

/// Every register but the data and the divisor with every value, in loop-back; then as it was.
fn uart_every_register() {
    crate::console::Console::finish();
    port_out(0x3fc, 0x10);
    for register in [1u16, 2, 4, 5, 6, 7] {
        for value in 0..=255u8 {
            port_out(0x3f8 + register, if register == 4 { value | 0x10 } else { value });
            port_in(0x3f8 + register);
        }
    }
    for value in 0..=255 {
        port_out(0x3fb, value);
        port_in(0x3f9);
    }
    crate::console::Console::start();
    say(format_args!("{:x}", port_in(0x3fb)));
}

/// Every index with every kind of value, the upper half of the index's byte, which masks NMI, included.
fn rtc_every_register() {
    let mut kept = 0;
    for index in 0..=255u8 {
        port_out(0x70, index);
        let old = port_in(0x71);
        for value in [0xff, 0, 0x55] {
            port_out(0x71, value);
        }
        kept += u32::from(port_in(0x71) == 0x55);
        port_out(0x71, old);
    }
    port_out(0x70, 0x0a);
    let rate = port_in(0x71);
    port_out(0x71, 0x26);
    port_out(0x70, 0x0b);
    port_out(0x71, 2);
    port_out(0x70, 0x0d);
    // Index 0x0d says that the time is valid, whatever is written.
    say(format_args!(
        "{} {} valid={:x}",
        if kept > 100 { "kept" } else { "lost" },
        if rate < 0x80 { "alive" } else { "busy" },
        port_in(0x71)
    ));
}

/// The 99th of month 31, in BCD that is none, in 12-hour mode with 24 hours.
fn rtc_illegal_times() {
    for mode in [0, 2, 4, 6, 0x80, 0x86] {
        port_out(0x70, 0x0b);
        port_out(0x71, mode);
        for (index, value) in
            [(0, 0xff), (2, 0x7a), (4, 0xff), (6, 0), (7, 0x99), (8, 0x31), (9, 0xff), (0x32, 0xff)]
        {
            port_out(0x70, index);
            port_out(0x71, value);
            port_in(0x71);
        }
        wait(1000);
    }
    port_out(0x70, 0x0b);
    port_out(0x71, 2);
    for (index, value) in [(0, 0), (2, 0), (4, 0x12), (6, 2), (7, 1), (8, 1), (9, 0x24), (0x32, 0x20)] {
        port_out(0x70, index);
        port_out(0x71, value);
    }
    port_out(0x70, 8);
    say(format_args!("month={:x}", port_in(0x71)));
}

/// Every bus, device and function: what is not there answers all ones, and what is there keeps its name.
fn pci_every_address() {
    let mut found = 0;
    for bus in [0, 1, 2, 128, 255u32] {
        for place in 0..256u32 {
            let address = 0x8000_0000 | bus << 16 | place << 8;
            port_out_double(0xcf8, address);
            let name = port_in_double(0xcfc);
            found += u32::from(name != u32::MAX);
            for register in [0u32, 4, 0x10, 0x3c, 0xfc] {
                port_out_double(0xcf8, address | register);
                port_out_double(0xcfc, u32::MAX);
                port_out(0xcfd, 0);
                port_out_word(0xcfe, 0x5555);
            }
            port_out_double(0xcf8, address);
            found += u32::from(port_in_double(0xcfc) != name) << 16;
        }
    }
    port_out_double(0xcf8, 0x0000_0000);
    say(format_args!("found={found:x} disabled={:x}", port_in_double(0xcfc)));
}

/// Status is cleared by ones, enables are kept, the timer goes on whatever is written to it.
fn power_registers() {
    for port in 0x600..=0x603u16 {
        for value in 0..=255 {
            port_out(port, value);
        }
    }
    port_out_word(0x602, 0);
    let before = port_in_double(0x608);
    port_out_double(0x608, 0);
    wait(10_000);
    let after = port_in_double(0x608);
    say(format_args!(
        "status={:x} {}",
        port_in_word(0x600) & 0x20,
        if after.wrapping_sub(before) < 1 << 24 { "goes-on" } else { "was-set" }
    ));
}

/// Sleep types that are not there, with SLP_EN; and S5's without.
fn power_illegal_sleep() {
    for kind in (0..8u16).filter(|kind| *kind != 5) {
        port_out_word(0x604, kind << 10 | 1 << 13);
    }
    port_out_word(0x604, 5 << 10);
    port_out(0x604, 0xff);
    // SLP_EN reads as zero.
    let control = port_in_word(0x604);
    say(format_args!("enable={} type={}", control >> 13 & 1, control >> 10 & 7));
}

/// Port 0xcf9 with every value that does not reset.
fn reset_control_without_reset() {
    let mut wrong = 0;
    for value in (0..=255u8).filter(|value| value & 4 == 0) {
        port_out(0xcf9, value);
        // Which of both resets bit 2 would be, is kept; bit 2 is not.
        wrong += u32::from(port_in(0xcf9) & 6 != value & 2);
    }
    say(format_args!("wrong={wrong}"));
}

/// Ports 0x61 and 0x92 with every value, but for the bit of 0x92 that resets.
fn system_control() {
    let (mut kept, mut gate) = (0, 0);
    for value in 0..=255u8 {
        port_out(0x61, value);
        // Bits 3-0 are kept, errors of the bus are never there.
        kept += u32::from(port_in(0x61) & 0xcf == value & 0xf);
        port_out(0x92, value & 0xfe);
        gate |= port_in(0x92) & 1;
    }
    say(format_args!("kept={kept} reset={gate}"));
}

/// Commands to a keyboard controller, but for its reset, 0xf0 to 0xff with bit 0 clear.
fn keyboard_controller() {
    let mut busy = 0;
    for value in (0..=255u8).filter(|value| value & 0xf1 != 0xf0) {
        port_out(0x64, value);
        // Who sends is never kept waiting: bit 1.
        busy |= port_in(0x64) & 2;
        port_out(0x60, value);
        port_in(0x60);
    }
    say(format_args!("busy={busy}"));
}
