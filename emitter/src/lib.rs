//! The device side of Driftline: runs the model, turns what it saw into frames, keeps them until
//! the gateway has acknowledged them, and makes the bundles that all of this starts from.
//!
//! Everything that decides is pure and takes the time as an argument ([`device::Device`]); files,
//! sockets and waiting are at the edge ([`device::journal`], [`uplink::http`], [`uplink::deliver`]).
//! A simulation of ten thousand devices and one real device run the same code.
//!
//! # Layout
//!
//! - [`model`]: runs a bundle's ONNX model
//! - [`features`]: from readings to what the model and the frame want
//! - [`device`]: one device: inference, rows, sequences, spool, requests
//! - [`uplink`]: how bodies get to the gateway, and what to do with its answers
//! - [`pack`]: makes a bundle from a model and reference rows
//! - [`store`]: bundles from and to folders and tar archives
//! - [`limits`]: every bound of the device side, with its reason

pub mod device;
pub mod features;
pub mod limits;
pub mod model;
pub mod pack;
pub mod store;
#[cfg(test)]
mod testing;
pub mod uplink;

pub use device::{Device, DeviceConfig, DeviceError, Inferred, Latency, Reporting, Runtime};
pub use features::{Batch, Value};
pub use model::{Model, ModelError, Predictions};
pub use uplink::{Reply, Uplink, http::HttpUplink};
