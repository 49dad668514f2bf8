//! Fixed hardware: the FADT.

use crate::bytes::{byte, double_word, quad_word, word};
use crate::{Error, Table};

/// Bytes of the ACPI 1.0 table, the shortest one.
const LEAST: usize = 116;

/// Where a register lies (§5.2.3.2, table 5.1).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RegisterSpace {
    /// Memory, by physical address.
    Memory,
    /// I/O ports.
    Port,
    /// PCI configuration space of a device on bus 0 of segment 0: bits 47–32 are the device, 31–16 the function, 15–0 the
    /// offset.
    PciConfiguration,
    /// Another one.
    Other(u8),
}

/// A generic address structure (§5.2.3.2).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RegisterAddress {
    /// Where.
    pub space: RegisterSpace,
    /// Bits of the register, 0 where it was not said.
    pub bit_width: u8,
    /// Its first bit at that address.
    pub bit_offset: u8,
    /// 0 undefined, 1 byte, 2 word, 3 double word, 4 quad word.
    pub access_size: u8,
    /// The address in that space.
    pub address: u64,
}

impl RegisterAddress {
    /// Bytes of the structure.
    pub(crate) const LENGTH: usize = 12;

    /// The structure at `offset`; `None` where the bytes end before it does.
    pub(crate) fn read(bytes: &[u8], offset: usize) -> Option<Self> {
        let bytes = bytes.get(offset..)?;
        Some(Self {
            space: match byte(bytes, 0)? {
                0 => RegisterSpace::Memory,
                1 => RegisterSpace::Port,
                2 => RegisterSpace::PciConfiguration,
                other => RegisterSpace::Other(other),
            },
            bit_width: byte(bytes, 1)?,
            bit_offset: byte(bytes, 2)?,
            access_size: byte(bytes, 3)?,
            address: quad_word(bytes, 4)?,
        })
    }

    /// The port, if it is one that exists.
    pub fn port(&self) -> Option<u16> {
        match self.space {
            RegisterSpace::Port => u16::try_from(self.address).ok(),
            _ => None,
        }
    }
}

/// `IAPC_BOOT_ARCH` (§5.2.9.3): which legacy devices there are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BootFlags(pub u16);

impl BootFlags {
    /// There are devices on an LPC or ISA bus.
    pub const fn legacy_devices(self) -> bool {
        self.0 & 1 != 0
    }

    /// There is an 8042 keyboard controller.
    pub const fn keyboard_controller(self) -> bool {
        self.0 & 2 != 0
    }

    /// Probing for VGA is not safe.
    pub const fn no_vga(self) -> bool {
        self.0 & 4 != 0
    }

    /// Message-signalled interrupts must not be used.
    pub const fn no_message_interrupts(self) -> bool {
        self.0 & 8 != 0
    }

    /// There is no CMOS clock at the usual ports.
    pub const fn no_cmos_clock(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// The fixed feature flags (§5.2.9, table 5.10).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FixedFlags(pub u32);

impl FixedFlags {
    /// The PM timer counts 32 bits, not 24 (`TMR_VAL_EXT`).
    pub const fn timer_is_32_bit(self) -> bool {
        self.0 & 1 << 8 != 0
    }

    /// The reset register may be used (`RESET_REG_SUP`).
    pub const fn reset_register(self) -> bool {
        self.0 & 1 << 10 != 0
    }

    /// Logical processors must use cluster destinations (`FORCE_APIC_CLUSTER_MODEL`).
    pub const fn force_cluster_mode(self) -> bool {
        self.0 & 1 << 18 != 0
    }

    /// Interrupts must use physical destinations (`FORCE_APIC_PHYSICAL_DESTINATION_MODE`).
    pub const fn force_physical_destination(self) -> bool {
        self.0 & 1 << 19 != 0
    }

    /// There is no fixed hardware: PM1 blocks and PM timer mean nothing (`HW_REDUCED_ACPI`).
    pub const fn hardware_reduced(self) -> bool {
        self.0 & 1 << 20 != 0
    }

    /// Firmware prefers that the machine sleeps in S0 (`LOW_POWER_S0_IDLE_CAPABLE`).
    pub const fn low_power_idle(self) -> bool {
        self.0 & 1 << 21 != 0
    }
}

/// The PM timer (§4.8.3.3): counts up at 3.579545 MHz.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PmTimer {
    /// Where it is read.
    pub register: RegisterAddress,
    /// Whether it counts 32 bits; else 24.
    pub is_32_bit: bool,
}

/// The fixed ACPI description table (§5.2.9), signature `FACP`. Fields that its length leaves out are zero or absent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Fadt<'table> {
    bytes: &'table [u8],
}

impl<'table> Fadt<'table> {
    /// Checks length (at least 116 bytes), signature and checksum.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &'table [u8]) -> Result<Self, Error> {
        Ok(Self { bytes: Table::expect(bytes, *b"FACP", LEAST)?.bytes() })
    }

    fn byte(&self, offset: usize) -> u8 {
        byte(self.bytes, offset).unwrap_or(0)
    }

    fn double_word(&self, offset: usize) -> u32 {
        double_word(self.bytes, offset).unwrap_or(0)
    }

    fn quad_word(&self, offset: usize) -> Option<u64> {
        quad_word(self.bytes, offset).filter(|value| *value != 0)
    }

    /// A block of ports that has a 64-bit field since ACPI 2.0, which goes before the old one (§5.2.9).
    fn block(&self, extended: usize, old: usize, length: usize) -> Option<RegisterAddress> {
        let new = RegisterAddress::read(self.bytes, extended).filter(|register| register.address != 0);
        new.or_else(|| match (self.double_word(old), self.byte(length)) {
            (0, _) | (_, 0) => None,
            (address, length) => Some(RegisterAddress {
                space: RegisterSpace::Port,
                bit_width: length.saturating_mul(8),
                bit_offset: 0,
                access_size: 0,
                address: address as u64,
            }),
        })
    }

    /// Physical address of the DSDT; 0 where firmware gave none.
    pub fn dsdt(&self) -> u64 {
        self.quad_word(140).unwrap_or(self.double_word(40) as u64)
    }

    /// Physical address of the FACS; 0 where there is none.
    pub fn firmware_control(&self) -> u64 {
        self.quad_word(132).unwrap_or(self.double_word(36) as u64)
    }

    /// What the machine is meant to be: 0 unspecified, 1 desktop, 2 mobile, 3 workstation, 4 enterprise server, 5 small
    /// server, 6 appliance, 7 performance server, 8 tablet (table 5.9).
    pub fn preferred_profile(&self) -> u8 {
        self.byte(45)
    }

    /// The system control interrupt: an ISA interrupt where there is a PIC, else a global system interrupt.
    pub fn sci_interrupt(&self) -> u16 {
        word(self.bytes, 46).unwrap_or(0)
    }

    /// The port that takes commands for firmware; 0 where there is none, and the machine is in ACPI mode always.
    pub fn smi_command(&self) -> u32 {
        self.double_word(48)
    }

    /// What to write to [`Fadt::smi_command`] to enter ACPI mode; 0 where that is not possible.
    pub fn acpi_enable(&self) -> u8 {
        self.byte(52)
    }

    /// What to write to [`Fadt::smi_command`] to leave ACPI mode.
    pub fn acpi_disable(&self) -> u8 {
        self.byte(53)
    }

    /// PM1a event block: status, then enable, each half as wide as the block (§4.8.3.1).
    pub fn pm1a_event(&self) -> Option<RegisterAddress> {
        self.block(148, 56, 88)
    }

    /// PM1b event block.
    pub fn pm1b_event(&self) -> Option<RegisterAddress> {
        self.block(160, 60, 88)
    }

    /// PM1a control block (§4.8.3.2): `SLP_TYP` in bits 12–10, `SLP_EN` bit 13, `SCI_EN` bit 0.
    pub fn pm1a_control(&self) -> Option<RegisterAddress> {
        self.block(172, 64, 89)
    }

    /// PM1b control block; written like PM1a's where it is there.
    pub fn pm1b_control(&self) -> Option<RegisterAddress> {
        self.block(184, 68, 89)
    }

    /// PM2 control block.
    pub fn pm2_control(&self) -> Option<RegisterAddress> {
        self.block(196, 72, 90)
    }

    /// The PM timer.
    pub fn pm_timer(&self) -> Option<PmTimer> {
        let register = self.block(208, 76, 91)?;
        Some(PmTimer { register, is_32_bit: self.flags().timer_is_32_bit() })
    }

    /// General-purpose event block 0.
    pub fn general_event_0(&self) -> Option<RegisterAddress> {
        self.block(220, 80, 92)
    }

    /// General-purpose event block 1.
    pub fn general_event_1(&self) -> Option<RegisterAddress> {
        self.block(232, 84, 93)
    }

    /// Where `SLP_TYP` and `SLP_EN` are written on a machine without fixed hardware (§4.8.3.7).
    pub fn sleep_control(&self) -> Option<RegisterAddress> {
        RegisterAddress::read(self.bytes, 244).filter(|register| register.address != 0)
    }

    /// CMOS index of the century; 0 where the clock has none.
    pub fn century(&self) -> u8 {
        self.byte(108)
    }

    /// Which legacy devices there are. ACPI 1.0 did not say: `None`.
    pub fn boot_flags(&self) -> Option<BootFlags> {
        // Revision 1 had reserved bytes here (ACPI 1.0b §5.2.5).
        (self.byte(8) > 1).then(|| BootFlags(word(self.bytes, 109).unwrap_or(0)))
    }

    /// The fixed feature flags.
    pub fn flags(&self) -> FixedFlags {
        FixedFlags(self.double_word(112))
    }

    /// The reset register and what to write to it (§4.8.3.6), where firmware says it may be used.
    pub fn reset(&self) -> Option<(RegisterAddress, u8)> {
        if !self.flags().reset_register() {
            return None;
        }
        let register = RegisterAddress::read(self.bytes, 116)?;
        let value = byte(self.bytes, 128)?;
        (register.address != 0).then_some((register, value))
    }

    /// Which hypervisor firmware says it runs under (`Hypervisor Vendor Identity`); `None` where it says none.
    pub fn hypervisor(&self) -> Option<[u8; 8]> {
        self.quad_word(268).map(u64::to_le_bytes)
    }
}
