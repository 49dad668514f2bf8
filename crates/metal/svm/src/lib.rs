//! The SVM back end: AMD-V with nested paging (APM Vol. 2 chapter 15).
//!
//! Row 3 (metal). It enters the guest and says why it came back, in the neutral words of [`contracts::Exit`]; it decides
//! nothing. [`Svm`] is what the image builds with, [`SvmVcpu`] a virtual processor.
#![no_std]

mod control_block;
mod exit;
mod host;
mod permissions;
mod vcpu;

use address::{HostPhysical, PAGE_4K};
use backend::{BackEnd, NoWatch, Watch};
use contracts::{CpuIndex, DecodedInstruction, NextInstruction};
use core::marker::PhantomData;
use cpu::{Features, VectorState};
use memory::{Frames, PrivateArea};
pub use vcpu::SvmVcpu;

/// The back end. `N` says whether the processor saves the address of the next instruction (hardware part `nrip-save`), `D` whether it
/// says what an instruction was (hardware part `decode-assists`), `W` who looks at what is mapped (part `isolation-check`).
pub struct Svm<N, D, W = NoWatch>(PhantomData<(N, D, W)>);

impl<N: NextInstruction + Send, D: DecodedInstruction + Send, W: Watch + Send> BackEnd for Svm<N, D, W> {
    type Vcpu = SvmVcpu<N, D, W>;

    fn missing(features: &Features) -> Option<&'static str> {
        host::missing(features).or_else(|| missing_for_parts::<N, D>(features))
    }

    fn prepare(frames: &mut Frames, cpus: usize) -> Result<(), u64> {
        host::prepare(frames, cpus)
    }

    fn enable(cpu: CpuIndex, features: &Features) -> bool {
        host::enable(cpu, features)
    }

    fn pages(features: &Features) -> usize {
        1 + vector_pages(features)
    }

    fn vcpu(
        area: &mut PrivateArea,
        root: HostPhysical,
        number: u32,
        features: &Features,
    ) -> Option<SvmVcpu<N, D, W>> {
        let frames = vcpu::Frames {
            control_block: area.page()?,
            vector: area.pages(vector_pages(features))?,
            nested_root: root,
        };
        Some(SvmVcpu::new(frames, number, features))
    }
}

/// What the hardware parts of this back end do not find on a processor.
fn missing_for_parts<N: NextInstruction, D: DecodedInstruction>(features: &Features) -> Option<&'static str> {
    if N::SAVED && !features.nrip_save {
        return Some(
            "this processor does not save the next instruction's address, which part nrip-save needs",
        );
    }
    (D::GIVEN && !features.decode_assists)
        .then_some("this processor does not decode intercepted instructions, which part decode-assists needs")
}

fn vector_pages(features: &Features) -> usize {
    VectorState::area(features).div_ceil(PAGE_4K as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::absent::Absent;

    struct Present;

    impl NextInstruction for Present {
        const SAVED: bool = true;
    }

    impl DecodedInstruction for Present {
        const GIVEN: bool = true;
    }

    #[test]
    fn a_part_that_the_processor_cannot_carry_is_named() {
        let none = Features::default();
        let named = |missing: Option<&str>, part: &str| missing.is_some_and(|missing| missing.contains(part));
        assert_eq!(missing_for_parts::<Absent, Absent>(&none), None);
        assert!(named(missing_for_parts::<Present, Absent>(&none), "nrip-save"));
        assert!(named(missing_for_parts::<Absent, Present>(&none), "decode-assists"));
        let saves = Features { nrip_save: true, ..none };
        assert_eq!(missing_for_parts::<Present, Absent>(&saves), None);
        assert!(named(missing_for_parts::<Present, Present>(&saves), "decode-assists"));
        let both = Features { decode_assists: true, ..saves };
        assert_eq!(missing_for_parts::<Present, Present>(&both), None);
    }
}
