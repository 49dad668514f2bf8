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
mod vector;

use address::{HostPhysical, PAGE_4K};
use backend::BackEnd;
use contracts::{CpuIndex, NextInstruction};
use core::marker::PhantomData;
use cpu::Features;
use memory::{Frames, PrivateArea};
pub use vcpu::SvmVcpu;

/// The back end. `N` says whether the processor saves the address of the next instruction (hardware part `nrip-save`).
pub struct Svm<N>(PhantomData<N>);

impl<N: NextInstruction + Send> BackEnd for Svm<N> {
    type Vcpu = SvmVcpu<N>;

    fn missing(features: &Features) -> Option<&'static str> {
        host::missing(features).or_else(|| {
            (N::SAVED && !features.nrip_save).then_some(
                "this processor does not save the next instruction's address, which part nrip-save needs",
            )
        })
    }

    fn prepare(frames: &mut Frames, cpus: usize) -> bool {
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
    ) -> Option<SvmVcpu<N>> {
        let frames = vcpu::Frames {
            control_block: area.page()?,
            vector: area.pages(vector_pages(features))?,
            nested_root: root,
        };
        Some(SvmVcpu::new(frames, number, features))
    }
}

fn vector_pages(features: &Features) -> usize {
    (features.vector_area as usize).max(512).div_ceil(PAGE_4K as usize)
}
