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
use contracts::{CpuIndex, DecodedInstruction, NextInstruction, SpinDetector, TranslationFlush};
use core::marker::PhantomData;
use cpu::{Features, VectorState};
use memory::{Frames, PrivateArea};
pub use vcpu::SvmVcpu;

/// The back end. `N` says whether the processor saves the address of the next instruction (hardware part `nrip-save`), `D` whether it
/// says what an instruction was (hardware part `decode-assists`), `F` whether it can forget one guest's translations alone (hardware part
/// `flush-by-asid`), `S` whether it notices a guest that spins (hardware part `pause-filter`), `W` who looks at what is mapped (part
/// `isolation-check`).
pub struct Svm<N, D, F, S, W = NoWatch>(PhantomData<(N, D, F, S, W)>);

impl<N, D, F, S, W> BackEnd for Svm<N, D, F, S, W>
where
    N: NextInstruction + Send,
    D: DecodedInstruction + Send,
    F: TranslationFlush + Send,
    S: SpinDetector + Send,
    W: Watch + Send,
{
    type Vcpu = SvmVcpu<N, D, F, S, W>;

    fn missing(features: &Features) -> Option<&'static str> {
        host::missing(features).or_else(|| missing_for_parts::<N, D, F, S>(features))
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
    ) -> Option<SvmVcpu<N, D, F, S, W>> {
        let frames = vcpu::Frames {
            control_block: area.page()?,
            vector: area.pages(vector_pages(features))?,
            nested_root: root,
        };
        Some(SvmVcpu::new(frames, number, features))
    }
}

/// What the hardware parts of this back end do not find on a processor.
fn missing_for_parts<N, D, F, S>(features: &Features) -> Option<&'static str>
where
    N: NextInstruction,
    D: DecodedInstruction,
    F: TranslationFlush,
    S: SpinDetector,
{
    if N::SAVED && !features.nrip_save {
        return Some(
            "this processor does not save the next instruction's address, which part nrip-save needs",
        );
    }
    if D::GIVEN && !features.decode_assists {
        return Some(
            "this processor does not decode intercepted instructions, which part decode-assists needs",
        );
    }
    if F::OWN && !features.flush_by_asid {
        return Some(
            "this processor cannot forget one guest's translations alone, which part flush-by-asid needs",
        );
    }
    (S::PRESENT && !features.pause_filter)
        .then_some("this processor does not count a guest's PAUSEs, which part pause-filter needs")
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

    impl TranslationFlush for Present {
        const OWN: bool = true;
    }

    impl SpinDetector for Present {
        const PRESENT: bool = true;
    }

    #[test]
    fn a_part_that_the_processor_cannot_carry_is_named() {
        let none = Features::default();
        let named = |missing: Option<&str>, part: &str| missing.is_some_and(|missing| missing.contains(part));
        assert_eq!(missing_for_parts::<Absent, Absent, Absent, Absent>(&none), None);
        assert!(named(missing_for_parts::<Present, Absent, Absent, Absent>(&none), "part nrip-save"));
        assert!(named(missing_for_parts::<Absent, Present, Absent, Absent>(&none), "part decode-assists"));
        assert!(named(missing_for_parts::<Absent, Absent, Present, Absent>(&none), "part flush-by-asid"));
        assert!(named(missing_for_parts::<Absent, Absent, Absent, Present>(&none), "part pause-filter"));
        let saves = Features { nrip_save: true, ..none };
        assert_eq!(missing_for_parts::<Present, Absent, Absent, Absent>(&saves), None);
        assert!(named(missing_for_parts::<Present, Present, Absent, Absent>(&saves), "part decode-assists"));
        let both = Features { decode_assists: true, ..saves };
        assert_eq!(missing_for_parts::<Present, Present, Absent, Absent>(&both), None);
        assert!(named(missing_for_parts::<Present, Present, Present, Absent>(&both), "part flush-by-asid"));
        let three = Features { flush_by_asid: true, ..both };
        assert_eq!(missing_for_parts::<Present, Present, Present, Absent>(&three), None);
        assert!(named(missing_for_parts::<Present, Present, Present, Present>(&three), "part pause-filter"));
        let all = Features { pause_filter: true, ..three };
        assert_eq!(missing_for_parts::<Present, Present, Present, Present>(&all), None);
    }
}
