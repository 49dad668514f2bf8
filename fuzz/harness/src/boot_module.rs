//! The boot module's head: header, digest, plan, rules, and the payloads' checksum.

use plan::{
    Checksum, Compartment, HEADER_LENGTH, Label, Mode, OnReset, OnUnclaimed, Plan, Refusal, Segment, Start,
    in_memory,
};

/// Reads the bytes as a module; then as a plan in a module whose lengths and sums are right.
pub fn run(bytes: &[u8]) {
    let _ = read(bytes);
    // The first byte says how many of the bytes are payload.
    let Some((payload, rest)) = bytes.split_first() else { return };
    let (plan, payload) = rest.split_at(rest.len().saturating_sub((*payload).into()));
    let sum = Checksum::new().with(payload).value();
    let total = (HEADER_LENGTH + plan.len() + payload.len()) as u64;
    let mut module = plan::header(plan, total, sum).to_vec();
    module.extend_from_slice(plan);
    module.extend_from_slice(payload);
    let found = read(&module);
    assert!(
        !matches!(
            found,
            Err(Refusal::TooShort
                | Refusal::NoPlan
                | Refusal::Length { .. }
                | Refusal::Digest
                | Refusal::Payloads)
        ),
        "a right head is refused: {found:?}"
    );
    if found.is_ok() {
        // Sums are sums of something: a bit that is turned is found, wherever it is.
        for at in [HEADER_LENGTH, HEADER_LENGTH + plan.len() / 2, module.len() - 1] {
            module[at] ^= 1 << (at & 7);
            assert!(plan::read_whole(&module).is_err(), "a bit that was turned at {at} is not found");
            module[at] ^= 1 << (at & 7);
        }
    }
}

fn read(module: &[u8]) -> Result<Plan, Refusal> {
    let found = plan::read_whole(module);
    if let Ok(plan) = &found {
        for compartment in &plan.compartments {
            for segment in &compartment.segments {
                let end = segment.source.checked_add(segment.length);
                assert!(end.is_some_and(|end| end <= module.len() as u64));
                assert!(in_memory(compartment.memory, segment.target, segment.length));
            }
            assert!(in_memory(compartment.memory, compartment.start.entry, 1));
        }
        let written = postcard::to_stdvec(plan).expect("a plan that was read can be written");
        let theirs = postcard::from_bytes::<Plan>(&written).expect("and read again");
        assert_eq!(&theirs, plan, "what was written is not what was read");
    }
    found
}

fn compartment(name: &str, vcpus: u8, label: bool, segments: &[Segment]) -> Compartment {
    Compartment {
        name: name.try_into().expect("a short name"),
        memory: 64 << 20,
        vcpus,
        share: 100,
        cpus: (0..vcpus).filter(|_| label).collect(),
        on_reset: if label { OnReset::Stop } else { OnReset::Restart },
        on_unclaimed: if label { OnUnclaimed::Stop } else { OnUnclaimed::Answer },
        label: label.then(|| Label { text: "OFFICE".try_into().expect("a short text"), colour: 0x1e6fd9 }),
        segments: segments.iter().copied().collect(),
        start: Start {
            mode: if label { Mode::Long } else { Mode::Protected },
            entry: 0x10_0000,
            rax: 0x2bad_b002,
            rbx: 0x8000,
            rsi: 0x8000,
            rsp: 0,
            page_table: 0x2000,
            descriptor_table: 0x1000,
            descriptor_table_limit: 0x2f,
        },
    }
}

/// Plans as the host tool writes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let payload = [0x5a; 40];
    let one = compartment("office", 1, false, &[]);
    let whole = |compartments: &[Compartment]| {
        let plan = Plan { compartments: compartments.iter().cloned().collect() };
        let mut bytes = vec![payload.len() as u8];
        bytes.extend(postcard::to_stdvec(&plan).expect("a plan can be written"));
        bytes.extend(payload);
        bytes
    };
    let start = |length| (HEADER_LENGTH + length) as u64;
    let mut seeds =
        vec![whole(std::slice::from_ref(&one)), whole(&[one.clone(), compartment("banking", 4, true, &[])])];
    // A segment lies behind the plan, whose length it changes by nothing as long as its number takes two bytes.
    for (length, target) in [(8, 0x10_0000), (16, 0x9000)] {
        let draft = compartment("office", 2, true, &[Segment { source: 200, length, target }]);
        let plan = Plan { compartments: [draft].into_iter().collect() };
        let source = start(postcard::to_stdvec(&plan).expect("a plan can be written").len());
        seeds.push(whole(&[compartment("office", 2, true, &[Segment { source, length, target }])]));
    }
    seeds
}
