//! Every record of Driftline that travels or rests, and nothing that does input or output.
//!
//! A row is measured on a device, quantised into integers of its feature's declared resolution,
//! sent in a [`frame`], packed with rows of other devices into a [`packed`] record of the log,
//! summarised into a [`profile`], judged into [`measure`]s, and rests in the lake's [`tables`].
//! The types here are what those steps agree on.
//!
//! # Layout
//!
//! - [`clock`]: the one injected clock, and what stands in for it in simulations
//! - [`source`]: who sent a frame and in what state; identity of an inference
//! - [`quantity`]: numbers as integers in a declared resolution
//! - [`bundle`]: a model version as shipped, and the signals that it declares
//! - [`joint`]: the signal that looks at the features together
//! - [`profile`]: the mergeable summary, its layout, binning and encoding
//! - [`measure`]: comparisons, findings and alerts
//! - [`registry`]: devices and bundles, as the registry topic tells them
//! - [`rows`]: rows on the way, column by column
//! - [`topic`]: names of the log's topics and who goes to which partition
//! - [`units`]: spans of time and sizes as people write them
//! - [`frame`]: the wire frame between device and gateway
//! - [`packed`]: rows of many frames as one record of the log
//! - [`deadletter`]: what was refused, with the reason
//! - [`telemetry`]: rows that come as JSON lines or Arrow streams, in units
//! - [`tables`]: the lake's tables, and records as rows of them
//! - [`wanted`]: looking for many identities among many more
//! - [`limits`]: every bound on what is accepted, with its reason

pub mod bundle;
pub mod clock;
pub mod deadletter;
pub mod frame;
mod ipc;
pub mod joint;
pub mod limits;
pub mod measure;
pub mod packed;
pub mod profile;
pub mod quantity;
pub mod registry;
pub mod rows;
pub mod source;
pub mod tables;
pub mod telemetry;
pub mod topic;
pub mod units;
pub mod wanted;
