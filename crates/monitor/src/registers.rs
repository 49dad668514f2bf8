//! Model-specific registers: a table of those that exist. Any other raises #GP and is counted; none is ever passed through.

use crate::audit::{Access, Kind, Subject};
use crate::compartment::{VARIABLE_RANGES, VirtualProcessor};
use crate::control;
use crate::serve::Serving;
use address::GuestPhysical;
use contracts::absent::{ClockPageChoice, ClockRegister};
use contracts::{ApicEffects, GuestMemory, Image, LocalApic, Vcpu};
use x86::{Efer, General, msr};

/// MTRR capabilities: eight variable ranges, fixed ranges, write-combining.
const MTRR_CAPABILITIES: u64 = VARIABLE_RANGES as u64 | 1 << 8 | 1 << 10;
/// The end-of-interrupt register of an x2APIC.
const END_OF_INTERRUPT: u32 = msr::X2APIC_FIRST + 0xb;
/// DE_CFG: LFENCE is serializing, which is what software sets it for.
const SERIALIZING_FENCE: u64 = 1 << 1;
/// MISC_ENABLE: fast string instructions; no branch trace, no sampling (SDM Vol. 4, table 2-2).
const MISCELLANEOUS: u64 = 1 | 1 << 11 | 1 << 12;
/// HWCR: the time stamp counter runs at the P0 frequency, so software need not look for another.
const TSC_AT_P0: u64 = 1 << 24;

/// Where the page of the local APIC has a register of the x2APIC (SDM Vol. 3A §11.12.1.2).
const fn page_offset(number: u32) -> u16 {
    ((number & 0xff) << 4) as u16
}

/// Whether a memory type exists (APM Vol. 2 §7.7.1).
const fn is_memory_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

impl<I: Image, M: GuestMemory, const VCPUS: usize> Serving<'_, I, M, VCPUS> {
    /// RDMSR. False: #GP.
    #[inline]
    pub fn read_msr(&self, vcpu: &mut VirtualProcessor<I>) -> bool {
        let number = vcpu.virt.general(General::Rcx) as u32;
        let Some(value) = self.msr(vcpu, number) else {
            self.unclaimed(vcpu, Access::msr_read(number));
            return false;
        };
        vcpu.virt.set_general(General::Rax, value & 0xffff_ffff);
        vcpu.virt.set_general(General::Rdx, value >> 32);
        true
    }

    #[inline]
    fn msr(&self, vcpu: &mut VirtualProcessor<I>, number: u32) -> Option<u64> {
        match number {
            msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
                let now = vcpu.virt.ticks();
                vcpu.apic_at(page_offset(number)).read_msr(number, now)
            }
            msr::APIC_BASE => Some(vcpu.apic().base()),
            msr::TSC => Some(vcpu.virt.ticks().0),
            msr::TSC_DEADLINE => Some(vcpu.apic().tsc_deadline()),
            msr::EFER => Some(vcpu.virt.efer().bits()),
            msr::PAT => Some(vcpu.virt.page_attributes()),
            _ => self.soft_msr(vcpu, number),
        }
    }

    /// Registers that AMD's processors have.
    const fn is_amd(number: u32) -> bool {
        matches!(
            number,
            msr::SYSTEM_CONFIGURATION
                | msr::TOP_MEMORY
                | msr::TOP_MEMORY_2
                | msr::NORTHBRIDGE_CONFIGURATION
                | msr::HARDWARE_CONFIGURATION
                | msr::DECODE_CONFIGURATION
        )
    }

    /// Whether IA32_XSS exists.
    fn has_supervisor_state(&self) -> bool {
        I::Vcpu::XSAVES && self.compartment.cpuid.has_supervisor_state()
    }

    #[inline(never)]
    fn soft_msr(&self, vcpu: &VirtualProcessor<I>, number: u32) -> Option<u64> {
        let soft = &vcpu.registers;
        Some(match number {
            msr::TSC_AUX if self.compartment.cpuid.has_tsc_aux() => soft.tsc_aux.into(),
            msr::SPEC_CTRL if self.compartment.cpuid.speculation_control() != 0 => {
                vcpu.virt.speculation_control().into()
            }
            // No supervisor state is offered.
            msr::XSS if self.has_supervisor_state() => 0,
            msr::MTRR_CAP => MTRR_CAPABILITIES,
            msr::MTRR_DEFAULT_TYPE => soft.mtrr_default,
            msr::MTRR_VARIABLE_FIRST..=msr::MTRR_VARIABLE_LAST => {
                *soft.mtrr_variable.get((number - msr::MTRR_VARIABLE_FIRST) as usize)?
            }
            _ if let Some(index) = fixed_range(number) => *soft.mtrr_fixed.get(index)?,
            // No microcode was loaded, nothing is configured, no memory is mapped where only the chipset knows.
            msr::PATCH_LEVEL | msr::DEBUG_CONTROL => 0,
            msr::MISC_ENABLE if self.compartment.cpuid.is_intel() => MISCELLANEOUS,
            msr::PLATFORM_ID if self.compartment.cpuid.is_intel() => 0,
            number if !self.compartment.cpuid.is_intel() && Self::is_amd(number) => match number {
                msr::HARDWARE_CONFIGURATION => TSC_AT_P0,
                msr::DECODE_CONFIGURATION => SERIALIZING_FENCE,
                _ => 0,
            },
            _ => match I::ClockPage::register(number)? {
                ClockRegister::Time => soft.clock_page,
                ClockRegister::Wall => soft.wall_page,
            },
        })
    }

    /// WRMSR. False: #GP.
    #[inline]
    pub fn write_msr(&self, vcpu: &mut VirtualProcessor<I>) -> bool {
        let number = vcpu.virt.general(General::Rcx) as u32;
        let value = vcpu.virt.general(General::Rdx) << 32 | vcpu.virt.general(General::Rax) & 0xffff_ffff;
        match number {
            END_OF_INTERRUPT if value == 0 && vcpu.apic().is_extended() => {
                self.end_of_interrupt(vcpu);
                true
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST => {
                let now = vcpu.virt.ticks();
                let mut effects = ApicEffects::default();
                let offset = page_offset(number);
                if !vcpu.apic_at(offset).write_msr(number, value, now, &mut effects) {
                    self.note(Kind::Malformed, Subject::Access(Access::msr_write(number)));
                    return false;
                }
                self.after_apic(vcpu, offset, &effects);
                true
            }
            msr::TSC_DEADLINE => {
                let now = vcpu.virt.ticks();
                vcpu.apic_beside().set_tsc_deadline(value, now);
                vcpu.set_look();
                vcpu.set_rearm();
                true
            }
            _ => self.set_other_msr(vcpu, number, value),
        }
    }

    #[inline(never)]
    fn set_other_msr(&self, vcpu: &mut VirtualProcessor<I>, number: u32, value: u64) -> bool {
        let accepted = match number {
            msr::EFER => {
                let no_execute = self.compartment.cpuid.has_no_execute();
                let new: Option<Efer> = control::efer(value, vcpu.virt.efer(), vcpu.virt.cr0(), no_execute);
                if let Some(new) = new {
                    vcpu.virt.set_efer(new);
                } else {
                    self.note(Kind::Malformed, Subject::Control(0xef));
                    return false;
                }
                true
            }
            msr::APIC_BASE => {
                let mut effects = ApicEffects::default();
                // The address has as many bits as physical addresses have (APM Vol. 2 §16.3.1).
                let accepted = value >> self.compartment.cpuid.physical_bits().min(52) == 0
                    && vcpu.apic_mut().write_base(value, &mut effects);
                if accepted {
                    // The base decides whether there is a local APIC at all.
                    self.after_apic(vcpu, 0, &effects);
                }
                accepted
            }
            msr::PAT => {
                let accepted = control::page_attributes(value);
                if accepted {
                    vcpu.virt.set_page_attributes(value);
                }
                accepted
            }
            msr::TSC_AUX if self.compartment.cpuid.has_tsc_aux() => {
                let accepted = value >> 32 == 0;
                if accepted {
                    vcpu.registers.tsc_aux = value as u32;
                    vcpu.virt.set_tsc_aux(value as u32);
                }
                accepted
            }
            msr::SPEC_CTRL if self.compartment.cpuid.speculation_control() != 0 => {
                let accepted = value & !u64::from(self.compartment.cpuid.speculation_control()) == 0;
                if accepted {
                    vcpu.virt.set_speculation_control(value as u32);
                }
                accepted
            }
            msr::PRED_CMD if self.compartment.cpuid.has_branch_barrier() => {
                if value == 1 {
                    vcpu.virt.forget_branches();
                }
                value <= 1
            }
            // The time stamp counter is the compartment's clock: it cannot be set. Software that tries to put it back in step finds
            // it in step already.
            msr::TSC => true,
            // Writes that ask for what is so already, or for what does not exist here, change nothing.
            msr::PATCH_LEVEL | msr::MISC_ENABLE if self.compartment.cpuid.is_intel() => true,
            msr::PATCH_LEVEL
            | msr::DECODE_CONFIGURATION
            | msr::HARDWARE_CONFIGURATION
            | msr::SYSTEM_CONFIGURATION
            | msr::NORTHBRIDGE_CONFIGURATION
                if !self.compartment.cpuid.is_intel() =>
            {
                true
            }
            msr::XSS if self.has_supervisor_state() => value == 0,
            msr::DEBUG_CONTROL => value == 0,
            _ => {
                let Some(legal) = self.set_soft_msr(vcpu, number, value) else {
                    self.unclaimed(vcpu, Access::msr_write(number));
                    return false;
                };
                legal
            }
        };
        if !accepted {
            self.note(Kind::Malformed, Subject::Access(Access::msr_write(number)));
        }
        accepted
    }

    /// Registers that change nothing but what they read back as, and the clock page: whether they take the value. `None`: there
    /// is no such register.
    fn set_soft_msr(&self, vcpu: &mut VirtualProcessor<I>, number: u32, value: u64) -> Option<bool> {
        let soft = &mut vcpu.registers;
        let beyond = !0u64 << self.compartment.cpuid.physical_bits().min(52);
        let legal;
        match number {
            msr::MTRR_DEFAULT_TYPE => {
                legal = value & !0xcff == 0 && is_memory_type(value & 0xff);
                if legal {
                    soft.mtrr_default = value;
                }
            }
            msr::MTRR_VARIABLE_FIRST..=msr::MTRR_VARIABLE_LAST => {
                let index = (number - msr::MTRR_VARIABLE_FIRST) as usize;
                legal = if index.is_multiple_of(2) {
                    value & (beyond | 0xf00) == 0 && is_memory_type(value & 0xff)
                } else {
                    value & (beyond | 0x7ff) == 0
                };
                if legal && let Some(register) = soft.mtrr_variable.get_mut(index) {
                    *register = value;
                }
            }
            _ if let Some(index) = fixed_range(number) => {
                legal = value.to_le_bytes().iter().all(|kind| is_memory_type(u64::from(*kind)));
                if legal && let Some(register) = soft.mtrr_fixed.get_mut(index) {
                    *register = value;
                }
            }
            _ => {
                let register = I::ClockPage::register(number)?;
                legal = self.set_clock(vcpu, register, value);
            }
        }
        Some(legal)
    }

    /// Writes the clock page where the guest wants it. False: it lies outside its memory. An address of 0 is none for the wall clock, as with
    /// KVM, whose documentation does not say so: software clears the register to let go of its page, and what lies at 0 is not that.
    fn set_clock(&self, vcpu: &mut VirtualProcessor<I>, register: ClockRegister, value: u64) -> bool {
        let clock = &self.compartment.facts.clock;
        match register {
            ClockRegister::Time => {
                vcpu.registers.clock_page = value;
                if value & 1 == 0 {
                    return true;
                }
                // The clock never stops and never changes its rate, so one description holds for ever.
                vcpu.registers.clock_version = vcpu.registers.clock_version.wrapping_add(2);
                let page =
                    I::ClockPage::time_page(vcpu.registers.clock_version, 0, 0, clock.nanoseconds_per_tick());
                self.memory.write(GuestPhysical::new(value & !1), &page).is_ok()
            }
            ClockRegister::Wall => {
                vcpu.registers.wall_page = value;
                if value == 0 {
                    return true;
                }
                let page = I::ClockPage::wall_page(2, self.compartment.facts.wall_clock);
                self.memory.write(GuestPhysical::new(value), &page).is_ok()
            }
        }
    }
}

/// The index of a fixed-range register.
const fn fixed_range(number: u32) -> Option<usize> {
    match number {
        msr::MTRR_FIXED_64K => Some(0),
        msr::MTRR_FIXED_16K_FIRST..=msr::MTRR_FIXED_16K_LAST => {
            Some(1 + (number - msr::MTRR_FIXED_16K_FIRST) as usize)
        }
        msr::MTRR_FIXED_4K_FIRST..=msr::MTRR_FIXED_4K_LAST => {
            Some(3 + (number - msr::MTRR_FIXED_4K_FIRST) as usize)
        }
        _ => None,
    }
}
