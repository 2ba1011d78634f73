//! Delivery over HTTP, with retries.
//!
//! A message is tried until the receiver answers 2xx, with pauses that double from
//! [`PAUSE_MIN`] to [`PAUSE_MAX`], or until the route gives up. 410 Gone gives up at once, as the
//! Standard Webhooks specification asks. Times here are real time, not the injected clock's: they
//! are about somebody else's server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use driftline_schemas::clock::{Clock, SECOND_US, SystemClock};

use crate::config::{AlertingConfig, Route, RouteError};
use crate::outbox::Delivery;
use crate::webhook::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER};

/// First pause after a failed attempt.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause between attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What became of a message.
#[derive(Debug)]
pub struct Outcome {
    /// The message.
    pub delivery: Delivery,
    /// `Err` says why it was given up.
    pub result: Result<(), String>,
}

/// Takes messages and reports what became of them.
pub trait Deliver: Send {
    /// Starts delivering; `false` when it cannot take more now.
    fn start(&mut self, delivery: Delivery) -> bool;
    /// What has become of messages since the last call.
    fn outcomes(&mut self) -> Vec<Outcome>;
}

/// Counters of deliveries, for metrics.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Attempts made.
    pub attempts: AtomicU64,
    /// Messages that the receiver took.
    pub delivered: AtomicU64,
    /// Messages given up.
    pub given_up: AtomicU64,
}

struct Target {
    route: Route,
    secret: Option<Secret>,
}

/// Delivers over HTTP on a runtime of the caller's.
pub struct HttpSender {
    runtime: tokio::runtime::Handle,
    client: reqwest::Client,
    targets: Arc<BTreeMap<String, Target>>,
    counters: Arc<DeliveryCounters>,
    report: mpsc::Sender<Outcome>,
    reports: mpsc::Receiver<Outcome>,
}

/// Why a sender cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// A route's configuration is wrong.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client for webhooks cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

impl HttpSender {
    /// Reads the routes' secrets and makes the client.
    ///
    /// # Errors
    /// [`SenderError`].
    pub fn new(
        config: &AlertingConfig,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, SenderError> {
        config.check()?;
        let mut targets = BTreeMap::new();
        for route in &config.routes {
            let target = Target {
                route: route.clone(),
                secret: route.secret()?,
            };
            targets.insert(route.name.clone(), target);
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        // Bounded by the outboxes' ROUTE_IN_FLIGHT_MAX: a report is made once per started message.
        let (report, reports) = mpsc::channel();
        Ok(Self {
            runtime,
            client,
            targets: Arc::new(targets),
            counters: Arc::default(),
            report,
            reports,
        })
    }

    /// Counters of deliveries.
    pub fn counters(&self) -> Arc<DeliveryCounters> {
        Arc::clone(&self.counters)
    }
}

impl Deliver for HttpSender {
    fn start(&mut self, delivery: Delivery) -> bool {
        let (client, targets) = (self.client.clone(), Arc::clone(&self.targets));
        let (counters, report) = (Arc::clone(&self.counters), self.report.clone());
        self.runtime.spawn(async move {
            let result = match targets.get(&delivery.route) {
                Some(target) => deliver(&client, target, &delivery, &counters).await,
                None => Err(format!(
                    "route {:?} is no longer configured",
                    delivery.route
                )),
            };
            let counter = if result.is_ok() {
                &counters.delivered
            } else {
                &counters.given_up
            };
            counter.fetch_add(1, Ordering::Relaxed);
            // Nobody listens only when the stage has ended; the message is still in the outbox.
            let _ = report.send(Outcome { delivery, result });
        });
        true
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        self.reports.try_iter().collect()
    }
}

async fn deliver(
    client: &reqwest::Client,
    target: &Target,
    delivery: &Delivery,
    counters: &DeliveryCounters,
) -> Result<(), String> {
    let give_up_at = Instant::now() + target.route.give_up_after.duration();
    let mut pause = PAUSE_MIN;
    loop {
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        let problem = match attempt(client, target, delivery).await {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(reqwest::StatusCode::GONE) => return Err("the receiver answered 410 Gone".into()),
            Ok(status) => format!("the receiver answered {status}"),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            route = delivery.route,
            id = delivery.id,
            problem,
            "webhook not delivered"
        );
        if Instant::now() + pause >= give_up_at {
            return Err(format!(
                "given up after {}: {problem}",
                target.route.give_up_after
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(
    client: &reqwest::Client,
    target: &Target,
    delivery: &Delivery,
) -> Result<reqwest::StatusCode, reqwest::Error> {
    let timestamp_s = SystemClock.now_us() / SECOND_US;
    let mut request = client
        .post(&target.route.url)
        .timeout(target.route.timeout.duration())
        .header("content-type", "application/json")
        .header(
            "user-agent",
            concat!("driftline/", env!("CARGO_PKG_VERSION")),
        )
        .header(ID_HEADER, &delivery.id)
        .header(TIMESTAMP_HEADER, timestamp_s);
    if let Some(secret) = &target.secret {
        let signature = secret.sign(&delivery.id, timestamp_s, delivery.body.as_bytes());
        request = request.header(SIGNATURE_HEADER, signature);
    }
    let response = request.body(delivery.body.clone()).send().await?;
    Ok(response.status())
}
