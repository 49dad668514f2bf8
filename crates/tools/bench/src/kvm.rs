//! Whether the host's processor can run a hypervisor as a guest of KVM.

use std::fs::{self, File};
use std::path::Path;

use serde::Deserialize;

use crate::{Accelerator, BenchMachine, Emulator};

/// The virtualization that a machine under KVM offers its own guests.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nested {
    /// VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

impl Nested {
    /// The flag of `/proc/cpuinfo`, and the kernel's module.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Vmx => ("vmx", "kvm_intel"),
            Self::Svm => ("svm", "kvm_amd"),
        }
    }

    /// Why the host whose files are below `root` (`/`, but for tests) does not offer it, as a sentence's end; `None` if it does. Changes nothing.
    pub fn obstacle(self, root: &Path) -> Option<String> {
        let (flag, module) = self.names();
        if let Err(error) = File::options().read(true).write(true).open(root.join("dev/kvm")) {
            return Some(format!("/dev/kvm cannot be opened: {error}"));
        }
        let processors = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let has_flag = |line: &str| {
            line.split_once(':').is_some_and(|(name, flags)| {
                name.trim() == "flags" && flags.split_whitespace().any(|known| known == flag)
            })
        };
        if !processors.lines().any(has_flag) {
            return Some(format!("its processor has no {flag}"));
        }
        // The parameter is a truth value in newer kernels and a number in older ones.
        match fs::read_to_string(root.join("sys/module").join(module).join("parameters/nested")) {
            Ok(nested) if matches!(nested.trim(), "1" | "Y" | "y") => None,
            Ok(_) => Some(format!("{module} has nested virtualization off")),
            Err(error) => Some(format!("what {module} offers its guests cannot be read: {error}")),
        }
    }
}

/// The machine that a run takes of those that a profile names, in their order: under KVM the first one that is the host's own processor, else the
/// first QEMU; under TCG the first one that is not; under `Auto` the first one that is, if the host offers what it is for, else as under
/// TCG. `root` is where the host's files are. `None`: there is none of that kind.
pub fn choose<'a>(
    machines: &'a [BenchMachine],
    accelerator: Accelerator,
    root: &Path,
) -> Option<&'a BenchMachine> {
    let emulated = || machines.iter().find(|machine| machine.nested.is_none());
    match accelerator {
        Accelerator::Tcg => emulated(),
        Accelerator::Kvm => {
            let own = machines.iter().find(|machine| machine.nested.is_some());
            own.or_else(|| machines.iter().find(|machine| machine.emulator == Emulator::Qemu))
        }
        Accelerator::Auto => machines
            .iter()
            .find(|machine| machine.nested.is_some_and(|nested| nested.obstacle(root).is_none()))
            .or_else(emulated),
    }
}
