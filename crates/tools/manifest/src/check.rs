//! Checks a manifest against the profile, the machine and the files that it names, and builds the boot module.

use crate::boot::{self, Culprit, Loaded, Protocol, Request};
use crate::mistake::{Mistake, Mistakes, Source};
use crate::model::{Boot, Compartment, Document, Placed};
use crate::read::{nearest, printable};
use crate::{Environment, size};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The manifest format that this tool reads.
pub const FORMAT: i64 = 1;
/// The range of `share`.
const SHARES: std::ops::RangeInclusive<i64> = 1..=10_000;
/// Most vCPUs that a boot module can hold for a compartment.
#[expect(clippy::cast_possible_wrap, reason = "a small constant")]
const VCPUS: i64 = plan::VCPUS as i64;
/// `share` where none is given.
const SHARE: u32 = 100;
/// What the machine's firmware, the hypervisor and its tables need beside the compartments, at least, in bytes.
const HOST_MEMORY: u64 = 16 << 20;
/// RAM with which a kernel is tried if the manifest's number is wrong, so that other mistakes are found as well.
const MEMORY_FOR_TRIAL: u64 = plan::LOW_MEMORY_LIMIT;

/// A manifest without mistakes, and the boot module made of it.
#[derive(Clone, Debug)]
pub struct Checked {
    warnings: Vec<Mistake>,
    compartments: Vec<Summary>,
    module: Vec<u8>,
}

/// A compartment of a checked manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// RAM in bytes.
    pub memory: u64,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// How its kernel is started.
    pub protocol: Protocol,
}

impl Checked {
    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// The compartments, in the manifest's order.
    pub fn compartments(&self) -> &[Summary] {
        &self.compartments
    }

    /// The boot module (format: crate `plan`). The same manifest and files give the same bytes.
    pub fn compile(&self) -> Vec<u8> {
        self.module.clone()
    }

    /// The boot module, without a copy.
    pub fn into_module(self) -> Vec<u8> {
        self.module
    }
}

/// A mistake was found, and is in the list.
struct Reported;

/// A file that a manifest names.
type File = Result<Vec<u8>, String>;

struct Checker<'c> {
    source: &'c Source,
    folder: &'c Path,
    environment: &'c Environment,
    mistakes: Vec<Mistake>,
    files: BTreeMap<PathBuf, File>,
}

/// Checks everything; `found` are the mistakes of reading.
pub(crate) fn check(
    source: &Source,
    folder: &Path,
    document: &Document,
    found: &[Mistake],
    environment: &Environment,
) -> Result<Checked, Mistakes> {
    let mut checker =
        Checker { source, folder, environment, mistakes: found.to_vec(), files: BTreeMap::new() };
    checker.format(document);
    checker.names(document);
    checker.counts(document);
    checker.processors(document);
    checker.absent_parts(document);
    let loaded: Vec<Option<(plan::Compartment, Loaded)>> =
        document.compartments.iter().map(|compartment| checker.compartment(compartment)).collect();
    let module = checker.module(document, loaded);
    let (warnings, mistakes): (Vec<_>, Vec<_>) = checker.mistakes.into_iter().partition(Mistake::is_warning);
    match module {
        Some((compartments, module)) if mistakes.is_empty() => Ok(Checked { warnings, compartments, module }),
        _ => Err(Mistakes::new(source, mistakes)),
    }
}

impl Checker<'_> {
    fn mistake(
        &mut self,
        span: Range<usize>,
        code: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes.push(Mistake::new(self.source, span, code, sentence, remedy));
    }

    fn warning(
        &mut self,
        span: Range<usize>,
        code: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes.push(Mistake::new(self.source, span, code, sentence, remedy).into_warning());
    }

    fn has_part(&self, name: &str) -> bool {
        self.environment.parts.iter().any(|part| part == name)
    }

    /// Processors that vCPUs may run on, and whose limit that is.
    fn processors_there(&self) -> (u32, String) {
        let limit = self.environment.limits.cpus;
        match self.environment.machine_cpus {
            Some(cpus) if cpus < limit => (cpus, format!("the machine has {}", processors(cpus))),
            _ => (limit, format!("profile {} uses {}", self.environment.profile_name, processors(limit))),
        }
    }

    fn format(&mut self, document: &Document) {
        match &document.format {
            Some(format) if format.value == FORMAT => {}
            Some(format) => self.mistake(
                format.span.clone(),
                "format",
                format!("the manifest has format {}, and this tool reads format {FORMAT}", format.value),
                if format.value > FORMAT {
                    "Use a newer release of Ringfence, or write the manifest in format 1."
                } else {
                    "Write `format = 1`."
                },
            ),
            None if document.keys.contains("format") => {}
            None => self.mistake(
                0..0,
                "format-missing",
                "the manifest does not say its format",
                "Write `format = 1` as the first line.",
            ),
        }
    }

    fn names(&mut self, document: &Document) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for compartment in &document.compartments {
            let Some(name) = &compartment.name else {
                if !compartment.keys.contains("name") {
                    self.mistake(
                        compartment.span.clone(),
                        "name-missing",
                        "the compartment has no name",
                        "Write, for example, `name = \"office\"`.",
                    );
                }
                continue;
            };
            let (text, span) = (name.value.as_str(), name.span.clone());
            if text == "ringfence" {
                self.mistake(
                    span.clone(),
                    "name-reserved",
                    "the name `ringfence` is reserved for the hypervisor's own lines on the console",
                    "Choose another name.",
                );
            } else if text.len() > plan::NAME_LIMIT {
                self.mistake(
                    span.clone(),
                    "name-too-long",
                    format!(
                        "the name `{}` has {} bytes, and at most {} are allowed",
                        printable(text),
                        text.len(),
                        plan::NAME_LIMIT
                    ),
                    "Choose a shorter name.",
                );
            } else if !plan::valid_name(text) {
                self.mistake(
                    span.clone(),
                    "name-characters",
                    format!("`{}` cannot be the name of a compartment", printable(text)),
                    "A name begins with a lower-case letter, and has lower-case letters, digits and `-` only.",
                );
            }
            let line = Mistake::new(self.source, span.clone(), "", "", "").line();
            if let Some(first) = seen.get(text) {
                let sentence =
                    format!("the name `{}` is taken by the compartment in line {first}", printable(text));
                self.mistake(span, "name-duplicate", sentence, "Give each compartment a name of its own.");
            } else {
                seen.insert(text.to_owned(), line);
            }
        }
    }

    /// How many compartments and vCPUs there are.
    fn counts(&mut self, document: &Document) {
        let profile = &self.environment.profile_name;
        if document.compartments.is_empty() && !document.keys.contains("compartment") {
            let length = self.source.text().len();
            self.mistake(
                length..length,
                "no-compartment",
                "the manifest has no compartment, so nothing would run",
                "Write at least one `[[compartment]]` with name, memory and boot.",
            );
            return;
        }
        let limit = (self.environment.limits.compartments as usize).min(plan::COMPARTMENTS);
        if let Some(first) = document.compartments.get(limit) {
            let sentence = format!(
                "the manifest has {} compartments, and profile {profile} has room for {limit}",
                document.compartments.len()
            );
            self.mistake(
                first.span.clone(),
                "too-many-compartments",
                sentence,
                "Remove compartments, or choose a profile with a higher `limits.compartments`.",
            );
        }
    }

    /// vCPUs, shares and pins.
    fn processors(&mut self, document: &Document) {
        let fixed = self.has_part("schedule-static");
        let (there, whose) = self.processors_there();
        let mut sum: i64 = 0;
        let mut owners: BTreeMap<i64, String> = BTreeMap::new();
        let mut exceeded = false;
        for compartment in &document.compartments {
            let vcpus = self.vcpus(compartment);
            sum = sum.saturating_add(vcpus.unwrap_or(1));
            if fixed && sum > i64::from(there) && !exceeded {
                exceeded = true;
                let span = compartment.vcpus.as_ref().map_or(&compartment.span, |vcpus| &vcpus.span).clone();
                self.mistake(
                    span,
                    "too-many-vcpus-for-static",
                    format!("up to here the compartments have {sum} vCPUs, and {whose}"),
                    "Under schedule-static each vCPU owns a processor: take fewer vCPUs, or a profile with schedule-shared.",
                );
            }
            if let Some(share) = &compartment.share {
                if !SHARES.contains(&share.value) {
                    self.mistake(
                        share.span.clone(),
                        "share-range",
                        format!("the share {} is out of range", share.value),
                        "Write a weight from 1 to 10000; 100 is usual.",
                    );
                } else if fixed {
                    let sentence = format!(
                        "`share` has no effect: profile {} schedules statically",
                        self.environment.profile_name
                    );
                    self.warning(
                        share.span.clone(),
                        "share-without-effect",
                        sentence,
                        "Remove `share`, or choose a profile with schedule-shared.",
                    );
                }
            }
            if let Some(cpus) = &compartment.cpus {
                self.pins(compartment, cpus, vcpus, fixed, &mut owners);
            }
        }
    }

    /// The number of vCPUs, if it is possible.
    fn vcpus(&mut self, compartment: &Compartment) -> Option<i64> {
        let limit = i64::from(self.environment.limits.vcpus_per_compartment).min(VCPUS);
        let Some(vcpus) = &compartment.vcpus else { return Some(1) };
        if vcpus.value < 1 {
            self.mistake(
                vcpus.span.clone(),
                "vcpus-none",
                format!("a compartment with {} vCPUs cannot run", vcpus.value),
                "Write `vcpus = 1` or more.",
            );
            return None;
        }
        if vcpus.value > limit {
            let sentence = format!(
                "{} vCPUs are more than the {limit} that profile {} allows a compartment",
                vcpus.value, self.environment.profile_name
            );
            self.mistake(
                vcpus.span.clone(),
                "vcpus-limit",
                sentence,
                "Take fewer vCPUs, or choose a profile with a higher `limits.vcpus-per-compartment`.",
            );
            return None;
        }
        Some(vcpus.value)
    }

    fn pins(
        &mut self,
        compartment: &Compartment,
        cpus: &Placed<Vec<Placed<i64>>>,
        vcpus: Option<i64>,
        fixed: bool,
        owners: &mut BTreeMap<i64, String>,
    ) {
        if !fixed {
            let sentence = format!(
                "`cpus` pins vCPUs to processors, which needs part `schedule-static`, and profile {} does not have it",
                self.environment.profile_name
            );
            self.mistake(
                cpus.span.clone(),
                "cpus-without-static",
                sentence,
                "Remove `cpus`, or choose a profile with schedule-static.",
            );
            return;
        }
        if let Some(vcpus) = vcpus
            && i64::try_from(cpus.value.len()).ok() != Some(vcpus)
        {
            self.mistake(
                cpus.span.clone(),
                "cpus-length",
                format!("`cpus` names {} for {vcpus} vCPUs", processors(cpus.value.len() as u32)),
                "Name one processor for each vCPU, in order.",
            );
        }
        let (there, whose) = self.processors_there();
        let mut own = BTreeSet::new();
        for cpu in &cpus.value {
            if !(0..i64::from(there)).contains(&cpu.value) {
                self.mistake(
                    cpu.span.clone(),
                    "cpus-range",
                    format!("there is no processor {}: {whose}", cpu.value),
                    format!("Processors are numbered from 0 to {}.", there.saturating_sub(1)),
                );
            } else if !own.insert(cpu.value) {
                self.mistake(
                    cpu.span.clone(),
                    "cpus-twice",
                    format!("processor {} is named twice", cpu.value),
                    "Name each processor once.",
                );
            } else if let Some(owner) = owners.get(&cpu.value) {
                let sentence = format!("processor {} belongs to the compartment `{owner}`", cpu.value);
                self.mistake(
                    cpu.span.clone(),
                    "cpus-taken",
                    sentence,
                    "Under schedule-static a vCPU owns its processor: name one that is free.",
                );
            }
        }
        let name = compartment.name.as_ref().map_or("", |name| name.value.as_str());
        for cpu in own {
            owners.entry(cpu).or_insert_with(|| printable(name));
        }
    }

    /// Grants of parts that the profile does not have: what cannot be enforced must not be written down.
    fn absent_parts(&mut self, document: &Document) {
        let interfaces = document
            .compartments
            .iter()
            .flat_map(|compartment| &compartment.interfaces)
            .map(|interface| ("an interface", "network", &interface.span));
        let networks = document.networks.iter().map(|network| ("a network", "network", &network.span));
        let channels = document.channels.iter().map(|channel| ("a channel", "channel", &channel.span));
        let all: Vec<_> = interfaces.chain(networks).chain(channels).collect();
        for (what, part, span) in all {
            let (code, sentence, remedy) = if self.has_part(part) {
                (
                    "grant-not-carried",
                    format!("{what} cannot be compiled: boot modules of format {} carry none", plan::FORMAT),
                    "Remove it; a later release of Ringfence compiles it.".to_owned(),
                )
            } else {
                (
                    "part-missing",
                    format!(
                        "{what} needs part `{part}`, which profile {} does not have",
                        self.environment.profile_name
                    ),
                    format!("Choose a profile with part `{part}`, or remove it."),
                )
            };
            self.mistake(span.clone(), code, sentence, remedy);
        }
    }

    /// RAM in bytes, if it is possible.
    fn memory(&mut self, compartment: &Compartment) -> Option<u64> {
        let Some(memory) = &compartment.memory else {
            if !compartment.keys.contains("memory") {
                self.mistake(
                    compartment.span.clone(),
                    "memory-missing",
                    "the compartment has no memory",
                    "Write, for example, `memory = \"256 MiB\"`.",
                );
            }
            return None;
        };
        let (bytes, span) = (memory.value, memory.span.clone());
        if !bytes.is_multiple_of(plan::MEMORY_GRAIN) {
            let next = bytes.checked_next_multiple_of(plan::MEMORY_GRAIN).unwrap_or(plan::MEMORY_MOST);
            self.mistake(
                span,
                "memory-grain",
                format!("{} is no multiple of {}", size::show(bytes), size::show(plan::MEMORY_GRAIN)),
                format!("Write, for example, `memory = \"{}\"`.", size::show(next)),
            );
            return None;
        }
        if !(plan::MEMORY_LEAST..=plan::MEMORY_MOST).contains(&bytes) {
            self.mistake(
                span,
                "memory-range",
                format!("a compartment cannot have {} of memory", size::show(bytes)),
                format!("Write {} to {}.", size::show(plan::MEMORY_LEAST), size::show(plan::MEMORY_MOST)),
            );
            return None;
        }
        if let Some(machine) = self.environment.machine_memory
            && bytes > machine
        {
            self.mistake(
                span,
                "memory-machine",
                format!("{} is more memory than the machine has ({} MiB)", size::show(bytes), machine >> 20),
                "Give the compartment less memory, or choose a machine with more.",
            );
            return None;
        }
        Some(bytes)
    }

    fn compartment(&mut self, compartment: &Compartment) -> Option<(plan::Compartment, Loaded)> {
        let memory = self.memory(compartment);
        let label = self.label(compartment);
        let vcpus = compartment.vcpus.as_ref().map_or(1, |vcpus| vcpus.value);
        let vcpus = u8::try_from(vcpus).ok().filter(|vcpus| (1..=plan::VCPUS).contains(&usize::from(*vcpus)));
        let Some(boot) = &compartment.boot else {
            if !compartment.keys.contains("boot") {
                self.mistake(
                    compartment.span.clone(),
                    "boot-missing",
                    "the compartment has nothing to boot",
                    "Write, for example, `boot = { kernel = \"vmlinuz\" }`.",
                );
            }
            return None;
        };
        let loaded = self.load(compartment, boot, memory.unwrap_or(MEMORY_FOR_TRIAL), vcpus.unwrap_or(1))?;
        if loaded.pieces.len() > plan::SEGMENTS {
            let span = boot.modules.first().or(boot.kernel.as_ref()).map_or(&boot.span, |place| &place.span);
            self.mistake(
                span.clone(),
                "too-many-segments",
                format!(
                    "kernel and modules have {} pieces, and a boot module holds {} for each compartment",
                    loaded.pieces.len(),
                    plan::SEGMENTS
                ),
                "Take fewer modules, or pack them into one.",
            );
            return None;
        }
        // What is out of range was reported above; the module is then not used.
        let name = heapless::String::try_from(compartment.name.as_ref()?.value.as_str()).ok()?;
        let cpus = compartment.cpus.as_ref().map_or(&[][..], |cpus| &cpus.value);
        let planned = plan::Compartment {
            name,
            memory: memory?,
            vcpus: vcpus?,
            share: compartment.share.as_ref().map_or(Some(SHARE), |share| u32::try_from(share.value).ok())?,
            cpus: cpus.iter().map(|cpu| u8::try_from(cpu.value).ok()).collect::<Option<_>>()?,
            on_reset: compartment.on_reset.as_ref().map_or(plan::OnReset::Restart, |word| word.value),
            on_unclaimed: compartment
                .on_unclaimed
                .as_ref()
                .map_or(plan::OnUnclaimed::Answer, |word| word.value),
            label: label.ok()?,
            segments: heapless::Vec::new(),
            start: loaded.start,
        };
        Some((planned, loaded))
    }

    /// The label, if there is one.
    fn label(&mut self, compartment: &Compartment) -> Result<Option<plan::Label>, Reported> {
        let Some(label) = &compartment.label else {
            return if compartment.keys.contains("label") { Err(Reported) } else { Ok(None) };
        };
        let mut complete = true;
        for (missing, key, example) in [
            (label.text.is_none(), "text", "text = \"OFFICE\""),
            (label.colour.is_none(), "colour", "colour = \"#00a651\""),
        ] {
            if missing {
                complete = false;
                if !label.keys.contains(key) {
                    self.mistake(
                        label.span.clone(),
                        "label-incomplete",
                        format!("the label has no {key}"),
                        format!("Write, for example, `{example}`."),
                    );
                }
            }
        }
        if let Some(text) = &label.text {
            let fits = (1..=plan::NAME_LIMIT).contains(&text.value.len());
            if !fits || text.value.chars().any(char::is_control) {
                complete = false;
                self.mistake(
                    text.span.clone(),
                    "label-text",
                    format!("`{}` cannot be the text of a label", printable(&text.value)),
                    format!("Write 1 to {} bytes of visible characters.", plan::NAME_LIMIT),
                );
            }
        }
        match (&label.text, &label.colour) {
            (Some(text), Some(colour)) if complete => {
                let text = heapless::String::try_from(text.value.as_str()).map_err(|_| Reported)?;
                Ok(Some(plan::Label { text, colour: colour.value }))
            }
            _ => Err(Reported),
        }
    }

    fn load(&mut self, compartment: &Compartment, boot: &Boot, memory: u64, vcpus: u8) -> Option<Loaded> {
        let Some(kernel) = &boot.kernel else {
            if !boot.keys.contains("kernel") {
                self.mistake(
                    boot.span.clone(),
                    "kernel-missing",
                    "`boot` names no kernel",
                    "Write, for example, `kernel = \"vmlinuz\"`.",
                );
            }
            return None;
        };
        // Read all files before any is judged, so that every missing one is named.
        let kernel_path = self.file(&kernel.value, &kernel.span, "kernel");
        let initrd_path =
            boot.initrd.as_ref().map(|initrd| self.file(&initrd.value, &initrd.span, "initial RAM disk"));
        let module_paths: Vec<_> = boot
            .modules
            .iter()
            .map(|module| self.file(module_file(&module.value), &module.span, "module"))
            .collect();
        let bytes = |path: &PathBuf| self.files.get(path).and_then(|file| file.as_ref().ok());
        let initrd = match &initrd_path {
            None => None,
            Some(path) => Some(bytes(path.as_ref()?)?.as_slice()),
        };
        let mut modules = Vec::new();
        for (path, text) in module_paths.iter().zip(&boot.modules) {
            modules.push(boot::Module { bytes: bytes(path.as_ref()?)?, text: &text.value });
        }
        let request = Request {
            kernel: bytes(&kernel_path?)?,
            kernel_name: &kernel.value,
            initrd,
            command_line: boot.command_line.as_ref().map_or("", |line| &line.value),
            modules,
            protocol: boot.protocol.as_ref().map(|protocol| protocol.value),
            memory,
            vcpus,
        };
        match boot::load(&request) {
            Ok(loaded) => Some(loaded),
            Err(error) => {
                let place = match error.culprit {
                    Culprit::Kernel => Some(&kernel.span),
                    Culprit::Initrd => boot.initrd.as_ref().map(|initrd| &initrd.span),
                    Culprit::CommandLine => boot.command_line.as_ref().map(|line| &line.span),
                    Culprit::Module(index) => boot.modules.get(index).map(|module| &module.span),
                    Culprit::Protocol => boot.protocol.as_ref().map(|protocol| &protocol.span),
                    Culprit::Memory => compartment.memory.as_ref().map(|memory| &memory.span),
                };
                let span = place.unwrap_or(&kernel.span).clone();
                self.mistake(span, error.code, error.sentence, error.remedy);
                None
            }
        }
    }

    /// Reads a file, once; gives its path if it could be read.
    fn file(&mut self, name: &str, span: &Range<usize>, what: &str) -> Option<PathBuf> {
        let path = self.folder.join(name);
        let file = self.files.entry(path.clone()).or_insert_with(|| {
            std::fs::read(&path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!("there is no file `{}`", printable(name)),
                ErrorKind::IsADirectory => format!("`{}` is a folder", printable(name)),
                ErrorKind::PermissionDenied => format!("the file `{}` may not be read", printable(name)),
                _ => format!("the file `{}` cannot be read ({error})", printable(name)),
            })
        });
        match file {
            Ok(_) => Some(path),
            Err(why) => {
                let sentence = format!("{why}, which is to be the {what}");
                let remedy = self.file_remedy(name);
                self.mistake(span.clone(), "file-missing", sentence, remedy);
                None
            }
        }
    }

    /// Names a file that may have been meant.
    fn file_remedy(&self, name: &str) -> String {
        let path = self.folder.join(name);
        let wanted = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let there: Vec<String> = path
            .parent()
            .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
            .and_then(|folder| std::fs::read_dir(folder).ok())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|entry| *entry != wanted)
            .take(1000)
            .collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let near = nearest(&wanted, &there).map(|near| format!(" Did you mean `{}`?", printable(near)));
        format!("File names are relative to the manifest's folder.{}", near.unwrap_or_default())
    }

    /// Builds the module, if there is no mistake.
    fn module(
        &mut self,
        document: &Document,
        loaded: Vec<Option<(plan::Compartment, Loaded)>>,
    ) -> Option<(Vec<Summary>, Vec<u8>)> {
        let loaded: Vec<_> = loaded.into_iter().collect::<Option<_>>()?;
        if !self.mistakes.iter().all(Mistake::is_warning) {
            return None;
        }
        let summaries = loaded
            .iter()
            .map(|(compartment, loaded)| Summary {
                name: compartment.name.as_str().to_owned(),
                memory: compartment.memory,
                vcpus: compartment.vcpus,
                protocol: loaded.protocol,
            })
            .collect();
        let memory =
            loaded.iter().fold(0_u64, |sum, (compartment, _)| sum.saturating_add(compartment.memory));
        let place = document.compartments.last().map_or(0..0, |last| {
            last.memory.as_ref().map_or_else(|| last.span.clone(), |memory| memory.span.clone())
        });
        let module = match crate::compile::compile(loaded) {
            Ok(module) => module,
            Err(why) => {
                self.mistake(
                    place,
                    "module-refused",
                    format!("the hypervisor would refuse the boot module: {why}"),
                    "This is a fault of Ringfence: please report it with the manifest.",
                );
                return None;
            }
        };
        if let Some(machine) = self.environment.machine_memory {
            let needed = memory.saturating_add(module.len() as u64).saturating_add(HOST_MEMORY);
            if needed > machine {
                self.mistake(
                    place,
                    "memory-total",
                    format!(
                        "the compartments need {} MiB, the boot module {} MiB and the hypervisor {} MiB, and the machine has {} MiB",
                        memory >> 20,
                        (module.len() as u64).div_ceil(1 << 20),
                        HOST_MEMORY >> 20,
                        machine >> 20
                    ),
                    "Give the compartments less memory, remove one, or choose a machine with more.",
                );
                return None;
            }
        }
        Some((summaries, module))
    }
}

/// The file name in an entry of `modules`.
fn module_file(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

fn processors(count: u32) -> String {
    match count {
        1 => "1 processor".to_owned(),
        count => format!("{count} processors"),
    }
}
