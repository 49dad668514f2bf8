//! A back end without hardware: RAM in an array, a virtual processor that plays back a script, a clock that the test turns.
//! The monitor and the parts run on it in host tests. Nothing of it reaches an image: what nobody names is not linked.

use crate::{
    Attachment, CpuIndex, Exit, FlushToken, GuestMemory, GuestTicks, Host, HostTime, MapError, MapMode,
    NotMemory, PortExit, SecondStage, StartState, Vault, Vcpu,
};
use address::{GuestPhysical, HostPhysical, HostRange, PAGE_4K};
use core::sync::atomic::{AtomicU64, Ordering};
use heapless::{Deque, Vec};
use x86::interrupts::{InterruptRegisters, Place};
use x86::{CodeSize, Cr0, Cr4, Efer, Exception, Fault, General, Rflags, Segment, SegmentName, Xcr0};

/// `SIZE` bytes of RAM from guest-physical 0.
#[derive(Debug)]
pub struct Memory<const SIZE: usize> {
    bytes: spin::Mutex<[u8; SIZE]>,
    module: spin::Mutex<&'static [u8]>,
}

impl<const SIZE: usize> Memory<SIZE> {
    /// RAM of zeros.
    pub const fn new() -> Self {
        Self { bytes: spin::Mutex::new([0; SIZE]), module: spin::Mutex::new(&[]) }
    }

    /// Sets the boot module that [`GuestMemory::load`] copies from; without one it has no bytes.
    pub fn set_module(&self, module: &'static [u8]) {
        *self.module.lock() = module;
    }
}

impl<const SIZE: usize> Default for Memory<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

fn range(at: GuestPhysical, length: usize, size: usize) -> Result<core::ops::Range<usize>, NotMemory> {
    let start = usize::try_from(at.get()).map_err(|_| NotMemory)?;
    let end = start.checked_add(length).ok_or(NotMemory)?;
    if end > size { Err(NotMemory) } else { Ok(start..end) }
}

impl<const SIZE: usize> GuestMemory for Memory<SIZE> {
    fn read(&self, at: GuestPhysical, into: &mut [u8]) -> Result<(), NotMemory> {
        let range = range(at, into.len(), SIZE)?;
        into.copy_from_slice(self.bytes.lock().get(range).ok_or(NotMemory)?);
        Ok(())
    }

    fn write(&self, at: GuestPhysical, from: &[u8]) -> Result<(), NotMemory> {
        let range = range(at, from.len(), SIZE)?;
        self.bytes.lock().get_mut(range).ok_or(NotMemory)?.copy_from_slice(from);
        Ok(())
    }

    fn exchange_quad(&self, at: GuestPhysical, old: u64, new: u64) -> bool {
        let equal = at.is_aligned(8) && self.read_quad(at) == Ok(old);
        equal && self.write(at, &new.to_le_bytes()).is_ok()
    }

    fn clear_from(&self, start: u64, length: u64) -> u64 {
        let mut bytes = self.bytes.lock();
        let start = usize::try_from(start).unwrap_or(SIZE).min(SIZE);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(SIZE)).min(SIZE);
        let piece = bytes.get_mut(start..end).unwrap_or_default();
        piece.fill(0);
        piece.len() as u64
    }

    fn load(&self, source: u64, length: u64, target: GuestPhysical) -> Result<(), NotMemory> {
        let module: &'static [u8] = *self.module.lock();
        let length = usize::try_from(length).map_err(|_| NotMemory)?;
        let from = range(GuestPhysical::new(source), length, module.len())?;
        self.write(target, module.get(from).ok_or(NotMemory)?)
    }
}

/// What the fake processor was told to deliver.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Injected {
    /// An external interrupt.
    Interrupt(u8),
    /// An NMI.
    NonMaskable,
    /// An exception.
    Exception(Exception, Option<u32>),
}

/// Where the exits of a [`FakeVcpu`] come from.
pub trait Script: Sized {
    /// Whether the processor delivers the local APIC's interrupts, as one with part `apic-virtualization`.
    const HOLDS_INTERRUPTS: bool = false;

    /// The next exit. What a guest would have changed until then in `vcpu`, it may change.
    fn next(vcpu: &mut FakeVcpu<Self>) -> Exit;

    /// The time stamp counter, which is at `own` by the processor's own count of entries.
    fn ticks(&self, own: u64) -> u64 {
        own
    }
}

/// Exits in order; when they run out, the guest halts for ever.
impl Script for Deque<Exit, 64> {
    fn next(vcpu: &mut FakeVcpu<Self>) -> Exit {
        vcpu.script.pop_front().unwrap_or(Exit::Halt)
    }
}

/// A virtual processor that plays back a script of exits and writes down what was injected.
#[derive(Debug)]
pub struct FakeVcpu<S = Deque<Exit, 64>> {
    /// Exits still to come.
    pub script: S,
    /// What was injected, in order.
    pub injected: Vec<Injected, 64>,
    /// The state, as last started or set.
    pub state: StartState,
    /// CR2.
    pub cr2: u64,
    /// XCR0.
    pub xcr0: Xcr0,
    /// PAT.
    pub page_attributes: u64,
    /// SPEC_CTRL.
    pub speculation_control: u32,
    /// How often it forgot its branches.
    pub barriers: u32,
    /// How it came to processors, in order.
    pub attachments: Vec<Attachment, 64>,
    /// The length that `next_instruction` reports for each exit; `None`: the processor does not say.
    pub instruction_length: Option<u64>,
    /// What `fetched_instruction` reports for each exit, how many bytes and which.
    pub fetched: (u8, [u8; 15]),
    /// Whether a window was asked for.
    pub window: bool,
    /// The directory pointers of PAE paging, as last set.
    pub directory_pointers: [u64; 4],
    /// Whether it has a timer of its own, and what that was armed for last.
    pub timer: (bool, Option<HostTime>),
    /// The default code size.
    pub code: CodeSize,
    /// The time stamp counter.
    pub ticks: u64,
    /// What the processor holds of the local APIC.
    pub held: Option<InterruptRegisters>,
    /// Whether the guest takes interrupts from its start on: no script sets the flag.
    pub interruptible: bool,
    offset: u64,
    pending: bool,
    /// As on emulators: a host's interrupt finds the guest behind an STI, and the next entry forgets that.
    shadow: bool,
    /// Why it came back last.
    last: Exit,
}

impl Default for FakeVcpu {
    fn default() -> Self {
        Self::new(Deque::new())
    }
}

impl<S> FakeVcpu<S> {
    /// A virtual processor that was not started.
    pub fn new(script: S) -> Self {
        Self {
            script,
            injected: Vec::new(),
            state: StartState::start_up(0, 0),
            cr2: 0,
            xcr0: Xcr0::X87,
            page_attributes: 0,
            speculation_control: 0,
            barriers: 0,
            attachments: Vec::new(),
            instruction_length: Some(2),
            fetched: (0, [0; 15]),
            window: false,
            directory_pointers: [0; 4],
            timer: (false, None),
            code: CodeSize::Bits64,
            ticks: 0,
            held: None,
            interruptible: false,
            offset: 0,
            pending: false,
            shadow: false,
            last: Exit::Interrupted,
        }
    }

    /// What a processor does with the interrupts that it holds (SDM Vol. 3C §30.2), one at an entry.
    fn deliver(&mut self) {
        let accepts = self.state.flags.contains(Rflags::INTERRUPT) && !self.window && !self.pending;
        if accepts
            && let Some(held) = &mut self.held
            && let Some(vector) = held.acknowledge()
        {
            self.note(Injected::Interrupt(vector));
        }
    }

    fn note(&mut self, event: Injected) {
        self.pending = true;
        // A test that injects more than the list holds reads the first ones only.
        let _ = self.injected.push(event);
    }
}

impl<S: Script> Vcpu for FakeVcpu<S> {
    /// What is decoded stands in the script; where it says `None`, the monitor has to.
    const DECODED: bool = true;
    const SPINS: bool = true;
    const XSAVES: bool = true;
    const HOLDS_DIRECTORY_POINTERS: bool = true;
    const HOLDS_INTERRUPTS: bool = S::HOLDS_INTERRUPTS;

    fn start(&mut self, state: &StartState) {
        self.state = *state;
        self.state.flags.set(Rflags::INTERRUPT, self.interruptible);
        self.speculation_control = 0;
        self.pending = false;
        self.window = false;
    }
    fn attach(&mut self, how: Attachment) {
        // As with events: a test that attaches more often reads the first ones only.
        let _ = self.attachments.push(how);
    }
    fn detach(&mut self) {}
    fn enter(&mut self) {
        self.deliver();
        self.pending = false;
        self.ticks += 1_000;
        let before = self.last;
        self.last = S::next(self);
        if let Exit::EndOfInterrupt(vector) = self.last
            && let Some(held) = &mut self.held
        {
            held.in_service.remove(Place::of(vector));
        }
        self.shadow = self.last == Exit::Interrupted && before != Exit::Interrupted;
    }
    fn exit(&mut self) -> Exit {
        self.last
    }
    fn port_exit(&self) -> Option<PortExit> {
        match self.last {
            Exit::Port(access) => Some(access),
            _ => None,
        }
    }
    fn hold_interrupts(&mut self, registers: Option<&mut InterruptRegisters>) {
        self.held = registers.map(|registers| InterruptRegisters {
            task_priority: core::mem::take(&mut registers.task_priority),
            requested: core::mem::take(&mut registers.requested),
            in_service: core::mem::take(&mut registers.in_service),
            level: registers.level.clone(),
        });
    }
    fn return_interrupts(&mut self, registers: &mut InterruptRegisters) {
        if let Some(mut held) = self.held.take() {
            registers.task_priority = held.task_priority;
            held.requested.drain(|number, bits| registers.requested.add_word(number, bits));
            held.in_service.drain(|number, bits| registers.in_service.add_word(number, bits));
        }
    }
    fn set_directory_pointers(&mut self, pointers: [u64; 4]) {
        self.directory_pointers = pointers;
    }
    fn arm(&mut self, deadline: Option<HostTime>) -> bool {
        if self.timer.0 {
            self.timer.1 = deadline;
        }
        self.timer.0
    }
    fn general(&self, register: General) -> u64 {
        self.state.general[register as usize]
    }
    fn set_general(&mut self, register: General, value: u64) {
        self.state.general[register as usize] = value;
    }
    fn instruction_pointer(&self) -> u64 {
        self.state.instruction_pointer
    }
    fn next_instruction(&self) -> Option<u64> {
        self.instruction_length.map(|length| self.state.instruction_pointer.wrapping_add(length))
    }
    fn fetched_instruction(&self) -> (u8, [u8; 15]) {
        self.fetched
    }
    fn complete(&mut self, next: u64) {
        self.state.instruction_pointer = next;
        if self.state.flags.contains(Rflags::TRAP) {
            self.inject_exception(Exception::Debug, None);
        }
    }
    fn flags(&self) -> Rflags {
        self.state.flags
    }
    fn set_flags(&mut self, flags: Rflags) {
        self.state.flags = flags;
    }
    fn cr0(&self) -> Cr0 {
        self.state.cr0
    }
    fn set_cr0(&mut self, value: Cr0) {
        self.state.cr0 = value;
    }
    fn cr2(&self) -> u64 {
        self.cr2
    }
    fn cr3(&self) -> u64 {
        self.state.cr3
    }
    fn set_cr3(&mut self, value: u64) {
        self.state.cr3 = value;
    }
    fn cr4(&self) -> Cr4 {
        self.state.cr4
    }
    fn set_cr4(&mut self, value: Cr4) {
        self.state.cr4 = value;
    }
    fn efer(&self) -> Efer {
        self.state.efer
    }
    fn set_efer(&mut self, value: Efer) {
        self.state.efer = value;
    }
    fn xcr0(&self) -> Xcr0 {
        self.xcr0
    }
    fn set_xcr0(&mut self, value: Xcr0) {
        self.xcr0 = value;
    }
    fn page_attributes(&self) -> u64 {
        self.page_attributes
    }
    fn set_page_attributes(&mut self, value: u64) {
        self.page_attributes = value;
    }
    fn set_tsc_aux(&mut self, _: u32) {}
    fn speculation_control(&self) -> u32 {
        self.speculation_control
    }
    fn set_speculation_control(&mut self, value: u32) {
        self.speculation_control = value;
    }
    fn forget_branches(&mut self) {
        self.barriers += 1;
    }
    fn segment(&self, name: SegmentName) -> Segment {
        *self.state.segments.get(name)
    }
    fn privilege(&self) -> u8 {
        ((self.state.segments.ss.attributes >> 5) & 3) as u8
    }
    fn code_size(&self) -> CodeSize {
        self.code
    }
    fn set_ticks_offset(&mut self, offset: u64) {
        self.offset = offset;
    }
    fn ticks(&self) -> GuestTicks {
        GuestTicks(self.script.ticks(self.ticks).wrapping_add(self.offset))
    }
    fn accepts_interrupt(&self) -> bool {
        self.state.flags.contains(Rflags::INTERRUPT) && !self.pending
    }
    fn interrupt_shadow(&self) -> bool {
        self.shadow
    }
    fn accepts_non_maskable(&self) -> bool {
        !self.pending
    }
    fn set_window(&mut self, wanted: bool) {
        self.window = wanted;
    }
    fn set_non_maskable_window(&mut self) {}
    fn inject_interrupt(&mut self, vector: u8) {
        debug_assert!(self.accepts_interrupt(), "an interrupt that the guest does not take");
        self.note(Injected::Interrupt(vector));
    }
    fn inject_non_maskable(&mut self) {
        debug_assert!(self.accepts_non_maskable(), "an NMI that the guest does not take");
        self.note(Injected::NonMaskable);
    }
    fn inject_exception(&mut self, exception: Exception, code: Option<u32>) -> bool {
        self.note(Injected::Exception(exception, code));
        true
    }
    fn inject_fault(&mut self, fault: Fault) -> bool {
        if let Fault::Page { address, .. } = fault {
            self.cr2 = address;
        }
        self.inject_exception(fault.exception(), fault.error_code())
    }
}

/// A machine whose clock the test turns, and whose console is a buffer.
#[derive(Debug, Default)]
pub struct FakeHost {
    time: AtomicU64,
    deadline: AtomicU64,
    kicks: AtomicU64,
    machine_checks: AtomicU64,
    console: spin::Mutex<Vec<u8, 8192>>,
    keyboard: spin::Mutex<Deque<u8, 64>>,
}

impl FakeHost {
    /// Turns the clock on by so many ticks.
    pub fn advance(&self, ticks: u64) {
        self.time.fetch_add(ticks, Ordering::Relaxed);
    }

    /// The deadline that was armed last.
    pub fn deadline(&self) -> Option<HostTime> {
        match self.deadline.load(Ordering::Relaxed) {
            0 => None,
            ticks => Some(HostTime(ticks)),
        }
    }

    /// How many kicks were sent.
    pub fn kicks(&self) -> u64 {
        self.kicks.load(Ordering::Relaxed)
    }

    /// How many machine checks it was told of.
    pub fn machine_checks(&self) -> u64 {
        self.machine_checks.load(Ordering::Relaxed)
    }

    /// Types a byte; lost when 64 are waiting.
    pub fn type_byte(&self, byte: u8) {
        let _ = self.keyboard.lock().push_back(byte);
    }

    /// Everything written to the console so far, the first 8192 bytes of it.
    pub fn console(&self) -> Vec<u8, 8192> {
        self.console.lock().clone()
    }
}

impl Host for FakeHost {
    fn now(&self) -> HostTime {
        HostTime(self.time.load(Ordering::Relaxed))
    }
    fn kilohertz(&self) -> u32 {
        1_000_000
    }
    fn wall_clock(&self) -> u64 {
        1_704_067_200
    }
    fn arm(&self, deadline: Option<HostTime>) {
        self.deadline.store(deadline.map_or(0, |deadline| deadline.0.max(1)), Ordering::Relaxed);
    }
    fn kick(&self, _: CpuIndex) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }
    fn service(&self) {}
    fn wait(&self) {
        let deadline = self.deadline.load(Ordering::Relaxed);
        self.time.fetch_max(deadline, Ordering::Relaxed);
    }
    fn machine_check(&self) {
        self.machine_checks.fetch_add(1, Ordering::Relaxed);
    }
    fn console_write(&self, bytes: &[u8]) {
        // What does not fit is not what a test looks at.
        let _ = self.console.lock().extend_from_slice(bytes);
    }
    fn console_read(&self) -> Option<u8> {
        self.keyboard.lock().pop_front()
    }
    fn power_off(&self) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}

/// Compartments in an array: state and RAM side by side.
#[derive(Debug)]
pub struct FakeVault<T, const COUNT: usize, const SIZE: usize> {
    compartments: [(T, Memory<SIZE>); COUNT],
}

impl<T, const COUNT: usize, const SIZE: usize> FakeVault<T, COUNT, SIZE> {
    /// A vault of these states, each with RAM of zeros.
    pub fn new(states: [T; COUNT]) -> Self {
        Self { compartments: states.map(|state| (state, Memory::new())) }
    }
}

impl<T: Sync, const COUNT: usize, const SIZE: usize> Vault<T> for FakeVault<T, COUNT, SIZE> {
    type Memory = Memory<SIZE>;

    fn enter<R>(&self, index: usize, serve: impl FnOnce(&T, &Self::Memory) -> R) -> Option<R> {
        self.compartments.get(index).map(|(state, memory)| serve(state, memory))
    }
}

/// Frames of a compartment that nobody carved.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FakeFrames {
    /// Index of the compartment whose they are.
    pub owner: u8,
    /// Where they lie.
    pub range: HostRange,
}

/// A second stage as a list of pages: what the contract says, and nothing about tables. Holds `PAGES` pages of 4 KiB.
#[derive(Debug)]
pub struct FakeStage<const PAGES: usize> {
    owner: u8,
    /// Guest page, host page, mode.
    pages: Vec<(u64, u64, MapMode), PAGES>,
}

impl<const PAGES: usize> FakeStage<PAGES> {
    /// That of compartment `owner`, empty.
    pub const fn new(owner: u8) -> Self {
        Self { owner, pages: Vec::new() }
    }

    /// The guest's pages from `at` on, so many bytes of them.
    fn range(at: GuestPhysical, length: u64) -> Result<core::ops::Range<u64>, MapError> {
        if length == 0 || !(at.get() | length).is_multiple_of(PAGE_4K) {
            return Err(MapError::Unaligned);
        }
        match at.get().checked_add(length) {
            Some(end) if end <= 1 << 48 => Ok(at.get() / PAGE_4K..end / PAGE_4K),
            _ => Err(MapError::OutOfRange),
        }
    }
}

impl<const PAGES: usize> SecondStage for FakeStage<PAGES> {
    type Frames = FakeFrames;

    fn map(&mut self, at: GuestPhysical, frames: &FakeFrames, mode: MapMode) -> Result<(), MapError> {
        if frames.owner != self.owner {
            return Err(MapError::NotOwned);
        }
        let range = Self::range(at, frames.range.length())?;
        if self.pages.iter().any(|(page, ..)| range.contains(page)) {
            return Err(MapError::Occupied);
        }
        let host = frames.range.start().get() / PAGE_4K;
        for (page, host) in range.zip(host..) {
            self.pages.push((page, host, mode)).map_err(|_| MapError::NoFrames)?;
        }
        Ok(())
    }

    fn unmap(&mut self, at: GuestPhysical, length: u64) -> Result<FlushToken, MapError> {
        let range = Self::range(at, length)?;
        self.pages.retain(|(page, ..)| !range.contains(page));
        Ok(FlushToken::new())
    }

    fn protect(&mut self, at: GuestPhysical, length: u64, mode: MapMode) -> Result<FlushToken, MapError> {
        let range = Self::range(at, length)?;
        for (.., old) in self.pages.iter_mut().filter(|(page, ..)| range.contains(page)) {
            *old = mode;
        }
        Ok(FlushToken::new())
    }

    fn translate(&self, at: GuestPhysical) -> Option<(HostPhysical, MapMode)> {
        let (.., host, mode) = self.pages.iter().find(|(page, ..)| *page == at.get() / PAGE_4K)?;
        Some((HostPhysical::new(host * PAGE_4K + at.get() % PAGE_4K), *mode))
    }
}
