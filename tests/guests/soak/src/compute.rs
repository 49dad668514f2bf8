//! What is computed: on each processor a chain of multiplications, with sums in all vector registers beside it that stay there for the
//! whole life, and values in the debug registers; on the first one also passes over memory. What must come out follows from the salt
//! and from how often each was done.

use crate::local_apic::{self, INIT, START_UP};
use crate::random::mix;
use crate::storm;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where the second processor starts: a page below 1 MiB that nothing else uses.
const START_PAGE: u64 = 0x3_0000;
/// The second processor's local APIC.
pub const SECOND: u64 = 1;

/// The memory that is computed with: from here on.
const MEMORY: u64 = 16 << 20;
/// Its length in words.
const WORDS: u64 = (32 << 20) / 8;
/// The step of chains and memory: the multiplier and increment of Knuth's MMIX.
const FACTOR: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// What a processor's numbers are made of, so that the two differ.
const FIRST_SIDE: u64 = 0x100;
const SECOND_SIDE: u64 = 0x200;
const MEMORY_SIDE: u64 = 0x300;

unsafe extern "C" {
    static trampoline: [u8; 0];
    static trampoline_end: [u8; 0];
    fn compute_steps(value: u64, steps: u64) -> u64;
    fn load_lanes(values: *const u64);
    fn store_lanes(values: *mut u64);
}

/// A chain, on the processor whose vector registers it uses.
pub struct Chain {
    /// Its value.
    pub value: u64,
    /// How often it was advanced.
    pub steps: u64,
}

impl Chain {
    /// The first processor's; its vector and debug registers begin anew.
    pub fn begin(salt: u64) -> Self {
        Self::on(salt, FIRST_SIDE)
    }

    fn on(salt: u64, side: u64) -> Self {
        let mut values = [0; 20];
        for (index, value) in values.iter_mut().enumerate() {
            *value = mix(salt ^ (side + 1 + index as u64));
        }
        // SAFETY: reads twenty values; this program uses vector and debug registers nowhere else.
        unsafe { load_lanes(values.as_ptr()) };
        Self { value: mix(salt ^ side), steps: 0 }
    }

    /// Advances it `steps` times, at least once.
    pub fn advance(&mut self, steps: u64) {
        let steps = steps.max(1);
        // SAFETY: the function computes in registers.
        self.value = unsafe { compute_steps(self.value, steps) };
        self.steps += steps;
    }
}

/// Both halves of all vector registers and the debug registers, in one number.
pub fn lanes() -> u64 {
    let mut values = [0; 36];
    // SAFETY: writes 36 values.
    unsafe { store_lanes(values.as_mut_ptr()) };
    values.iter().fold(0, |sum, value| mix(sum ^ value))
}

/// Lets this processor use vector registers (APM volume 2, section 11.3).
pub fn enable_vectors() {
    // SAFETY: nothing here rests on these bits' old values.
    unsafe {
        asm!(
            "mov rax, cr4",
            "or rax, 0x600",
            "mov cr4, rax",
            "mov rax, cr0",
            "and rax, -13",
            "or rax, 2",
            "mov cr0, rax",
            out("rax") _
        );
    }
}

/// The memory.
pub struct Memory {
    /// How often all of it was computed anew.
    pub passes: u64,
}

impl Memory {
    /// Fills it.
    pub fn begin(salt: u64) -> Self {
        let mut value = mix(salt ^ MEMORY_SIDE);
        for index in 0..WORDS {
            // SAFETY: the area lies in RAM behind this program.
            unsafe { Self::word(index).write_volatile(value) };
            value = value.wrapping_mul(FACTOR).wrapping_add(INCREMENT);
        }
        Self { passes: 0 }
    }

    fn word(index: u64) -> *mut u64 {
        (MEMORY + 8 * index) as *mut u64
    }

    /// A step for each word.
    pub fn pass(&mut self) {
        for index in 0..WORDS {
            let word = Self::word(index);
            // SAFETY: as in `begin`.
            unsafe {
                word.write_volatile(word.read_volatile().wrapping_mul(FACTOR).wrapping_add(INCREMENT));
            }
        }
        self.passes += 1;
    }

    /// The sum of all words.
    pub fn sum(&self) -> u64 {
        // SAFETY: as in `begin`.
        (0..WORDS).map(|index| unsafe { Self::word(index).read_volatile() }).fold(0, u64::wrapping_add)
    }
}

static SALT: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);
static SECOND_VALUE: AtomicU64 = AtomicU64::new(0);
static SECOND_STEPS: AtomicU64 = AtomicU64::new(0);
static SECOND_LANES: AtomicU64 = AtomicU64::new(0);

/// Starts the second processor, which computes from then on.
pub fn start_second(salt: u64) {
    SALT.store(salt, Ordering::SeqCst);
    let mut table = [0u8; 10];
    let root: u64;
    // SAFETY: the trampoline is copied to memory that nobody uses, with the page tables and the descriptor table that this processor has
    // in the last two words of it.
    unsafe {
        asm!("sgdt [{}]", in(reg) &raw mut table, options(nostack, preserves_flags));
        asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags));
        let (start, end) = (&raw const trampoline as *const u8, &raw const trampoline_end as *const u8);
        let length = end as usize - start as usize;
        let target = START_PAGE as *mut u8;
        core::ptr::copy_nonoverlapping(start, target, length);
        core::ptr::copy_nonoverlapping(table.as_ptr(), target.add(length - 16), 6);
        target.add(length - 8).cast::<u64>().write_unaligned(root);
    }
    local_apic::command(SECOND, INIT);
    local_apic::command(SECOND, START_UP | START_PAGE >> 12);
    local_apic::command(SECOND, START_UP | START_PAGE >> 12);
}

/// Stops the second processor; answers its chain, and its vector and debug registers as one number. Interrupts are off afterwards.
pub fn stop_second() -> (Chain, u64) {
    STOP.store(true, Ordering::SeqCst);
    // It may be asleep.
    local_apic::command(SECOND, u64::from(storm::PROCESSOR));
    while !STOPPED.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
    // SAFETY: nothing waits for an interrupt any more.
    unsafe { asm!("cli", options(nomem, nostack)) };
    let chain =
        Chain { value: SECOND_VALUE.load(Ordering::SeqCst), steps: SECOND_STEPS.load(Ordering::SeqCst) };
    (chain, SECOND_LANES.load(Ordering::SeqCst))
}

/// The second processor, on its own stack, interrupts off.
#[unsafe(no_mangle)]
extern "C" fn second() -> ! {
    // What its start did: EFER read and written.
    crate::machine::MSR_READS.add(1);
    crate::machine::MSR_WRITES.add(1);
    storm::load_table();
    local_apic::start();
    let mut chain = Chain::on(SALT.load(Ordering::SeqCst), SECOND_SIDE);
    while !STOP.load(Ordering::SeqCst) {
        chain.advance(1 << 13);
        let sleepy = chain.value >> 62 == 0;
        // SAFETY: handlers count and end their interrupts. An interrupt between the look at STOP and HLT is taken behind it: the one
        // that comes with STOP is not lost.
        unsafe {
            if sleepy && !STOP.load(Ordering::SeqCst) {
                asm!("sti", "hlt", "cli", options(nostack));
            } else {
                asm!("sti", "nop", "cli", options(nostack));
            }
        }
    }
    SECOND_LANES.store(lanes(), Ordering::SeqCst);
    SECOND_VALUE.store(chain.value, Ordering::SeqCst);
    SECOND_STEPS.store(chain.steps, Ordering::SeqCst);
    STOPPED.store(true, Ordering::SeqCst);
    loop {
        // SAFETY: nothing is left to do.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
