//! The gateway over real connections: what senders get back, and what the log holds after it.

mod estate;
mod fates;
mod frames;
mod pressure;
mod serving;
mod telemetry;
