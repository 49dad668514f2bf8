//! The product for Haswell.

use crate::intel;

#[test]
#[ignore = "a minute and a half: nightly"]
fn demonstration() {
    intel::demonstration("lab-intel-haswell");
}
