//! What follows from each exit. The mechanism said why the guest came back; everything is decided here, in safe code.

use crate::audit::{Access, Kind, Subject};
use crate::compartment::{Activity, VirtualProcessor};
use crate::control;
use crate::fetch::{self, Trouble};
use crate::serve::{Over, Serving};
use crate::slot::Reason;
use address::GuestPhysical;
use contracts::{
    ApicEffects, ControlAccess, Device, DeviceSet, Direction, Exit, GuestMemory, GuestTime, Host, Image,
    LocalApic, MemoryExit, PortExit, PortMap, StringOperand, StringPortExit, Vcpu,
};
use decode::{ControlKind, ControlRegister, Intercepted, StatusWordOperand};
use x86::{Cr0, Cr4, Efer, Exception, Fault, General, Segment, SegmentName, Width};

/// Whether a register of the local APIC decides when its timer goes off: priority and commands, the busy ones, do not.
const fn concerns_timer(offset: u16) -> bool {
    !matches!(offset, 0x80 | 0x300 | 0x310 | 0x3f0)
}

/// The end-of-interrupt register of the local APIC's page.
const END_OF_INTERRUPT: u16 = 0xb0;
/// The x2APIC's register that sends an interrupt to itself.
const SELF_INTERRUPT: u32 = x86::msr::X2APIC_FIRST + 0x3f;

impl<I: Image, M: GuestMemory, const VCPUS: usize> Serving<'_, I, M, VCPUS> {
    /// Counts an exit and decides what follows from it. Each arm counts for itself, so that where the back end's reading of the exit is
    /// compiled into this, its `match` and this one become one.
    #[inline(always)]
    pub fn dispatch(&self, vcpu: &mut VirtualProcessor<I>, exit: Exit) {
        match exit {
            Exit::WriteMsr => {
                vcpu.count(&exit);
                self.finish_if(vcpu, Intercepted::WriteMsr, Self::write_msr);
            }
            Exit::ReadMsr => {
                vcpu.count(&exit);
                self.finish_if(vcpu, Intercepted::ReadMsr, Self::read_msr);
            }
            Exit::Halt => {
                vcpu.count(&exit);
                self.halt(vcpu);
            }
            Exit::Cpuid => {
                vcpu.count(&exit);
                self.cpuid(vcpu);
            }
            Exit::InterruptWindow => {
                vcpu.count(&exit);
                vcpu.virt.set_window(false);
                vcpu.set_look();
            }
            Exit::NonMaskableWindow => {
                vcpu.count(&exit);
                vcpu.set_look();
            }
            Exit::Memory(access) => {
                vcpu.count(&exit);
                self.memory_access(vcpu, &access);
            }
            Exit::Control(access) => {
                vcpu.count(&exit);
                // Where it is over early, all is seen to.
                let _ = self.control(vcpu, &access);
            }
            other => {
                vcpu.count_other(&other);
                self.rare(vcpu, &other);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn rare(&self, vcpu: &mut VirtualProcessor<I>, exit: &Exit) {
        let fault = match exit {
            Exit::Port(access) => {
                return self.port(vcpu, access, Self::port_in_seldom, Self::port_out_seldom);
            }
            Exit::StringPort(access) => {
                // Where it is over early, all is seen to.
                let _ = self.string_port(vcpu, access);
                return;
            }
            Exit::SetExtendedControl => {
                let Ok(next) = self.next_in_full(vcpu, Intercepted::SetExtendedControl) else { return };
                if self.set_extended_control(vcpu) {
                    return vcpu.virt.complete(next);
                }
                Fault::GP
            }
            Exit::Hypercall => {
                // No hypercall exists yet. Without one, VMMCALL is what it is on a processor without SVM.
                self.note(Kind::Unknown, Subject::Hypercall(vcpu.virt.general(General::Rax)));
                Fault::InvalidOpcode
            }
            Exit::Pause => {
                if let Ok(next) = self.next_in_full(vcpu, Intercepted::Pause) {
                    vcpu.virt.complete(next);
                }
                return;
            }
            // Caches are coherent and belong to the host: a guest that writes them back or drops them changes nothing. The privilege
            // was checked by the processor.
            Exit::CacheInvalidation => return self.cache(vcpu),
            Exit::ReadPerformanceCounter => Fault::GP,
            Exit::Unsupported(what) => {
                self.note(Kind::Denied, Subject::Instruction(*what));
                Fault::InvalidOpcode
            }
            Exit::Exception(Exception::MachineCheck, _) => return self.host.machine_check(),
            Exit::Interrupted | Exit::HostInit => return,
            Exit::Exception(exception, code) => {
                let code = exception.has_error_code().then_some(*code);
                if !vcpu.virt.inject_exception(*exception, code) {
                    self.stop(vcpu, Reason::TripleFault);
                }
                return;
            }
            Exit::EndOfInterrupt(vector) if I::Vcpu::HOLDS_INTERRUPTS => {
                // A pin that is asserted still has requested it again.
                vcpu.set_look();
                if vcpu.apic_beside().ended_level(*vector) {
                    self.end_of_level(vcpu.number, *vector);
                }
                return;
            }
            Exit::SelfInterrupt if I::Vcpu::HOLDS_INTERRUPTS => {
                let vector = vcpu.virt.general(General::Rax) & 0xff;
                let now = vcpu.virt.ticks();
                // All that follows is an error, which the local APIC notes for itself.
                let mut effects = ApicEffects::default();
                vcpu.apic_beside().write_msr(SELF_INTERRUPT, vector, now, &mut effects);
                vcpu.set_look();
                return;
            }
            Exit::TaskSwitch => {
                // No current system switches tasks in hardware. #GP is what a broken task gate earns.
                self.note(Kind::Malformed, Subject::TaskSwitch);
                Fault::GP
            }
            other => {
                let reason = match other {
                    Exit::Shutdown => Reason::TripleFault,
                    Exit::Failed(failure) => Reason::EntryFailed(*failure),
                    Exit::Unknown(code) => Reason::UnknownExit(*code),
                    _ => return,
                };
                self.stop(vcpu, reason);
                return;
            }
        };
        self.raise(vcpu, fault);
    }

    /// Raises a fault in the guest.
    #[inline(never)]
    pub fn raise(&self, vcpu: &mut VirtualProcessor<I>, fault: Fault) -> Over {
        if !vcpu.virt.inject_fault(fault) {
            self.stop(vcpu, Reason::TripleFault);
        }
        Over
    }

    #[inline(never)]
    fn trouble(&self, vcpu: &mut VirtualProcessor<I>, trouble: Trouble) -> Over {
        match trouble {
            Trouble::Again => Over,
            Trouble::Fault(fault) => self.raise(vcpu, fault),
            Trouble::OutsideMemory(at) => self.stop(vcpu, Reason::OutsideMemory(at)),
            Trouble::Unsupported(at) => self.stop(vcpu, Reason::Instruction(at)),
        }
    }

    /// Finds where the instruction ends, does `action`, and steps over it; where the action answers false, #GP is raised instead.
    #[inline(always)]
    fn finish_if(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        expected: Intercepted,
        action: impl FnOnce(&Self, &mut VirtualProcessor<I>) -> bool,
    ) {
        let physical_bits = self.compartment.cpuid.physical_bits();
        let next = match fetch::next_if_plain(&vcpu.virt, self.memory, expected, physical_bits) {
            Some(next) => next,
            None => match self.next_in_full(vcpu, expected) {
                Ok(next) => next,
                Err(Over) => return,
            },
        };
        if action(self, vcpu) {
            vcpu.virt.complete(next);
        } else {
            self.raise(vcpu, Fault::GP);
        }
    }

    /// Where the instruction ends, whatever stands there.
    #[cold]
    #[inline(never)]
    fn next_in_full(&self, vcpu: &mut VirtualProcessor<I>, expected: Intercepted) -> Result<u64, Over> {
        let physical_bits = self.compartment.cpuid.physical_bits();
        fetch::next(&vcpu.virt, self.memory, expected, physical_bits)
            .map_err(|trouble| self.trouble(vcpu, trouble))
    }

    #[inline(never)]
    fn cache(&self, vcpu: &mut VirtualProcessor<I>) {
        let physical_bits = self.compartment.cpuid.physical_bits();
        let find = |expected| fetch::next(&vcpu.virt, self.memory, expected, physical_bits);
        let next = match find(Intercepted::Wbinvd) {
            Err(Trouble::Again) => find(Intercepted::Invd),
            found => found,
        };
        match next {
            Ok(next) => vcpu.virt.complete(next),
            Err(trouble) => {
                self.trouble(vcpu, trouble);
            }
        }
    }

    #[inline(always)]
    fn cpuid(&self, vcpu: &mut VirtualProcessor<I>) {
        self.finish_if(vcpu, Intercepted::Cpuid, |this, vcpu| {
            let virt = &mut vcpu.virt;
            let (leaf, subleaf) = (virt.general(General::Rax) as u32, virt.general(General::Rcx) as u32);
            let [a, b, c, d] =
                this.compartment.cpuid.answer(leaf, subleaf, vcpu.number, virt.cr4(), || virt.xcr0());
            virt.set_general(General::Rax, a.into());
            virt.set_general(General::Rbx, b.into());
            virt.set_general(General::Rcx, c.into());
            virt.set_general(General::Rdx, d.into());
            true
        });
    }

    fn halt(&self, vcpu: &mut VirtualProcessor<I>) {
        self.finish_if(vcpu, Intercepted::Halt, |_, vcpu| {
            vcpu.set_activity(Activity::Halted);
            vcpu.set_look();
            true
        });
    }

    fn set_extended_control(&self, vcpu: &mut VirtualProcessor<I>) -> bool {
        let virt = &mut vcpu.virt;
        let value = virt.general(General::Rdx) << 32 | virt.general(General::Rax) & 0xffff_ffff;
        let number = virt.general(General::Rcx) as u32;
        let Some(value) = control::xcr0(number, value, self.compartment.cpuid.xcr0(), virt.privilege())
        else {
            self.note(Kind::Malformed, Subject::Control(0xc0));
            return false;
        };
        virt.set_xcr0(value);
        true
    }

    /// IN and OUT, with the functions that reach the device: those that are compiled into the run loop, or those that are not.
    #[inline(always)]
    pub fn port(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        access: &PortExit,
        read: impl FnOnce(&Self, &VirtualProcessor<I>, u16, Width) -> u32,
        write: impl FnOnce(&Self, &VirtualProcessor<I>, u16, Width, u32),
    ) {
        let Some(next) = vcpu.virt.after_port() else {
            self.stop(vcpu, Reason::UnknownExit(0x7b));
            return;
        };
        let (port, width) = (access.port, access.width);
        match access.direction {
            Direction::In => {
                let value = read(self, vcpu, port, width);
                let old = vcpu.virt.general(General::Rax);
                // Nearly all are bytes: the compiler makes less of this than of the general case.
                let new = if width == Width::Byte {
                    old & !0xff | u64::from(value as u8)
                } else {
                    width.merge(old, u64::from(value))
                };
                vcpu.virt.set_general(General::Rax, new);
            }
            Direction::Out => {
                let value = vcpu.virt.general(General::Rax) & width.mask();
                write(self, vcpu, port, width, value as u32);
            }
        }
        vcpu.virt.complete(next);
    }

    /// The number of the PIC among those that claim ports; the others have lower ones.
    const PIC: u8 = I::Devices::COUNT + 1;
    /// Whose each port is.
    const PORTS: &'static PortMap = &I::Devices::PORTS.claimed(I::LegacyPic::PORTS, Self::PIC);

    /// What the PIC is told of the time.
    #[inline(always)]
    fn pic_time(&self) -> GuestTime {
        if I::LegacyPic::CLOCKED { self.compartment.time(self.host.now()) } else { GuestTime(0) }
    }

    /// Reads a port: all ones where nobody claims it.
    #[inline(always)]
    pub fn port_in(&self, vcpu: &VirtualProcessor<I>, port: u16, width: Width) -> u32 {
        let own = vcpu.number;
        let owner = Self::PORTS.owner(port);
        if owner == 0 {
            self.unclaimed(vcpu, Access::port_read(port));
            return u32::MAX;
        }
        if owner == Self::PIC {
            return self.pic_in(own, port, width);
        }
        self.others_in(own, owner, port, width)
    }

    /// Writes a port; nothing happens where nobody claims it.
    #[inline(always)]
    pub fn port_out(&self, vcpu: &VirtualProcessor<I>, port: u16, width: Width, value: u32) {
        let own = vcpu.number;
        let owner = Self::PORTS.owner(port);
        if owner == 0 {
            self.unclaimed(vcpu, Access::port_write(port));
        } else if owner == Self::PIC {
            self.pic_out(own, port, width, value);
        } else {
            self.others_out(own, owner, port, width, value);
        }
    }

    /// As [`Self::port_in`], not compiled into its callers.
    #[inline(never)]
    fn port_in_seldom(&self, vcpu: &VirtualProcessor<I>, port: u16, width: Width) -> u32 {
        self.port_in(vcpu, port, width)
    }

    /// As [`Self::port_out`], not compiled into its callers.
    #[inline(never)]
    fn port_out_seldom(&self, vcpu: &VirtualProcessor<I>, port: u16, width: Width, value: u32) {
        self.port_out(vcpu, port, width, value);
    }

    /// Reads a port of the PIC.
    #[inline(never)]
    fn pic_in(&self, own: u8, port: u16, width: Width) -> u32 {
        self.with_devices_at(own, self.pic_time(), |devices, context| {
            devices.pic.read_claimed(port, width, context)
        })
    }

    /// Writes a port of the PIC.
    #[inline(never)]
    fn pic_out(&self, own: u8, port: u16, width: Width, value: u32) {
        self.with_devices_at(own, self.pic_time(), |devices, context| {
            devices.pic.write_claimed(port, width, value, context);
            self.look_at_pic(own, devices);
        });
    }

    /// Reads a port of a device that is not the PIC.
    #[inline(always)]
    fn others_in(&self, own: u8, owner: u8, port: u16, width: Width) -> u32 {
        self.with_devices(own, move |devices, context| devices.others.read_port(owner, port, width, context))
    }

    /// Writes a port of a device that is not the PIC.
    #[inline(always)]
    fn others_out(&self, own: u8, owner: u8, port: u16, width: Width, value: u32) {
        self.with_devices(own, move |devices, context| {
            devices.others.write_port(owner, port, width, value, context);
        });
    }

    /// INS and OUTS: one element an exit; with a repeat prefix the guest executes the instruction again for the next.
    fn string_port(&self, vcpu: &mut VirtualProcessor<I>, access: &StringPortExit) -> Result<(), Over> {
        let (StringOperand { segment, size }, repeat, next) =
            self.string_operand(vcpu, access).map_err(|trouble| self.trouble(vcpu, trouble))?;
        let mask = size.mask();
        let count = vcpu.virt.general(General::Rcx) & mask;
        if repeat && count == 0 {
            vcpu.virt.complete(next);
            return Ok(());
        }
        let incoming = access.direction == Direction::In;
        let index = if incoming { General::Rdi } else { General::Rsi };
        let offset = vcpu.virt.general(index);
        let linear = self.linear(vcpu, segment, offset & mask)?;
        let bytes = usize::from(access.width.bytes());
        let wanted = if incoming { walk::Access::Write } else { walk::Access::Read };
        let mut buffer = [0u8; 8];
        let Some(buffer) = buffer.get_mut(..bytes) else { return Ok(()) };
        // Reading first finds out whether the memory is there before the device is touched.
        self.copy_linear(vcpu, linear, wanted, buffer, false)?;
        if incoming {
            let value = self.port_in_seldom(vcpu, access.port, access.width);
            for (to, from) in buffer.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
            self.copy_linear(vcpu, linear, wanted, buffer, true)?;
        } else {
            let value = buffer.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            self.port_out_seldom(vcpu, access.port, access.width, value);
        }
        let step = if vcpu.virt.flags().contains(x86::Rflags::DIRECTION) {
            0u64.wrapping_sub(bytes as u64)
        } else {
            bytes as u64
        };
        let advance = |old: u64, step: u64| size.merge(old, old.wrapping_add(step));
        vcpu.virt.set_general(index, advance(offset, step));
        if repeat {
            let counter = vcpu.virt.general(General::Rcx);
            vcpu.virt.set_general(General::Rcx, advance(counter, u64::MAX));
        }
        Self::element_done(vcpu, next, !repeat || count == 1);
        Ok(())
    }

    /// An element of a string instruction is done, and with `all` the instruction. A guest that single-steps gets its #DB behind each element,
    /// with RIP still on the instruction until the last (APM Vol. 2 §13.1.4).
    #[inline(always)]
    pub fn element_done(vcpu: &mut VirtualProcessor<I>, next: u64, all: bool) {
        if all || vcpu.virt.flags().contains(x86::Rflags::TRAP) {
            let next = if all { next } else { vcpu.virt.instruction_pointer() };
            vcpu.virt.complete(next);
        }
    }

    /// The operand of INS or OUTS, whether it repeats, and where it ends.
    #[inline(always)]
    fn string_operand(
        &self,
        vcpu: &VirtualProcessor<I>,
        access: &StringPortExit,
    ) -> Result<(StringOperand, bool, u64), Trouble> {
        if I::Vcpu::DECODED
            && let (Some(operand), Some(next)) = (access.operand, vcpu.virt.after_port())
        {
            return Ok((operand, access.repeat, next));
        }
        let code = vcpu.virt.code_size();
        let bytes = fetch::fetch(&vcpu.virt, self.memory, code, self.compartment.cpuid.physical_bits())?;
        let instruction = decode::string_port(bytes.as_slice(), code)
            .map_err(|error| fetch::refused(error, vcpu.virt.instruction_pointer()))?;
        let address = instruction.address;
        let operand = StringOperand { segment: address.segment, size: address.size };
        Ok((operand, instruction.repeat, fetch::after(&vcpu.virt, code, instruction.length)))
    }

    /// The linear address of an operand: base and limit checks as the mode has them (APM Vol. 2 §4.12). What they find is raised.
    #[inline(never)]
    pub fn linear(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        name: SegmentName,
        offset: u64,
    ) -> Result<u64, Over> {
        let segment: Segment = vcpu.virt.segment(name);
        let (linear, legal) = if vcpu.virt.code_size() == x86::CodeSize::Bits64 {
            let base = if matches!(name, SegmentName::Fs | SegmentName::Gs) { segment.base } else { 0 };
            let linear = base.wrapping_add(offset);
            (linear, (linear as i64) << 16 >> 16 == linear as i64)
        } else {
            // Expand-down segments are not used by current systems; their limit is then checked too strictly.
            (segment.base.wrapping_add(offset) & 0xffff_ffff, offset <= u64::from(segment.limit))
        };
        if legal {
            return Ok(linear);
        }
        Err(self.raise(vcpu, if name == SegmentName::Ss { Fault::Stack(0) } else { Fault::GP }))
    }

    /// Translates a linear address as the guest would, and marks the pages. What stands in the way is raised, or ends the compartment.
    #[inline(never)]
    pub fn locate(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        linear: u64,
        access: walk::Access,
    ) -> Result<walk::Translation, Over> {
        let paging = fetch::paging(&vcpu.virt, self.compartment.cpuid.physical_bits());
        fetch::translate_and_mark(&paging, linear, access, self.memory).map_err(|failure| match failure {
            walk::WalkFailure::Fault(fault) => self.raise(vcpu, fault),
            walk::WalkFailure::NotMemory(at) => self.stop(vcpu, Reason::OutsideMemory(at.get())),
        })
    }

    /// Copies between a buffer and the guest's memory at a linear address, through its page tables; `write` says which way.
    pub fn copy_linear(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        linear: u64,
        access: walk::Access,
        buffer: &mut [u8],
        write: bool,
    ) -> Result<(), Over> {
        let mut done = 0;
        while done < buffer.len() {
            let at = linear.wrapping_add(done as u64);
            let translation = self.locate(vcpu, at, access)?;
            let piece = (buffer.len() - done).min(translation.page_length as usize);
            let Some(part) = buffer.get_mut(done..done + piece) else { break };
            let copied = if write {
                self.memory.write(translation.address, part)
            } else {
                self.memory.read(translation.address, part)
            };
            if copied.is_err() {
                // From or to a device's registers: nothing that software does. All ones come, what goes is dropped.
                self.note(Kind::Malformed, Subject::Access(Access::memory_read(translation.address.get())));
                part.fill(0xff);
            }
            done += piece;
        }
        Ok(())
    }

    /// MOV to and from control registers, CLTS, LMSW and SMSW.
    #[inline(never)]
    fn control(&self, vcpu: &mut VirtualProcessor<I>, access: &ControlAccess) -> Result<(), Over> {
        let code = vcpu.virt.code_size();
        let (kind, next) =
            self.control_instruction(vcpu, access, code).map_err(|trouble| self.trouble(vcpu, trouble))?;
        let long = code == x86::CodeSize::Bits64;
        let result = match kind {
            ControlKind::MoveTo { control, general } => {
                let value = vcpu.virt.general(general) & if long { u64::MAX } else { 0xffff_ffff };
                self.write_control(vcpu, control, value)
            }
            ControlKind::MoveFrom { control, general } => {
                let value = match control {
                    ControlRegister::Cr0 => vcpu.virt.cr0().bits(),
                    ControlRegister::Cr2 => vcpu.virt.cr2(),
                    ControlRegister::Cr3 => vcpu.virt.cr3(),
                    ControlRegister::Cr4 => vcpu.virt.cr4().bits(),
                    ControlRegister::Cr8 => vcpu.apic_mut().task_priority().into(),
                };
                vcpu.virt.set_general(general, value);
                Ok(())
            }
            ControlKind::ClearTaskSwitched => {
                let value = vcpu.virt.cr0() - x86::Cr0::TASK_SWITCHED;
                self.write_control(vcpu, ControlRegister::Cr0, value.bits())
            }
            ControlKind::LoadStatusWord(operand) => {
                let word = self.status_word(vcpu, operand, next)?;
                // LMSW writes PE, MP, EM and TS, and cannot clear PE (APM Vol. 3 "LMSW").
                let old = vcpu.virt.cr0().bits();
                let new = old & !0xe | u64::from(word) & 0xf;
                self.write_control(vcpu, ControlRegister::Cr0, new)
            }
            // Reads of CR0 are not intercepted.
            ControlKind::StoreStatusWord(_) => return Ok(()),
        };
        result.map_err(|fault| self.raise(vcpu, fault))?;
        vcpu.virt.complete(next);
        Ok(())
    }

    /// What the guest does with a control register, and where the instruction ends.
    #[inline(always)]
    fn control_instruction(
        &self,
        vcpu: &VirtualProcessor<I>,
        access: &ControlAccess,
        code: x86::CodeSize,
    ) -> Result<(ControlKind, u64), Trouble> {
        if I::Vcpu::DECODED
            && let Some(general) = access.general
            && let Some(control) = ControlRegister::from_number(access.register)
            && let Some(next) = vcpu.virt.next_instruction()
        {
            let kind = if access.write {
                ControlKind::MoveTo { control, general }
            } else {
                ControlKind::MoveFrom { control, general }
            };
            return Ok((kind, next));
        }
        let bytes = fetch::fetch(&vcpu.virt, self.memory, code, self.compartment.cpuid.physical_bits())?;
        let instruction = decode::control(bytes.as_slice(), code)
            .map_err(|error| fetch::refused(error, vcpu.virt.instruction_pointer()))?;
        Ok((instruction.kind, fetch::after(&vcpu.virt, code, instruction.length)))
    }

    /// The operand of LMSW.
    fn status_word(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        operand: StatusWordOperand,
        next: u64,
    ) -> Result<u16, Over> {
        let address = match operand {
            StatusWordOperand::Register(general, _) => return Ok(vcpu.virt.general(general) as u16),
            StatusWordOperand::Memory(address) => address,
        };
        let offset = address.offset(|register| vcpu.virt.general(register), next);
        let linear = self.linear(vcpu, address.segment, offset)?;
        let mut bytes = [0; 2];
        self.copy_linear(vcpu, linear, walk::Access::Read, &mut bytes, false)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn write_control(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        register: ControlRegister,
        value: u64,
    ) -> Result<(), Fault> {
        let virt = &mut vcpu.virt;
        let refuse = |number| {
            self.note(Kind::Malformed, Subject::Control(number));
            Err(Fault::GP)
        };
        match register {
            ControlRegister::Cr0 => {
                let long = virt.code_size() == x86::CodeSize::Bits64;
                let Some((cr0, efer)) = control::cr0(value, virt.cr0(), virt.cr4(), virt.efer(), long) else {
                    return refuse(0);
                };
                let pointers = self.directory_pointers(cr0, virt.cr3(), virt.cr4(), efer)?;
                virt.set_efer(efer);
                virt.set_cr0(cr0);
                virt.set_directory_pointers(pointers);
            }
            ControlRegister::Cr2 => return Err(Fault::InvalidOpcode),
            ControlRegister::Cr3 => {
                let pointers = self.directory_pointers(virt.cr0(), value, virt.cr4(), virt.efer())?;
                virt.set_cr3(value);
                virt.set_directory_pointers(pointers);
            }
            ControlRegister::Cr4 => {
                let allowed = self.compartment.cpuid.cr4();
                let Some(cr4) = control::cr4(value, virt.cr4(), allowed, virt.efer()) else {
                    return refuse(4);
                };
                let pointers = self.directory_pointers(virt.cr0(), virt.cr3(), cr4, virt.efer())?;
                virt.set_cr4(cr4);
                virt.set_directory_pointers(pointers);
            }
            ControlRegister::Cr8 => {
                if value > 15 {
                    return refuse(8);
                }
                vcpu.apic_mut().set_task_priority(value as u8);
                vcpu.set_look();
            }
        }
        Ok(())
    }

    /// The directory pointers of PAE paging with these control registers, where the back end holds them; zeros where there are none. A pointer
    /// with reserved bits raises #GP (SDM Vol. 3A §4.4.1), and memory that is not there reads as no pointer.
    #[inline(always)]
    fn directory_pointers(&self, cr0: Cr0, cr3: u64, cr4: Cr4, efer: Efer) -> Result<[u64; 4], Fault> {
        let mut pointers = [0; 4];
        let extended = cr4.contains(Cr4::PHYSICAL_ADDRESS) && !efer.contains(Efer::LONG_MODE_ACTIVE);
        if !I::Vcpu::HOLDS_DIRECTORY_POINTERS || !cr0.contains(Cr0::PAGING) || !extended {
            return Ok(pointers);
        }
        let reserved = 0b1_1110_0110 | !0 << self.compartment.cpuid.physical_bits().min(52);
        for (pointer, at) in pointers.iter_mut().zip((cr3 & 0xffff_ffe0..).step_by(8)) {
            *pointer = self.memory.read_quad(GuestPhysical::new(at)).unwrap_or(0);
            if *pointer & 1 == 1 && *pointer & reserved != 0 {
                self.note(Kind::Malformed, Subject::Control(3));
                return Err(Fault::GP);
            }
        }
        Ok(pointers)
    }

    /// An access that the second stage does not map: a device's registers, or nothing.
    #[inline(never)]
    fn memory_access(&self, vcpu: &mut VirtualProcessor<I>, access: &MemoryExit) {
        let at = access.address.get();
        if access.during_walk {
            self.stop(vcpu, Reason::OutsideMemory(at));
            return;
        }
        if access.access == contracts::Access::Execute {
            // No device answers a fetch: it reads all ones, and no instruction begins with FF FF.
            self.unclaimed(vcpu, Access::memory_fetch(at));
            self.raise(vcpu, Fault::InvalidOpcode);
            return;
        }
        let code = vcpu.virt.code_size();
        let physical_bits = self.compartment.cpuid.physical_bits();
        let quick =
            fetch::glance_at_access(&vcpu.virt, self.memory, physical_bits).and_then(decode::plain_move);
        let instruction = match quick {
            Some(instruction) => instruction,
            None => match fetch::memory_instruction(&vcpu.virt, self.memory, code, physical_bits) {
                Ok(instruction) => instruction,
                Err(trouble) => {
                    self.trouble(vcpu, trouble);
                    return;
                }
            },
        };
        let width = instruction.width;
        // Where there are two addresses, `memory_string` reads, once.
        let reads = instruction.reads() && !instruction.has_two_addresses();
        let value = if reads { self.memory_in(vcpu, at, width) } else { 0 };
        let effect = {
            let virt = &vcpu.virt;
            instruction.effect(value, |register| virt.general(register), virt.flags())
        };
        let Some(effect) = effect else {
            return self.memory_string(vcpu, access, &instruction, code);
        };
        if let Some(value) = effect.store {
            self.memory_out(vcpu, at, width, value);
        }
        for (register, value) in effect.registers.into_iter().flatten() {
            vcpu.virt.set_general(register, value);
        }
        vcpu.virt.set_flags(effect.flags);
        let next = fetch::after(&vcpu.virt, code, instruction.length);
        vcpu.virt.complete(next);
    }

    /// PUSH, POP and string instructions on a device's registers.
    #[cold]
    fn memory_string(
        &self,
        vcpu: &mut VirtualProcessor<I>,
        access: &MemoryExit,
        instruction: &decode::MemoryInstruction,
        code: x86::CodeSize,
    ) {
        // Where it is over early, all is seen to.
        let _ = crate::string::carry_out(self, vcpu, access, instruction, code);
    }

    /// Reads `width` bytes of registers at `at`.
    #[inline(never)]
    pub fn memory_in(&self, vcpu: &mut VirtualProcessor<I>, at: u64, width: Width) -> u64 {
        if vcpu.apic().page() == Some(at & !0xfff) {
            return Self::apic_in(vcpu, at, width);
        }
        let mut value = None;
        self.with_devices_seldom(vcpu.number, &mut |devices, context| {
            value = devices
                .io_apic
                .read_memory(at, width, context)
                .or_else(|| devices.others.read_memory(at, width, context));
        });
        value.unwrap_or_else(|| {
            self.unclaimed(vcpu, Access::memory_read(at));
            u64::MAX
        })
    }

    /// Writes `width` bytes of registers at `at`.
    #[inline(never)]
    pub fn memory_out(&self, vcpu: &mut VirtualProcessor<I>, at: u64, width: Width, value: u64) {
        if vcpu.apic().page() == Some(at & !0xfff) {
            self.apic_out(vcpu, at, width, value);
            return;
        }
        let mut known = false;
        self.with_devices_seldom(vcpu.number, &mut |devices, context| {
            known = devices.io_apic.write_memory(at, width, value, context)
                || devices.others.write_memory(at, width, value, context);
        });
        if !known {
            self.unclaimed(vcpu, Access::memory_write(at));
        }
    }

    /// The local APIC's registers are 32 bits wide and aligned; anything else is undefined (SDM Vol. 3A §11.4.1) and here reads
    /// the register's bytes, and writes nothing.
    fn apic_in(vcpu: &mut VirtualProcessor<I>, at: u64, width: Width) -> u64 {
        let now = vcpu.virt.ticks();
        let offset = (at & 0xffc) as u16;
        let value = vcpu.apic_at(offset).read(offset, now);
        u64::from(value) >> (8 * (at & 3)) & width.mask()
    }

    fn apic_out(&self, vcpu: &mut VirtualProcessor<I>, at: u64, width: Width, value: u64) {
        if width != Width::Double || at & 3 != 0 {
            self.note(Kind::Malformed, Subject::Access(Access::memory_write(at)));
            return;
        }
        let offset = (at & 0xffc) as u16;
        if offset == END_OF_INTERRUPT {
            self.end_of_interrupt(vcpu);
            return;
        }
        let now = vcpu.virt.ticks();
        let mut effects = ApicEffects::default();
        vcpu.apic_mut().write(offset, value as u32, now, &mut effects);
        self.after_apic(vcpu, offset, &effects);
    }

    /// The guest ended an interrupt at its local APIC. That can make another one of the APIC's deliverable, and changes nothing else.
    #[inline(always)]
    pub fn end_of_interrupt(&self, vcpu: &mut VirtualProcessor<I>) {
        let apic = vcpu.apic_mut();
        let level = apic.end_of_interrupt();
        if apic.pending().is_some() {
            vcpu.set_look();
        }
        if let Some(vector) = level {
            self.end_of_level(vcpu.number, vector);
        }
    }

    /// What a write to the register at `offset` of the local APIC's page asks of the fabric.
    #[inline(always)]
    pub fn after_apic(&self, vcpu: &mut VirtualProcessor<I>, offset: u16, effects: &ApicEffects) {
        vcpu.set_look();
        if concerns_timer(offset) {
            vcpu.set_rearm();
        }
        if effects.destination_changed {
            self.publish(vcpu);
        }
        if let Some(command) = &effects.command {
            self.command(vcpu.number, command);
        }
        if let Some(vector) = effects.level_end {
            self.end_of_level(vcpu.number, vector);
        }
    }
}
