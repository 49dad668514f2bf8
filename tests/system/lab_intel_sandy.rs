//! The product for Sandy Bridge.

use crate::intel;

#[test]
#[ignore = "a minute and a half: nightly"]
fn demonstration() {
    intel::demonstration("lab-intel-sandy");
}
