//! The operations, each between two readings of the time stamp counter.

use crate::console::{Console, LINE_STATUS, print};
use crate::interrupts::{COUNTED, INTERRUPTS, SPURIOUS, expecting};
use crate::machine::{
    APIC_BASE, EFER, Features, features, now, read_msr, read_register, write_msr, write_register,
};
use core::arch::asm;
use core::sync::atomic::Ordering;

/// How often each operation is measured; the median counts.
const REPEATS: usize = 500;
/// How often a long operation is measured.
const LONG_REPEATS: usize = 9;
/// How far ahead timers are armed, in ticks of the time stamp counter.
const DELAY: u64 = 2_000;
/// Instructions of the loop that nothing should interrupt.
const LOOP: u64 = 10_000_000;
/// RAM that nobody has touched since the start, from 16 MiB on.
const UNTOUCHED: u64 = 0x100_0000;
/// A register that no processor has: a read of it must give #GP.
const UNKNOWN_MSR: u32 = 0x1ffe;
/// Physical addresses at which nothing lies.
const HOLE: u64 = 0xd000_0000;
const IO_APIC: u64 = 0xfec0_0000;

/// Ticks that the instructions between the two readings take, the first reading's conversion and the second fence included.
/// `before` is executed first, unmeasured. RAX, RDX and R8 are taken.
macro_rules! ticks {
    (before [$($before:literal),*], [$($operation:literal),*] $(, $($operand:tt)*)?) => {{
        let ticks: u64;
        // SAFETY: the operations below touch registers named as operands, device registers, and memory of nobody.
        unsafe {
            asm!(
                $($before,)*
                "lfence",
                "rdtsc",
                "shl rdx, 32",
                "or rax, rdx",
                "mov r8, rax",
                $($operation,)*
                "lfence",
                "rdtsc",
                "shl rdx, 32",
                "or rax, rdx",
                "sub rax, r8",
                out("rax") ticks, out("rdx") _, out("r8") _,
                $($($operand)*)?
            );
        }
        ticks
    }};
    ([$($operation:literal),*] $(, $($operand:tt)*)?) => {
        ticks!(before [], [$($operation),*] $(, $($operand)*)?)
    };
}

/// Prints the median of `repeats` measurements; `once` gets the number of the repetition.
fn bench(name: &str, repeats: usize, mut once: impl FnMut(usize) -> u64) {
    let mut samples = [0; REPEATS];
    let samples = &mut samples[..repeats];
    for (number, sample) in samples.iter_mut().enumerate() {
        *sample = once(number);
    }
    samples.sort_unstable();
    print(format_args!("bench {name} {}\n", samples[repeats / 2]));
}

fn absent(names: &[&str]) {
    for name in names {
        print(format_args!("bench {name} absent\n"));
    }
}

/// Measures everything. Interrupts are off before and after.
pub fn all() {
    let features = features();
    processor(&features);
    ports();
    memory();
    local_apic(&features);
    console();
}

fn processor(features: &Features) {
    bench("empty", REPEATS, |_| ticks!([]));
    bench("cpuid", REPEATS, |_| {
        ticks!(
            ["mov r9, rbx", "xor eax, eax", "xor ecx, ecx", "cpuid", "mov rbx, r9"],
            out("rcx") _, out("r9") _
        )
    });
    if features.hypervisor {
        // A number that nobody gives a meaning. The answer may be a value or #UD; both are answers.
        let hypercall = |_| {
            expecting(|| {
                ticks!(
                    before ["lea r9, [rip + 2f]"], ["mov eax, -1", "vmmcall", "2:"],
                    out("r9") _, out("rcx") _, out("rsi") _, out("rdi") _, out("r10") _, out("r11") _
                )
            })
        };
        let hypercall_of_intel = |_| {
            expecting(|| {
                ticks!(
                    before ["lea r9, [rip + 2f]"], ["mov eax, -1", "vmcall", "2:"],
                    out("r9") _, out("rcx") _, out("rsi") _, out("rdi") _, out("r10") _, out("r11") _
                )
            })
        };
        if features.intel {
            bench("hypercall", REPEATS, hypercall_of_intel);
        } else {
            bench("hypercall", REPEATS, hypercall);
        }
    } else {
        absent(&["hypercall"]);
    }
    bench("rdmsr-apic-base", REPEATS, |_| ticks!(["mov ecx, 0x1b", "rdmsr"], out("rcx") _));
    let efer = read_msr(EFER);
    bench("wrmsr-efer", REPEATS, |_| {
        ticks!(
            ["mov ecx, 0xc0000080", "mov eax, r9d", "mov edx, r10d", "wrmsr"],
            out("rcx") _, in("r9") efer, in("r10") efer >> 32
        )
    });
    // RCX is 0 behind an RDMSR that gave no fault: this machine then has no unknown registers.
    let unknown = || {
        let mut left = 0u64;
        let ticks = expecting(|| {
            ticks!(
                before ["lea r9, [rip + 2f]"], ["mov ecx, {msr}", "rdmsr", "xor ecx, ecx", "2:"],
                msr = const UNKNOWN_MSR, out("rcx") left, out("r9") _
            )
        });
        (left != 0).then_some(ticks)
    };
    if unknown().is_some() {
        bench("unknown-msr-gp", REPEATS, |_| unknown().unwrap_or_default());
    } else {
        absent(&["unknown-msr-gp"]);
    }
    bench("loop-10m", LONG_REPEATS, |_| {
        let ticks =
            ticks!(["mov ecx, {turns}", "2: dec ecx", "jnz 2b"], turns = const LOOP / 2, out("rcx") _);
        ticks.saturating_sub(LOOP)
    });
}

fn ports() {
    let port = |port: u16| move |_| ticks!(["mov dx, cx", "in al, dx"], in("cx") port);
    bench("pit-read", REPEATS, port(0x40));
    bench("pic-read", REPEATS, port(0x21));
    bench("uart-read", REPEATS, port(LINE_STATUS));
    bench("unused-port", REPEATS, port(0x2f0));
}

fn read_ticks(address: u64) -> u64 {
    ticks!(["mov eax, [rcx]"], in("rcx") address)
}

fn memory() {
    bench("first-touch", REPEATS, |number| {
        let page = UNTOUCHED + number as u64 * 4096;
        ticks!(["mov byte ptr [rcx], 1"], in("rcx") page)
    });
    bench("mmio-hole", REPEATS, |_| read_ticks(HOLE));
    // Register 1 is the version of the 82093AA (datasheet section 3.2.2); no I/O APIC has version 0xff.
    write_register(IO_APIC, 1);
    if read_register(IO_APIC + 0x10) == u32::MAX {
        absent(&["ioapic-mmio-read"]);
    } else {
        bench("ioapic-mmio-read", REPEATS, |_| read_ticks(IO_APIC + 0x10));
    }
}

/// Offsets in the register page of the local APIC (APM volume 2, table 16-2). In x2APIC mode, register 0x10 × N is MSR
/// 0x800 + N.
mod apic {
    pub const ID: u64 = 0x20;
    pub const TASK_PRIORITY: u64 = 0x80;
    pub const END_OF_INTERRUPT: u64 = 0xb0;
    pub const SPURIOUS: u64 = 0xf0;
    pub const COMMAND: u64 = 0x300;
    pub const TIMER: u64 = 0x320;
    pub const INITIAL_COUNT: u64 = 0x380;
    pub const CURRENT_COUNT: u64 = 0x390;
    pub const DIVIDE: u64 = 0x3e0;
    /// Bits of the base register.
    pub const ENABLED: u64 = 1 << 11;
    pub const X2APIC: u64 = 1 << 10;
    /// Bits of the timer's local vector.
    pub const MASKED: u32 = 1 << 16;
    pub const DEADLINE_MODE: u32 = 2 << 17;
    /// Divide by one.
    pub const DIVIDE_BY_ONE: u32 = 0xb;
    /// Software enable, in the spurious vector register.
    pub const SOFTWARE_ENABLE: u32 = 1 << 8;
    /// The command's shorthand for the sender itself.
    pub const MYSELF: u32 = 1 << 18;
    pub const DEADLINE: u32 = 0x6e0;
}

const X_MODE: [&str; 7] = [
    "apic-mmio-read",
    "apic-mmio-eoi",
    "self-ipi-xapic",
    "timer-hlt-wake",
    "timer-busy",
    "deadline-hlt-wake",
    "deadline-busy",
];
const X2_MODE: [&str; 5] =
    ["x2apic-read", "x2apic-eoi", "self-ipi-x2apic", "deadline-hlt-wake-x2apic", "deadline-busy-x2apic"];

fn local_apic(features: &Features) {
    if !features.apic {
        absent(&X_MODE);
        absent(&X2_MODE);
        return;
    }
    let base = read_msr(APIC_BASE) & !(apic::ENABLED | apic::X2APIC);
    if read_msr(APIC_BASE) & apic::X2APIC != 0 {
        // There is no way from x2APIC mode to xAPIC mode but through off (APM volume 2, section 16.10).
        write_msr(APIC_BASE, base);
    }
    write_msr(APIC_BASE, base | apic::ENABLED);
    let page = base & 0xf_ffff_ffff_f000;
    let write = |offset, value| write_register(page + offset, value);
    let read = |offset| read_register(page + offset);
    write(apic::SPURIOUS, apic::SOFTWARE_ENABLE | u32::from(SPURIOUS));
    write(apic::TASK_PRIORITY, 0);
    bench("apic-mmio-read", REPEATS, |_| read_ticks(page + apic::ID));
    bench(
        "apic-mmio-eoi",
        REPEATS,
        |_| ticks!(["mov dword ptr [rcx], 0"], in("rcx") page + apic::END_OF_INTERRUPT),
    );
    bench("self-ipi-xapic", REPEATS, |_| {
        let ticks = ticks!(
            before ["sti"],
            ["mov [rcx], r9d", "2: cmp [INTERRUPTS], r10d", "je 2b"],
            in("rcx") page + apic::COMMAND, in("r9") apic::MYSELF | u32::from(COUNTED), in("r10") count()
        );
        interrupts_off();
        write(apic::END_OF_INTERRUPT, 0);
        ticks
    });

    // One-shot timer, relative to its arming: how many of its ticks are DELAY ticks of the time stamp counter.
    write(apic::DIVIDE, apic::DIVIDE_BY_ONE);
    write(apic::TIMER, apic::MASKED | u32::from(COUNTED));
    write(apic::INITIAL_COUNT, u32::MAX);
    const CALIBRATION: u64 = 1_000_000;
    let spun = ticks!(
        ["2: rdtsc", "shl rdx, 32", "or rax, rdx", "sub rax, r8", "cmp rax, {long}", "jb 2b"],
        long = const CALIBRATION
    );
    let counted = u64::from(u32::MAX - read(apic::CURRENT_COUNT));
    write(apic::INITIAL_COUNT, 0);
    let one_to_one = counted.abs_diff(spun) < spun / 32;
    let initial = if one_to_one { DELAY } else { DELAY * counted / spun }.max(1);
    write(apic::TIMER, u32::from(COUNTED));
    bench("timer-hlt-wake", REPEATS, |_| {
        let ticks = ticks!(
            ["mov [rcx], r9d", "2: sti", "hlt", "cli", "cmp [INTERRUPTS], r10d", "je 2b"],
            in("rcx") page + apic::INITIAL_COUNT, in("r9") initial, in("r10") count()
        );
        write(apic::END_OF_INTERRUPT, 0);
        ticks.saturating_sub(DELAY)
    });
    bench("timer-busy", REPEATS, |_| {
        let ticks = ticks!(
            before ["sti"],
            ["mov [rcx], r9d", "2: cmp [INTERRUPTS], r10d", "je 2b"],
            in("rcx") page + apic::INITIAL_COUNT, in("r9") initial, in("r10") count()
        );
        interrupts_off();
        write(apic::END_OF_INTERRUPT, 0);
        ticks.saturating_sub(DELAY)
    });
    write(apic::TIMER, apic::MASKED | u32::from(COUNTED));

    if features.tsc_deadline {
        write(apic::TIMER, apic::DEADLINE_MODE | u32::from(COUNTED));
        // The mode is written by a store and the deadline by WRMSR: a fence keeps them in order (SDM volume 3A, 11.5.4.1).
        // SAFETY: a fence.
        unsafe { asm!("mfence") };
        deadlines(["deadline-hlt-wake", "deadline-busy"], &|| write(apic::END_OF_INTERRUPT, 0));
        write(apic::TIMER, apic::MASKED | u32::from(COUNTED));
    } else {
        absent(&["deadline-hlt-wake", "deadline-busy"]);
    }

    if !features.x2apic {
        absent(&X2_MODE);
        return;
    }
    write_msr(APIC_BASE, base | apic::ENABLED | apic::X2APIC);
    bench("x2apic-read", REPEATS, |_| ticks!(["mov ecx, 0x802", "rdmsr"], out("rcx") _));
    bench(
        "x2apic-eoi",
        REPEATS,
        |_| ticks!(["mov ecx, 0x80b", "xor eax, eax", "xor edx, edx", "wrmsr"], out("rcx") _),
    );
    bench("self-ipi-x2apic", REPEATS, |_| {
        let ticks = ticks!(
            before ["sti"],
            [
                "mov ecx, 0x83f", "mov eax, {vector}", "xor edx, edx", "wrmsr",
                "2: cmp [INTERRUPTS], r10d", "je 2b"
            ],
            vector = const COUNTED, out("rcx") _, in("r10") count()
        );
        interrupts_off();
        write_msr(0x80b, 0);
        ticks
    });
    let names = ["deadline-hlt-wake-x2apic", "deadline-busy-x2apic"];
    if features.tsc_deadline {
        write_msr(0x832, u64::from(apic::DEADLINE_MODE | u32::from(COUNTED)));
        deadlines(names, &|| write_msr(0x80b, 0));
        write_msr(0x832, u64::from(apic::MASKED | u32::from(COUNTED)));
    } else {
        absent(&names);
    }
}

/// The TSC-deadline timer, with HLT and without; `end` ends an interrupt.
fn deadlines([halted, busy]: [&str; 2], end: &dyn Fn()) {
    bench(halted, REPEATS, |_| {
        let ticks = ticks!(
            [
                "add rax, {delay}", "mov rdx, rax", "shr rdx, 32", "mov ecx, {deadline}", "wrmsr",
                "2: sti", "hlt", "cli", "cmp [INTERRUPTS], r10d", "je 2b"
            ],
            delay = const DELAY, deadline = const apic::DEADLINE, out("rcx") _, in("r10") count()
        );
        end();
        ticks.saturating_sub(DELAY)
    });
    bench(busy, REPEATS, |_| {
        let ticks = ticks!(
            before ["sti"],
            [
                "add rax, {delay}", "mov rdx, rax", "shr rdx, 32", "mov ecx, {deadline}", "wrmsr",
                "2: cmp [INTERRUPTS], r10d", "je 2b"
            ],
            delay = const DELAY, deadline = const apic::DEADLINE, out("rcx") _, in("r10") count()
        );
        interrupts_off();
        end();
        ticks.saturating_sub(DELAY)
    });
}

fn count() -> u32 {
    INTERRUPTS.load(Ordering::SeqCst)
}

fn interrupts_off() {
    // SAFETY: nothing waits for an interrupt here.
    unsafe { asm!("cli") };
}

/// A line of 64 bytes, the line feed among them.
fn console() {
    const LINE: &[u8; 64] = b"a line of sixty-four bytes, written as by a driver without irqs\n";
    bench("uart-line", LONG_REPEATS, |_| {
        let begin = now();
        Console::write(LINE);
        now() - begin
    });
}
