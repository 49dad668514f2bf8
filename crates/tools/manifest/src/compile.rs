//! Builds the binary boot module (format: crate `plan`).

use crate::boot::Loaded;
use std::collections::HashMap;

/// Why no module could be built.
pub(crate) type Refused = String;

/// Lays out plan and payloads. Equal payloads are stored once.
pub(crate) fn compile(compartments: Vec<(plan::Compartment, Loaded)>) -> Result<Vec<u8>, Refused> {
    let alignment = plan::PAYLOAD_ALIGNMENT;
    // Where payloads lie depends on the plan's length, and the plan's encoding on where payloads lie. So reserve the most that the
    // plan can have: offsets take at most ten bytes each in postcard.
    let mut planned = plan::Plan::default();
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut sources: Vec<Vec<usize>> = Vec::new();
    for (mut compartment, loaded) in compartments {
        let mut own = Vec::new();
        for piece in loaded.pieces {
            let segment =
                plan::Segment { source: u64::MAX, length: piece.bytes.len() as u64, target: piece.target };
            compartment.segments.push(segment).map_err(|_| "too many segments".to_owned())?;
            let number = *known.entry(piece.bytes).or_insert_with_key(|bytes| {
                payloads.push(bytes.clone());
                payloads.len() - 1
            });
            own.push(number);
        }
        sources.push(own);
        planned.compartments.push(compartment).map_err(|_| "too many compartments".to_owned())?;
    }
    let encode = |plan: &plan::Plan| postcard::to_stdvec(plan).map_err(|error| error.to_string());
    let longest = encode(&planned)?.len();
    let mut next = ((plan::HEADER_LENGTH + longest) as u64).next_multiple_of(alignment);
    let mut offsets = Vec::new();
    for payload in &payloads {
        offsets.push(next);
        next = (next + payload.len() as u64).next_multiple_of(alignment);
    }
    for (compartment, own) in planned.compartments.iter_mut().zip(&sources) {
        for (segment, number) in compartment.segments.iter_mut().zip(own) {
            segment.source = offsets[*number];
        }
    }
    let encoded = encode(&planned)?;
    let mut module = vec![0; plan::HEADER_LENGTH];
    module.extend_from_slice(&encoded);
    for (payload, offset) in payloads.iter().zip(&offsets) {
        module.resize(*offset as usize, 0);
        module.extend_from_slice(payload);
    }
    let behind = module.get(plan::HEADER_LENGTH + encoded.len()..).unwrap_or(&[]);
    let checksum = plan::Checksum::new().with(behind).value();
    let header = plan::header(&encoded, module.len() as u64, checksum);
    module[..plan::HEADER_LENGTH].copy_from_slice(&header);
    // Nothing leaves this tool that the hypervisor would not take.
    match plan::read_whole(&module) {
        Ok(read) if read == planned => Ok(module),
        Ok(_) => Err("it would be read as something else".to_owned()),
        Err(refusal) => Err(refusal.to_string()),
    }
}
