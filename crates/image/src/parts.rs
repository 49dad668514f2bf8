//! The table of contents of the product line: two lines a part, the real one or what stands where it is left out.
//!
//! The only file in the tree where `cfg(feature = …)` is legal.

// Back end and second stage.
#[cfg(feature = "svm")]
pub type BackEnd = svm::Svm<NextInstruction>;
#[cfg(not(feature = "svm"))]
pub type BackEnd = backend::Absent;

#[cfg(feature = "npt")]
pub type Stage = npt::NestedTables;
#[cfg(not(feature = "npt"))]
pub type Stage = backend::Absent;

// Hardware parts.
#[cfg(feature = "nrip-save")]
pub type NextInstruction = nrip_save::NripSave;
#[cfg(not(feature = "nrip-save"))]
pub type NextInstruction = contracts::absent::Absent;

// Schedulers: one of them, the static one where a profile names both.
#[cfg(feature = "schedule-static")]
pub type ScheduleStatic<const VCPUS: usize> = schedule_static::ScheduleStatic<VCPUS>;
#[cfg(not(feature = "schedule-static"))]
pub type ScheduleStatic<const VCPUS: usize> = ScheduleShared<VCPUS>;

#[cfg(feature = "schedule-shared")]
pub type ScheduleShared<const VCPUS: usize> = schedule_shared::ScheduleShared<VCPUS>;
#[cfg(not(feature = "schedule-shared"))]
pub type ScheduleShared<const VCPUS: usize> = contracts::absent::NoScheduler<VCPUS>;

// The guest's platform.
#[cfg(feature = "local-apic")]
pub type LocalApic = local_apic::LocalApic;
#[cfg(not(feature = "local-apic"))]
pub type LocalApic = contracts::absent::Absent;

#[cfg(feature = "io-apic")]
pub type IoApic = io_apic::IoApic;
#[cfg(not(feature = "io-apic"))]
pub type IoApic = contracts::absent::Absent;

#[cfg(feature = "pic")]
pub type Pic = pic::Pic;
#[cfg(not(feature = "pic"))]
pub type Pic = contracts::absent::Absent;

#[cfg(feature = "pit")]
pub type Pit = pit::Pit;
#[cfg(not(feature = "pit"))]
pub type Pit = contracts::absent::Absent;

#[cfg(feature = "rtc")]
pub type Rtc = rtc::Rtc;
#[cfg(not(feature = "rtc"))]
pub type Rtc = contracts::absent::Absent;

#[cfg(feature = "uart")]
pub type Uart = uart::Uart;
#[cfg(not(feature = "uart"))]
pub type Uart = contracts::absent::Absent;

#[cfg(feature = "acpi-power")]
pub type AcpiPower = acpi_power::AcpiPower;
#[cfg(not(feature = "acpi-power"))]
pub type AcpiPower = contracts::absent::Absent;

#[cfg(feature = "pci-host")]
pub type PciHost = pci_host::PciHost;
#[cfg(not(feature = "pci-host"))]
pub type PciHost = contracts::absent::Absent;

#[cfg(feature = "kvm-clock")]
pub type ClockPage = kvm_clock::KvmClock;
#[cfg(not(feature = "kvm-clock"))]
pub type ClockPage = contracts::absent::Absent;
