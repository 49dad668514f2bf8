//! One 8259A. What it says is the Intel 8259A data sheet's (order number 231468), by the names of its registers.

/// Where in the initialization sequence the chip is (data sheet, figure "Initialization Sequence").
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Initialized: a write to the odd address is OCW1.
    Ready,
    /// ICW1 came; ICW2 is next.
    VectorNext,
    /// ICW2 came; ICW3 is next.
    CascadeNext,
    /// ICW4 is next.
    ModeNext,
}

/// What the data sheet calls the slave input of a PC's master: the line on which the other chip asks.
pub(crate) const CASCADE: u8 = 2;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chip {
    // Requests and their state, a bit for each input.
    /// Inputs as they are now.
    lines: u8,
    /// Rising edges not yet acknowledged.
    edges: u8,
    /// In-service register.
    in_service: u8,
    /// Interrupt mask register.
    mask: u8,
    /// Inputs that are level-triggered (the chip set's ELCR).
    level: u8,

    // Fixed by initialization.
    step: Step,
    /// ICW1 bit 0: ICW4 will follow.
    wants_mode: bool,
    /// ICW1 bit 1: no other 8259A.
    single: bool,
    /// ICW1 bit 2: call addresses lie four bytes apart, not eight. Only in MCS-80/85 mode.
    interval_four: bool,
    /// ICW1 bits 7–5: address bits A7 to A5 in MCS-80/85 mode.
    address: u8,
    /// ICW2.
    vector: u8,
    /// ICW3: inputs with a slave (master), or the slave's number.
    cascade: u8,
    /// ICW4 bit 0: 8086 mode.
    mode_8086: bool,
    /// ICW4 bit 1: automatic end of interrupt.
    automatic_end: bool,
    /// ICW4 bit 4: special fully nested mode.
    special_nested: bool,

    // Fixed by operation commands.
    /// The input of highest priority.
    first: u8,
    /// Rotate at each automatic end of interrupt.
    rotate_at_end: bool,
    /// Special mask mode.
    special_mask: bool,
    /// A read of the even address gives the in-service register, not the request register.
    reads_in_service: bool,
    /// The next read is the poll word.
    poll: bool,
}

impl Chip {
    /// A chip as a PC's firmware leaves it: initialized for 8086 mode, every input masked.
    pub(crate) const fn initialized(vector: u8, cascade: u8) -> Self {
        Self {
            lines: 0,
            edges: 0,
            in_service: 0,
            mask: 0xff,
            level: 0,
            step: Step::Ready,
            wants_mode: true,
            single: false,
            interval_four: false,
            address: 0,
            vector,
            cascade,
            mode_8086: true,
            automatic_end: false,
            special_nested: false,
            first: 0,
            rotate_at_end: false,
            special_mask: false,
            reads_in_service: false,
            poll: false,
        }
    }

    /// Drives input `input` (0 to 7). A request by edge lasts while the input stays high ("the IR input must remain
    /// high until after the falling edge of the first INTA").
    #[inline]
    pub(crate) fn drive(&mut self, input: u8, high: bool) {
        let bit = 1 << (input & 7);
        if high {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            self.edges &= !bit;
            self.lines &= !bit;
        }
    }

    /// The interrupt request register.
    #[inline]
    pub(crate) const fn requests(&self) -> u8 {
        (self.edges & !self.level) | (self.lines & self.level)
    }

    /// The input of highest priority among `bits`, as distance from the first.
    #[inline]
    const fn rank(&self, bits: u8) -> Option<u8> {
        if bits == 0 { None } else { Some(bits.rotate_right(self.first as u32).trailing_zeros() as u8) }
    }

    #[inline]
    const fn input_of(&self, rank: u8) -> u8 {
        (self.first + rank) & 7
    }

    /// The request that INT stands for: unmasked, and not locked out by one in service ("Fully Nested Mode",
    /// "Special Mask Mode", "The Special Fully Nested Mode").
    #[inline]
    pub(crate) fn winner(&self) -> Option<u8> {
        // Only the end of the sequence makes the chip "ready to accept interrupt requests".
        if self.step != Step::Ready {
            return None;
        }
        let rank = self.rank(self.requests() & !self.mask)?;
        let blocking = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        let Some(top) = self.rank(blocking) else { return Some(self.input_of(rank)) };
        // In special fully nested mode a slave whose interrupt is in service is not locked out by itself.
        let same_slave = self.special_nested
            && !self.single
            && rank == top
            && self.cascade & (1 << self.input_of(rank)) != 0;
        (rank < top || same_slave).then(|| self.input_of(rank))
    }

    /// The first INTA pulse: the winner goes into service; `None` if there is no request any more.
    #[inline]
    pub(crate) fn acknowledge(&mut self) -> Option<u8> {
        let input = self.winner()?;
        let bit = 1 << input;
        self.edges &= !bit;
        if self.automatic_end {
            if self.rotate_at_end {
                self.make_lowest(input);
            }
        } else {
            self.in_service |= bit;
        }
        Some(input)
    }

    /// The byte that the chip puts on the bus at the second INTA pulse. In MCS-80/85 mode that is the low half of a
    /// call address ("Interrupt Sequence Outputs"), which an x86 processor takes for the vector just the same.
    #[inline]
    pub(crate) const fn vector(&self, input: u8) -> u8 {
        if self.mode_8086 {
            (self.vector & 0xf8) | input
        } else if self.interval_four {
            (self.address & 0xe0) | (input << 2)
        } else {
            (self.address & 0xc0) | (input << 3)
        }
    }

    /// Whether input `input` has a slave, as the chip was told.
    #[inline]
    pub(crate) const fn has_slave(&self, input: u8) -> bool {
        !self.single && self.cascade & (1 << (input & 7)) != 0
    }

    /// Whether the chip, as a slave, answers to the number that the master puts on the cascade lines.
    #[inline]
    pub(crate) const fn answers_to(&self, number: u8) -> bool {
        !self.single && self.cascade & 7 == number
    }

    fn make_lowest(&mut self, input: u8) {
        self.first = (input + 1) & 7;
    }

    /// Reads the even address (`odd` false) or the odd one.
    #[inline]
    pub(crate) fn read(&mut self, odd: bool) -> u8 {
        if self.poll {
            // The read that follows a poll command is an acknowledge, whichever address it is at ("Poll Command").
            self.poll = false;
            return self.acknowledge().map_or(7, |input| 0x80 | input);
        }
        if odd {
            self.mask
        } else if self.reads_in_service {
            self.in_service
        } else {
            self.requests()
        }
    }

    /// Writes the even address: ICW1, OCW2 or OCW3.
    pub(crate) fn write_even(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 == 0 {
            self.end_or_rotate(value);
        } else {
            self.select(value);
        }
    }

    /// ICW1, and what it does by itself ("Initialization Command Words 1 and 2", a to f). In-service bits go too: the
    /// chip starts anew.
    fn initialize(&mut self, value: u8) {
        self.edges = 0;
        self.in_service = 0;
        self.mask = 0;
        self.first = 0;
        self.rotate_at_end = false;
        self.special_mask = false;
        self.reads_in_service = false;
        self.poll = false;
        self.wants_mode = value & 1 != 0;
        self.single = value & 2 != 0;
        self.interval_four = value & 4 != 0;
        self.address = value & 0xe0;
        if !self.wants_mode {
            self.mode_8086 = false;
            self.automatic_end = false;
            self.special_nested = false;
        }
        self.step = Step::VectorNext;
    }

    /// OCW2.
    fn end_or_rotate(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_at_end = false,
            0b100 => self.rotate_at_end = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(input) = self.end_highest() {
                    self.make_lowest(input);
                }
            }
            0b011 => self.in_service &= !(1 << level),
            0b111 => {
                self.in_service &= !(1 << level);
                self.make_lowest(level);
            }
            0b110 => self.make_lowest(level),
            // No operation.
            _ => {}
        }
    }

    /// Non-specific end of interrupt: the highest one in service ends. In special mask mode a masked one stays
    /// ("Special Mask Mode", last sentence of "End of Interrupt").
    fn end_highest(&mut self) -> Option<u8> {
        let ending = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        let input = self.input_of(self.rank(ending)?);
        self.in_service &= !(1 << input);
        Some(input)
    }

    /// OCW3.
    fn select(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        if value & 0x02 != 0 {
            self.reads_in_service = value & 0x01 != 0;
        }
        self.poll = value & 0x04 != 0;
    }

    /// Writes the odd address: the next ICW, or OCW1.
    pub(crate) fn write_odd(&mut self, value: u8) {
        let after_vector = || if self.wants_mode { Step::ModeNext } else { Step::Ready };
        match self.step {
            Step::Ready => self.mask = value,
            Step::VectorNext => {
                self.step = if self.single { after_vector() } else { Step::CascadeNext };
                self.vector = value;
            }
            Step::CascadeNext => {
                self.step = after_vector();
                self.cascade = value;
            }
            Step::ModeNext => {
                self.mode_8086 = value & 1 != 0;
                self.automatic_end = value & 2 != 0;
                self.special_nested = value & 0x10 != 0;
                self.step = Step::Ready;
            }
        }
    }

    /// Chooses which inputs are level-triggered. An edge that was waiting on an input that changes is forgotten.
    pub(crate) fn set_level(&mut self, level: u8) {
        self.edges &= !(self.level ^ level);
        self.level = level;
    }

    pub(crate) const fn level(&self) -> u8 {
        self.level
    }
}
