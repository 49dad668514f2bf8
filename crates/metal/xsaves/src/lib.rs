//! Hardware part: guests have XSAVES and XRSTORS, and IA32_XSS (SDM Vol. 3C §25.6.2, "enable XSAVES/XRSTORS").
//!
//! No supervisor state is offered: IA32_XSS stays 0. Without the part both instructions raise #UD in a guest.
#![no_std]

use contracts::SupervisorState;

/// Secondary processor-based control bit 20.
#[derive(Debug)]
pub struct Xsaves;

impl SupervisorState for Xsaves {
    const SAVED: bool = true;
}
