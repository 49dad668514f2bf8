//! What a function on bus 0 shows in configuration space, and the host bridge, which is one.

/// Four bytes of configuration space, at a multiple of four below 256.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Register(u8);

impl Register {
    /// The register that contains byte `offset`.
    pub(crate) const fn containing(offset: u8) -> Self {
        Self(offset & !3)
    }

    pub(crate) const fn offset(self) -> u8 {
        self.0
    }
}

/// One function's configuration space. A part that brings a function of its own will see these accesses.
pub(crate) trait Function {
    /// Reads a register.
    fn read(&self, register: Register) -> u32;

    /// Writes the bits of `value` that `mask` names: whole bytes, those that the access enables.
    fn write(&mut self, register: Register, value: u32, mask: u32);
}

/// Vendor and device. The vendor number is nobody's in the PCI ID repository, so that no driver and no quirk of any
/// system takes this bridge for a chip set that it knows ("RF" in ASCII).
const IDENTITY: u32 = 0x0001_5246;
/// Command: answers memory accesses and masters the bus, as bridges do that cannot be told otherwise. No status.
const COMMAND: u32 = 0x0006;
/// Class 06 (bridge), subclass 00 (host), interface 00, revision 0.
const CLASS: u32 = 0x0600_0000;

/// The host bridge at device 0, function 0: a header of type 0 without base addresses, capabilities or interrupt. All
/// read only.
#[derive(Debug)]
pub(crate) struct HostBridge;

impl Function for HostBridge {
    #[inline]
    fn read(&self, register: Register) -> u32 {
        match register.offset() {
            // The subsystem's identity is the bridge's own.
            0x00 | 0x2c => IDENTITY,
            0x04 => COMMAND,
            0x08 => CLASS,
            _ => 0,
        }
    }

    fn write(&mut self, _: Register, _: u32, _: u32) {}
}
