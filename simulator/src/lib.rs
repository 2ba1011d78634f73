//! An estate of devices that the seed makes: sites, cohorts, devices and probes with diurnal cycles
//! and differences from device to device, daily and hourly reporters, and faults that begin at a
//! given time.
//!
//! The devices are real emitters with a real model; only what they measure is made up. What was
//! injected is known to the caller and to nobody else: the pipeline sees telemetry only.
//!
//! # Layout
//!
//! - [`estate`]: the units, their attributes and how often they report
//! - [`world`]: what a unit measures, and what is true there
//! - [`fault`]: what can be injected, and how it is written
//! - [`mod@reference`]: rows of a healthy past, to make a bundle from
//! - [`drive`]: runs the estate on a clock that waits for it

pub mod drive;
pub mod estate;
pub mod fault;
pub mod reference;
pub mod world;

pub use drive::{Drive, Driven, PacedClock};
pub use estate::{Estate, EstateConfig, Unit};
pub use fault::{Fault, FaultKind};
