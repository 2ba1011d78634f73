//! Messages that wait to be delivered: durable with the step that decided them, gone with the step
//! that learned of their delivery.

use std::collections::{BTreeMap, BTreeSet};

use driftline_schemas::measure::Alert;
use serde::{Deserialize, Serialize};

use crate::webhook;

/// Version of [`Delivery`] as it rests in the state.
pub const DELIVERY_FORMAT: u32 = 1;
/// Most messages that wait per partition. A receiver that is down for days while everything alarms
/// must not fill the memory; beyond it the oldest go to the dead letters.
pub const OUTBOX_MAX: usize = 50_000;
/// Most messages of one route that are being tried at a time, so that a receiver that is down does
/// not hold up the others.
pub const ROUTE_IN_FLIGHT_MAX: usize = 64;

/// One message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// [`DELIVERY_FORMAT`].
    pub format: u32,
    /// Identity, the same in every attempt and after every restart.
    pub id: String,
    /// Name of the route.
    pub route: String,
    /// The alert.
    pub alert_id: String,
    /// The alert's change; changes of one alert are delivered in order.
    pub sequence: u32,
    /// Owner.
    pub tenant: String,
    /// The body.
    pub body: String,
}

impl Delivery {
    /// The message that tells a route of an alert's change.
    pub fn new(alert: &Alert, route: &str) -> Self {
        Self {
            format: DELIVERY_FORMAT,
            id: format!("{}.{}.{route}", alert.id, alert.sequence),
            route: route.into(),
            alert_id: alert.id.clone(),
            sequence: alert.sequence,
            tenant: alert.finding.tenant.clone(),
            body: webhook::body(alert),
        }
    }

    /// Key in the state; orders the changes of an alert.
    pub fn key(&self) -> Vec<u8> {
        format!(
            "{KEY_PREFIX}{}/{}/{:010}",
            self.route, self.alert_id, self.sequence
        )
        .into_bytes()
    }
}

/// What keys of deliveries begin with.
pub const KEY_PREFIX: &str = "outbox/";

/// The undelivered messages of one partition, in memory as in the state.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: BTreeMap<Vec<u8>, Delivery>,
    in_flight: BTreeSet<Vec<u8>>,
}

impl Outbox {
    /// Adds a message; the one that had to give way is returned.
    pub fn add(&mut self, delivery: Delivery) -> Option<Delivery> {
        self.waiting.insert(delivery.key(), delivery);
        if self.waiting.len() <= OUTBOX_MAX {
            return None;
        }
        let oldest = self
            .waiting
            .keys()
            .find(|key| !self.in_flight.contains(*key))
            .cloned()?;
        self.waiting.remove(&oldest)
    }

    /// Takes a message out, whatever became of it.
    pub fn remove(&mut self, key: &[u8]) -> Option<Delivery> {
        self.in_flight.remove(key);
        self.waiting.remove(key)
    }

    /// Messages that may be tried now: per alert and route only the earliest change, per route at
    /// most [`ROUTE_IN_FLIGHT_MAX`]. They count as in flight from here on.
    pub fn start(&mut self) -> Vec<Delivery> {
        let mut per_route: BTreeMap<&str, usize> = BTreeMap::new();
        for key in &self.in_flight {
            if let Some(delivery) = self.waiting.get(key) {
                *per_route.entry(&delivery.route).or_default() += 1;
            }
        }
        let mut started = Vec::new();
        let mut previous: Option<(&str, &str)> = None;
        for (key, delivery) in &self.waiting {
            let story = (delivery.route.as_str(), delivery.alert_id.as_str());
            let first = previous.replace(story) != Some(story);
            let running = per_route.entry(&delivery.route).or_default();
            if first && *running < ROUTE_IN_FLIGHT_MAX && !self.in_flight.contains(key) {
                *running += 1;
                started.push(delivery.clone());
            }
        }
        self.in_flight.extend(started.iter().map(Delivery::key));
        started
    }

    /// A message that could not be handed to the sender is no longer in flight.
    pub fn put_back(&mut self, key: &[u8]) {
        self.in_flight.remove(key);
    }

    /// Number of messages that wait or are in flight.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everything is delivered.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(route: &str, alert: &str, sequence: u32) -> Delivery {
        Delivery {
            format: DELIVERY_FORMAT,
            id: format!("{alert}.{sequence}.{route}"),
            route: route.into(),
            alert_id: alert.into(),
            sequence,
            tenant: "acme".into(),
            body: String::new(),
        }
    }

    #[test]
    fn changes_of_one_alert_go_out_in_order_and_routes_do_not_wait_for_each_other() {
        let mut outbox = Outbox::default();
        for (route, alert, sequence) in [("a", "x", 1), ("a", "x", 2), ("b", "x", 1)] {
            assert_eq!(outbox.add(delivery(route, alert, sequence)), None);
        }
        let ids = |started: Vec<Delivery>| -> Vec<String> {
            started.into_iter().map(|delivery| delivery.id).collect()
        };
        assert_eq!(ids(outbox.start()), ["x.1.a", "x.1.b"]);
        assert!(
            outbox.start().is_empty(),
            "what is in flight is not started again"
        );
        outbox.remove(&delivery("a", "x", 1).key());
        assert_eq!(ids(outbox.start()), ["x.2.a"]);
    }

    #[test]
    fn a_route_that_is_down_holds_a_bounded_number_of_attempts() {
        let mut outbox = Outbox::default();
        for alert in 0..200 {
            outbox.add(delivery("down", &format!("{alert:03}"), 1));
        }
        outbox.add(delivery("up", "000", 1));
        assert_eq!(outbox.start().len(), ROUTE_IN_FLIGHT_MAX + 1);
    }
}
