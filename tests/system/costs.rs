//! What operations cost, against what they may cost.

use crate::system::tool;
use serde_json::Value;

/// The goals stand in `peers.toml`; `bench` fails where one is missed.
#[test]
fn costs_stay_below_their_goals() {
    let output = tool().args(["bench", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let operations = json["operations"].as_array().unwrap();
    let goals = operations.iter().filter(|operation| operation["goal"].is_u64()).collect::<Vec<_>>();
    assert!(goals.len() >= 10);
    for operation in goals {
        assert!(operation["ringfence"].is_u64(), "{} was not measured", operation["name"]);
    }
}
