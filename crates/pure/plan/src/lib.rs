//! The binary boot module: what the hypervisor reads of a manifest, and nothing else.
//!
//! Row 1 (pure). The host tool makes it ([`Header`], then a [`Plan`] in postcard, then page-aligned payloads); the
//! hypervisor reads it through [`read`]. Everything in it is an allegation until `read` has checked it: lengths, offsets,
//! overlaps, names. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–15 | [`MAGIC`] |
//! | 16–19 | format, [`FORMAT`] |
//! | 20–23 | length of the postcard plan in bytes, at most [`PLAN_LIMIT`] |
//! | 24–31 | length of the whole module in bytes |
//! | 32–63 | SHA-256 of the postcard plan |
//! | 64–71 | [`Checksum`] of everything behind the plan |
//! | 72– | the plan, zeros up to the next multiple of 4096, payloads |
//!
//! The digest and the checksum find accidents: a truncated download, a flipped bit, blocks in the wrong order. They do not
//! find an attacker, who can write both anew; for that a boot is measured.
#![no_std]

mod reader;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first bytes of every module.
pub const MAGIC: [u8; 16] = *b"RINGFENCE PLAN\r\n";
/// The format that this code reads and writes.
pub const FORMAT: u32 = 2;
/// Bytes before the postcard plan.
pub const HEADER_LENGTH: usize = 72;
/// The longest postcard plan, in bytes.
pub const PLAN_LIMIT: usize = 64 * 1024;
/// Payloads begin at multiples of this many bytes.
pub const PAYLOAD_ALIGNMENT: u64 = 4096;
/// Most compartments that the format can hold; a profile's limit may be lower.
pub const COMPARTMENTS: usize = 16;
/// Most vCPUs of a compartment that the format can hold.
pub const VCPUS: usize = 16;
/// Most segments of a compartment.
pub const SEGMENTS: usize = 24;
/// Longest name, in bytes.
pub const NAME_LIMIT: usize = 32;
/// Compartment RAM below this address is contiguous from 0; what is more lies from 4 GiB on.
pub const LOW_MEMORY_LIMIT: u64 = 0xc000_0000;
/// Where RAM goes on after the hole.
pub const HIGH_MEMORY_START: u64 = 0x1_0000_0000;
/// RAM comes in multiples of this many bytes.
pub const MEMORY_GRAIN: u64 = 0x20_0000;
/// The least RAM of a compartment, in bytes.
pub const MEMORY_LEAST: u64 = 0x20_0000;
/// The most RAM of a compartment, in bytes.
pub const MEMORY_MOST: u64 = 64 << 30;

/// What to do when a compartment resets itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnReset {
    /// It starts again.
    Restart,
    /// It stays down, in the state `reset`.
    Stop,
}

/// What to do when a compartment uses what is not there: a port or memory that no device claims, a model-specific register
/// that is in no table.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnUnclaimed {
    /// It gets the answer of a machine where nothing is there.
    Answer,
    /// It is stopped.
    Stop,
}

/// Bytes of the module that are copied into the compartment's RAM at every start.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Offset in the module, a multiple of [`PAYLOAD_ALIGNMENT`] plus anything below it, behind the plan.
    pub source: u64,
    /// Bytes; at least 1.
    pub length: u64,
    /// Guest-physical address of the first byte.
    pub target: u64,
}

/// The mode in which the first vCPU begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// 32-bit protected mode, no paging.
    Protected,
    /// 64-bit mode, four-level paging.
    Long,
}

/// How the first vCPU begins: flat segments of ring 0 with selectors CS 0x10, DS, ES, SS, FS and GS 0x18, TR 0x20, interrupts
/// off, all registers that are not named here zero.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The mode.
    pub mode: Mode,
    /// Where it begins.
    pub entry: u64,
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RSI.
    pub rsi: u64,
    /// RSP.
    pub rsp: u64,
    /// CR3; 0 without paging.
    pub page_table: u64,
    /// Base of the GDT, which lies in one of the segments and has the selectors above.
    pub descriptor_table: u64,
    /// Size of the GDT in bytes, less one.
    pub descriptor_table_limit: u16,
}

/// What the trusted display will show of a compartment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Label {
    /// The text.
    pub text: String<NAME_LIMIT>,
    /// Red, green and blue in bits 23–0.
    pub colour: u32,
}

/// One compartment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compartment {
    /// Its name: [`valid_name`].
    pub name: String<NAME_LIMIT>,
    /// RAM in bytes, a multiple of [`MEMORY_GRAIN`].
    pub memory: u64,
    /// Number of vCPUs, 1 to [`VCPUS`].
    pub vcpus: u8,
    /// Weight under `schedule-shared`, 1 to 10000.
    pub share: u32,
    /// Processors that its vCPUs are pinned to, in order; empty where they are not.
    pub cpus: Vec<u8, VCPUS>,
    /// What happens when it resets itself.
    pub on_reset: OnReset,
    /// What happens when it uses what is not there.
    pub on_unclaimed: OnUnclaimed,
    /// What the trusted display will show.
    pub label: Option<Label>,
    /// What is copied into its RAM.
    pub segments: Vec<Segment, SEGMENTS>,
    /// How its first vCPU begins.
    pub start: Start,
}

/// Everything that may run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The compartments, at least one.
    pub compartments: Vec<Compartment, COMPARTMENTS>,
}

/// Why a module is refused. Nothing of it was used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Shorter than a header.
    TooShort,
    /// It does not begin with [`MAGIC`].
    NoPlan,
    /// A format that this hypervisor does not read.
    Format(u32),
    /// The plan's length exceeds [`PLAN_LIMIT`] or the module.
    PlanLength(u32),
    /// The module is not as long as it says.
    Length {
        /// Bytes that the header promises.
        promised: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The plan's bytes do not have the digest in the header.
    Digest,
    /// The plan cannot be decoded, or has bytes left over.
    Encoding,
    /// What lies behind the plan does not have the checksum in the header.
    Payloads,
    /// No compartment.
    Empty,
    /// A compartment (by index) breaks a rule.
    Compartment(u8, Rule),
}

/// A rule that a compartment of a plan can break.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Its name is not a [`valid_name`].
    Name,
    /// Another one has its name.
    DuplicateName,
    /// Its memory is no multiple of [`MEMORY_GRAIN`], or out of range.
    Memory,
    /// Its number of vCPUs is 0 or exceeds [`VCPUS`].
    Vcpus,
    /// Its share is out of range.
    Share,
    /// The list of processors is neither empty nor as long as the number of vCPUs.
    Cpus,
    /// A segment (by index) is empty, lies outside the module, or in the plan.
    SegmentSource(u8),
    /// A segment (by index) does not fit the compartment's RAM.
    SegmentTarget(u8),
    /// The entry point, the GDT or the page table does not lie in its RAM.
    Start,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooShort => write!(formatter, "the boot module is shorter than its header"),
            Self::NoPlan => write!(formatter, "the boot module does not begin with a plan"),
            Self::Format(format) => {
                write!(formatter, "the plan has format {format}; this image reads format {FORMAT}")
            }
            Self::PlanLength(length) => {
                write!(formatter, "the plan's length of {length} bytes is impossible")
            }
            Self::Length { promised, found } => {
                write!(
                    formatter,
                    "the boot module has {found} bytes where its header says {promised}: truncated or extended"
                )
            }
            Self::Digest => {
                write!(formatter, "the plan was changed: its SHA-256 is not the one in the header")
            }
            Self::Encoding => write!(formatter, "the plan cannot be decoded"),
            Self::Payloads => {
                write!(formatter, "the payloads were changed: their checksum is not the one in the header")
            }
            Self::Empty => write!(formatter, "the plan has no compartment"),
            Self::Compartment(index, rule) => write!(formatter, "compartment {index}: {rule}"),
        }
    }
}

impl core::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Name => write!(formatter, "its name is not allowed"),
            Self::DuplicateName => write!(formatter, "its name is taken"),
            Self::Memory => write!(formatter, "its memory is no multiple of 2 MiB between 2 MiB and 64 GiB"),
            Self::Vcpus => write!(formatter, "its number of vCPUs is not between 1 and {VCPUS}"),
            Self::Share => write!(formatter, "its share is not between 1 and 10000"),
            Self::Cpus => write!(formatter, "it does not name one processor for each vCPU"),
            Self::SegmentSource(index) => write!(formatter, "segment {index} does not lie in the module"),
            Self::SegmentTarget(index) => write!(formatter, "segment {index} does not fit its memory"),
            Self::Start => write!(formatter, "its start state points outside its memory"),
        }
    }
}

/// Whether a compartment may have that name: 1 to 32 of a–z, 0–9 and `-`, a letter first, and not `ringfence`.
pub fn valid_name(name: &str) -> bool {
    name.len() <= NAME_LIMIT
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name != "ringfence"
}

/// How RAM of `memory` bytes is laid out: bytes from 0, and bytes from [`HIGH_MEMORY_START`].
pub const fn memory_layout(memory: u64) -> (u64, u64) {
    if memory <= LOW_MEMORY_LIMIT { (memory, 0) } else { (LOW_MEMORY_LIMIT, memory - LOW_MEMORY_LIMIT) }
}

/// Whether `length` bytes at `start` lie wholly in RAM of `memory` bytes.
pub const fn in_memory(memory: u64, start: u64, length: u64) -> bool {
    let (low, high) = memory_layout(memory);
    let Some(end) = start.checked_add(length) else { return false };
    end <= low || (start >= HIGH_MEMORY_START && end <= HIGH_MEMORY_START + high)
}

/// A checksum that costs about half an instruction per byte, so that a boot can afford it over whole kernels.
///
/// Each step is a bijection of its state (exclusive or, multiplication by an odd number, rotation): a change within one
/// aligned word of eight bytes is always found, and any other with a probability of 1 − 2⁻⁶⁴.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum of nothing.
    pub const fn new() -> Self {
        Self(0x5249_4e47_4645_4e43)
    }

    /// Goes on over `bytes`. Calls may cut the whole anywhere between two aligned words: all but the last call need a
    /// multiple of eight bytes, and the last bytes count as if zeros filled their word.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut state = self.0;
        for word in words {
            state = Self::step(state, u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            state = Self::step(state, u64::from_le_bytes(last));
        }
        Self(state)
    }

    /// The value that the header holds.
    pub const fn value(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn step(state: u64, word: u64) -> u64 {
        // An odd multiplier with bits all over: the golden ratio in 64 bits.
        (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the payloads lie, and what they must sum up to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Payloads {
    /// Offset in the module of the first byte behind the plan. From here to the module's end goes the [`Checksum`].
    pub start: u64,
    /// The [`Checksum::value`] that the header promises.
    pub checksum: u64,
}

/// What the header says about the payloads of a module that [`read`] accepted; `None` if `head` is shorter than a header.
pub fn payloads(head: &[u8]) -> Option<Payloads> {
    let header: &[u8; HEADER_LENGTH] = head.first_chunk()?;
    let plan_length = u32::from_le_bytes(*header[20..].first_chunk()?);
    let checksum = u64::from_le_bytes(*header[64..].first_chunk()?);
    Some(Payloads { start: HEADER_LENGTH as u64 + u64::from(plan_length), checksum })
}

/// Checks a whole module that lies in one slice, as [`read`] does, and its payloads' checksum as well.
pub fn read_whole(module: &[u8]) -> Result<Plan, Refusal> {
    let plan = read(module, module.len() as u64)?;
    let payloads = payloads(module).ok_or(Refusal::TooShort)?;
    let behind = module.get(payloads.start as usize..).ok_or(Refusal::TooShort)?;
    if Checksum::new().with(behind).value() != payloads.checksum {
        return Err(Refusal::Payloads);
    }
    Ok(plan)
}

/// The header of a module whose plan is `plan` in postcard, which is `total` bytes long, and behind whose plan lie bytes
/// with the [`Checksum::value`] `checksum`.
pub fn header(plan: &[u8], total: u64, checksum: u64) -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    header[..16].copy_from_slice(&MAGIC);
    header[16..20].copy_from_slice(&FORMAT.to_le_bytes());
    header[20..24].copy_from_slice(&(plan.len() as u32).to_le_bytes());
    header[24..32].copy_from_slice(&total.to_le_bytes());
    header[32..64].copy_from_slice(&Sha256::digest(plan));
    header[64..72].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Checks the head of a module that is `length` bytes long, of which `head` holds the beginning (at least the plan), and
/// gives the plan that it holds.
pub fn read(head: &[u8], length: u64) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    read_into(head, length, &mut plan)?;
    Ok(plan)
}

/// As [`read`], into a plan that lies elsewhere: on a small stack there is no room for one. After an error `plan` means nothing.
#[inline(never)]
pub fn read_into(head: &[u8], length: u64, plan: &mut Plan) -> Result<(), Refusal> {
    plan.compartments.clear();
    let header: &[u8; HEADER_LENGTH] = head.first_chunk().ok_or(Refusal::TooShort)?;
    if header[..16] != MAGIC {
        return Err(Refusal::NoPlan);
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let format = word(16);
    if format != FORMAT {
        return Err(Refusal::Format(format));
    }
    let plan_length = word(20);
    let promised = u64::from(word(24)) | u64::from(word(28)) << 32;
    if promised != length {
        return Err(Refusal::Length { promised, found: length });
    }
    let bytes = (plan_length as usize <= PLAN_LIMIT)
        .then(|| head.get(HEADER_LENGTH..HEADER_LENGTH + plan_length as usize))
        .flatten()
        .ok_or(Refusal::PlanLength(plan_length))?;
    if Sha256::digest(bytes)[..] != header[32..64] {
        return Err(Refusal::Digest);
    }
    // A sequence in postcard is its length and its elements: one at a time needs the stack of one.
    let mut reader = reader::Reader(bytes);
    for _ in 0..reader.double().ok_or(Refusal::Encoding)? {
        let compartment = reader.compartment().ok_or(Refusal::Encoding)?;
        plan.compartments.push(compartment).map_err(|_| Refusal::Encoding)?;
    }
    if !reader.0.is_empty() {
        return Err(Refusal::Encoding);
    }
    check(plan, HEADER_LENGTH as u64 + u64::from(plan_length), length)
}

/// Checks a plan's rules; payloads must lie between `payloads` and `length`.
#[inline(never)]
fn check(plan: &Plan, payloads: u64, length: u64) -> Result<(), Refusal> {
    if plan.compartments.is_empty() {
        return Err(Refusal::Empty);
    }
    for (index, compartment) in plan.compartments.iter().enumerate() {
        let refuse = |rule| Err(Refusal::Compartment(index as u8, rule));
        if !valid_name(&compartment.name) {
            return refuse(Rule::Name);
        }
        if plan.compartments.iter().take(index).any(|other| other.name == compartment.name) {
            return refuse(Rule::DuplicateName);
        }
        let memory = compartment.memory;
        if !(MEMORY_LEAST..=MEMORY_MOST).contains(&memory) || !memory.is_multiple_of(MEMORY_GRAIN) {
            return refuse(Rule::Memory);
        }
        if compartment.vcpus == 0 || usize::from(compartment.vcpus) > VCPUS {
            return refuse(Rule::Vcpus);
        }
        if !(1..=10_000).contains(&compartment.share) {
            return refuse(Rule::Share);
        }
        if !compartment.cpus.is_empty() && compartment.cpus.len() != usize::from(compartment.vcpus) {
            return refuse(Rule::Cpus);
        }
        for (number, segment) in compartment.segments.iter().enumerate() {
            let inside = segment.source.checked_add(segment.length).is_some_and(|end| end <= length);
            if segment.length == 0 || segment.source < payloads || !inside {
                return refuse(Rule::SegmentSource(number as u8));
            }
            if !in_memory(memory, segment.target, segment.length) {
                return refuse(Rule::SegmentTarget(number as u8));
            }
        }
        let start = &compartment.start;
        let table = u64::from(start.descriptor_table_limit) + 1;
        if !in_memory(memory, start.entry, 1)
            || !in_memory(memory, start.descriptor_table, table)
            || !in_memory(memory, start.page_table, 4096)
            || !start.page_table.is_multiple_of(4096)
        {
            return refuse(Rule::Start);
        }
    }
    Ok(())
}
