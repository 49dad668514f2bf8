//! The product for Sandy Bridge.

use crate::intel;

#[test]
fn demonstration() {
    intel::demonstration("lab-intel-sandy");
}
