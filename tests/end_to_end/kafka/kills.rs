//! The kill loop, its short form; the long one is a command (`docs/kafka.md`).

use super::{alone, broker, script};

/// Scenario: two gateways, two processes each of profile, detect and archive, and alerting on one Kafka;
/// 60,000 rows of 120 devices with resends, lost replies and reboots, while processes are killed with
/// SIGKILL 50 times at random moments and started again, stopped past their session eight times and woken
/// up when others have their partitions, and asked to leave ten times and to join again.
/// Guarantee: the lake and the profiles equal what is computed from the input by a program that uses
/// nothing of Driftline, no row is there twice, every alert has its webhook, and the final measures are
/// those of an undisturbed run, bit for bit.
#[test]
fn nothing_is_lost_or_doubled_by_kills_stops_and_leaves() {
    let Some((brokers, _)) = broker("kills") else {
        return;
    };
    let _alone = alone();
    let result = script("kill_loop.py", &["--kafka", &brokers]);
    assert!(result["measures"].as_u64().unwrap() > 0);
    for (deed, least) in [("kills", 50), ("stops", 8), ("leaves", 10)] {
        assert!(result[deed].as_u64().unwrap() >= least, "{deed}");
    }
}
