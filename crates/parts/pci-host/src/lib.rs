//! The PCI host bridge: configuration mechanism #1 at ports 0xcf8 and 0xcfc, and the bridge's own function.
//!
//! Source: PCI Local Bus Specification 3.0 §3.2.2.3.2 (the mechanism) and §6.2 (the header).
#![no_std]

mod function;
#[cfg(test)]
mod tests;

use contracts::{Context, Device, Platform, PortRange, Savable};
use function::{Function, HostBridge, Register};
use x86::Width;

/// CONFIG_ADDRESS, 32 bits. The byte at 0xcf9 is the reset register of another part when accessed alone.
const ADDRESS: u16 = 0xcf8;
/// CONFIG_DATA, 32 bits.
const DATA: u16 = 0xcfc;
const DATA_LAST: u16 = DATA + 3;

/// CONFIG_ADDRESS, bit 31: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS, bits that keep: all but the reserved ones, which are zero.
const ADDRESS_MASK: u32 = 0x80ff_fffc;

/// Where a function is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Place {
    bus: u8,
    /// 0 to 31.
    device: u8,
    /// 0 to 7.
    function: u8,
}

/// The bridge with all that lies behind it on bus 0.
#[derive(Debug)]
pub struct PciHost {
    /// CONFIG_ADDRESS.
    address: u32,
    bridge: HostBridge,
}

impl PciHost {
    /// The function and register that CONFIG_ADDRESS names; `None` where nobody answers.
    #[inline]
    fn selected(&mut self) -> Option<(&mut dyn Function, Register)> {
        if self.address & ENABLE == 0 {
            return None;
        }
        let [register, below, bus, _] = self.address.to_le_bytes();
        let place = Place { bus, device: below >> 3, function: below & 7 };
        let function: &mut dyn Function = match place {
            Place { bus: 0, device: 0, function: 0 } => &mut self.bridge,
            _ => return None,
        };
        Some((function, Register::containing(register)))
    }

    /// Reads CONFIG_DATA: "all ones" where nobody answers.
    #[inline]
    fn read_data(&mut self) -> u32 {
        self.selected().map_or(u32::MAX, |(function, register)| function.read(register))
    }
}

/// Where `port` lies in the eight bytes from CONFIG_ADDRESS on, in bits.
const fn bits(port: u16) -> u16 {
    8 * (port & 7)
}

/// What of the bits of an access at `port` reaches CONFIG_DATA. An access that begins in the three bytes below reaches it
/// with its upper bytes, as the processor would cut it.
const fn reaching(port: u16, value: u32) -> u32 {
    ((value as u128) << bits(port) >> 32) as u32
}

impl Device for PciHost {
    const NAME: &'static str = "pci-host";
    const PORTS: &'static [PortRange] =
        &[PortRange { first: ADDRESS, last: ADDRESS }, PortRange { first: ADDRESS + 2, last: DATA_LAST }];
    const BYTE_WIDE: bool = false;

    fn new(_: &Platform) -> Self {
        Self { address: 0, bridge: HostBridge }
    }

    fn savable(&self) -> Savable {
        Savable::State
    }

    #[inline]
    fn read_port(&mut self, port: u16, width: Width, _: &mut Context<'_>) -> u32 {
        if port == ADDRESS {
            // Narrower accesses are not the bridge's.
            return if width == Width::Double { self.address } else { u32::MAX };
        }
        if reaching(port, width.mask() as u32) == 0 {
            return u32::MAX;
        }
        // What the access reaches beside CONFIG_DATA is nobody's.
        let data = u128::from(self.read_data()) << 32 | u128::MAX << 64 | u128::from(u32::MAX);
        (data >> bits(port)) as u32
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32, _: &mut Context<'_>) {
        if port == ADDRESS {
            // "Any other types of accesses to this address (non-DWORD) have no effect on CONFIG_ADDRESS."
            if width == Width::Double {
                self.address = value & ADDRESS_MASK;
            }
            return;
        }
        let mask = reaching(port, width.mask() as u32);
        if mask != 0
            && let Some((function, register)) = self.selected()
        {
            function.write(register, reaching(port, value), mask);
        }
    }
}
