//! Starting a compartment, starting it again, and what is left of it when it ends.

use crate::compartment::{Activity, VirtualProcessor};
use crate::serve::Serving;
use crate::slot::{Ending, Reason, State};
use address::GuestPhysical;
use contracts::{GuestMemory, Host, Image, Leave, Scheduler, StartState, Vcpu, VcpuName};
use plan::{Mode, OnReset, Start};
use x86::{Cr0, Cr4, DescriptorTable, Efer, Rflags, Segment, Segments};

/// Attributes of the flat segments in which a compartment begins: code, data, and a busy task state segment.
const CODE_64: u16 = 0xa9b;
const CODE_32: u16 = 0xc9b;
const DATA: u16 = 0xc93;
const TASK: u16 = 0x8b;

/// The registers with which the first vCPU begins.
pub fn start_state(start: &Start) -> StartState {
    let data = Segment::flat(0x18, DATA);
    let long = start.mode == Mode::Long;
    let mut general = [0; 16];
    for (register, value) in general.iter_mut().zip([start.rax, 0, 0, start.rbx, start.rsp, 0, start.rsi]) {
        *register = value;
    }
    StartState {
        general,
        instruction_pointer: start.entry,
        flags: Rflags::ALWAYS_ONE,
        cr0: Cr0::PROTECTION | Cr0::EXTENSION_TYPE | if long { Cr0::PAGING } else { Cr0::empty() },
        cr3: start.page_table,
        cr4: if long { Cr4::PHYSICAL_ADDRESS } else { Cr4::empty() },
        efer: if long { Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE } else { Efer::empty() },
        segments: Segments {
            es: data,
            cs: Segment::flat(0x10, if long { CODE_64 } else { CODE_32 }),
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: Segment { selector: 0, attributes: 0x82, limit: 0, base: 0 },
            tr: Segment { selector: 0x20, attributes: TASK, limit: 0x67, base: 0 },
        },
        gdt: DescriptorTable { base: start.descriptor_table, limit: start.descriptor_table_limit },
        idt: DescriptorTable { base: 0, limit: 0 },
    }
}

/// Bytes of memory that one turn zeroes: about a millisecond's work.
const CLEARED_AT_ONCE: u64 = 8 << 20;

impl<I: Image, M: GuestMemory, const VCPUS: usize> Serving<'_, I, M, VCPUS> {
    /// Starts the compartment: its RAM is zero, its vCPUs are parked. Called by whoever serves the first vCPU, which it holds.
    pub fn begin(&self, first: &mut VirtualProcessor<I>) -> Leave {
        for segment in &self.compartment.plan.segments {
            if self.memory.load(segment.source, segment.length, GuestPhysical::new(segment.target)).is_err() {
                self.slot.set_state(State::Running);
                self.slot.end(Ending::Stopped(Reason::Load));
                self.finish();
                return Leave::Halted { wake_at: None };
            }
        }
        self.slot.renew();
        self.compartment.platform.lock().reset(&self.compartment.platform_facts());
        let origin = self.compartment.facts.origin.0;
        for (number, vcpu) in self.compartment.vcpus.iter().enumerate() {
            if number == usize::from(first.number) {
                continue;
            }
            // Parked vCPUs are held by nobody but a turn that is about to find them parked.
            let mut vcpu = vcpu.lock();
            vcpu.reset();
            vcpu.virt.set_ticks_offset(0u64.wrapping_sub(origin));
            self.publish(&vcpu);
        }
        first.reset();
        first.virt.start(&start_state(&self.compartment.plan.start));
        first.virt.set_ticks_offset(0u64.wrapping_sub(origin));
        first.set_activity(Activity::Running);
        self.publish(first);
        self.slot.set_state(State::Running);
        Leave::Preempted
    }

    /// The last vCPU has parked: whatever it was, nothing of it stays in memory. The first vCPU's turns see to that, piece by piece, so
    /// that the others' turns come in between.
    pub fn finish(&self) {
        self.slot.begin_clearing();
        let first = VcpuName { compartment: self.name.compartment, vcpu: 0 };
        if let Some(cpu) = self.scheduler.wake(first, self.host.now()) {
            self.host.kick(cpu);
        }
    }

    /// Zeroes the next piece of the memory of a compartment that has ended; after the last, says what becomes of it.
    pub fn clear(&self) -> Leave {
        if self.slot.clear_piece(|start| self.memory.clear_from(start, CLEARED_AT_ONCE)) {
            return Leave::Preempted;
        }
        let ending = self.slot.ending().unwrap_or(Ending::Off);
        if ending == Ending::Reset && self.compartment.plan.on_reset == OnReset::Restart {
            self.slot.count_restart();
            self.console.lock().own(self.host, format_args!("{} resets and starts again", self.slot.name()));
            self.slot.set_state(State::Starting);
            return Leave::Preempted;
        }
        self.slot.set_state(match ending {
            Ending::Off => State::ShutDown,
            Ending::Reset => State::Reset,
            Ending::Stopped(_) => State::Stopped,
        });
        Leave::Halted { wake_at: None }
    }
}
