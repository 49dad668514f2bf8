//! The controls of a world switch (SDM Vol. 3C chapters 25 and 26), computed from what the processor can.

use bitflags::bitflags;
use cpu::vmx::{Capabilities, ept};

use crate::Parts;

bitflags! {
    /// Pin-based controls.
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Pin: u32 {
        const INTERRUPT = 1 << 0;
        const NON_MASKABLE = 1 << 3;
        const VIRTUAL_NON_MASKABLE = 1 << 5;
        const PREEMPTION_TIMER = 1 << 6;
    }
}

bitflags! {
    /// Primary processor-based controls.
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Primary: u32 {
        const INTERRUPT_WINDOW = 1 << 2;
        const TICKS_OFFSET = 1 << 3;
        const HLT = 1 << 7;
        const INVLPG = 1 << 9;
        const MWAIT = 1 << 10;
        const RDPMC = 1 << 11;
        const RDTSC = 1 << 12;
        const CR3_LOAD = 1 << 15;
        const CR3_STORE = 1 << 16;
        const CR8_LOAD = 1 << 19;
        const CR8_STORE = 1 << 20;
        const TASK_PRIORITY_SHADOW = 1 << 21;
        const NON_MASKABLE_WINDOW = 1 << 22;
        const DEBUG_REGISTERS = 1 << 23;
        const PORT = 1 << 24;
        const PORT_BITMAPS = 1 << 25;
        const MONITOR_TRAP = 1 << 27;
        const MSR_BITMAPS = 1 << 28;
        const MONITOR = 1 << 29;
        const PAUSE = 1 << 30;
        const SECONDARY = 1 << 31;
    }
}

bitflags! {
    /// Secondary processor-based controls.
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct Secondary: u32 {
        const EPT = 1 << 1;
        const RDTSCP = 1 << 3;
        const EXTENDED_APIC = 1 << 4;
        const VPID = 1 << 5;
        const WBINVD = 1 << 6;
        const UNRESTRICTED = 1 << 7;
        const INTERRUPT_DELIVERY = 1 << 9;
        const INVPCID = 1 << 12;
        const XSAVES = 1 << 20;
    }
}

bitflags! {
    /// VM-exit controls.
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct ExitControls: u32 {
        const SAVE_DEBUG = 1 << 2;
        const HOST_64 = 1 << 9;
        const ACKNOWLEDGE = 1 << 15;
        const LOAD_PAT = 1 << 19;
        const LOAD_EFER = 1 << 21;
        const SAVE_TIMER = 1 << 22;
    }
}

bitflags! {
    /// VM-entry controls.
    #[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
    pub struct EntryControls: u32 {
        const LOAD_DEBUG = 1 << 2;
        const LONG_MODE = 1 << 9;
        const LOAD_PAT = 1 << 14;
        const LOAD_EFER = 1 << 15;
    }
}

/// The controls of a virtual processor, as the processor takes them: with those bits of the reserved ones that must be 1.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Controls {
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
}

/// What is always asked for. Every port access comes back, so that no bitmaps are needed.
const PIN: Pin = Pin::INTERRUPT.union(Pin::NON_MASKABLE).union(Pin::VIRTUAL_NON_MASKABLE);
const PRIMARY: Primary = Primary::TICKS_OFFSET
    .union(Primary::HLT)
    .union(Primary::MWAIT)
    .union(Primary::RDPMC)
    .union(Primary::CR8_LOAD)
    .union(Primary::CR8_STORE)
    .union(Primary::PORT)
    .union(Primary::MSR_BITMAPS)
    .union(Primary::MONITOR)
    .union(Primary::SECONDARY);
/// What is switched on in the course of a guest's life.
const PRIMARY_AT_TIMES: Primary = Primary::INTERRUPT_WINDOW.union(Primary::NON_MASKABLE_WINDOW);
const SECONDARY: Secondary = Secondary::EPT.union(Secondary::WBINVD);
const EXIT: ExitControls = ExitControls::SAVE_DEBUG
    .union(ExitControls::HOST_64)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::LOAD_EFER);
const ENTRY: EntryControls =
    EntryControls::LOAD_DEBUG.union(EntryControls::LOAD_PAT).union(EntryControls::LOAD_EFER);

/// Said where a processor has no XSAVES, or none for guests.
pub const NO_XSAVES: &str = "this processor has no XSAVES that guests could execute, which part xsaves needs";

/// Adds to what is `wanted` what must be, by a capability word. `None`: something wanted cannot be.
const fn adjust(wanted: u32, word: u64) -> Option<u32> {
    let (ones, possible) = (word as u32, (word >> 32) as u32);
    if wanted & !possible == 0 { Some(wanted | ones) } else { None }
}

impl Controls {
    /// The controls for a product with these hardware parts; an error is a sentence that says what the processor lacks. `rdtscp` says whether
    /// the processor has RDTSCP.
    pub fn compute<P: Parts>(capabilities: &Capabilities, rdtscp: bool) -> Result<Self, &'static str> {
        let possible = |word: u64, bit: u32| word >> 32 & bit as u64 != 0;
        let (mut pin, mut secondary) = (PIN, SECONDARY);
        if capabilities.secondary == 0 || !possible(capabilities.secondary, Secondary::EPT.bits()) {
            return Err("this processor has VT-x but no extended page tables, which part vmx needs");
        }
        if P::UNRESTRICTED {
            if !possible(capabilities.secondary, Secondary::UNRESTRICTED.bits()) {
                return Err(
                    "this processor cannot run guests without paging, which part unrestricted-guest needs",
                );
            }
            secondary |= Secondary::UNRESTRICTED;
        }
        if P::TAGGED {
            let needed = ept::INVALIDATE_TAG | ept::INVALIDATE_ONE_TAG;
            if !possible(capabilities.secondary, Secondary::VPID.bits())
                || capabilities.ept_vpid & needed != needed
            {
                return Err("this processor does not tag translations, which part vpid needs");
            }
            secondary |= Secondary::VPID;
        }
        if P::TIMER {
            if !possible(capabilities.pin, Pin::PREEMPTION_TIMER.bits()) {
                return Err("this processor has no VMX-preemption timer, which part preemption-timer needs");
            }
            pin |= Pin::PREEMPTION_TIMER;
        }
        if P::XSAVES {
            if !possible(capabilities.secondary, Secondary::XSAVES.bits()) {
                return Err(NO_XSAVES);
            }
            secondary |= Secondary::XSAVES;
        }
        // Switched on and off with the mode of the guest's local APIC.
        if P::DELIVERS {
            let held = Secondary::EXTENDED_APIC | Secondary::INTERRUPT_DELIVERY;
            let exits = (Primary::CR8_LOAD | Primary::CR8_STORE).bits();
            if adjust(Primary::TASK_PRIORITY_SHADOW.bits(), capabilities.primary)
                .is_none_or(|on| on & exits != 0)
                || adjust(held.bits(), capabilities.secondary).is_none()
            {
                return Err(
                    "this processor does not deliver interrupts by itself, which part apic-virtualization needs",
                );
            }
        }
        // RDTSCP is shown to guests wherever it is, and has to be allowed.
        if rdtscp {
            secondary |= Secondary::RDTSCP;
        }
        let at_times = adjust((PRIMARY | PRIMARY_AT_TIMES).bits(), capabilities.primary);
        let controls = Self {
            pin: adjust(pin.bits(), capabilities.pin)
                .ok_or("this processor's VT-x has no virtual NMIs, which part vmx needs")?,
            primary: at_times
                .and(adjust(PRIMARY.bits(), capabilities.primary))
                .ok_or("this processor's VT-x lacks exits that part vmx needs")?,
            secondary: adjust(secondary.bits(), capabilities.secondary).ok_or(
                "this processor's VT-x lacks exits for WBINVD or RDTSCP for guests, which part vmx needs",
            )?,
            exit: adjust(EXIT.bits(), capabilities.exit).ok_or(
                "this processor's VT-x does not switch EFER and PAT at VM exits, which part vmx needs",
            )?,
            entry: adjust(ENTRY.bits(), capabilities.entry).ok_or(
                "this processor's VT-x does not switch EFER and PAT at VM entries, which part vmx needs",
            )?,
        };
        // What nobody here serves must not be forced on: such a processor only has the controls of the first generation.
        let forced = Primary::from_bits_truncate(controls.primary);
        if forced.intersects(Primary::CR3_LOAD | Primary::CR3_STORE | Primary::INVLPG) {
            return Err(
                "this processor's VT-x leaves a guest no page tables of its own, which part vmx needs",
            );
        }
        Ok(controls)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::Vmx;
    use contracts::absent::Absent;
    use contracts::{DeadlineTimer, InterruptDelivery, SupervisorState, TranslationTags, UnpagedModes};

    pub struct Present;

    impl UnpagedModes for Present {
        const UNRESTRICTED: bool = true;
    }

    impl TranslationTags for Present {
        const TAGGED: bool = true;
    }

    impl InterruptDelivery for Present {
        const HELD: bool = true;
    }

    impl DeadlineTimer for Present {
        const PRESENT: bool = true;
    }

    impl SupervisorState for Present {
        const SAVED: bool = true;
    }

    /// A processor with everything, whose reserved bits that must be 1 are the manual's (SDM Vol. 3D appendix A.3 to A.5).
    pub fn everything() -> Capabilities {
        let must = |ones: u64, possible: u64| ones | (possible | ones) << 32;
        Capabilities {
            feature_control: 5,
            basic: 0x00d8_1000_0000_0012,
            pin: must(0x16, 0xff),
            primary: must(0x0400_6172, 0xffff_ffff),
            secondary: must(0, 0x0013_ffff),
            exit: must(0x0003_6dfb, 0x00ff_ffff),
            entry: must(0x0000_11fb, 0x0000_ffff),
            miscellaneous: 5,
            cr0_ones: 0x8000_0021,
            cr0_possible: 0xffff_ffff,
            cr4_ones: 0x2000,
            cr4_possible: 0x0037_67ff,
            ept_vpid: 0x0f01_0633_4141,
        }
    }

    #[test]
    fn reserved_bits_are_as_the_processor_wants_them() {
        let controls =
            Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Absent>>(&everything(), true).unwrap();
        assert_eq!(controls.pin, 0x16 | 0x29);
        assert_eq!(controls.primary, 0x0400_6172 | PRIMARY.bits());
        assert_eq!(controls.secondary, 0x4a);
        assert_eq!(controls.exit, 0x0003_6dfb | 1 << 9 | 1 << 2 | 1 << 19 | 1 << 21);
        assert_eq!(controls.entry, 0x11fb | 1 << 2 | 1 << 14 | 1 << 15);
        let parts =
            Controls::compute::<Vmx<Present, Present, Present, Present, Present>>(&everything(), false)
                .unwrap();
        assert_eq!((parts.pin, parts.secondary), (controls.pin | 1 << 6, 0x42 | 1 << 20 | 1 << 7 | 1 << 5));
    }

    #[test]
    fn what_a_part_does_not_find_is_named() {
        let all = everything();
        let without = |bit: u32| Capabilities { secondary: all.secondary & !(1 << (32 + bit)), ..all };
        let named =
            |result: Result<Controls, &str>, part: &str| result.is_err_and(|error| error.contains(part));
        assert!(named(
            Controls::compute::<Vmx<Present, Absent, Absent, Absent, Absent>>(&without(7), true),
            "unrestricted-guest"
        ));
        assert!(named(
            Controls::compute::<Vmx<Absent, Present, Absent, Absent, Absent>>(&without(5), true),
            "part vpid"
        ));
        let no_single = Capabilities { ept_vpid: all.ept_vpid & !ept::INVALIDATE_ONE_TAG, ..all };
        assert!(named(
            Controls::compute::<Vmx<Absent, Present, Absent, Absent, Absent>>(&no_single, true),
            "part vpid"
        ));
        let no_timer = Capabilities { pin: all.pin & !(1 << 38), ..all };
        assert!(named(
            Controls::compute::<Vmx<Absent, Absent, Present, Absent, Absent>>(&no_timer, true),
            "preemption-timer"
        ));
        let no_shadow = Capabilities { primary: all.primary & !(1 << 53), ..all };
        let forced = Capabilities { primary: all.primary | 1 << 20, ..all };
        for lacking in [without(4), without(9), no_shadow, forced] {
            let held = Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Present>>(&lacking, true);
            assert!(named(held, "apic-virtualization"));
        }
        assert!(named(
            Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Absent>>(&without(1), true),
            "extended page tables"
        ));
        assert!(named(
            Controls::compute::<Vmx<Absent, Absent, Absent, Present, Absent>>(&without(20), true),
            "part xsaves"
        ));
        for lacking in
            [without(7), without(5), without(20), no_single, no_timer, without(4), without(9), no_shadow]
        {
            assert!(Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Absent>>(&lacking, true).is_ok());
        }
    }

    #[test]
    fn a_processor_of_the_first_generation_is_refused() {
        let all = everything();
        // CR3 loads and stores always exit there: bits 15 and 16 must be 1.
        let forced = Capabilities { primary: all.primary | 0x1_8000, ..all };
        assert!(Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Absent>>(&forced, true).is_err());
        for cut in [
            Capabilities { exit: all.exit & !(1 << 53), ..all },
            Capabilities { entry: all.entry & !(1 << 47), ..all },
            Capabilities { pin: all.pin & !(1 << 37), ..all },
            Capabilities { primary: all.primary & !(1 << 54), ..all },
            Capabilities { secondary: 0, ..all },
        ] {
            assert!(Controls::compute::<Vmx<Absent, Absent, Absent, Absent, Absent>>(&cut, true).is_err());
        }
    }
}
