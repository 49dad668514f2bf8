//! The rules of a VM entry (SDM Vol. 3C §27.2 and §27.3), to name the one that a refused entry breaks. Nothing asks this in a product: see
//! [`Watch::NAMES_RULES`](backend::Watch::NAMES_RULES).
//!
//! Of the rules those are here that this back end's use of the controls can break: what it never switches on has none.

use crate::controls::{EntryControls, Pin, Primary, Secondary};
use crate::event;
use crate::field::{Field, Fields, SegmentFields};
use crate::segment::{BIG, LONG, UNUSABLE};
use cpu::vmx::Capabilities;
use x86::{Cr0, Cr4, Efer, Rflags};

/// What the rules ask of the processor beside the capability MSRs.
#[derive(Copy, Clone, Debug)]
pub struct Processor {
    /// The capability MSRs.
    pub capabilities: Capabilities,
    /// Width of physical addresses in bits.
    pub physical_bits: u8,
}

/// The first of `rules` that does not hold.
fn first(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules.iter().find(|(holds, _)| !holds).map(|(_, name)| *name)
}

const fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

const fn fits(value: u64, word: u64) -> bool {
    let (ones, possible) = (word & 0xffff_ffff, word >> 32);
    value & ones == ones && value & !possible == 0
}

fn types(attributes: u64) -> bool {
    attributes.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

const EFER: Efer =
    Efer::SYSTEM_CALL.union(Efer::LONG_MODE_ENABLE).union(Efer::LONG_MODE_ACTIVE).union(Efer::NO_EXECUTE);

/// The rule that the fields break, if any.
pub fn broken(fields: &impl Fields, processor: &Processor) -> Option<&'static str> {
    controls(fields, processor)
        .or_else(|| event(fields))
        .or_else(|| host(fields, processor))
        .or_else(|| registers(fields, processor))
        .or_else(|| segments(fields))
        .or_else(|| rest(fields))
}

/// SDM Vol. 3C §27.2.1.
fn controls(fields: &impl Fields, processor: &Processor) -> Option<&'static str> {
    let Processor { capabilities, physical_bits } = processor;
    let read = |field| fields.read(field);
    let pin = Pin::from_bits_truncate(read(Field::PIN_CONTROLS) as u32);
    let primary = Primary::from_bits_truncate(read(Field::PRIMARY_CONTROLS) as u32);
    let secondary = Secondary::from_bits_truncate(read(Field::SECONDARY_CONTROLS) as u32);
    let physical = |address: u64, slack: u64| address & slack == 0 && address >> physical_bits == 0;
    let pointer = read(Field::EPT_POINTER);
    first(&[
        (
            fits(read(Field::PIN_CONTROLS), capabilities.pin),
            "the pin-based controls have bits that cannot be",
        ),
        (
            fits(read(Field::PRIMARY_CONTROLS), capabilities.primary),
            "the primary controls have bits that cannot be",
        ),
        (
            fits(read(Field::SECONDARY_CONTROLS), capabilities.secondary),
            "the secondary controls have bits that cannot be",
        ),
        (fits(read(Field::EXIT_CONTROLS), capabilities.exit), "the exit controls have bits that cannot be"),
        (
            fits(read(Field::ENTRY_CONTROLS), capabilities.entry),
            "the entry controls have bits that cannot be",
        ),
        (read(Field::CR3_TARGETS) <= 4, "there are more than four CR3 targets"),
        (physical(read(Field::MSR_BITMAP), 0xfff), "the MSR bitmap has no page's address"),
        (
            pin.contains(Pin::NON_MASKABLE) || !pin.contains(Pin::VIRTUAL_NON_MASKABLE),
            "virtual NMIs need exits for NMIs",
        ),
        (
            pin.contains(Pin::VIRTUAL_NON_MASKABLE) || !primary.contains(Primary::NON_MASKABLE_WINDOW),
            "the NMI window needs virtual NMIs",
        ),
        (
            !secondary.contains(Secondary::VPID) || read(Field::VPID) != 0,
            "the virtual-processor identifier is 0",
        ),
        (
            !secondary.contains(Secondary::EPT) || pointer & 0x3f == 0x1e && physical(pointer & !0x7f, 0xfff),
            "the EPT pointer is not write-back, four levels and a page's address",
        ),
        (
            secondary.contains(Secondary::EPT) || !secondary.contains(Secondary::UNRESTRICTED),
            "an unrestricted guest needs extended page tables",
        ),
        (
            !primary.contains(Primary::TASK_PRIORITY_SHADOW) || physical(read(Field::VIRTUAL_APIC), 0xfff),
            "the virtual-APIC page has no page's address",
        ),
        (
            primary.contains(Primary::TASK_PRIORITY_SHADOW)
                || !secondary.intersects(Secondary::EXTENDED_APIC | Secondary::INTERRUPT_DELIVERY),
            "an x2APIC and interrupts of the processor's own need the virtual-APIC page",
        ),
        (
            pin.contains(Pin::INTERRUPT) || !secondary.contains(Secondary::INTERRUPT_DELIVERY),
            "interrupts of the processor's own need exits for the host's",
        ),
        (read(Field::EXIT_MSR_STORES) | read(Field::EXIT_MSR_LOADS) == 0, "an exit switches MSRs by a list"),
        (read(Field::ENTRY_MSR_LOADS) == 0, "the entry switches MSRs by a list"),
    ])
}

/// SDM Vol. 3C §27.2.1.3, the event to be injected; and where it meets the guest's state (§27.3.1.4, §27.3.1.5).
fn event(fields: &impl Fields) -> Option<&'static str> {
    let event = fields.read(Field::ENTRY_EVENT);
    if event & event::VALID == 0 {
        return None;
    }
    let (kind, vector) = (event & event::TYPE, event & 0xff);
    let coded = kind == event::EXCEPTION
        && matches!(vector, 8 | 10..=14 | 17)
        && fields.read(Field::GUEST_CR0) & Cr0::PROTECTION.bits() != 0;
    let length = fields.read(Field::ENTRY_LENGTH);
    let interruptibility = fields.read(Field::GUEST_INTERRUPTIBILITY);
    let flags = fields.read(Field::GUEST_RFLAGS);
    first(&[
        (kind >> 8 != 1 && kind >> 8 != 7, "the event to be injected has no type that is used here"),
        (kind != event::NON_MASKABLE || vector == 2, "an NMI has another vector than 2"),
        (kind != event::EXCEPTION || vector < 32, "an exception has a vector above 31"),
        (
            (event & event::HAS_ERROR_CODE != 0) == coded,
            "the event to be injected has an error code that it should not have, or none",
        ),
        (
            !coded || fields.read(Field::ENTRY_ERROR_CODE) >> 16 == 0,
            "the error code to be injected has reserved bits",
        ),
        (event & 0x7fff_f000 == 0, "the event to be injected has reserved bits"),
        (
            kind >> 8 < 4 || (1..=15).contains(&length),
            "a software event is to be injected without an instruction's length",
        ),
        (
            kind != event::INTERRUPT || flags & Rflags::INTERRUPT.bits() != 0,
            "an interrupt is to be injected and RFLAGS.IF is 0",
        ),
        (
            kind != event::INTERRUPT || interruptibility & event::SHADOW == 0,
            "an interrupt is to be injected behind STI or MOV to SS",
        ),
        (
            kind != event::NON_MASKABLE
                || interruptibility & (event::SHADOW | event::NON_MASKABLE_MASKED) == 0,
            "an NMI is to be injected where NMIs are masked",
        ),
    ])
}

/// SDM Vol. 3C §27.2.2 to §27.2.4.
fn host(fields: &impl Fields, processor: &Processor) -> Option<&'static str> {
    let Processor { capabilities, physical_bits } = processor;
    let read = |field| fields.read(field);
    let (cr0, cr4, efer) = (read(Field::HOST_CR0), read(Field::HOST_CR4), read(Field::HOST_EFER));
    let long = (Efer::LONG_MODE_ENABLE | Efer::LONG_MODE_ACTIVE).bits();
    let null = [
        Field::HOST_ES_SELECTOR,
        Field::HOST_CS_SELECTOR,
        Field::HOST_SS_SELECTOR,
        Field::HOST_DS_SELECTOR,
        Field::HOST_FS_SELECTOR,
        Field::HOST_GS_SELECTOR,
        Field::HOST_TR_SELECTOR,
    ];
    let bases = [
        Field::HOST_FS_BASE,
        Field::HOST_GS_BASE,
        Field::HOST_TR_BASE,
        Field::HOST_GDTR_BASE,
        Field::HOST_IDTR_BASE,
        Field::HOST_SYSENTER_ESP,
        Field::HOST_SYSENTER_EIP,
        Field::HOST_RIP,
    ];
    first(&[
        (
            cr0 & capabilities.cr0_ones == capabilities.cr0_ones && cr0 & !capabilities.cr0_possible == 0,
            "the host's CR0 has bits that cannot be",
        ),
        (
            cr4 & capabilities.cr4_ones == capabilities.cr4_ones && cr4 & !capabilities.cr4_possible == 0,
            "the host's CR4 has bits that cannot be",
        ),
        (read(Field::HOST_CR3) >> physical_bits == 0, "the host's CR3 is beyond physical addresses"),
        (cr4 & Cr4::PHYSICAL_ADDRESS.bits() != 0, "the host's CR4 has no PAE"),
        (types(read(Field::HOST_PAT)), "the host's PAT has memory types that do not exist"),
        (efer & !EFER.bits() == 0 && efer & long == long, "the host's EFER is not that of long mode"),
        (
            null.iter().all(|field| read(*field) & 7 == 0),
            "a selector of the host has a privilege or means the LDT",
        ),
        (
            read(Field::HOST_CS_SELECTOR) != 0 && read(Field::HOST_TR_SELECTOR) != 0,
            "the host's CS or TR is null",
        ),
        (bases.iter().all(|field| canonical(read(*field))), "an address of the host is not canonical"),
    ])
}

/// SDM Vol. 3C §27.3.1.1.
fn registers(fields: &impl Fields, processor: &Processor) -> Option<&'static str> {
    let Processor { capabilities, physical_bits } = processor;
    let read = |field| fields.read(field);
    let has = |field, bits: u64| read(field) & bits == bits;
    let (cr0, cr4) = (read(Field::GUEST_CR0), read(Field::GUEST_CR4));
    let secondary = Secondary::from_bits_truncate(read(Field::SECONDARY_CONTROLS) as u32);
    let unpaged = Cr0::PROTECTION.union(Cr0::PAGING).bits();
    let exempt = if secondary.contains(Secondary::UNRESTRICTED) { unpaged } else { 0 };
    let ones = capabilities.cr0_ones & !exempt;
    let long = has(Field::ENTRY_CONTROLS, EntryControls::LONG_MODE.bits().into());
    let efer = read(Field::GUEST_EFER);
    let (enabled, active) =
        (efer & Efer::LONG_MODE_ENABLE.bits() != 0, efer & Efer::LONG_MODE_ACTIVE.bits() != 0);
    let paging = cr0 & Cr0::PAGING.bits() != 0;
    // CD and NW are not loaded by an entry, and may be anything.
    let possible = capabilities.cr0_possible | (Cr0::CACHE_DISABLE | Cr0::NOT_WRITETHROUGH).bits();
    first(&[
        (cr0 & ones == ones && cr0 & !possible == 0, "CR0 has bits that cannot be"),
        (!paging || cr0 & Cr0::PROTECTION.bits() != 0, "CR0 has paging without protection"),
        (
            cr4 & capabilities.cr4_ones == capabilities.cr4_ones && cr4 & !capabilities.cr4_possible == 0,
            "CR4 has bits that cannot be",
        ),
        (read(Field::GUEST_DEBUG_CONTROL) & !0xffc3 == 0, "DEBUGCTL has reserved bits"),
        (
            !long || paging && cr4 & Cr4::PHYSICAL_ADDRESS.bits() != 0,
            "long mode is entered without paging or PAE",
        ),
        (long || cr4 & Cr4::PROCESS_CONTEXT.bits() == 0, "CR4.PCIDE is set outside long mode"),
        (read(Field::GUEST_CR3) >> physical_bits == 0, "CR3 is beyond physical addresses"),
        (read(Field::GUEST_DR7) >> 32 == 0, "DR7 has bits above 31"),
        (
            canonical(read(Field::GUEST_SYSENTER_ESP)) && canonical(read(Field::GUEST_SYSENTER_EIP)),
            "an address for SYSENTER is not canonical",
        ),
        (types(read(Field::GUEST_PAT)), "PAT has memory types that do not exist"),
        (efer & !EFER.bits() == 0, "EFER has reserved bits"),
        (active == long, "EFER.LMA is not what the entry controls say"),
        (!paging || active == enabled, "EFER.LMA and EFER.LME differ with paging on"),
    ])
}

/// SDM Vol. 3C §27.3.1.2 and §27.3.1.3.
fn segments(fields: &impl Fields) -> Option<&'static str> {
    const ODD: [&str; 6] = [
        "ES has access rights or a limit that cannot be",
        "CS has access rights or a limit that cannot be",
        "SS has access rights or a limit that cannot be",
        "DS has access rights or a limit that cannot be",
        "FS has access rights or a limit that cannot be",
        "GS has access rights or a limit that cannot be",
    ];
    let read = |field| fields.read(field);
    let access = |register: u32| read(SegmentFields(register).access());
    let selector = |register: u32| read(SegmentFields(register).selector());
    let base = |register: u32| read(SegmentFields(register).base());
    let limit = |register: u32| read(SegmentFields(register).limit());
    let level = |access: u64| access >> 5 & 3;
    let usable = |register: u32| access(register) & UNUSABLE == 0;
    let unrestricted = Secondary::from_bits_truncate(read(Field::SECONDARY_CONTROLS) as u32)
        .contains(Secondary::UNRESTRICTED);
    let long = read(Field::ENTRY_CONTROLS) & u64::from(EntryControls::LONG_MODE.bits()) != 0;
    let old = read(Field::GUEST_RFLAGS) & Rflags::VIRTUAL_8086.bits() != 0;
    let real = read(Field::GUEST_CR0) & Cr0::PROTECTION.bits() == 0;
    let (es, cs, ss, fs, gs, ldtr, tr) = (0, 1, 2, 4, 5, 6, 7);
    let granular = |register: u32| {
        let (limit, coarse) = (limit(register), access(register) >> 15 & 1 == 1);
        (limit & 0xfff == 0xfff || !coarse) && (limit >> 20 == 0 || coarse)
    };
    if old {
        let as_real = |register: u32| {
            base(register) == selector(register) << 4 && limit(register) == 0xffff && access(register) == 0xf3
        };
        if !(es..=gs).all(as_real) {
            return Some("a segment of virtual-8086 mode is not as that mode has it");
        }
    } else {
        let (code, stack) = (access(cs), access(ss));
        let code_type = code & 15;
        let broken = first(&[
            (
                unrestricted || (selector(ss) ^ selector(cs)) & 3 == 0,
                "SS and CS have different privileges requested",
            ),
            (
                matches!(code_type, 9 | 11 | 13 | 15) || unrestricted && code_type == 3,
                "CS is no accessed code segment",
            ),
            (code & UNUSABLE == 0 && code & 0x90 == 0x90, "CS is not present, or a system segment"),
            (
                match code_type {
                    3 => level(code) == 0,
                    9 | 11 => level(code) == level(stack),
                    _ => level(code) <= level(stack),
                },
                "CS has a privilege that does not fit SS's",
            ),
            (!long || code & LONG == 0 || code & BIG == 0, "CS is 64-bit and 32-bit code at once"),
            (!usable(ss) || matches!(stack & 15, 3 | 7), "SS is no accessed writable segment"),
            (
                if real || code_type == 3 {
                    level(stack) == 0
                } else {
                    unrestricted || level(stack) == selector(ss) & 3
                },
                "SS has another privilege than its selector requests",
            ),
        ]);
        if broken.is_some() {
            return broken;
        }
        for register in (es..=gs).filter(|register| usable(*register)) {
            let rights = access(register);
            let data = register != cs && register != ss;
            let broken = rights & 0x90 != 0x90
                || rights & 0xfffe_0f00 != 0
                || !granular(register)
                || data && (rights & 1 == 0 || rights & 8 != 0 && rights & 2 == 0)
                || data && !unrestricted && rights & 15 <= 11 && level(rights) < selector(register) & 3;
            if broken {
                return ODD.get(register as usize).copied();
            }
        }
    }
    let task = access(tr);
    first(&[
        (base(cs) >> 32 == 0, "CS has a base above 4 GiB"),
        (
            [es, ss, 3].into_iter().all(|register| !usable(register) || base(register) >> 32 == 0),
            "ES, SS or DS has a base above 4 GiB",
        ),
        (
            canonical(base(fs)) && canonical(base(gs)) && canonical(base(tr)),
            "the base of FS, GS or TR is not canonical",
        ),
        (task & 15 == 11 || !long && task & 15 == 3, "TR is no busy task state segment"),
        (
            task & (UNUSABLE | 0x90) == 0x80 && task & 0xfffe_0f00 == 0 && granular(tr),
            "TR is not present, or odd",
        ),
        (selector(tr) & 4 == 0, "TR lies in the LDT"),
        (
            !usable(ldtr)
                || access(ldtr) & 0x9f == 0x82
                    && access(ldtr) & 0xfffe_0f00 == 0
                    && granular(ldtr)
                    && selector(ldtr) & 4 == 0
                    && canonical(base(ldtr)),
            "LDTR is no local descriptor table",
        ),
        (
            canonical(read(Field::GUEST_GDTR_BASE)) && canonical(read(Field::GUEST_IDTR_BASE)),
            "the base of GDTR or IDTR is not canonical",
        ),
        (
            (read(Field::GUEST_GDTR_LIMIT) | read(Field::GUEST_IDTR_LIMIT)) >> 16 == 0,
            "the limit of GDTR or IDTR is above 65,535",
        ),
    ])
}

/// SDM Vol. 3C §27.3.1.4 and §27.3.1.5.
fn rest(fields: &impl Fields) -> Option<&'static str> {
    let read = |field| fields.read(field);
    let long = read(Field::ENTRY_CONTROLS) & u64::from(EntryControls::LONG_MODE.bits()) != 0;
    let wide = long && read(Field::GUEST_CS_ACCESS) & LONG != 0;
    let (rip, flags) = (read(Field::GUEST_RIP), read(Field::GUEST_RFLAGS));
    let protected = read(Field::GUEST_CR0) & Cr0::PROTECTION.bits() != 0;
    let blocking = read(Field::GUEST_INTERRUPTIBILITY);
    let shadow = blocking & event::SHADOW;
    let pending = read(Field::GUEST_PENDING_DEBUG);
    let stepping = flags & Rflags::TRAP.bits() != 0 && read(Field::GUEST_DEBUG_CONTROL) & 2 == 0;
    first(&[
        (if wide { canonical(rip) } else { rip >> 32 == 0 }, "RIP is not an address of the guest's mode"),
        (flags & 0xffff_ffff_ffc0_802a == 2, "RFLAGS has reserved bits"),
        (
            flags & Rflags::VIRTUAL_8086.bits() == 0 || !long && protected,
            "virtual-8086 mode is entered from long mode or without protection",
        ),
        (read(Field::GUEST_ACTIVITY) == 0, "the guest is not active"),
        (blocking >> 5 == 0, "the interruptibility state has reserved bits"),
        (shadow != 3, "STI and MOV to SS shield at once"),
        (shadow & 1 == 0 || flags & Rflags::INTERRUPT.bits() != 0, "STI shields, and RFLAGS.IF is 0"),
        (pending & !0x1_500f == 0, "the pending debug exceptions have reserved bits"),
        (
            shadow == 0 || (pending >> 14 & 1 == 1) == stepping,
            "behind STI or MOV to SS a single step is not pending although it should be, or it is and should not be",
        ),
        (read(Field::LINK_POINTER) == u64::MAX, "the link pointer is not all ones"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::tests::everything;
    use crate::vcpu::tests::{Model, attached};

    fn processor() -> Processor {
        Processor { capabilities: everything(), physical_bits: 40 }
    }

    /// A virtual processor that starts in real mode; its fields, with some changed.
    fn rule(changes: &[(Field, u64)]) -> Option<&'static str> {
        let mut model: Model = attached().into_model();
        for (field, value) in changes {
            model.write(*field, *value);
        }
        broken(&model, &processor())
    }

    #[test]
    fn what_starts_breaks_no_rule() {
        assert_eq!(rule(&[]), None);
    }

    #[test]
    fn each_broken_rule_is_named() {
        let event = |event| (Field::ENTRY_EVENT, event::VALID | event);
        for (changes, words) in [
            (&[(Field::PIN_CONTROLS, 0)][..], "pin-based"),
            (&[(Field::PRIMARY_CONTROLS, 0)], "primary"),
            (&[(Field::EXIT_CONTROLS, 0)], "exit controls"),
            (&[(Field::ENTRY_CONTROLS, 0)], "entry controls"),
            (&[(Field::MSR_BITMAP, 0x800)], "MSR bitmap"),
            (&[(Field::EPT_POINTER, 0x1000)], "EPT pointer"),
            (&[(Field::VPID, 0)], "identifier is 0"),
            (&[(Field::CR3_TARGETS, 5)], "CR3 targets"),
            (&[event(0x30)], "RFLAGS.IF is 0"),
            (&[event(event::NON_MASKABLE | 3)], "another vector"),
            (&[event(event::NON_MASKABLE | 2), (Field::GUEST_INTERRUPTIBILITY, 8)], "NMIs are masked"),
            (&[event(event::EXCEPTION | 40)], "above 31"),
            (&[event(event::EXCEPTION | event::HAS_ERROR_CODE | 13)], "error code"),
            (&[event(event::PRIVILEGED | 1)], "length"),
            (&[(Field::HOST_CR4, 0)], "host's CR4"),
            (&[(Field::HOST_EFER, 0)], "host's EFER"),
            (&[(Field::HOST_TR_SELECTOR, 0)], "null"),
            (&[(Field::HOST_TR_SELECTOR, 0x1b)], "selector of the host"),
            (&[(Field::HOST_RIP, 1 << 47)], "canonical"),
            (&[(Field::HOST_CR3, 1 << 40)], "host's CR3"),
            (&[(Field::GUEST_CR0, 0x10)], "CR0 has bits"),
            (&[(Field::GUEST_CR0, 0x8000_0030)], "without protection"),
            (&[(Field::GUEST_CR4, 0)], "CR4 has bits"),
            (&[(Field::GUEST_CR3, 1 << 40)], "CR3 is beyond"),
            (&[(Field::GUEST_PAT, 2)], "PAT"),
            (&[(Field::GUEST_EFER, 1 << 12)], "EFER has reserved"),
            (&[(Field::GUEST_EFER, 1 << 10)], "LMA is not"),
            (&[(Field::GUEST_CS_ACCESS, 0x92)], "code segment"),
            (&[(Field::GUEST_CS_ACCESS, 0x1009b | 1 << 16)], "not present"),
            (&[(Field::GUEST_SS_ACCESS, 0x9b)], "SS is no"),
            (&[(Field::GUEST_SS_ACCESS, 0xf3)], "privilege that does not fit"),
            (&[(Field::GUEST_ES_ACCESS, 0x83)], "ES has access"),
            (&[(Field::GUEST_ES_LIMIT, 0x10_0000)], "ES has access"),
            (&[(Field::GUEST_TR_ACCESS, 0x89)], "busy"),
            (&[(Field::GUEST_TR_SELECTOR, 4)], "in the LDT"),
            (&[(Field::GUEST_LDTR_ACCESS, 0x83)], "local descriptor"),
            (&[(Field::GUEST_GDTR_LIMIT, 0x1_0000)], "limit of GDTR"),
            (&[(Field::GUEST_RIP, 1 << 32)], "RIP"),
            (&[(Field::GUEST_RFLAGS, 0)], "RFLAGS has"),
            (&[(Field::GUEST_RFLAGS, 0x2_0002)], "virtual-8086"),
            (&[(Field::GUEST_ACTIVITY, 1)], "active"),
            (&[(Field::GUEST_INTERRUPTIBILITY, 1)], "STI shields, and"),
            (&[(Field::GUEST_INTERRUPTIBILITY, 2), (Field::GUEST_RFLAGS, 0x102)], "single step"),
            (&[(Field::LINK_POINTER, 0)], "link pointer"),
        ] {
            let found = rule(changes);
            assert!(found.is_some_and(|found| found.contains(words)), "{changes:x?}: {found:?}");
        }
    }
}
