//! What guests do with it, in their order: Linux 6.1 (`arch/x86/kernel/apic`), Xen, GNU Mach.

use crate::{Bench, EXTENDED};
use contracts::{ApicEffects, DeliveryMode, LocalApic as _, LocalPin, Shorthand};

const TIMER: u32 = 0xec;
const ERROR: u32 = 0xfe;
const SPURIOUS: u32 = 0xff;

/// The registers in either mode, as Linux's `apic_read` and `apic_write`.
struct Guest {
    bench: Bench,
    extended: bool,
}

impl Guest {
    fn read(&mut self, offset: u16) -> u32 {
        if self.extended {
            let value = self.bench.rdmsr(0x800 + u32::from(offset >> 4));
            assert!(value.is_some(), "#GP at {offset:#x}");
            value.unwrap_or_default() as u32
        } else {
            self.bench.read(offset)
        }
    }

    fn write(&mut self, offset: u16, value: u32) {
        if self.extended {
            assert!(self.bench.wrmsr(0x800 + u32::from(offset >> 4), value.into()), "#GP at {offset:#x}");
        } else {
            self.bench.write(offset, value);
        }
    }

    /// `clear_local_APIC`, then `setup_local_APIC`, then `end_local_APIC_setup`.
    fn set_up(&mut self, boot: bool, lint0: u32) {
        assert_eq!(self.read(0x30) & 0xff, 0x14);
        let highest = self.read(0x30) >> 16 & 0xff;
        assert_eq!(highest, 5);
        // Masking an entry may be an error where its vector is 0: the error entry is masked first.
        self.write(0x370, ERROR | 0x1_0000);
        for offset in [0x320, 0x350, 0x360, 0x340] {
            let value = self.read(offset);
            self.write(offset, value | 0x1_0000);
        }
        for offset in [0x320, 0x350, 0x360, 0x370, 0x340] {
            self.write(offset, 0x1_0000);
        }
        self.write(0x280, 0);
        assert_eq!(self.read(0x280), 0);

        for _ in 0..4 {
            self.write(0x280, 0);
        }
        if !self.extended {
            self.write(0xe0, 0xffff_ffff);
            self.write(0xd0, 0x0100_0000);
        }
        let priority = self.read(0x80) & !0xff;
        self.write(0x80, priority | 0x10);
        // `apic_check_and_eoi_pending`: nothing is requested, nothing in service.
        for offset in (0..0x80).step_by(16) {
            assert_eq!((self.read(0x200 + offset), self.read(0x100 + offset)), (0, 0));
        }
        let spurious = self.read(0xf0) & !0xff | 0x100 | SPURIOUS;
        self.write(0xf0, spurious);
        self.write(0x350, lint0);
        self.write(0x360, if boot { 0x400 } else { 0x1_0400 });
        self.write(0x280, 0);
        self.write(0x370, ERROR);
        self.write(0x280, 0);
        assert_eq!(self.read(0x280), 0);
    }
}

fn boot(extended: bool, lint0: u32) -> Guest {
    let mut guest = Guest { bench: Bench::bootstrap(), extended };
    if extended {
        let base = guest.bench.apic.base();
        assert!(guest.bench.apic.write_base(base | 0x400, &mut ApicEffects::default()));
    }
    guest.set_up(true, lint0);
    guest
}

/// Linux with a deadline timer, its tick running.
#[test]
fn linux_ticks_by_deadline() {
    for extended in [false, true] {
        let mut guest = boot(extended, 0x1_0700);
        guest.write(0x320, 0x4_0000 | TIMER);
        for _ in 0..10 {
            guest.bench.deadline(guest.bench.now + 4_000_000);
            guest.bench.pass(4_000_100);
            assert_eq!(guest.bench.apic.acknowledge(), Some(TIMER as u8));
            assert_eq!(guest.bench.end(), None);
        }
        // `lapic_timer_shutdown`.
        guest.bench.deadline(guest.bench.now + 4_000_000);
        let entry = guest.read(0x320);
        guest.write(0x320, entry | 0x1_0000 | TIMER);
        guest.bench.deadline(0);
        guest.bench.pass(5_000_000);
        assert_eq!(guest.bench.serve(), None);
    }
}

/// Linux without a deadline timer calibrates the count against another clock, then ticks one-shot or periodically.
#[test]
fn linux_calibrates_and_ticks_by_count() {
    for extended in [false, true] {
        let mut guest = boot(extended, 0x1_0700);
        // `__setup_APIC_LVTT(0xffffffff, 0, 0)`: divide by 16, periodic, masked.
        guest.write(0x320, 0x2_0000 | 0x1_0000 | TIMER);
        let divide = guest.read(0x3e0);
        guest.write(0x3e0, divide & !0xb | 0x3);
        guest.write(0x380, u32::MAX);
        let first = guest.read(0x390);
        guest.bench.pass(100_000_000);
        assert_eq!(first - guest.read(0x390), 100_000_000 / 16);
        // `verify`: periodic interrupts arrive at the rate found.
        guest.write(0x320, 0x2_0000 | TIMER);
        guest.write(0x380, 4_000_000 / 16);
        let mut ticks = 0;
        for _ in 0..100 {
            guest.bench.pass(4_000_000);
            ticks += u32::from(guest.bench.serve() == Some(TIMER as u8));
        }
        assert_eq!(ticks, 100);
    }
}

/// `wakeup_secondary_cpu_via_init`, through the page and through the MSR.
#[test]
fn linux_starts_another_processor() {
    let expected = [
        Some((DeliveryMode::Init, 0)),
        None,
        Some((DeliveryMode::StartUp, 0x9a)),
        Some((DeliveryMode::StartUp, 0x9a)),
    ];
    let lows = [0xc500u32, 0x8500, 0x069a, 0x069a];
    let mut page = boot(false, 0x1_0700);
    let mut wide = boot(true, 0x1_0700);
    for (low, expected) in lows.into_iter().zip(expected) {
        page.bench.write(0x310, 1 << 24);
        let commands =
            [page.bench.write(0x300, low).command, wide.bench.command(0x830, 1 << 32 | u64::from(low))];
        for command in commands {
            assert_eq!(command.map(|command| (command.message.mode, command.message.vector)), expected);
            assert!(
                command.is_none_or(|command| command.message.destination == 1 && !command.message.logical)
            );
        }
        // `apic_wait_icr_idle`.
        assert_eq!(page.bench.read(0x300) & 0x1000, 0);
    }
    // The one that was started sets itself up: it comes from INIT.
    let mut other = Guest { bench: Bench::reset(1), extended: false };
    other.bench.apic.init();
    assert!(other.bench.apic.write_base(EXTENDED, &mut ApicEffects::default()));
    other.extended = true;
    other.set_up(false, 0x1_0700);
    other.bench.pin(LocalPin::Lint0, true);
    assert!(other.bench.apic.destination().enabled && !other.bench.external());
}

/// Linux sends NMI to all with a shorthand for backtraces, and reschedules by physical destination.
#[test]
fn linux_signals_other_processors() {
    let mut guest = boot(true, 0x1_0700);
    let all = guest.bench.command(0x830, 0x8_0400).unwrap();
    assert_eq!((all.shorthand, all.message.mode), (Shorthand::All, DeliveryMode::NonMaskable));
    let one = guest.bench.command(0x830, 3 << 32 | 0xfd).unwrap();
    assert_eq!((one.message.destination, one.message.vector, one.wide), (3, 0xfd, true));
}

/// Linux with `noapic`: the PIC's interrupts through LINT0 as ExtINT.
#[test]
fn linux_takes_the_pic_through_the_virtual_wire() {
    for (entry, taken) in [(0x700, true), (0x1_0700, false)] {
        let mut guest = boot(false, entry);
        assert_eq!((guest.bench.pin(LocalPin::Lint0, true), guest.bench.external()), (None, taken));
        assert_eq!(guest.bench.pin(LocalPin::Lint1, true), Some(DeliveryMode::NonMaskable));
    }
}

/// `check_timer`, where the timer's pin of the I/O APIC stays silent: "trying to set up timer as Virtual Wire IRQ". The PIC's output
/// rises and falls with the timer's, for nobody acknowledges it, and each rise is an interrupt of the entry's vector.
#[test]
fn linux_tries_the_timer_as_virtual_wire_interrupt() {
    for extended in [false, true] {
        let mut guest = boot(extended, 0x1_0700);
        guest.write(0x350, 0x30);
        for level in [true, true, true] {
            assert_eq!((guest.bench.pin(LocalPin::Lint0, level), guest.bench.external()), (None, false));
            assert_eq!(guest.bench.serve(), Some(0x30));
        }
        guest.write(0x350, 0x1_0030);
        guest.bench.pin(LocalPin::Lint0, true);
        assert_eq!(guest.bench.serve(), None);
        // "... trying to set up timer as ExtINT IRQ".
        guest.write(0x350, 0x700);
        assert!(guest.bench.external());
    }
}

/// The NMI watchdog of older Linux, `nmi_watchdog=1`: the timer's interrupts through the PIC and LINT0 as NMI.
#[test]
fn linux_watches_by_nmi() {
    let mut guest = boot(false, 0x1_0700);
    guest.write(0x350, 0x400);
    for _ in 0..3 {
        assert_eq!(guest.bench.pin(LocalPin::Lint0, true), Some(DeliveryMode::NonMaskable));
    }
    assert_eq!((guest.bench.external(), guest.bench.serve()), (false, None));
}

/// 32-bit Linux disables focus processor checking, in x2APIC mode too.
#[test]
fn old_linux_disables_focus_checking() {
    let mut guest = boot(true, 0x1_0700);
    guest.write(0xf0, 0x200 | 0x100 | SPURIOUS);
    assert_eq!(guest.read(0xf0), 0x3ff);
}

/// GNU Mach writes the count before the mode, and the divisor twice.
#[test]
fn mach_sets_the_count_first() {
    let mut guest = boot(false, 0x1_0700);
    guest.write(0x380, 1_000_000);
    guest.write(0x3e0, 0x3);
    guest.write(0x320, 0x2_0040);
    guest.write(0x3e0, 0x3);
    for _ in 0..3 {
        guest.bench.pass(16_000_000);
        assert_eq!(guest.bench.serve(), Some(0x40));
    }
}
