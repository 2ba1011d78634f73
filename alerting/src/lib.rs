//! Alerts: what becomes of findings, until somebody has been told.
//!
//! One writer per finding key owns the life of its alert ([`life`], a pure state machine). What it
//! decides is committed to the log together with the messages to be sent (the durable outbox), and
//! only then sent, so a restart neither forgets a message nor invents one. Delivery is at least
//! once, under an identity that stays the same, so that a receiver can drop what it has.
//!
//! # Layout
//!
//! - [`config`]: routes and their limits
//! - [`life`]: the states of an alert, and what a finding does to them
//! - [`stage`]: the stage on the log: findings in, alerts and outbox out
//! - [`outbox`]: messages that wait to be delivered
//! - [`webhook`]: bodies and signatures (Standard Webhooks), and their verification
//! - [`sender`]: delivery over HTTP, with retries

pub mod config;
pub mod life;
pub mod outbox;
pub mod sender;
pub mod stage;
pub mod webhook;

pub use config::AlertingConfig;
pub use stage::AlertingStage;
