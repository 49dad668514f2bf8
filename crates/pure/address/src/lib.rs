//! Addresses that say in their type what they are an address *of*.
//!
//! Row 1 (pure). A [`GuestPhysical`] is an *allegation*: any 64-bit value that a guest, a page table of a guest or
//! a boot module named. Holding one proves nothing; only a checked access through a compartment's memory does.
//! A [`HostPhysical`] comes from the memory map or from the frames carved out of it, never from a guest.
#![no_std]

/// Size of the smallest page, in bytes (AMD APM Vol. 2 §5.3).
pub const PAGE_4K: u64 = 0x1000;
/// Size of a large page, in bytes (AMD APM Vol. 2 §5.3.4).
pub const PAGE_2M: u64 = 0x20_0000;
/// Size of a huge page, in bytes (AMD APM Vol. 2 §5.3.5).
pub const PAGE_1G: u64 = 0x4000_0000;

macro_rules! address {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Names the byte at `value`.
            #[inline]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The address as a number of bytes from zero.
            #[inline]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past the end of the 64-bit space.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The first byte of the `size`-byte page that holds this address; `size` is a power of two.
            #[inline]
            #[must_use]
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !(size - 1))
            }

            /// How far into its `size`-byte page this address lies; `size` is a power of two.
            #[inline]
            pub const fn offset_in(self, size: u64) -> u64 {
                self.0 & (size - 1)
            }

            /// Whether a `size`-byte page begins here; `size` is a power of two.
            #[inline]
            pub const fn is_aligned(self, size: u64) -> bool {
                self.offset_in(size) == 0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(formatter, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(formatter, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An address in a compartment's own physical memory, as the guest names it. An allegation: it may point anywhere.
    GuestPhysical
}
address! {
    /// A linear address of a guest, before the guest's own page tables. An allegation.
    GuestLinear
}
address! {
    /// An address on the machine's memory bus, known to the hypervisor from the memory map.
    HostPhysical
}

/// A run of host memory: `length` bytes from `start`, not empty, not wrapping.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct HostRange {
    start: HostPhysical,
    length: u64,
}

impl HostRange {
    /// A range of `length` bytes from `start`; `None` where it would be empty or would wrap.
    pub const fn new(start: HostPhysical, length: u64) -> Option<Self> {
        if length == 0 || start.get().checked_add(length).is_none() {
            return None;
        }
        Some(Self { start, length })
    }

    /// The first byte.
    pub const fn start(&self) -> HostPhysical {
        self.start
    }

    /// The number of bytes, at least 1.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The first byte behind the range.
    pub const fn end(&self) -> HostPhysical {
        HostPhysical::new(self.start.get() + self.length)
    }

    /// Whether `address` lies inside.
    pub const fn contains(&self, address: HostPhysical) -> bool {
        address.get() >= self.start.get() && address.get() - self.start.get() < self.length
    }

    /// Whether the two share a byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start.get() < other.end().get() && other.start.get() < self.end().get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_refuse_to_be_empty_or_to_wrap() {
        assert!(HostRange::new(HostPhysical::new(0), 0).is_none());
        assert!(HostRange::new(HostPhysical::new(u64::MAX), 2).is_none());
        assert!(HostRange::new(HostPhysical::new(u64::MAX - 1), 1).is_some());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let low = HostRange::new(HostPhysical::new(0x1000), 0x1000).unwrap();
        let high = HostRange::new(HostPhysical::new(0x2000), 0x1000).unwrap();
        assert!(!low.overlaps(&high) && !high.overlaps(&low));
        assert!(low.overlaps(&low));
        assert!(low.contains(HostPhysical::new(0x1fff)) && !low.contains(HostPhysical::new(0x2000)));
    }

    #[test]
    fn alignment_is_of_the_page() {
        let address = GuestPhysical::new(0x20_1234);
        assert_eq!(address.align_down(PAGE_2M).get(), 0x20_0000);
        assert_eq!(address.offset_in(PAGE_4K), 0x234);
        assert!(!address.is_aligned(PAGE_4K));
    }
}
