//! The first serial port, COM1: a 16550 at port 3F8h, 115200 baud, eight bits, no parity, one stop bit (National Semiconductor
//! PC16550D data sheet, §8). Output is polled; nobody is locked out here, that is the monitor's business.

use crate::port;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

const BASE: u16 = 0x3f8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;
const SCRATCH: u16 = BASE + 7;
/// Line status: a byte has come.
const RECEIVED: u8 = 1;
/// Line status: the transmitter's FIFO is empty.
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Line status: the last byte is on the line.
const DRAINED: u8 = 1 << 6;
/// Bytes that the transmitter's FIFO takes once it is empty.
const FIFO: usize = 16;
/// Polls until an empty transmitter is given up: 16 bytes take 1.4 ms, a poll about a microsecond on real hardware.
const PATIENCE: u32 = 200_000;

static PRESENT: AtomicBool = AtomicBool::new(false);
static INTERRUPTS: AtomicBool = AtomicBool::new(false);

/// Bytes that came and were not read, the interrupt handler on one side and [`read`] on the other.
static RING: [AtomicU8; 256] = [const { AtomicU8::new(0) }; 256];
static RING_HEAD: AtomicUsize = AtomicUsize::new(0);
static RING_TAIL: AtomicUsize = AtomicUsize::new(0);
static READING: spin::Mutex<()> = spin::Mutex::new(());

fn input(register: u16) -> u8 {
    // SAFETY: The registers of a 16550, or of nothing; reading them has no effect but to take a received byte.
    unsafe { port::read_u8(register) }
}

fn output(register: u16, value: u8) {
    // SAFETY: The registers of a 16550, or of nothing: it cannot reach memory.
    unsafe { port::write_u8(register, value) };
}

/// Looks for the port and sets it up. Without one, output is swallowed.
pub fn prepare() {
    output(SCRATCH, 0xa5);
    let first = input(SCRATCH) == 0xa5;
    output(SCRATCH, 0x5a);
    if !(first && input(SCRATCH) == 0x5a) {
        return;
    }
    output(INTERRUPT_ENABLE, 0);
    output(LINE_CONTROL, 0x80);
    output(DATA, 1);
    output(INTERRUPT_ENABLE, 0);
    output(LINE_CONTROL, 0x03);
    output(FIFO_CONTROL, 0x07);
    // DTR, RTS, and OUT2, which lets its interrupt out on a PC.
    output(MODEM_CONTROL, 0x0b);
    PRESENT.store(true, Ordering::Relaxed);
}

/// Whether there is a port.
pub fn present() -> bool {
    PRESENT.load(Ordering::Relaxed)
}

/// From now on received bytes cause an interrupt, which somebody routed to [`crate::interrupt::SERIAL`].
pub fn enable_interrupt() {
    if present() {
        INTERRUPTS.store(true, Ordering::Relaxed);
        output(INTERRUPT_ENABLE, 1);
    }
}

/// Writes bytes as they are. Two processors that write at once mix their bytes.
pub fn write(bytes: &[u8]) {
    if !present() {
        return;
    }
    for chunk in bytes.chunks(FIFO) {
        let mut patience = PATIENCE;
        while input(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && patience > 0 {
            core::hint::spin_loop();
            patience -= 1;
        }
        for byte in chunk {
            output(DATA, *byte);
        }
    }
}

/// Waits until everything that was written is on the line.
pub fn drain() {
    if !present() {
        return;
    }
    let mut patience = PATIENCE;
    while input(LINE_STATUS) & DRAINED == 0 && patience > 0 {
        core::hint::spin_loop();
        patience -= 1;
    }
}

/// The interrupt handler's half: moves what has come to the ring. What does not fit is lost, as in a full UART.
pub(crate) fn collect() {
    for _ in 0..RING.len() {
        if input(LINE_STATUS) & RECEIVED == 0 {
            return;
        }
        let byte = input(DATA);
        let head = RING_HEAD.load(Ordering::Relaxed);
        let waiting = head.wrapping_sub(RING_TAIL.load(Ordering::Acquire));
        if waiting < RING.len()
            && let Some(slot) = RING.get(head % RING.len())
        {
            slot.store(byte, Ordering::Relaxed);
            RING_HEAD.store(head.wrapping_add(1), Ordering::Release);
        }
    }
}

/// A byte that has come, if any. May be called on every processor; while one reads, the others see nothing.
pub fn read() -> Option<u8> {
    let _guard = READING.try_lock()?;
    let tail = RING_TAIL.load(Ordering::Relaxed);
    if tail == RING_HEAD.load(Ordering::Acquire) {
        // Without a route for its interrupt the port itself is looked at.
        if !INTERRUPTS.load(Ordering::Relaxed) && present() && input(LINE_STATUS) & RECEIVED != 0 {
            return Some(input(DATA));
        }
        return None;
    }
    let byte = RING.get(tail % RING.len())?.load(Ordering::Relaxed);
    RING_TAIL.store(tail.wrapping_add(1), Ordering::Release);
    Some(byte)
}

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}

/// One line of the hypervisor's own on the console, `ringfence| ` in front and CR LF behind. For boot and for faults, where one
/// processor speaks.
pub fn line(arguments: fmt::Arguments<'_>) {
    // Writing to the port cannot fail.
    let _ = Port.write_fmt(format_args!("ringfence| {arguments}\r\n"));
}
