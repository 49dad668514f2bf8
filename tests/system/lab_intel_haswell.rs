//! The product for Haswell.

use crate::intel;

#[test]
fn demonstration() {
    intel::demonstration("lab-intel-haswell");
}
