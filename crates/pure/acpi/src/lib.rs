//! Reads ACPI tables out of untrusted byte slices, bounded.
//!
//! Row 1 (pure). Firmware wrote the tables, and a machine's owner may hold a collected copy in a file: both are
//! allegations. Every reader here takes a slice, looks at nothing outside it, does not allocate, and ends: an iterator
//! yields at most one item for each byte of its table, and a structure whose length cannot be ends it with an error that
//! says where. Nothing here maps memory or follows an address: the caller does, after it judged the address.
//!
//! The order of use at boot: [`find_rsdp`] and [`Rsdp::parse`]; [`Header::parse`] on the first [`HEADER_LENGTH`] bytes of a
//! table says how much to map; [`Table::new`] checks it; [`root_entries`] lists the other tables; then [`Madt`],
//! [`Fadt`], [`Mcfg`], [`Hpet`], [`Tpm2`], [`Tcpa`], [`Dmar`] and [`Ivrs`] read one each, and [`s5_sleep_types`] finds
//! what power-off needs in the DSDT.
//!
//! Section numbers without a title are those of the ACPI Specification, release 6.5.
#![no_std]

mod aml;
mod bytes;
mod dmar;
mod fadt;
mod hpet;
mod ivrs;
mod madt;
mod mcfg;
mod root;
mod table;
mod tpm;

pub use aml::s5_sleep_types;
pub use dmar::{Dmar, DmarStructure, DmarStructures, PciPath, Scope, ScopeKind, Scopes};
pub use fadt::{BootFlags, Fadt, FixedFlags, PmTimer, RegisterAddress, RegisterSpace};
pub use hpet::Hpet;
pub use ivrs::{IommuBlock, IommuEntries, IommuEntry, Ivrs, IvrsBlock, IvrsBlocks, MemoryScope};
pub use madt::{Madt, MadtEntries, MadtEntry, Polarity, Processor, Processors, TriggerMode};
pub use mcfg::{Mcfg, McfgAllocation, McfgAllocations};
pub use root::{RSDP_STEP, RootEntries, Rsdp, find_rsdp, root_entries};
pub use table::{HEADER_LENGTH, Header, Table};
pub use tpm::{EventLogArea, StartMethod, Tcpa, Tpm2};

/// Why something is not read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The slice ends before the structure does.
    Truncated,
    /// The signature is not the one of the structure that was asked for.
    Signature,
    /// The table's length field is smaller than what a table of its kind must hold.
    Length,
    /// The bytes do not add up to zero.
    Checksum,
    /// A structure inside the table is impossible: it is too short for what it says it is, reaches past the end of what holds
    /// it, or contradicts itself. Nothing after it is read.
    Structure {
        /// Where it begins, in bytes from the start of the table.
        offset: usize,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => formatter.write_str("the bytes end before the structure does"),
            Self::Signature => formatter.write_str("the signature is another one's"),
            Self::Length => formatter.write_str("the length is too small for a table of this kind"),
            Self::Checksum => formatter.write_str("the checksum is wrong"),
            Self::Structure { offset } => write!(formatter, "the structure at byte {offset} is impossible"),
        }
    }
}

impl core::error::Error for Error {}
