//! The gateway: the only door of Driftline. It authenticates the device, bounds and decodes what it
//! sends, checks every row, writes the good rows of many devices into one record per partition, puts
//! bad rows in the dead-letter topic with a reason, and only then acknowledges.
//!
//! It never drops what it has acknowledged, and never grows without bound: every queue and map has
//! a limit in [`limits`] or [`config`], and a request that does not fit is answered 413, 429 or 503
//! with the reason ([`problem`]).
//!
//! # Paths
//!
//! | path | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/frames` | `application/vnd.driftline.frames`: wire frames behind their lengths | [`Reply`] |
//! | `POST /v1/telemetry/{kind}` | `application/x-ndjson` or `application/vnd.apache.arrow.stream`: rows | [`Reply`] |
//! | `GET /healthz` | | 200 while the process runs |
//! | `GET /readyz` | | 200 when the registry is loaded and the log can be reached, else 503 |
//! | `GET /metrics` | | Prometheus text, see `metrics` |
//!
//! Headers: `Authorization: Bearer <token>` always. `Driftline-Sent-At` (microseconds of the
//! device's clock) says when the request is made, where frames were stamped earlier. For
//! telemetry, `Driftline-Model: name@version[+variant]` where the registry does not say it, and
//! `Idempotency-Key`: a request with a key that was used before is acknowledged and counted once.
//! Without a key the body's own hash is the key. Keys are remembered by the once-logic downstream:
//! for at least 4,096 records of the device's partition, and for its 16 last requests.
//!
//! # What becomes of a frame
//!
//! | frame | fate |
//! | --- | --- |
//! | damaged, cut, of another version | request refused, 400 |
//! | larger, longer or more than a limit | request refused, 413 |
//! | other columns, types, resolutions or number of features than the registered bundle | request refused, 422 |
//! | of a model that is not registered | request refused, 422 |
//! | in another device's name | request refused, 403 |
//! | in a gap of sequences that the once-logic has forgotten | request refused, 409 |
//! | sent before, or out of order | accepted; what was sent before is counted once, downstream |
//! | without rows | acknowledged, nothing written |
//!
//! # What becomes of a row
//!
//! | row | fate |
//! | --- | --- |
//! | a feature is NaN, infinite or missing | accepted: these are signals |
//! | a category that the bundle does not list | accepted as "unseen", counted |
//! | a code that stands for no number | accepted as NaN |
//! | event time before 2000 | dead letter `event_time_before_2000` |
//! | event time more than `clocks.future_max` ahead, after correction | dead letter `event_time_in_future` |
//! | the clock is off by at most `clocks.tolerance` | accepted as it is |
//! | the clock is off by at most `clocks.correction_max`, for certain | accepted, corrected, marked with `clock_correction_us` |
//! | the clock is off by more, for certain | dead letter `clock_beyond_bound` |
//! | the clock seems to be behind, but one late request is all there is | accepted as it is: more likely it was on its way |
//! | times since boot, without a clock | accepted, the instant of the boot is added and marked |
//! | an outcome about another device, from a probe | accepted, in that device's partition |
//! | the same, about a device that is not registered | dead letter `unknown_device` |
//! | the same, from a device that is no probe | request refused, 403 |
//! | a JSON or Arrow row that cannot be read: unknown field, wrong type, no event time | dead letter `row_invalid`; when no row can be read, request refused, 422 |
//! | a profile of other signals or edges, or that names other devices | request refused, 422 |
//! | a profile of a pane whose clock was off | accepted, moved to the nearest pane |
//!
//! How clocks are judged is in `clocks`. A resend of a frame with refused rows writes their dead
//! letters again: dead letters are told apart by device and time, not removed.
//!
//! # Layout
//!
//! - [`gateway`]: the gateway as a whole, and serving it
//! - [`config`], [`limits`]: what may be set, and what is fixed
//! - [`problem`], [`reply`]: what senders get back
//! - `http` (private): routes, headers, bodies
//! - `admit`: from bytes to what is written; `check`, `clocks`, `sequence`, `rate`: its decisions
//! - `devices`: what is remembered of each device between requests
//! - `packer`: the queue, the thread that writes, and how rows become records
//! - `metrics`: what is counted

mod admit;
mod check;
mod clocks;
pub mod config;
mod devices;
pub mod gateway;
mod http;
pub mod limits;
mod metrics;
mod packer;
pub mod problem;
mod rate;
pub mod reply;
mod sequence;

pub use config::GatewayConfig;
pub use gateway::{Gateway, GatewayError};
pub use problem::{Problem, ProblemKind};
pub use reply::Reply;
