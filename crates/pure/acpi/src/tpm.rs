//! Trusted platform module: the TPM2 and TCPA tables.

use crate::bytes::{byte, double_word, quad_word, word};
use crate::{Error, Table};

/// Where firmware's event log lies.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct EventLogArea {
    /// Physical address of the first byte; not 0.
    pub address: u64,
    /// Bytes that it may fill.
    pub length: u64,
}

impl EventLogArea {
    /// Firmware that keeps no log for the operating system gives address 0.
    fn new(address: Option<u64>, length: Option<u64>) -> Option<Self> {
        let area = Self { address: address?, length: length? };
        (area.address != 0).then_some(area)
    }
}

/// How commands are given to a TPM 2.0 (TCG ACPI Specification 1.3 table 8, "Start Method values").
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StartMethod {
    /// 2: by calling an ACPI method of the name space.
    AcpiMethod,
    /// 6: memory-mapped FIFO registers, TIS 1.2 with its cancel command.
    Fifo,
    /// 7: command response buffer.
    CommandResponseBuffer,
    /// 8: command response buffer, started by an ACPI method.
    CommandResponseBufferWithAcpiMethod,
    /// 11: command response buffer, started by a secure monitor call (ARM).
    CommandResponseBufferWithSecureMonitorCall,
    /// 12: FIFO registers behind an I2C bus.
    FifoOverI2c,
    /// 13: command response buffer of AMD's Pluton, with mailbox addresses of its own.
    Pluton,
    /// Another one.
    Other(u32),
}

/// The TPM 2.0 table (TCG ACPI Specification 1.3 §8, table 7), signature `TPM2`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Tpm2 {
    /// 0 client, 1 server. Tables before revision 4 have zeros here.
    pub platform_class: u16,
    /// Physical address of the control area; 0 where the start method has none.
    pub control_area: u64,
    /// How commands are given.
    pub start_method: StartMethod,
    /// Where the event log lies, if the table says so.
    pub log_area: Option<EventLogArea>,
}

impl Tpm2 {
    /// Checks length (at least 52 bytes), signature and checksum.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"TPM2", 52)?.bytes();
        Self::read(bytes).ok_or(Error::Length)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let start_method = match double_word(bytes, 48)? {
            2 => StartMethod::AcpiMethod,
            6 => StartMethod::Fifo,
            7 => StartMethod::CommandResponseBuffer,
            8 => StartMethod::CommandResponseBufferWithAcpiMethod,
            11 => StartMethod::CommandResponseBufferWithSecureMonitorCall,
            12 => StartMethod::FifoOverI2c,
            13 => StartMethod::Pluton,
            other => StartMethod::Other(other),
        };
        // The start method's parameters come before the log: 12 bytes, and 16 since revision 5 (TCG ACPI Specification 1.4).
        let log = if byte(bytes, 8)? < 5 { 64 } else { 68 };
        Some(Self {
            platform_class: word(bytes, 36)?,
            control_area: quad_word(bytes, 40)?,
            start_method,
            log_area: EventLogArea::new(quad_word(bytes, log + 4), double_word(bytes, log).map(u64::from)),
        })
    }
}

/// The TPM 1.2 table (TCG ACPI Specification 1.3 §7), signature `TCPA`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Tcpa {
    /// Whether it is the server's form, which tells more of the device.
    pub server: bool,
    /// Where the event log lies, if there is one.
    pub log_area: Option<EventLogArea>,
    /// Physical address of the device's registers, where the server's form says that they are in memory.
    pub base: Option<u64>,
}

impl Tcpa {
    /// Checks length, signature and checksum.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"TCPA", 50)?.bytes();
        Self::read(bytes).ok_or(Error::Length)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if word(bytes, 36)? != 1 {
            let length = double_word(bytes, 38)? as u64;
            let log_area = EventLogArea::new(Some(quad_word(bytes, 42)?), Some(length));
            return Some(Self { server: false, log_area, base: None });
        }
        let log_area = EventLogArea::new(Some(quad_word(bytes, 48)?), Some(quad_word(bytes, 40)?));
        // Base address: a generic address structure whose first byte is the space, 0 for memory.
        let base = match byte(bytes, 68) {
            Some(0) => quad_word(bytes, 72).filter(|address| *address != 0),
            _ => None,
        };
        Some(Self { server: true, log_area, base })
    }
}
