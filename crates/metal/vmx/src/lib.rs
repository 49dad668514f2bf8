//! The VMX back end: VT-x with extended page tables (SDM Vol. 3C chapters 24 to 28).
//!
//! Row 3 (metal). It enters the guest and says why it came back, in the neutral words of [`contracts::Exit`]; it decides
//! nothing. [`Vmx`] is what the image builds with, [`VmxVcpu`] a virtual processor.
#![no_std]

mod apic;
mod controls;
mod event;
mod exit;
mod field;
mod host;
mod identity;
mod permissions;
mod rules;
mod segment;
mod structure;
mod vcpu;

use address::{GuestPhysical, HostPhysical, PAGE_4K};
use backend::{BackEnd, NoWatch, Watch};
use contracts::{CpuIndex, DeadlineTimer, InterruptDelivery, SupervisorState, TranslationTags, UnpagedModes};
use controls::Controls;
use core::marker::PhantomData;
use cpu::vmx::Capabilities;
use cpu::{Features, VectorState};
use memory::{Frames, OwnedFrames, PrivateArea};
pub use vcpu::VmxVcpu;

/// The back end. `U` says who runs guests without paging (hardware part `unrestricted-guest`), `T` whether translations are tagged (`vpid`),
/// `D` whether the world switch has a timer (`preemption-timer`), `S` whether guests have XSAVES (`xsaves`), `A` who delivers the interrupts of
/// local APICs (`apic-virtualization`), `W` who looks at what is mapped (`isolation-check`).
pub struct Vmx<U, T, D, S, A, W = NoWatch>(PhantomData<(U, T, D, S, A, W)>);

impl<U, T, D, S, A, W> BackEnd for Vmx<U, T, D, S, A, W>
where
    U: UnpagedModes + Send,
    T: TranslationTags + Send,
    D: DeadlineTimer + Send,
    S: SupervisorState + Send,
    S: SupervisorState,
    A: InterruptDelivery + Send,
    W: Watch + Send,
{
    type Vcpu = VmxVcpu<U, T, D, S, A, W>;

    fn missing(features: &Features) -> Option<&'static str> {
        let capabilities = Capabilities::of(features);
        host::missing(features, &capabilities)
            .or_else(|| Controls::compute::<U, T, D, S, A>(&capabilities, features.rdtscp).err())
            .or_else(|| (S::SAVED && !cpu::has_xsaves(features)).then_some(controls::NO_XSAVES))
    }

    fn prepare(frames: &mut Frames, cpus: usize) -> Result<(), u64> {
        host::prepare(frames, cpus, A::HELD)
    }

    fn enable(cpu: CpuIndex, features: &Features) -> bool {
        (!S::SAVED || cpu::clear_supervisor_state(features)) && host::enable(cpu, features)
    }

    fn pages(features: &Features) -> usize {
        1 + vector_pages(features) + usize::from(A::HELD)
    }

    const SHOWN: bool = !U::UNRESTRICTED;

    fn shown(area: &mut PrivateArea) -> Option<(GuestPhysical, OwnedFrames)> {
        Some((identity::ADDRESS, area.shown_page(identity::entry)?))
    }

    fn vcpu(
        area: &mut PrivateArea,
        root: HostPhysical,
        number: u32,
        features: &Features,
    ) -> Option<VmxVcpu<U, T, D, S, A, W>> {
        let frames = vcpu::Frames {
            structure: area.page()?,
            vector: area.pages(vector_pages(features))?,
            root,
            interrupts: if A::HELD { Some(area.page()?) } else { None },
        };
        VmxVcpu::new(frames, number, features, Capabilities::of(features))
    }
}

fn vector_pages(features: &Features) -> usize {
    VectorState::area(features).div_ceil(PAGE_4K as usize)
}
