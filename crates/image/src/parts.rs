//! The table of contents of the product line: two lines a part. Where a profile leaves it out, the name of its role comes from
//! [`contracts::absent::roles`] and [`backend::roles`], which these lines hide.
//!
//! The only file in the tree where `cfg(feature = …)` is legal.

// A product that has every part uses none of these names.
#[allow(unused_imports)]
pub use backend::roles::*;
#[allow(unused_imports)]
pub use contracts::absent::roles::*;

// Back ends and their second stages, of each vendor's processors.
#[cfg(feature = "svm")]
pub type AmdBackEnd = svm::Svm<NextInstruction, DecodedInstruction, TranslationFlush, SpinDetector, Watch>;
#[cfg(feature = "npt")]
pub type AmdStage = npt::NestedTables;
#[cfg(feature = "vmx")]
pub type IntelBackEnd =
    vmx::Vmx<UnpagedModes, TranslationTags, DeadlineTimer, SupervisorState, InterruptDelivery, Watch>;
#[cfg(feature = "ept")]
pub type IntelStage = ept::ExtendedTables<HugePages>;

// Hardware parts.
#[cfg(feature = "nrip-save")]
pub type NextInstruction = nrip_save::NripSave;
#[cfg(feature = "decode-assists")]
pub type DecodedInstruction = decode_assists::DecodeAssists;
#[cfg(feature = "flush-by-asid")]
pub type TranslationFlush = flush_by_asid::FlushByAsid;
#[cfg(feature = "pause-filter")]
pub type SpinDetector = pause_filter::PauseFilter;
#[cfg(feature = "unrestricted-guest")]
pub type UnpagedModes = unrestricted_guest::UnrestrictedGuest;
#[cfg(feature = "vpid")]
pub type TranslationTags = vpid::Vpid;
#[cfg(feature = "preemption-timer")]
pub type DeadlineTimer = preemption_timer::PreemptionTimer;
#[cfg(feature = "apic-virtualization")]
pub type InterruptDelivery = apic_virtualization::ApicVirtualization;
#[cfg(feature = "ept-large-pages")]
pub type HugePages = ept_large_pages::EptLargePages;
#[cfg(feature = "xsaves")]
pub type SupervisorState = xsaves::Xsaves;

// Test parts.
#[cfg(feature = "isolation-check")]
pub type Watch = isolation_check::IsolationCheck;

// Schedulers: one of them; the static one where a profile names both.
#[cfg(feature = "schedule-static")]
pub type Schedule<const VCPUS: usize> = schedule_static::ScheduleStatic<VCPUS>;
#[cfg(all(feature = "schedule-shared", not(feature = "schedule-static")))]
pub type Schedule<const VCPUS: usize> = schedule_shared::ScheduleShared<VCPUS>;

// The guest's platform.
#[cfg(feature = "local-apic")]
pub type LocalApic = local_apic::LocalApic;
#[cfg(feature = "io-apic")]
pub type IoApic = io_apic::IoApic;
#[cfg(feature = "pic")]
pub type Pic = pic::Pic;
#[cfg(feature = "pit")]
pub type Pit = pit::Pit;
#[cfg(feature = "rtc")]
pub type Rtc = rtc::Rtc;
#[cfg(feature = "uart")]
pub type Uart = uart::Uart;
#[cfg(feature = "acpi-power")]
pub type AcpiPower = acpi_power::AcpiPower;
#[cfg(feature = "pci-host")]
pub type PciHost = pci_host::PciHost;
#[cfg(feature = "kvm-clock")]
pub type ClockPage = kvm_clock::KvmClock;
