//! The hypervisor's own tables: slot 0, the same for everybody, with nothing writable and executable at once.

use crate::tables::{Abilities, Attributes, MapError, TableMemory, map, table_entry};
use crate::{BOOT_REACH, BOOT_WINDOW, Frames, copy};
use address::{HostPhysical, HostRange, PAGE_4K};
use contracts::CpuIndex;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use cpu::{Features, block};

/// Tables with slot 0 alone.
static NEUTRAL: AtomicU64 = AtomicU64::new(0);
/// Tables with slot 0 and the boot window; 0 once the processors run.
static BOOT: AtomicU64 = AtomicU64::new(0);
/// The entry of slot 0.
static SHARED: AtomicU64 = AtomicU64::new(0);
static NO_EXECUTE: AtomicBool = AtomicBool::new(false);
static HUGE: AtomicBool = AtomicBool::new(false);

/// Where the image's pieces begin and end; the linker script knows. All page-aligned, linear and physical alike.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ImageBorders {
    /// Code: read and execute.
    pub text: (u64, u64),
    /// Constants: read.
    pub constants: (u64, u64),
    /// Data: read and write.
    pub data: (u64, u64),
    /// Data that begins as zeros: read and write.
    pub zeroed: (u64, u64),
    /// What was written before the tables are loaded and never again: read.
    pub sealed: (u64, u64),
}

/// Why the hypervisor's tables cannot be made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TablesError {
    /// Memory is too small even for the hypervisor itself.
    NoMemory,
    /// The image's pieces or the devices overlap or are not aligned: a bug of ours.
    Layout,
}

impl From<MapError> for TablesError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NoFrames => Self::NoMemory,
            MapError::Occupied | MapError::Unaligned => Self::Layout,
        }
    }
}

/// Tables in real memory, seen through the boot window.
pub(crate) struct BootTables<'frames> {
    frames: &'frames mut Frames,
    /// Tables that were made.
    pub(crate) count: u64,
}

impl<'frames> BootTables<'frames> {
    /// # Safety
    ///
    /// The boot window is mapped, and stays so while this lives.
    pub(crate) unsafe fn new(frames: &'frames mut Frames) -> Self {
        Self { frames, count: 0 }
    }

    fn entry(table: HostPhysical, index: usize) -> *mut u64 {
        (BOOT_WINDOW + table.get() as usize + index * 8) as *mut u64
    }
}

impl TableMemory for BootTables<'_> {
    fn read(&self, table: HostPhysical, index: usize) -> u64 {
        // SAFETY: Every table was made by `table` below, below `BOOT_REACH`, and the boot window is mapped. Processors walk
        // tables at the same time: one access a time, whole.
        unsafe { core::ptr::read_volatile(Self::entry(table, index)) }
    }

    fn write(&mut self, table: HostPhysical, index: usize, entry: u64) {
        // SAFETY: As in `read`; the table is this crate's and nobody borrows it.
        unsafe { core::ptr::write_volatile(Self::entry(table, index), entry) };
    }

    fn table(&mut self) -> Option<HostPhysical> {
        let range = self.frames.carve(PAGE_4K, PAGE_4K)?;
        // SAFETY: Freshly carved, below `BOOT_REACH`, seen through the boot window.
        unsafe { copy::clear(Self::entry(range.start(), 0).cast(), PAGE_4K as usize) };
        self.count += 1;
        Some(range.start())
    }
}

pub(crate) fn abilities() -> Abilities {
    Abilities { no_execute: NO_EXECUTE.load(Ordering::Relaxed), huge: HUGE.load(Ordering::Relaxed) }
}

pub(crate) fn shared_entry() -> u64 {
    SHARED.load(Ordering::Relaxed)
}

/// Whether tables at `root` map no compartment: the neutral ones, or those of boot.
#[inline(always)]
pub(crate) fn maps_nobody(root: u64) -> bool {
    root == NEUTRAL.load(Ordering::Relaxed) || root == BOOT.load(Ordering::Relaxed)
}

/// Loads the neutral tables on this processor.
///
/// # Safety
///
/// [`HostTables::build`] was called; this processor runs on a stack that slot 0 maps, and uses nothing outside slot 0 any more.
pub unsafe fn enter_neutral() {
    // SAFETY: The caller's promise; slot 0 has the image.
    unsafe { cpu::control::set_page_tables(NEUTRAL.load(Ordering::Acquire)) };
}

/// Physical memory through the boot window; `None` beyond its reach.
///
/// # Safety
///
/// The boot window is mapped as long as the slice is used, the range is memory, and nobody writes it meanwhile.
pub unsafe fn boot_slice<'boot>(range: HostRange) -> Option<&'boot [u8]> {
    if range.end().get() > BOOT_REACH {
        return None;
    }
    let start = BOOT_WINDOW + range.start().get() as usize;
    // SAFETY: The caller's promise; the window is never null, and bytes have no alignment.
    Some(unsafe { core::slice::from_raw_parts(start as *const u8, range.length() as usize) })
}

/// The hypervisor's tables.
#[derive(Debug)]
pub struct HostTables {
    root: HostPhysical,
    boot: HostPhysical,
    /// Processors whose blocks are mapped, from the first on.
    blocks: u8,
}

const DATA: Attributes = Attributes { write: true, execute: false, uncached: false, global: true };
const CONSTANTS: Attributes = Attributes { write: false, ..DATA };
const CODE: Attributes = Attributes { execute: true, ..CONSTANTS };
const DEVICE: Attributes = Attributes { uncached: true, ..DATA };

impl HostTables {
    /// Bytes that one processor's hypervisor needs at most, beside the image: its block, and tables of 16 pages.
    pub const LEAST: u64 = block::MAPPED as u64 + 16 * PAGE_4K;

    /// Makes the neutral tables and those of boot. `devices` are pages of registers: linear and physical address.
    /// `window` is the physical address of the table of pointers whose entries the boot window uses.
    ///
    /// # Safety
    ///
    /// Called once, while one processor runs on tables whose boot window is mapped. `borders` are the image's, `features` this
    /// processor's, `devices` registers that nobody else uses; `window` maps the first 4 GiB.
    #[inline(never)]
    pub unsafe fn build(
        frames: &mut Frames,
        borders: &ImageBorders,
        features: &Features,
        devices: &[(usize, u64)],
        window: HostPhysical,
    ) -> Result<Self, TablesError> {
        NO_EXECUTE.store(features.nx, Ordering::Relaxed);
        HUGE.store(features.page_1g, Ordering::Relaxed);
        let abilities = abilities();
        // SAFETY: The caller's promise.
        let mut memory = unsafe { BootTables::new(frames) };
        let root = memory.table().ok_or(TablesError::NoMemory)?;
        let boot = memory.table().ok_or(TablesError::NoMemory)?;
        let pieces = [
            (borders.text, CODE),
            (borders.constants, CONSTANTS),
            (borders.data, DATA),
            (borders.zeroed, DATA),
            (borders.sealed, CONSTANTS),
        ];
        for ((start, end), attributes) in pieces {
            let length = end.checked_sub(start).ok_or(TablesError::Layout)?;
            map(&mut memory, root, start, start, length, attributes, abilities)?;
        }
        for (linear, physical) in devices {
            map(&mut memory, root, *linear as u64, *physical, PAGE_4K, DEVICE, abilities)?;
        }
        let shared = memory.read(root, 0);
        memory.write(boot, 0, shared);
        // Nothing in the window is executed.
        let never = if abilities.no_execute { 1 << 63 } else { 0 };
        memory.write(boot, BOOT_WINDOW >> 39, table_entry(window) | never);
        NEUTRAL.store(root.get(), Ordering::Release);
        BOOT.store(boot.get(), Ordering::Release);
        SHARED.store(shared, Ordering::Release);
        Ok(Self { root, boot, blocks: 0 })
    }

    /// Loads the tables of boot: slot 0 and the boot window.
    ///
    /// # Safety
    ///
    /// As [`enter_neutral`], but that the boot window may be used.
    pub unsafe fn enter_boot(&self) {
        // SAFETY: The caller's promise.
        unsafe { cpu::control::set_page_tables(self.boot.get()) };
    }

    /// The neutral tables.
    pub const fn root(&self) -> HostPhysical {
        self.root
    }

    /// Carves and maps the block of a processor, zeroed. A block that is mapped already stays as it is.
    ///
    /// # Safety
    ///
    /// The boot window is mapped. Blocks are mapped by rising number.
    pub unsafe fn map_block(&mut self, frames: &mut Frames, cpu: CpuIndex) -> Result<(), TablesError> {
        if cpu.0 < self.blocks {
            return Ok(());
        }
        let range = frames.carve(block::MAPPED as u64, PAGE_4K).ok_or(TablesError::NoMemory)?;
        // SAFETY: Freshly carved, below `BOOT_REACH`, seen through the boot window.
        unsafe { copy::clear((BOOT_WINDOW + range.start().get() as usize) as *mut u8, block::MAPPED) };
        // SAFETY: The caller's promise.
        let mut memory = unsafe { BootTables::new(frames) };
        let mut physical = range.start().get();
        for (offset, length) in block::PIECES {
            let linear = (block::address(cpu) + offset) as u64;
            map(&mut memory, self.root, linear, physical, length as u64, DATA, abilities())?;
            physical += length as u64;
        }
        self.blocks = cpu.0 + 1;
        Ok(())
    }

    /// The tables of boot are not used any more: whoever enters a compartment comes from the neutral ones.
    ///
    /// # Safety
    ///
    /// No processor has them loaded, or loads them later.
    pub unsafe fn end_boot(self) {
        BOOT.store(NEUTRAL.load(Ordering::Relaxed), Ordering::Release);
    }
}
