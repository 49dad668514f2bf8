//! What operations cost, against what they may cost.

use crate::system::tool;
use serde_json::Value;

/// Goals that are not reached yet, with what is: worse than that fails. docs/performance.md says where the rest goes. A goal that is
/// reached leaves this list.
const MISSED: [(&str, u64); 2] = [("image-bytes", 139_264), ("intel/pit-read", 275)];

/// The goals stand in `peers.toml`; `bench` answers 1 where one is missed.
#[test]
fn costs_stay_below_their_goals() {
    let output = tool().args(["bench", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}\n{complaint}");
    let json: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let places = [("", &json["operations"]), ("intel/", &json["intel"]["operations"])];
    let mut judged = 0;
    for (place, operations) in places {
        for operation in operations.as_array().unwrap().iter().filter(|operation| operation["goal"].is_u64())
        {
            let name = format!("{place}{}", operation["name"].as_str().unwrap());
            let limit = MISSED
                .iter()
                .find(|(missed, _)| *missed == name)
                .map_or_else(|| operation["goal"].as_u64().unwrap(), |(_, limit)| *limit);
            let cost = operation["ringfence"].as_u64();
            assert!(cost.is_some_and(|cost| cost <= limit), "{name}: {cost:?}, at most {limit}\n{said}");
            judged += 1;
        }
    }
    assert!(judged >= 18, "{judged}");
}
