//! Makes tables.

/// A table with a right length and checksum: a header, then `body`.
pub fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(b"RINGFCTESTTABL");
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"TEST");
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(body);
    seal(&mut bytes, 9);
    bytes
}

/// Makes the bytes add up to zero by the one at `checksum`.
pub fn seal(bytes: &mut [u8], checksum: usize) {
    bytes[checksum] = 0;
    bytes[checksum] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}
