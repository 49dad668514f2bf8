//! Segment registers with their hidden parts, neutral between the vendors.

/// A segment register and its hidden part (APM Vol. 2 §4.5.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// The descriptor's attributes packed as the VMCB packs them: type in bits 0–3, S 4, DPL 5–6, P 7, AVL 8, L 9,
    /// D/B 10, G 11 (APM Vol. 2 §15.5.1).
    pub attributes: u16,
    /// The limit in bytes, granularity already applied.
    pub limit: u32,
    /// The linear address of the first byte.
    pub base: u64,
}

impl Segment {
    /// P.
    pub const PRESENT: u16 = 1 << 7;
    /// L: 64-bit code.
    pub const LONG: u16 = 1 << 9;
    /// D/B: 32-bit.
    pub const BIG: u16 = 1 << 10;

    /// A real-mode segment: base is sixteen times the selector, 64 KiB.
    pub const fn real_mode(selector: u16, code: bool) -> Self {
        Self {
            selector,
            attributes: if code { 0x9b } else { 0x93 },
            limit: 0xffff,
            base: (selector as u64) << 4,
        }
    }

    /// A flat 4 GiB segment of ring 0 with the given selector; `attributes` as in the field.
    pub const fn flat(selector: u16, attributes: u16) -> Self {
        Self { selector, attributes, limit: 0xffff_ffff, base: 0 }
    }
}

/// Names of the segment registers, in the order in which instructions number them.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the architecture's own.
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// All segment registers of a virtual processor.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // The names are the architecture's own.
pub struct Segments {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
}

impl Segments {
    /// The data or code segment of that name.
    pub const fn get(&self, name: SegmentName) -> &Segment {
        match name {
            SegmentName::Es => &self.es,
            SegmentName::Cs => &self.cs,
            SegmentName::Ss => &self.ss,
            SegmentName::Ds => &self.ds,
            SegmentName::Fs => &self.fs,
            SegmentName::Gs => &self.gs,
        }
    }
}

/// GDTR or IDTR.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct DescriptorTable {
    /// Linear address of the first descriptor.
    pub base: u64,
    /// Size in bytes, less one.
    pub limit: u16,
}

/// Default operand and address size of the code that runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode, and 16-bit protected mode.
    Bits16,
    /// 32-bit protected and compatibility mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}
