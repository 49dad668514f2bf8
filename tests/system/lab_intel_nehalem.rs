//! The product for Nehalem, whose processors run no guest without paging: a compartment has one vCPU, which no real mode starts.

use crate::intel;

#[test]
fn two_guests_with_one_processor_each() {
    intel::one_processor_each("lab-intel-nehalem");
}
