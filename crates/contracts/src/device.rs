//! Devices are state machines: an access and the time go in, a value and [`Effects`] come out.

use crate::{Effects, GuestMemory, GuestTime, Timer};
use x86::Width;

/// Ports `first` to `last`, both included.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Whose each port is, by the numbers that a [`DeviceSet`] gives its devices: three look-ups, however many devices there are. Made by the
/// compiler, and small, because most ports are nobody's.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PortMap {
    /// For each 1024 ports, which block has their rows.
    blocks: [u8; 64],
    /// For each 32 ports of a block, which row has their owners. The first block has no rows.
    rows: [u8; Self::BLOCKS * 32],
    /// The rows. The first has no owners.
    owners: [u8; Self::ROWS * 32],
    used_blocks: u8,
    used_rows: u8,
}

impl PortMap {
    /// Blocks and rows that there are. Where they run out, the compiler says so: then there must be more, twice as many.
    const BLOCKS: usize = 4;
    const ROWS: usize = 16;

    /// Nobody's ports.
    pub const EMPTY: Self = Self {
        blocks: [0; 64],
        rows: [0; Self::BLOCKS * 32],
        owners: [0; Self::ROWS * 32],
        used_blocks: 1,
        used_rows: 1,
    };

    /// These ports belong to `owner`, and to nobody else.
    ///
    /// # Panics
    /// At compile time, where blocks or rows run out.
    #[must_use]
    pub const fn claimed(mut self, ranges: &[PortRange], owner: u8) -> Self {
        let mut range = 0;
        while range < ranges.len() {
            let mut port = ranges[range].first as usize;
            while port <= ranges[range].last as usize {
                if self.blocks[port >> 10] == 0 {
                    assert!((self.used_blocks as usize) < Self::BLOCKS, "more blocks than PortMap has");
                    self.blocks[port >> 10] = self.used_blocks;
                    self.used_blocks += 1;
                }
                let row = (self.blocks[port >> 10] as usize) << 5 | port >> 5 & 31;
                if self.rows[row] == 0 {
                    assert!((self.used_rows as usize) < Self::ROWS, "more rows than PortMap has");
                    self.rows[row] = self.used_rows;
                    self.used_rows += 1;
                }
                self.owners[(self.rows[row] as usize) << 5 | port & 31] = owner;
                port += 1;
            }
            range += 1;
        }
        self
    }

    /// Whose that port is; 0: nobody's.
    #[inline(always)]
    pub const fn owner(&self, port: u16) -> u8 {
        let port = port as usize;
        // `claimed` writes no larger blocks and rows; the masks tell the compiler.
        let block = self.blocks[port >> 10] as usize & (Self::BLOCKS - 1);
        let row = self.rows[block << 5 | port >> 5 & 31] as usize & (Self::ROWS - 1);
        self.owners[row << 5 | port & 31]
    }
}

/// `length` bytes of guest-physical memory from `start` that are registers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// The first byte.
    pub start: u64,
    /// The number of bytes.
    pub length: u64,
}

/// What a device may look at while it serves an access.
pub struct Context<'access> {
    /// The compartment's time.
    pub now: GuestTime,
    /// Where wishes go.
    pub effects: &'access mut Effects,
    /// The compartment's RAM, for devices that read and write it.
    pub memory: &'access dyn GuestMemory,
}

/// Facts about the compartment that a device is built for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Platform {
    /// RAM in bytes.
    pub memory: u64,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Wall clock at [`GuestTime`] 0, in seconds since 1970-01-01 UTC.
    pub wall_clock: u64,
}

/// Whether a device can be saved and moved; each has to say.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Savable {
    /// It is bound to this machine.
    NotMovable,
    /// It has no state.
    Empty,
    /// It has state, which its saved-state type describes.
    State,
}

/// A device model. It has no lock, calls nobody, and cannot fail: whatever a guest writes is a legal input.
pub trait Device: Sized {
    /// Its name in reports, as the part's.
    const NAME: &'static str;
    /// The ports it claims.
    const PORTS: &'static [PortRange] = &[];
    /// The memory-mapped registers it claims.
    const MEMORY: &'static [MemoryRange] = &[];
    /// Whether the bus splits wider port accesses into bytes at consecutive ports, as ISA does for 8-bit devices.
    const BYTE_WIDE: bool = true;
    /// Whether its ports look at [`Context::now`]. Where they do not, nobody need ask the clock: it is 0 then.
    const CLOCKED: bool = true;

    /// The device at power-on. Also what a reset of the compartment makes anew.
    fn new(platform: &Platform) -> Self;

    /// Whether it can be saved.
    fn savable(&self) -> Savable;

    /// Reads a claimed port. The value's bits above `width` do not count.
    #[inline]
    fn read_port(&mut self, port: u16, width: Width, context: &mut Context<'_>) -> u32 {
        let _ = (port, width, context);
        u32::MAX
    }

    /// Writes a claimed port. Bits of `value` above `width` are zero.
    #[inline]
    fn write_port(&mut self, port: u16, width: Width, value: u32, context: &mut Context<'_>) {
        let _ = (port, width, value, context);
    }

    /// Reads claimed memory at the guest-physical address `address`.
    #[inline]
    fn read_memory(&mut self, address: u64, width: Width, context: &mut Context<'_>) -> u64 {
        let _ = (address, width, context);
        u64::MAX
    }

    /// Writes claimed memory at the guest-physical address `address`. Bits of `value` above `width` are zero.
    #[inline]
    fn write_memory(&mut self, address: u64, width: Width, value: u64, context: &mut Context<'_>) {
        let _ = (address, width, value, context);
    }

    /// Its timer went off: `context.now` is at or after the deadline it asked for. The timer is then unset.
    #[inline]
    fn expire(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A byte from the compartment's keyboard; false if this is no console or it has no room now.
    #[inline]
    fn receive(&mut self, byte: u8, context: &mut Context<'_>) -> bool {
        let _ = (byte, context);
        false
    }
}

/// A device on the bus, with its timer.
#[derive(Debug)]
pub struct Attached<D> {
    /// The device.
    pub device: D,
    deadline: Option<GuestTime>,
}

impl<D: Device> Attached<D> {
    /// Attaches a device as it is at power-on.
    pub fn new(platform: &Platform) -> Self {
        Self { device: D::new(platform), deadline: None }
    }

    /// When its timer goes off.
    #[inline]
    pub fn deadline(&self) -> Option<GuestTime> {
        self.deadline
    }

    #[inline(always)]
    fn claims_port(port: u16) -> bool {
        D::PORTS.iter().any(|range| port >= range.first && port <= range.last)
    }

    #[inline(always)]
    fn claims_memory(address: u64) -> bool {
        D::MEMORY.iter().any(|range| address.wrapping_sub(range.start) < range.length)
    }

    /// Runs `access` on the device and notes what it says of its timer.
    #[inline(always)]
    pub fn with<R>(
        &mut self,
        context: &mut Context<'_>,
        access: impl FnOnce(&mut D, &mut Context<'_>) -> R,
    ) -> R {
        let result = access(&mut self.device, context);
        if context.effects.touched()
            && let Timer::Set(deadline) = context.effects.take_timer()
        {
            self.deadline = deadline;
        }
        result
    }

    /// Reads a port that the device claims. A wider access to a byte-wide device reads consecutive ports; those beyond its
    /// claim read as all ones.
    #[inline(always)]
    pub fn read_claimed(&mut self, port: u16, width: Width, context: &mut Context<'_>) -> u32 {
        self.with(context, |device, context| {
            if !D::BYTE_WIDE || width == Width::Byte {
                return device.read_port(port, width, context);
            }
            Self::read_bytes(device, port, width, context)
        })
    }

    #[cold]
    #[inline(never)]
    fn read_bytes(device: &mut D, port: u16, width: Width, context: &mut Context<'_>) -> u32 {
        let mut value = 0;
        for byte in 0..width.bytes() as u16 {
            let part = match port.checked_add(byte) {
                Some(next) if Self::claims_port(next) => device.read_port(next, Width::Byte, context) & 0xff,
                _ => 0xff,
            };
            value |= part << (8 * byte);
        }
        value
    }

    /// Reads a port if the device claims it, as [`Self::read_claimed`].
    pub fn read_port(&mut self, port: u16, width: Width, context: &mut Context<'_>) -> Option<u32> {
        Self::claims_port(port).then(|| self.read_claimed(port, width, context))
    }

    /// Writes a port that the device claims.
    #[inline(always)]
    pub fn write_claimed(&mut self, port: u16, width: Width, value: u32, context: &mut Context<'_>) {
        self.with(context, |device, context| {
            if !D::BYTE_WIDE || width == Width::Byte {
                device.write_port(port, width, value, context);
            } else {
                Self::write_bytes(device, port, width, value, context);
            }
        });
    }

    /// Writes a port if the device claims it; false if not.
    pub fn write_port(&mut self, port: u16, width: Width, value: u32, context: &mut Context<'_>) -> bool {
        let claimed = Self::claims_port(port);
        if claimed {
            self.write_claimed(port, width, value, context);
        }
        claimed
    }

    #[cold]
    #[inline(never)]
    fn write_bytes(device: &mut D, port: u16, width: Width, value: u32, context: &mut Context<'_>) {
        for byte in 0..width.bytes() as u16 {
            if let Some(next) = port.checked_add(byte)
                && Self::claims_port(next)
            {
                device.write_port(next, Width::Byte, (value >> (8 * byte)) & 0xff, context);
            }
        }
    }

    /// Reads memory if the device claims it.
    #[inline(always)]
    pub fn read_memory(&mut self, address: u64, width: Width, context: &mut Context<'_>) -> Option<u64> {
        Self::claims_memory(address)
            .then(|| self.with(context, |device, context| device.read_memory(address, width, context)))
    }

    /// Writes memory if the device claims it; false if not.
    #[inline(always)]
    pub fn write_memory(
        &mut self,
        address: u64,
        width: Width,
        value: u64,
        context: &mut Context<'_>,
    ) -> bool {
        if !Self::claims_memory(address) {
            return false;
        }
        self.with(context, |device, context| device.write_memory(address, width, value, context));
        true
    }

    /// Lets the timer go off if its time has come.
    #[inline]
    pub fn expire(&mut self, context: &mut Context<'_>) {
        if self.deadline.is_some_and(|deadline| deadline <= context.now) {
            self.deadline = None;
            self.with(context, Device::expire);
        }
    }
}

/// The devices of a compartment, composed by the image as nested pairs: `(Attached<Pit>, (Attached<Uart>, ()))`.
/// The first one that claims an address gets the access.
pub trait DeviceSet: Sized {
    /// How many they are. The last is number 1, the first has this number.
    const COUNT: u8;
    /// Whose each port is.
    const PORTS: PortMap;
    /// All of them at power-on.
    fn new(platform: &Platform) -> Self;
    /// Reads a port of the device with the number `owner`; all ones if there is none.
    fn read_port(&mut self, owner: u8, port: u16, width: Width, context: &mut Context<'_>) -> u32;
    /// Writes a port of the device with the number `owner`.
    fn write_port(&mut self, owner: u8, port: u16, width: Width, value: u32, context: &mut Context<'_>);
    /// Reads memory; `None` if nobody claims it.
    fn read_memory(&mut self, address: u64, width: Width, context: &mut Context<'_>) -> Option<u64>;
    /// Writes memory; false if nobody claims it.
    fn write_memory(&mut self, address: u64, width: Width, value: u64, context: &mut Context<'_>) -> bool;
    /// The earliest timer.
    fn deadline(&self) -> Option<GuestTime>;
    /// Lets every timer go off whose time has come.
    fn expire(&mut self, context: &mut Context<'_>);
    /// Offers a byte of console input to each; false if nobody took it.
    fn receive(&mut self, byte: u8, context: &mut Context<'_>) -> bool;
}

impl DeviceSet for () {
    const COUNT: u8 = 0;
    const PORTS: PortMap = PortMap::EMPTY;
    fn new(_: &Platform) -> Self {}
    #[inline(always)]
    fn read_port(&mut self, _: u8, _: u16, _: Width, _: &mut Context<'_>) -> u32 {
        u32::MAX
    }
    #[inline(always)]
    fn write_port(&mut self, _: u8, _: u16, _: Width, _: u32, _: &mut Context<'_>) {}
    #[inline(always)]
    fn read_memory(&mut self, _: u64, _: Width, _: &mut Context<'_>) -> Option<u64> {
        None
    }
    #[inline(always)]
    fn write_memory(&mut self, _: u64, _: Width, _: u64, _: &mut Context<'_>) -> bool {
        false
    }
    #[inline(always)]
    fn deadline(&self) -> Option<GuestTime> {
        None
    }
    #[inline(always)]
    fn expire(&mut self, _: &mut Context<'_>) {}
    #[inline(always)]
    fn receive(&mut self, _: u8, _: &mut Context<'_>) -> bool {
        false
    }
}

impl<D: Device, Rest: DeviceSet> DeviceSet for (Attached<D>, Rest) {
    const COUNT: u8 = Rest::COUNT + 1;
    const PORTS: PortMap = Rest::PORTS.claimed(D::PORTS, Self::COUNT);
    fn new(platform: &Platform) -> Self {
        (Attached::new(platform), Rest::new(platform))
    }
    #[inline(always)]
    fn read_port(&mut self, owner: u8, port: u16, width: Width, context: &mut Context<'_>) -> u32 {
        if owner == Self::COUNT {
            self.0.read_claimed(port, width, context)
        } else {
            self.1.read_port(owner, port, width, context)
        }
    }
    #[inline(always)]
    fn write_port(&mut self, owner: u8, port: u16, width: Width, value: u32, context: &mut Context<'_>) {
        if owner == Self::COUNT {
            self.0.write_claimed(port, width, value, context);
        } else {
            self.1.write_port(owner, port, width, value, context);
        }
    }
    #[inline(always)]
    fn read_memory(&mut self, address: u64, width: Width, context: &mut Context<'_>) -> Option<u64> {
        self.0.read_memory(address, width, context).or_else(|| self.1.read_memory(address, width, context))
    }
    #[inline(always)]
    fn write_memory(&mut self, address: u64, width: Width, value: u64, context: &mut Context<'_>) -> bool {
        self.0.write_memory(address, width, value, context)
            || self.1.write_memory(address, width, value, context)
    }
    #[inline]
    fn deadline(&self) -> Option<GuestTime> {
        match (self.0.deadline(), self.1.deadline()) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }
    #[inline]
    fn expire(&mut self, context: &mut Context<'_>) {
        self.0.expire(context);
        self.1.expire(context);
    }
    fn receive(&mut self, byte: u8, context: &mut Context<'_>) -> bool {
        self.0.with(context, |device, context| device.receive(byte, context)) || self.1.receive(byte, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_the_owner_that_claimed_it_last() {
        const MAP: PortMap = PortMap::EMPTY
            .claimed(&[PortRange { first: 0x70, last: 0x90 }, PortRange { first: 0xfff0, last: 0xffff }], 1)
            .claimed(&[PortRange { first: 0x80, last: 0x80 }], 2);
        for port in 0..=u16::MAX {
            let expected = match port {
                0x80 => 2,
                0x70..=0x90 | 0xfff0.. => 1,
                _ => 0,
            };
            assert_eq!(MAP.owner(port), expected, "{port:#x}");
        }
    }
}
