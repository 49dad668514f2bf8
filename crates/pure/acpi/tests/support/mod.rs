//! Reads everything that there is to read in some bytes, by every reader. Shared with the fuzz target.

use acpi::{
    Dmar, DmarStructure, Fadt, Header, Hpet, Ivrs, IvrsBlock, Madt, Mcfg, Rsdp, Scopes, Table, Tcpa, Tpm2,
};

/// What a full reading met.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Structures that were read.
    pub structures: usize,
    /// The offset of each structure that could not be.
    pub impossible: Vec<usize>,
}

impl Seen {
    /// Counts what an iterator yields, and checks what all promise: at most one item for each byte, nothing
    /// after an error, and errors that lie inside the table.
    fn drain<T>(
        &mut self,
        limit: usize,
        mut items: impl Iterator<Item = Result<T, acpi::Error>>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        let mut count = 0;
        while let Some(item) = items.next() {
            count += 1;
            assert!(count <= limit, "more items than bytes");
            match item {
                Ok(item) => {
                    self.structures += 1;
                    each(self, item);
                }
                Err(acpi::Error::Structure { offset }) => {
                    assert!(offset < limit, "an error outside the table");
                    assert!(items.next().is_none(), "an item after an error");
                    self.impossible.push(offset);
                    return;
                }
                Err(other) => panic!("{other:?} of a structure"),
            }
        }
        assert!(items.next().is_none(), "an item after the end");
    }

    fn scopes(&mut self, limit: usize, scopes: Scopes<'_>) {
        self.drain(limit, scopes, |_, scope| {
            assert!(scope.path.clone().count() >= 1, "a path without a step");
        });
    }
}

/// Reads `bytes` by every reader there is. Panics only if the crate breaks a promise.
pub fn read_all(bytes: &[u8]) -> Seen {
    let limit = bytes.len();
    let mut seen = Seen::default();
    if let Some(offset) = acpi::find_rsdp(bytes) {
        assert!(offset.is_multiple_of(acpi::RSDP_STEP));
        assert!(Rsdp::parse(&bytes[offset..]).is_ok());
    }
    let _ = Rsdp::parse(bytes);
    let _ = Header::parse(bytes);
    if let Some((a, b)) = acpi::s5_sleep_types(bytes) {
        assert!(a < 8 && b < 8);
    }
    if let Ok(table) = Table::with_any_checksum(bytes) {
        assert_eq!(table.checksum_is_right(), Table::new(bytes).is_ok());
        if let Ok(entries) = acpi::root_entries(&table) {
            assert!(entries.count() <= limit / 4);
        }
    }
    if let Ok(madt) = Madt::parse(bytes) {
        let _ = (madt.local_apic_address(), madt.has_legacy_pic());
        let mut processors = Seen::default();
        processors.drain(limit, madt.processors(), |_, _| ());
        seen.drain(limit, madt.entries(), |_, _| ());
    }
    if let Ok(fadt) = Fadt::parse(bytes) {
        let _ = (fadt.dsdt(), fadt.firmware_control(), fadt.preferred_profile(), fadt.sci_interrupt());
        let _ = (fadt.smi_command(), fadt.acpi_enable(), fadt.acpi_disable(), fadt.century());
        let _ = (fadt.pm1a_event(), fadt.pm1b_event(), fadt.pm1a_control(), fadt.pm1b_control());
        let _ = (fadt.pm2_control(), fadt.pm_timer(), fadt.general_event_0(), fadt.general_event_1());
        let _ = (fadt.sleep_control(), fadt.boot_flags(), fadt.flags(), fadt.reset(), fadt.hypervisor());
    }
    if let Ok(mcfg) = Mcfg::parse(bytes) {
        seen.drain(limit, mcfg.allocations(), |_, window| {
            let _ = window.function(window.last_bus, 31, 7);
        });
    }
    let _ = (Hpet::parse(bytes), Tpm2::parse(bytes), Tcpa::parse(bytes));
    if let Ok(dmar) = Dmar::parse(bytes) {
        let _ = dmar.address_bits();
        seen.drain(limit, dmar.structures(), |seen, structure| match structure {
            DmarStructure::Unit { scopes, .. }
            | DmarStructure::ReservedMemory { scopes, .. }
            | DmarStructure::RootPorts { scopes, .. }
            | DmarStructure::SocTranslation { scopes, .. }
            | DmarStructure::SocProperties { scopes, .. } => seen.scopes(limit, scopes),
            _ => {}
        });
    }
    if let Ok(ivrs) = Ivrs::parse(bytes) {
        let _ = (ivrs.physical_address_bits(), ivrs.virtual_address_bits());
        seen.drain(limit, ivrs.blocks(), |seen, block| {
            if let IvrsBlock::Iommu(iommu) = block {
                seen.drain(limit, iommu.entries, |_, _| ());
            }
        });
    }
    seen
}
