//! The module's format: what is refused, and with which reason.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
use plan::{
    Checksum, Compartment, Label, Mode, OnReset, OnUnclaimed, Plan, Refusal, Rule, Segment, Start, header,
    in_memory, memory_layout, payloads, read, read_whole, valid_name,
};
use proptest::prelude::*;

const PAYLOAD: &[u8] = b"the kernel's bytes, nine words and a piece: 0123456789 0123456789 01";

fn compartment(name: &str) -> Compartment {
    Compartment {
        name: name.try_into().unwrap(),
        memory: 64 << 20,
        vcpus: 2,
        share: 100,
        cpus: heapless::Vec::new(),
        on_reset: OnReset::Restart,
        on_unclaimed: OnUnclaimed::Answer,
        label: Some(Label { text: "OFFICE".try_into().unwrap(), colour: 0x1e6fd9 }),
        segments: heapless::Vec::from_slice(&[Segment {
            source: 4096,
            length: PAYLOAD.len() as u64,
            target: 0x10_0000,
        }])
        .unwrap(),
        start: Start {
            mode: Mode::Long,
            entry: 0x10_0000,
            rax: 0,
            rbx: 0,
            rsi: 0x8000,
            rsp: 0,
            page_table: 0x2000,
            descriptor_table: 0x1000,
            descriptor_table_limit: 0x2f,
        },
    }
}

fn plan(compartments: &[Compartment]) -> Plan {
    Plan { compartments: compartments.iter().cloned().collect() }
}

/// A module of that plan, with the payload at 4096.
fn module(plan: &Plan) -> Vec<u8> {
    let encoded = postcard::to_stdvec(plan).unwrap();
    let mut module = vec![0; plan::HEADER_LENGTH];
    module.extend_from_slice(&encoded);
    module.resize(4096, 0);
    module.extend_from_slice(PAYLOAD);
    seal(&mut module, &encoded);
    module
}

fn seal(module: &mut [u8], encoded: &[u8]) {
    let behind = Checksum::new().with(&module[plan::HEADER_LENGTH + encoded.len()..]).value();
    let head = header(encoded, module.len() as u64, behind);
    module[..plan::HEADER_LENGTH].copy_from_slice(&head);
}

/// What is said of a plan with one compartment that `change` changed.
fn refusal(change: impl FnOnce(&mut Compartment)) -> Result<Plan, Refusal> {
    let mut compartment = compartment("office");
    change(&mut compartment);
    read_whole(&module(&plan(&[compartment])))
}

fn broken(rule: Rule) -> Result<Plan, Refusal> {
    Err(Refusal::Compartment(0, rule))
}

#[test]
fn what_was_written_is_read() {
    let strict = Compartment { on_unclaimed: OnUnclaimed::Stop, ..compartment("banking") };
    let written = plan(&[compartment("office"), strict]);
    let module = module(&written);
    assert_eq!(read_whole(&module), Ok(written.clone()));
    // The head may be shorter than the module, as long as the plan is in it.
    assert_eq!(read(&module[..4096], module.len() as u64), Ok(written));
    let payloads = payloads(&module).unwrap();
    assert!(payloads.start < 4096);
    assert_eq!(Checksum::new().with(&module[payloads.start as usize..]).value(), payloads.checksum);
}

#[test]
fn a_checksum_may_be_taken_in_pieces_and_is_not_a_sum() {
    let bytes: Vec<u8> = (0..=255).collect();
    let whole = Checksum::new().with(&bytes);
    assert_eq!(Checksum::new().with(&bytes[..64]).with(&bytes[64..]), whole);
    let mut swapped = bytes[8..16].to_vec();
    swapped.extend_from_slice(&bytes[..8]);
    swapped.extend_from_slice(&bytes[16..]);
    assert_ne!(Checksum::new().with(&swapped), whole);
    assert_ne!(Checksum::new().with(&bytes[..248]), whole);
    // Changes of the highest bits, which a multiplication alone would keep there, do not cancel out.
    let mut twice = bytes;
    (twice[7], twice[15]) = (twice[7] ^ 0x80, twice[15] ^ 0x80);
    assert_ne!(Checksum::new().with(&twice), whole);
}

#[test]
fn every_header_field_is_checked() {
    let good = module(&plan(&[compartment("office")]));
    let with = |at: usize, bytes: &[u8]| {
        let mut module = good.clone();
        module[at..at + bytes.len()].copy_from_slice(bytes);
        read_whole(&module)
    };
    assert_eq!(with(0, b"X"), Err(Refusal::NoPlan));
    for other in [0, 1, plan::FORMAT + 1] {
        assert_eq!(with(16, &other.to_le_bytes()), Err(Refusal::Format(other)));
    }
    assert_eq!(with(20, &65_537_u32.to_le_bytes()), Err(Refusal::PlanLength(65_537)));
    // Within the limit, but not within the module.
    assert_eq!(with(20, &60_000_u32.to_le_bytes()), Err(Refusal::PlanLength(60_000)));
    let found = good.len() as u64;
    for promised in [0, found - 1, found + 1, u64::MAX] {
        assert_eq!(with(24, &promised.to_le_bytes()), Err(Refusal::Length { promised, found }));
    }
    assert_eq!(with(32, &[0; 32]), Err(Refusal::Digest));
    assert_eq!(with(64, &[0; 8]), Err(Refusal::Payloads));
    assert_eq!(read_whole(&good[..plan::HEADER_LENGTH - 1]), Err(Refusal::TooShort));
    assert_eq!(read_whole(&[]), Err(Refusal::TooShort));
}

#[test]
fn a_plan_with_bytes_left_over_or_missing_is_refused() {
    let encoded = postcard::to_stdvec(&plan(&[compartment("office")])).unwrap();
    let longer = [&encoded[..], &[0]].concat();
    for encoded in [&longer[..], &encoded[..encoded.len() - 1], &[]] {
        let mut module = vec![0; 8192];
        module[plan::HEADER_LENGTH..][..encoded.len()].copy_from_slice(encoded);
        seal(&mut module, encoded);
        assert_eq!(read_whole(&module), Err(Refusal::Encoding));
    }
}

#[test]
fn a_policy_that_the_format_does_not_have_is_refused() {
    let encoded = |on_unclaimed| {
        let compartment = Compartment { on_unclaimed, ..compartment("office") };
        postcard::to_stdvec(&plan(&[compartment])).unwrap()
    };
    let (answer, stop) = (encoded(OnUnclaimed::Answer), encoded(OnUnclaimed::Stop));
    let differ = |(left, right)| left != right;
    let at = answer.iter().zip(&stop).position(differ).unwrap();
    assert_eq!(
        (answer[at], stop[at], answer.iter().zip(&stop).filter(|pair| differ(*pair)).count()),
        (0, 1, 1)
    );
    let mut neither = answer;
    neither[at] = 2;
    let mut module = vec![0; 8192];
    module[plan::HEADER_LENGTH..][..neither.len()].copy_from_slice(&neither);
    seal(&mut module, &neither);
    assert_eq!(read_whole(&module), Err(Refusal::Encoding));
}

#[test]
fn a_plan_with_more_compartments_than_the_format_holds_is_refused() {
    // Postcard writes the length of a list first: write 17 where 16 fit.
    let mut encoded = postcard::to_stdvec(&plan(&vec![compartment("office"); plan::COMPARTMENTS])).unwrap();
    assert_eq!(encoded[0], 16);
    encoded[0] = 17;
    encoded.extend_from_slice(&postcard::to_stdvec(&compartment("office")).unwrap());
    let mut module = vec![0; 8192];
    module[plan::HEADER_LENGTH..][..encoded.len()].copy_from_slice(&encoded);
    seal(&mut module, &encoded);
    assert_eq!(read_whole(&module), Err(Refusal::Encoding));
}

#[test]
fn every_rule_of_a_compartment_is_checked() {
    assert!(refusal(|_| {}).is_ok());
    assert_eq!(read_whole(&module(&plan(&[]))), Err(Refusal::Empty));
    let twice = plan(&[compartment("office"), compartment("office")]);
    assert_eq!(read_whole(&module(&twice)), Err(Refusal::Compartment(1, Rule::DuplicateName)));
    for name in ["", "ringfence", "Office", "a b", "9a", "a_b", "ä", "a\n"] {
        assert_eq!(refusal(|it| it.name = name.try_into().unwrap()), broken(Rule::Name), "{name:?}");
    }
    for memory in [0, 1 << 20, (64 << 20) + 4096, (64 << 30) + (2 << 20), u64::MAX] {
        assert_eq!(refusal(|it| it.memory = memory), broken(Rule::Memory), "{memory}");
    }
    for vcpus in [0, 17, 255] {
        assert_eq!(refusal(|it| it.vcpus = vcpus), broken(Rule::Vcpus));
    }
    for share in [0, 10_001, u32::MAX] {
        assert_eq!(refusal(|it| it.share = share), broken(Rule::Share));
    }
    assert_eq!(refusal(|it| it.cpus.push(1).unwrap()), broken(Rule::Cpus));
    assert!(refusal(|it| it.cpus.extend([1, 0])).is_ok());
}

#[test]
fn segments_must_lie_in_the_module_and_in_the_memory() {
    let source =
        |source, length| refusal(move |it| (it.segments[0].source, it.segments[0].length) = (source, length));
    let end = 4096 + PAYLOAD.len() as u64;
    assert!(source(end - 1, 1).is_ok());
    for (from, length) in [(4096, 0), (end, 1), (end - 1, 2), (0, 8), (u64::MAX, 2), (4096, u64::MAX)] {
        assert_eq!(source(from, length), broken(Rule::SegmentSource(0)), "{from} {length}");
    }
    let target = |target| refusal(move |it| it.segments[0].target = target);
    let last = (64 << 20) - PAYLOAD.len() as u64;
    assert!(target(last).is_ok());
    for outside in [last + 1, 64 << 20, 1 << 32, u64::MAX] {
        assert_eq!(target(outside), broken(Rule::SegmentTarget(0)), "{outside:#x}");
    }
}

#[test]
fn the_start_state_must_point_into_the_memory() {
    let start = |change: fn(&mut Start)| refusal(move |it| change(&mut it.start));
    assert_eq!(start(|it| it.entry = 64 << 20), broken(Rule::Start));
    assert_eq!(start(|it| it.page_table = 0x2008), broken(Rule::Start));
    assert_eq!(start(|it| it.page_table = 64 << 20), broken(Rule::Start));
    assert_eq!(start(|it| it.descriptor_table = (64 << 20) - 0x2f), broken(Rule::Start));
    assert!(start(|it| it.descriptor_table = (64 << 20) - 0x30).is_ok());
    assert_eq!(start(|it| it.descriptor_table = u64::MAX), broken(Rule::Start));
}

#[test]
fn memory_beyond_three_gibibytes_lies_above_the_hole() {
    assert_eq!(memory_layout(3 << 30), (3 << 30, 0));
    assert_eq!(memory_layout((3 << 30) + (2 << 20)), (3 << 30, 2 << 20));
    let memory = 5 << 30;
    assert!(in_memory(memory, 0, 3 << 30));
    assert!(!in_memory(memory, 0, (3 << 30) + 1), "the hole");
    assert!(!in_memory(memory, (4 << 30) - 1, 2), "from the hole into RAM");
    assert!(in_memory(memory, 4 << 30, 2 << 30));
    assert!(!in_memory(memory, 4 << 30, (2 << 30) + 1));
    assert!(!in_memory(memory, u64::MAX, 2));
    assert!(!in_memory(1 << 30, 4 << 30, 1));
}

#[test]
fn every_refusal_is_a_sentence_of_its_own() {
    let mut refusals = vec![
        Refusal::TooShort,
        Refusal::NoPlan,
        Refusal::Format(7),
        Refusal::PlanLength(9),
        Refusal::Length { promised: 2, found: 1 },
        Refusal::Digest,
        Refusal::Encoding,
        Refusal::Payloads,
        Refusal::Empty,
    ];
    let rules = [
        Rule::Name,
        Rule::DuplicateName,
        Rule::Memory,
        Rule::Vcpus,
        Rule::Share,
        Rule::Cpus,
        Rule::SegmentSource(3),
        Rule::SegmentTarget(3),
        Rule::Start,
    ];
    refusals.extend(rules.map(|rule| Refusal::Compartment(1, rule)));
    let sentences: std::collections::BTreeSet<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(sentences.len(), refusals.len());
}

proptest! {
    #[test]
    fn a_truncated_module_is_refused(cut in 0..4096 + PAYLOAD.len()) {
        let module = module(&plan(&[compartment("office")]));
        prop_assert!(read_whole(&module[..cut]).is_err());
    }

    #[test]
    fn an_extended_module_is_refused(more in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut module = module(&plan(&[compartment("office")]));
        module.extend_from_slice(&more);
        let refused = matches!(read_whole(&module), Err(Refusal::Length { .. }));
        prop_assert!(refused);
    }

    /// Every bit of a module counts: header, plan, padding and payload.
    #[test]
    fn a_flipped_bit_is_refused(bit in 0..(4096 + PAYLOAD.len()) * 8) {
        let mut module = module(&plan(&[compartment("office"), compartment("banking")]));
        module[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read_whole(&module).is_err());
    }

    #[test]
    fn swapped_blocks_are_refused(first in 0..8_usize, second in 0..8_usize) {
        let mut module = module(&plan(&[compartment("office")]));
        let (one, two) = (4096 + first * 8, 4096 + second * 8);
        let (left, right) = (module[one..one + 8].to_vec(), module[two..two + 8].to_vec());
        prop_assume!(left != right);
        module[one..one + 8].copy_from_slice(&right);
        module[two..two + 8].copy_from_slice(&left);
        prop_assert_eq!(read_whole(&module), Err(Refusal::Payloads));
    }

    /// An attacker can seal anything: whatever then decodes keeps all rules, and nothing panics.
    #[test]
    fn sealed_rubbish_never_breaks_a_rule(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut encoded = postcard::to_stdvec(&plan(&[compartment("office"), compartment("banking")])).unwrap();
        for (at, value) in flips {
            let at = at.index(encoded.len());
            encoded[at] = value;
        }
        let mut module = vec![0; 8192];
        module[plan::HEADER_LENGTH..][..encoded.len()].copy_from_slice(&encoded);
        seal(&mut module, &encoded);
        if let Ok(plan) = read_whole(&module) {
            for compartment in &plan.compartments {
                prop_assert!(valid_name(&compartment.name));
                for segment in &compartment.segments {
                    prop_assert!(segment.source + segment.length <= module.len() as u64);
                    prop_assert!(in_memory(compartment.memory, segment.target, segment.length));
                }
                prop_assert!(in_memory(compartment.memory, compartment.start.entry, 1));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(read_whole(&bytes).is_err());
    }
}
