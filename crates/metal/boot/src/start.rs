//! From the first Rust instruction to the image's [`Product::run`], and what that is given.

use crate::information::Physical;
use crate::machine::MACHINE;
use crate::{BootInfo, Firmware, Machine, entry, processors, say};
use address::{HostPhysical, HostRange, PAGE_4K};
use contracts::CpuIndex;
use core::fmt::Arguments;
use core::mem::MaybeUninit;
use cpu::clock::Reference;
use cpu::{Features, apic, block, clock, interrupt, io_apic, serial};
use heapless::Vec;
use memory::{Frames, HostTables, Space, SpaceError, SpaceRequest, TablesError};

/// Physical memory through the boot window.
struct Window;

impl Physical for Window {
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
        // What cannot be read without consequences is not looked at: registers of devices lie there.
        let end = address.checked_add(length)?;
        if address < 0xc_0000 && end > 0xa_0000 {
            return None;
        }
        let range = HostRange::new(HostPhysical::new(address), length)?;
        // SAFETY: The window is mapped from the first instruction on until `Boot::enter`, and during boot one processor runs, which
        // writes only to frames that it carved. Loaders and firmware point to memory; beyond it reads give ones.
        unsafe { memory::boot_slice(range) }
    }
}

/// What a compartment's space shall hold; [`SpaceRequest`] without what boot knows itself.
#[derive(Copy, Clone, Debug)]
pub struct SpacePlan<'plan> {
    /// Index of the compartment.
    pub index: u8,
    /// Bytes of RAM from guest-physical 0.
    pub low: u64,
    /// Bytes of RAM from guest-physical 4 GiB.
    pub high: u64,
    /// Pages of the private area.
    pub private_pages: usize,
    /// Bytes of the module that the compartment may be filled from: offset and length.
    pub payloads: &'plan [(u64, u64)],
}

/// What an image is, as far as the boot code has to know: it defines `ringfence_product`, which answers with this.
#[derive(Copy, Clone, Debug)]
pub struct Product {
    /// What keeps it from being used on a processor with these features, as a sentence. Asked before anything of the machine is changed.
    pub missing: fn(&Features) -> Option<&'static str>,
    /// What it asks of a processor, and which other products there are for one that is refused.
    pub requirements: &'static cpu::Requirements,
    /// From a booted machine to compartments that run.
    pub run: fn(Boot) -> !,
}

/// The machine as it has booted: what is known of it, and what can be made of it.
#[derive(Debug)]
pub struct Boot {
    /// What the loader said.
    pub info: BootInfo,
    /// What the first processor is capable of; all that are started are like it.
    pub features: Features,
    /// What firmware says.
    pub firmware: Firmware,
    /// The machine, for the monitor.
    pub machine: &'static Machine,
    frames: Frames,
    tables: HostTables,
    /// Where the boot module lies, as it was when the frames were made: what is public above may be changed.
    module: HostRange,
    /// The first processor's features, likewise.
    probed: Features,
    /// Compartments whose spaces were made, one bit each.
    spaces: [u64; 4],
    /// Processors that run, this one included.
    started: u8,
    /// Other processors that were tried, whether they came or not.
    tried: usize,
    entry_ticks: u64,
}

impl Boot {
    /// The boot module.
    pub fn module(&self) -> &[u8] {
        // SAFETY: The window is mapped until `enter` takes `self`; the module's pages are not among the frames, so that nobody writes
        // them. One beyond the window's reach was refused.
        unsafe { memory::boot_slice(self.module) }.unwrap_or_default()
    }

    /// The free memory: how much, and a [`memory::Trial`] for what shall be made of it.
    pub const fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The free memory, to carve from: pages that processors need for themselves.
    pub const fn frames_mut(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// The time stamp counter at the first Rust instruction.
    pub const fn entry_ticks(&self) -> u64 {
        self.entry_ticks
    }

    const fn request<'plan>(&self, plan: &SpacePlan<'plan>) -> SpaceRequest<'plan> {
        SpaceRequest {
            index: plan.index,
            low: plan.low,
            high: plan.high,
            private_pages: plan.private_pages,
            module: self.module,
            payloads: plan.payloads,
        }
    }

    /// Whether [`Boot::space`] would find room for all of `plans`, in this order. Nothing changes. The index of the first that does
    /// not fit comes with the error.
    #[inline(never)]
    pub fn fits<'plan>(&self, plans: impl Iterator<Item = SpacePlan<'plan>>) -> Result<(), (u8, SpaceError)> {
        let mut trial = self.frames.trial();
        for plan in plans {
            Space::fits(&mut trial, &self.request(&plan)).map_err(|error| (plan.index, error))?;
        }
        Ok(())
    }

    /// Carves RAM and a private area and makes the space of a compartment, once for each index.
    #[inline(never)]
    pub fn space(&mut self, plan: &SpacePlan<'_>) -> Result<Space, SpaceError> {
        let request = self.request(plan);
        let word = self.spaces.get_mut(usize::from(plan.index / 64)).ok_or(SpaceError::Request)?;
        let bit = 1 << (plan.index % 64);
        if *word & bit != 0 {
            return Err(SpaceError::Request);
        }
        *word |= bit;
        // SAFETY: The window is mapped, the tables were built before this value existed, the module is the loader's and excluded from
        // the frames, and the index is new.
        unsafe { Space::build(&mut self.frames, &request) }
    }

    /// Starts processors until `limit` run, this one included. Answers how many run; they wait for [`Boot::enter`]. Second threads
    /// of a core are left alone, and so is who does not come or differs; each case is said on the console.
    #[inline(never)]
    pub fn start_processors(&mut self, limit: u8) -> u8 {
        let (chosen, siblings) = processors::choose(&self.firmware.processors, &self.features);
        if self.firmware.processors.is_empty() {
            say(format_args!("firmware lists no processors (no usable MADT): this one runs alone"));
        }
        if siblings > 0 {
            say(format_args!("{siblings} second threads of cores stay parked: cores are not shared"));
        }
        let limit = usize::from(limit).min(block::PROCESSORS);
        let mut left = chosen.iter().skip(self.tried).peekable();
        if usize::from(self.started) >= limit || left.peek().is_none() {
            return self.started;
        }
        let code = entry::trampoline();
        let Some(page) = low_page(&self.info, code.len()) else {
            say(format_args!("no memory below 1 MiB to start other processors with: one processor runs"));
            return self.started;
        };
        let target = (memory::BOOT_WINDOW + page as usize) as *mut u8;
        let mut kept = [0u8; 256];
        let kept = match kept.get_mut(..code.len()) {
            Some(kept) => kept,
            None => return self.started,
        };
        // SAFETY: The page is usable memory that nobody claims, seen through the boot window; it is given back as it was.
        unsafe {
            core::ptr::copy_nonoverlapping(target, kept.as_mut_ptr(), code.len());
            core::ptr::copy_nonoverlapping(code.as_ptr(), target, code.len());
        }
        for identifier in left {
            if usize::from(self.started) >= limit {
                break;
            }
            let cpu = CpuIndex(self.started);
            self.tried += 1;
            // SAFETY: The window is mapped. A block that was mapped for a processor which then did not come is the next one's: the first
            // is in reset.
            if unsafe { self.tables.map_block(&mut self.frames, cpu) }.is_err() {
                say(format_args!("no memory for the stack of processor {identifier:#x}: left out"));
                break;
            }
            // SAFETY: The trampoline is in place, the block is mapped, and processors are started one after the other.
            let came = unsafe {
                processors::start(
                    cpu,
                    *identifier,
                    (page >> 12) as u8,
                    self.tables.root().get(),
                    &self.probed,
                )
            };
            if came {
                self.started += 1;
            }
        }
        // SAFETY: As above; every processor has left the page.
        unsafe { core::ptr::copy_nonoverlapping(kept.as_ptr(), target, code.len()) };
        self.started
    }

    /// Lets all processors go: each calls `work` with its number, on its own guarded stack, with the neutral tables, interrupts
    /// masked. This one is number 0.
    pub fn enter(self, work: fn(CpuIndex) -> !) -> ! {
        let started = self.started;
        // SAFETY: This processor runs on its own stack, which slot 0 maps. `self` ends here: no slice of the module and no frame is used
        // through the window any more. No processor has the boot tables loaded: those that were left out are in reset.
        unsafe {
            memory::enter_neutral();
            self.tables.end_boot();
            entry::forget_boot_tables();
        }
        processors::release(started, work);
        work(CpuIndex(0))
    }
}

/// A page between 4 KiB and 640 KiB that the memory map calls usable.
fn low_page(information: &BootInfo, length: usize) -> Option<u64> {
    if length == 0 || length > 256 {
        return None;
    }
    let fits = |page: u64| {
        HostRange::new(HostPhysical::new(page), PAGE_4K).is_some_and(|range| {
            let covers = |region: &memory::Region| {
                region.usable && region.range.start() <= range.start() && region.range.end() >= range.end()
            };
            information.map.iter().any(covers)
                && !information.map.iter().any(|region| !region.usable && region.range.overlaps(&range))
                && !information.modules.iter().any(|module| module.overlaps(&range))
        })
    };
    // The middle of low memory first: firmware keeps its own at both ends.
    (0x8..0xa0).chain(0x1..0x8).map(|page| page * PAGE_4K).find(|page| fits(*page))
}

/// Says why this machine or what it was given is refused, and turns it off.
pub fn refuse(reason: Arguments<'_>) -> ! {
    say(format_args!("refused: {reason}"));
    contracts::Host::power_off(&MACHINE)
}

/// The hypervisor itself has no room.
#[cold]
fn no_tables(error: TablesError, frames: &Frames) -> ! {
    match error {
        TablesError::NoMemory => refuse(format_args!(
            "the hypervisor itself needs {} KiB beside image and boot module, {} KiB are left",
            HostTables::LEAST >> 10,
            frames.free() >> 10
        )),
        TablesError::Layout => cpu::fatal(format_args!("the image or its devices lie where they cannot")),
    }
}

/// What is handed from the boot stack to the processor's own.
struct Handover {
    info: BootInfo,
    module: HostRange,
    features: Features,
    firmware: Firmware,
    frames: Frames,
    tables: HostTables,
    entry_ticks: u64,
    run: fn(Boot) -> !,
}

/// The first Rust code: on the boot stack, with the boot tables, interrupts masked.
pub(crate) extern "C" fn start(eax: u32, ebx: u32) -> ! {
    let entry_ticks = cpu::ticks();
    serial::prepare();
    let features = Features::probe();
    // SAFETY: One processor runs, on the boot tables, where everything is writable; interrupts are masked.
    unsafe { interrupt::prepare(false, features.x2apic) };
    let info = match BootInfo::read(&Window, eax, ebx) {
        Ok(info) => info,
        Err(refusal) => refuse(format_args!("{refusal}")),
    };
    let firmware = Firmware::read(&Window, &info.root);
    cpu::fault::set_end(|| contracts::Host::power_off(&MACHINE));
    MACHINE.set_power(firmware.power);
    let product = entry::product();
    // Up to here the machine was only looked at, but for its serial port.
    if let Some(missing) = (product.missing)(&features) {
        let advice = product.requirements.advice(&features);
        refuse(format_args!("{missing} (processor signature {:#x}){advice}", features.signature));
    }
    let borders = entry::borders();
    let image =
        HostRange::new(HostPhysical::new(borders.text.0), borders.zeroed.1.saturating_sub(borders.text.0));
    let module = match info.module(image) {
        Ok(module) => module,
        Err(refusal) => refuse(format_args!("{refusal}")),
    };
    interrupt::mask_legacy_controllers();
    cpu::fault::set_code(borders.text);
    let mut excluded: Vec<HostRange, { crate::information::MODULES + 1 }> = Vec::new();
    // There is room for all.
    let _ = excluded.extend_from_slice(&info.modules);
    if let Some(image) = image {
        let _ = excluded.push(image);
    }
    // SAFETY: Once. The image with its boot stack and boot tables, and the modules, are excluded; the loader's information was
    // copied; firmware's tables lie in memory that the map does not call usable.
    let mut frames = unsafe { Frames::new(info.map.iter().copied(), &excluded) };

    let mut devices: Vec<(usize, u64), { io_apic::MOST + 2 }> = Vec::new();
    // There is room for all: at most one more than I/O APICs, twice.
    if !features.x2apic {
        // SAFETY: Every x86-64 processor has a local APIC.
        let _ = devices.push((apic::ADDRESS, unsafe { apic::physical_address() }));
    }
    for (index, fact) in firmware.io_apics.iter().enumerate() {
        let _ = devices.push((io_apic::ADDRESS + index * 0x1000, fact.address));
    }
    if let Some(address) = firmware.high_precision {
        let _ = devices.push((clock::HPET_ADDRESS, address));
    }
    let window = HostPhysical::new(entry::window_table());
    // SAFETY: Once; the borders are the linker's, the features this processor's, the devices firmware's and used here only; the
    // window's table maps the first 4 GiB since the entry.
    let tables = unsafe { HostTables::build(&mut frames, &borders, &features, &devices, window) };
    let mut tables = match tables {
        Ok(tables) => tables,
        Err(error) => no_tables(error, &frames),
    };
    // SAFETY: Once for processor 0; the window is mapped.
    if let Err(error) = unsafe { tables.map_block(&mut frames, CpuIndex(0)) } {
        no_tables(error, &frames);
    }
    // SAFETY: NX comes on before tables with that bit are loaded. The new tables map code, this stack and all data as before. The
    // interrupt descriptor table is complete before it becomes read-only. The handover stays on the boot stack, which nobody uses
    // any more, until `settle` has taken it.
    unsafe {
        cpu::control::prepare(&features);
        interrupt::prepare(true, features.x2apic);
        tables.enter_boot();
        block::load(CpuIndex(0));
        let mut handover = MaybeUninit::new(Handover {
            info,
            module,
            features,
            firmware,
            frames,
            tables,
            entry_ticks,
            run: product.run,
        });
        block::switch_stack(CpuIndex(0), handover.as_mut_ptr().cast(), settle)
    }
}

/// On the processor's own stack, with the hypervisor's own tables.
extern "C" fn settle(handover: *mut u8) -> ! {
    // SAFETY: `start` left it there and gave it up.
    let Handover { info, module, features, firmware, frames, tables, entry_ticks, run } =
        unsafe { handover.cast::<Handover>().read() };
    MACHINE.set_identifier(CpuIndex(0), features.apic_id);
    // SAFETY: The page is mapped where x2APIC is not used; the interrupt descriptor table is loaded; interrupts are masked.
    unsafe { apic::prepare(&features) };
    for complaint in &firmware.complaints {
        let name = core::str::from_utf8(&complaint.table).unwrap_or("????");
        say(format_args!("ACPI table {name}: {}; it is not used", complaint.error));
    }
    let mut references: Vec<Reference, 3> = Vec::new();
    // There is room for three.
    if let Some((port, wide)) = firmware.timer {
        let _ = references.push(Reference::PowerManagement { port, wide });
    }
    if firmware.high_precision.is_some() {
        let _ = references.push(Reference::HighPrecision);
    }
    let _ = references.push(Reference::IntervalTimer);
    // SAFETY: Firmware's tables name the first two, whose registers are mapped; every PC has the third. The local APIC is prepared.
    let reference = match unsafe { clock::calibrate(&references) } {
        Some((reference, _)) => reference.name(),
        None => {
            cpu::fatal(format_args!("no clock runs that the time stamp counter could be measured against"))
        }
    };
    MACHINE.set_wall_clock(cpu::rtc::read(firmware.century));
    route_serial(&firmware, features.apic_id);
    let usable = frames.total() >> 10;
    // Whatever firmware and loader left on the line ends here.
    serial::write(b"\r\n");
    say(format_args!(
        "booted over {} by {}: {usable} KiB usable, time stamp counter {} kHz by the {reference}",
        info.protocol.name(),
        if info.loader.is_empty() { "a loader without name" } else { &info.loader },
        clock::rate(),
    ));
    run(Boot {
        info,
        features,
        firmware,
        machine: &MACHINE,
        frames,
        tables,
        module,
        probed: features,
        spaces: [0; 4],
        started: 1,
        tried: 0,
        entry_ticks,
    })
}

/// Masks every line of every I/O APIC, then lets the serial port's through to the first processor.
#[inline(never)]
fn route_serial(firmware: &Firmware, target: u32) {
    let mut routed = false;
    for (index, fact) in firmware.io_apics.iter().enumerate() {
        // SAFETY: `start` mapped its page at this index, and nobody else uses it.
        let controller = unsafe { io_apic::IoApic::new(index, fact.first) };
        controller.mask();
        if let Some(serial) = firmware.serial {
            routed |= controller.route(
                serial.interrupt,
                interrupt::SERIAL,
                target,
                serial.low_active,
                serial.level,
            );
        }
    }
    if routed {
        serial::enable_interrupt();
    }
}
