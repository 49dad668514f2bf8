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

/// What the hardware parts of a product say of VT-x, and who looks at what is mapped. A part more is a line here, and one in [`Vmx`].
pub trait Parts {
    /// The processor runs guests without paging (`unrestricted-guest`).
    const UNRESTRICTED: bool;
    /// Translations are tagged (`vpid`).
    const TAGGED: bool;
    /// The world switch has a timer (`preemption-timer`).
    const TIMER: bool;
    /// Guests have XSAVES (`xsaves`).
    const XSAVES: bool;
    /// The processor delivers the interrupts of local APICs (`apic-virtualization`).
    const DELIVERS: bool;
    /// Who looks at what is mapped (`isolation-check`).
    type Watch: Watch;
}

/// The back end, of the roles that the parts fill: see [`Parts`], in that order.
pub struct Vmx<U, T, D, S, A, W = NoWatch>(PhantomData<(U, T, D, S, A, W)>);

impl<U, T, D, S, A, W> Parts for Vmx<U, T, D, S, A, W>
where
    U: UnpagedModes,
    T: TranslationTags,
    D: DeadlineTimer,
    S: SupervisorState,
    A: InterruptDelivery,
    W: Watch,
{
    const UNRESTRICTED: bool = U::UNRESTRICTED;
    const TAGGED: bool = T::TAGGED;
    const TIMER: bool = D::PRESENT;
    const XSAVES: bool = S::SAVED;
    const DELIVERS: bool = A::HELD;
    type Watch = W;
}

impl<U, T, D, S, A, W> BackEnd for Vmx<U, T, D, S, A, W>
where
    Self: Parts,
{
    type Vcpu = VmxVcpu<Self>;

    fn missing(features: &Features) -> Option<&'static str> {
        let capabilities = Capabilities::of(features);
        host::missing(features, &capabilities)
            .or_else(|| Controls::compute::<Self>(&capabilities, features.rdtscp).err())
            .or_else(|| (Self::XSAVES && !cpu::has_xsaves(features)).then_some(controls::NO_XSAVES))
    }

    fn prepare(frames: &mut Frames, cpus: usize) -> Result<(), u64> {
        host::prepare(frames, cpus, Self::DELIVERS)
    }

    fn enable(cpu: CpuIndex, features: &Features) -> bool {
        (!Self::XSAVES || cpu::clear_supervisor_state(features)) && host::enable(cpu, features)
    }

    fn pages(features: &Features) -> usize {
        1 + vector_pages(features) + usize::from(Self::DELIVERS)
    }

    const SHOWN: bool = !Self::UNRESTRICTED;

    fn shown(area: &mut PrivateArea) -> Option<(GuestPhysical, OwnedFrames)> {
        Some((identity::ADDRESS, area.shown_page(identity::entry)?))
    }

    fn vcpu(
        area: &mut PrivateArea,
        root: HostPhysical,
        number: u32,
        features: &Features,
    ) -> Option<VmxVcpu<Self>> {
        let frames = vcpu::Frames {
            structure: area.page()?,
            vector: area.pages(vector_pages(features))?,
            root,
            interrupts: if Self::DELIVERS { Some(area.page()?) } else { None },
        };
        VmxVcpu::new(frames, number, features, Capabilities::of(features))
    }
}

fn vector_pages(features: &Features) -> usize {
    VectorState::area(features).div_ceil(PAGE_4K as usize)
}
