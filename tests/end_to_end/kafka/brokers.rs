//! Brokers that are killed, stand still and lose their leaders, under load.

use super::server::Server;
use super::{alone, broker, script};

/// Scenario: three brokers; while devices send, two of them are killed with SIGKILL one after the other and come
/// back, leaders move away and are moved back, one broker stands still for a while, and roles are killed besides.
/// Guarantee: lake and profiles equal what is computed from the input, and nothing is there twice.
#[test]
fn brokers_die_and_leaders_move() {
    if broker("brokers").is_none() || Server::is_missing() {
        return;
    }
    let _alone = alone();
    let result = script(
        "kill_loop.py",
        &[
            "--only-disturbed",
            "--rows",
            "12000",
            "--devices",
            "60",
            "--kills",
            "3",
            "--stops",
            "0",
            "--leaves",
            "0",
            "--broker-kills",
            "2",
            "--leader-moves",
            "1",
            "--broker-stall",
            "12",
            "--kill-every",
            "3",
        ],
    );
    assert_eq!(result["killed"]["broker_kills"], 2);
}
