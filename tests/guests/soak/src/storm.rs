//! Storms: what a guest does to keep its hypervisor busy. What the hypervisor has to note is counted.

use crate::compute::{Chain, SECOND};
use crate::interrupts::expecting;
use crate::local_apic::{
    self, ALL, DEADLINE, DEADLINE_MODE, DIVIDE, DIVIDE_BY_ONE, INITIAL_COUNT, MASKED, MYSELF, OTHERS,
    PERIODIC, SYSTEM_MANAGEMENT, TIMER,
};
use crate::machine::{
    MSR_READS, MSR_WRITES, now, port_in, port_out, port_out_string, read_register, write_msr, write_register,
};
use crate::random::Random;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The vector of the local APIC's timer.
pub const LOCAL_TIMER: u8 = 0x50;
/// The vector that processors send each other.
pub const PROCESSOR: u8 = 0x60;

/// How many things of each kind the hypervisor's audit log has to note.
#[derive(Default)]
pub struct Tally {
    /// What does not exist.
    pub unknown: u64,
    /// What this guest may not.
    pub denied: u64,
    /// What makes no sense.
    pub malformed: u64,
    /// Hypercalls, which are also unknown.
    pub hypercalls: u64,
}

#[unsafe(no_mangle)]
static TIMER_INTERRUPTS: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static PROCESSOR_INTERRUPTS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    safe fn timer_interrupt();
    safe fn processor_interrupt();
}

/// Interrupts of the timer that were taken.
pub fn timer_interrupts() -> u64 {
    TIMER_INTERRUPTS.load(Ordering::SeqCst)
}

/// Interrupts that processors sent and that were taken.
pub fn processor_interrupts() -> u64 {
    PROCESSOR_INTERRUPTS.load(Ordering::SeqCst)
}

#[repr(C, packed)]
#[derive(Copy, Clone)]
struct Pointer {
    limit: u16,
    base: u64,
}

static TABLE_BASE: AtomicU64 = AtomicU64::new(0);

/// Adds the handlers of the storms to the interrupt descriptor table, which is loaded.
pub fn prepare() {
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: writes ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    TABLE_BASE.store(pointer.base, Ordering::SeqCst);
    for (vector, handler) in [
        (LOCAL_TIMER, timer_interrupt as *const () as u64),
        (PROCESSOR, processor_interrupt as *const () as u64),
    ] {
        // An interrupt gate of ring 0 (APM volume 2, section 4.8.4).
        let low = handler & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        let gate = (pointer.base + 16 * u64::from(vector)) as *mut u64;
        // SAFETY: the table has 256 gates of 16 bytes, and interrupts are off.
        unsafe {
            gate.write_volatile(low);
            gate.add(1).write_volatile(handler >> 32);
        }
    }
}

/// Loads the table on another processor.
pub fn load_table() {
    let pointer = Pointer { limit: 256 * 16 - 1, base: TABLE_BASE.load(Ordering::SeqCst) };
    // SAFETY: each gate of the table leads to a handler.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// Ports of devices that may be read at any time: timers, controllers, clock, serial port, power management.
const CLAIMED: [u16; 12] = [0x20, 0x21, 0x40, 0x41, 0x42, 0x61, 0x70, 0x71, 0xa1, 0x3fd, 0x3fa, 0x608];

/// Ports: those of devices, programmed into whatever comes, and those where nobody listens.
pub fn ports(random: &mut Random, tally: &mut Tally) {
    for _ in 0..64 + random.below(512) {
        match random.below(8) {
            0 | 1 => {
                port_in(CLAIMED[random.below(CLAIMED.len() as u64) as usize]);
            }
            // The interval timer: any mode, any count, the shortest among them. Its line is masked.
            2 => {
                let channel = random.below(3);
                port_out(0x43, (channel << 6 | 3 << 4 | random.below(8) << 1) as u8);
                port_out(0x40 + channel as u16, random.below(4) as u8);
                port_out(0x40 + channel as u16, 0);
            }
            3 => port_out(0x70, random.next() as u8),
            4 => {
                port_out_string(nobody(random), &[0; 17]);
                tally.unknown += 17;
            }
            5 => {
                port_out(nobody(random), random.next() as u8);
                tally.unknown += 1;
            }
            _ => {
                port_in(nobody(random));
                tally.unknown += 1;
            }
        }
    }
}

/// A port where nobody listens.
fn nobody(random: &mut Random) -> u16 {
    0x1000 + random.below(0x7000) as u16
}

/// Model-specific registers that do not exist, and values that do not.
pub fn registers(random: &mut Random, tally: &mut Tally) {
    for _ in 0..16 + random.below(128) {
        let unknown = 0x1000 + random.below(0x1000) as u32;
        match random.below(3) {
            0 => {
                MSR_READS.add(1);
                tally.unknown += 1;
                expecting(|| {
                    // SAFETY: gives #GP, behind which execution goes on at R9.
                    unsafe {
                        asm!("lea r9, [rip + 2f]", "rdmsr", "2:",
                            in("ecx") unknown, out("eax") _, out("edx") _, out("r9") _)
                    }
                });
            }
            1 => {
                tally.unknown += 1;
                refuse_write(unknown, random.next());
            }
            // The identifier of an x2APIC cannot be written.
            _ => {
                tally.malformed += 1;
                refuse_write(0x802, random.next());
            }
        }
    }
}

/// WRMSR that gives #GP.
fn refuse_write(register: u32, value: u64) {
    MSR_WRITES.add(1);
    expecting(|| {
        // SAFETY: gives #GP, behind which execution goes on at R9.
        unsafe {
            asm!("lea r9, [rip + 2f]", "wrmsr", "2:",
                in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, out("r9") _)
        }
    });
}

/// Memory that is neither RAM nor a device's.
pub fn memory(random: &mut Random, tally: &mut Tally) {
    for _ in 0..64 + random.below(256) {
        let address = 0xd000_0000 + (random.below(0x1000_0000) & !3);
        if random.below(2) == 0 {
            read_register(address);
        } else {
            write_register(address, random.next() as u32);
        }
        tally.unknown += 1;
    }
}

/// Instructions and interrupts that no compartment may use, and hypercalls, of which there are none.
pub fn refused(random: &mut Random, tally: &mut Tally) {
    for _ in 0..8 + random.below(64) {
        match random.below(3) {
            0 => {
                tally.denied += 1;
                expecting(|| {
                    // SAFETY: MONITOR gives #UD, behind which execution goes on at R9.
                    unsafe {
                        asm!("lea r9, [rip + 2f]", ".byte 0x0f, 0x01, 0xc8", "2:",
                            in("rax") 0x1000, in("rcx") 0, in("rdx") 0, out("r9") _)
                    }
                });
            }
            1 => {
                tally.denied += 1;
                local_apic::command(0, MYSELF | SYSTEM_MANAGEMENT);
            }
            _ => {
                tally.unknown += 1;
                tally.hypercalls += 1;
                expecting(|| {
                    // SAFETY: VMMCALL gives #UD, behind which execution goes on at R9.
                    unsafe {
                        asm!("lea r9, [rip + 2f]", "vmmcall", "2:", in("rax") random.next(), out("r9") _)
                    }
                });
            }
        }
    }
}

/// Interrupts of processors: to oneself, to the other, to all, to nobody.
pub fn processors(random: &mut Random) {
    let vector = u64::from(PROCESSOR);
    for _ in 0..32 + random.below(256) {
        match random.below(5) {
            0 => local_apic::command(0, MYSELF | vector),
            1 => local_apic::command(SECOND, vector),
            2 => local_apic::command(0, OTHERS | vector),
            3 => local_apic::command(0, ALL | vector),
            _ => local_apic::command(2 + random.below(200), vector),
        }
        interrupts_through();
    }
}

/// The timer at its shortest period, or at deadlines that are past, while the chain goes on.
pub fn timer(random: &mut Random, chain: &mut Chain) {
    let vector = u64::from(LOCAL_TIMER);
    write_msr(DIVIDE, DIVIDE_BY_ONE);
    if random.below(2) == 0 {
        write_msr(TIMER, PERIODIC | vector);
        write_msr(INITIAL_COUNT, 1 + random.below(100));
        // SAFETY: the handler counts and ends its interrupt.
        unsafe { asm!("sti", options(nostack)) };
        chain.advance(1 + random.below(1 << 12));
        // SAFETY: nothing waits for an interrupt.
        unsafe { asm!("cli", options(nostack)) };
        write_msr(INITIAL_COUNT, 0);
    } else {
        write_msr(TIMER, DEADLINE_MODE | vector);
        for _ in 0..16 + random.below(64) {
            write_msr(DEADLINE, 1 + random.below(1 << 20));
            interrupts_through();
        }
    }
    write_msr(TIMER, MASKED | vector);
    interrupts_through();
}

/// Halts until the timer goes off.
pub fn sleep(random: &mut Random) {
    let vector = u64::from(LOCAL_TIMER);
    write_msr(TIMER, DEADLINE_MODE | vector);
    let heard = timer_interrupts();
    write_msr(DEADLINE, now() + random.below(50_000_000));
    while timer_interrupts() == heard {
        // SAFETY: the handler counts and ends its interrupt; one that comes before HLT is taken behind it.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
    }
    write_msr(TIMER, MASKED | vector);
}

/// Takes what is pending.
fn interrupts_through() {
    // SAFETY: handlers count and end their interrupts.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Resets the machine, by one of its doors: the reset register, the keyboard controller, port 92.
pub fn reset(random: &mut Random) -> ! {
    let (port, value) = [(0xcf9, 6), (0x64, 0xfe), (0x92, 1)][random.below(3) as usize];
    port_out(port, value);
    loop {
        core::hint::spin_loop();
    }
}
