//! What an operator may set.

use std::net::SocketAddr;
use std::path::PathBuf;

use driftline_schemas::limits::{
    BODY_BYTES_MAX, FRAME_RAW_BYTES_MAX, FRAME_ROWS_MAX, REQUEST_FRAMES_MAX,
};
use driftline_schemas::units::{Size, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Configuration of the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Certificate and key; without it the gateway speaks plain HTTP, for a trusted network or
    /// behind a proxy.
    pub tls: Option<TlsConfig>,
    /// How long to gather rows of several requests before they are written together.
    pub linger: Span,
    /// Write at the latest when this many bytes of rows are gathered.
    pub batch_bytes: Size,
    /// Requests that may wait to be written; beyond it 503.
    pub queue_requests: usize,
    /// Bytes that all requests under way may hold together; beyond it 503.
    pub bytes_in_flight: Size,
    /// Largest body of a request; beyond it 413.
    pub body_bytes: Size,
    /// Largest frame after decompression; beyond it 413.
    pub frame_bytes: Size,
    /// Bytes that the rows of one request may take in memory; beyond it 413.
    pub request_bytes: Size,
    /// Most rows of one frame; beyond it 413.
    pub frame_rows: usize,
    /// Most frames of one request; beyond it 413.
    pub request_frames: usize,
    /// How fast one device may send; beyond it 429.
    pub rate: RateConfig,
    /// How device clocks are judged.
    pub clocks: ClockConfig,
    /// How long a request may take to arrive; beyond it 408.
    pub body_timeout: Span,
    /// How long a request waits for the log; beyond it 503. What was already written stays, and the
    /// resend is removed later.
    pub append_timeout: Span,
    /// How long a connection may stay silent before its first request, or between the head's bytes.
    pub header_timeout: Span,
    /// How long requests under way may take to end at shutdown.
    pub drain_timeout: Span,
    /// How often the registry is read for new devices and bundles.
    pub registry_refresh: Span,
    /// Connections open at once; one beyond it is closed as soon as it comes.
    pub connections: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            linger: Span::from_us(4_000),
            batch_bytes: Size(limits::BATCH_BYTES_MAX),
            queue_requests: limits::QUEUE_REQUESTS_MAX,
            bytes_in_flight: Size(limits::BYTES_IN_FLIGHT_MAX),
            body_bytes: Size(BODY_BYTES_MAX as u64),
            frame_bytes: Size(FRAME_RAW_BYTES_MAX as u64),
            request_bytes: Size(limits::REQUEST_DECODED_BYTES_MAX),
            frame_rows: FRAME_ROWS_MAX,
            request_frames: REQUEST_FRAMES_MAX,
            rate: RateConfig::default(),
            clocks: ClockConfig::default(),
            body_timeout: Span::from_secs(120),
            append_timeout: Span::from_secs(20),
            header_timeout: Span::from_secs(20),
            drain_timeout: Span::from_secs(20),
            registry_refresh: Span::from_secs(1),
            connections: limits::CONNECTIONS_MAX,
        }
    }
}

/// Where the certificate is, and whether devices must show one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities that client certificates are checked against. Without it none
    /// is asked for.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    #[serde(default)]
    pub client_certificate_required: bool,
}

/// How fast one device may send. A bucket fills at the rate; a request is let in while it is not
/// empty and may overdraw it, so that a backlog goes through in large requests, followed by a pause.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Rows a second, on average.
    pub rows_per_second: f64,
    /// Rows that may come at once.
    pub rows_burst: f64,
    /// Requests a second, on average.
    pub requests_per_second: f64,
    /// Requests that may come at once.
    pub requests_burst: f64,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            rows_per_second: 20_000.0,
            rows_burst: 1_000_000.0,
            requests_per_second: 50.0,
            requests_burst: 500.0,
        }
    }
}

/// How device clocks are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// A clock that is off by no more than this is taken as it is: the link's delay looks the same.
    pub tolerance: Span,
    /// A clock that is off by no more than this is corrected; rows of one that is off by more are
    /// dead letters.
    pub correction_max: Span,
    /// How far ahead of the gateway's clock an event time may be, after correction.
    pub future_max: Span,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self {
            tolerance: Span::from_mins(2),
            correction_max: Span::from_hours(48),
            future_max: Span::from_mins(10),
        }
    }
}

impl GatewayConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// Names the setting, what is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &'static str, problem: String| Err(ConfigError { setting, problem });
        for (setting, value, most) in [
            ("body_bytes", self.body_bytes, BODY_BYTES_MAX as u64),
            ("frame_bytes", self.frame_bytes, FRAME_RAW_BYTES_MAX as u64),
            ("batch_bytes", self.batch_bytes, 4 * limits::BATCH_BYTES_MAX),
        ] {
            if !(1..=most).contains(&value.0) {
                return wrong(setting, format!("{value} must be 1B to {}", Size(most)));
            }
        }
        for (setting, value, most) in [
            ("frame_rows", self.frame_rows, FRAME_ROWS_MAX),
            ("request_frames", self.request_frames, REQUEST_FRAMES_MAX),
            ("queue_requests", self.queue_requests, 65_536),
            ("connections", self.connections, 1 << 20),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(setting, format!("{value} must be 1 to {most}"));
            }
        }
        let one_request = self.body_bytes.0 + self.request_bytes.0;
        if self.bytes_in_flight.0 < one_request || self.bytes_in_flight.0 > u64::from(u32::MAX) {
            return wrong(
                "bytes_in_flight",
                format!(
                    "{} must hold one request of body_bytes and request_bytes, {}, and be less than 4GiB",
                    self.bytes_in_flight,
                    Size(one_request)
                ),
            );
        }
        let rate = self.rate;
        for (setting, value) in [
            ("rate.rows_per_second", rate.rows_per_second),
            ("rate.rows_burst", rate.rows_burst),
            ("rate.requests_per_second", rate.requests_per_second),
            ("rate.requests_burst", rate.requests_burst),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(setting, format!("{value} must be above 0"));
            }
        }
        let clocks = self.clocks;
        if clocks.future_max < clocks.tolerance {
            return wrong(
                "clocks.future_max",
                format!(
                    "{} must be at least clocks.tolerance ({}): clocks within it are not corrected",
                    clocks.future_max, clocks.tolerance
                ),
            );
        }
        Ok(())
    }
}

/// A setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway setting {setting}: {problem}")]
pub struct ConfigError {
    /// The setting.
    pub setting: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults are sound, survive being written, and unknown settings are refused.
    #[test]
    fn defaults_hold_and_strangers_are_refused() {
        let config = GatewayConfig::default();
        config.check().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<GatewayConfig>(&text).unwrap(),
            config
        );
        let error = serde_json::from_str::<GatewayConfig>(r#"{"lingr": "4ms"}"#).unwrap_err();
        assert!(error.to_string().contains("lingr"), "{error}");
    }

    /// A setting that cannot work is named.
    #[test]
    fn what_cannot_work_is_named() {
        let broken = |change: fn(&mut GatewayConfig)| {
            let mut config = GatewayConfig::default();
            change(&mut config);
            config.check().unwrap_err().setting
        };
        assert_eq!(broken(|c| c.body_bytes = Size(1 << 40)), "body_bytes");
        assert_eq!(broken(|c| c.queue_requests = 0), "queue_requests");
        assert_eq!(broken(|c| c.bytes_in_flight = Size(1)), "bytes_in_flight");
        assert_eq!(
            broken(|c| c.rate.rows_per_second = f64::NAN),
            "rate.rows_per_second"
        );
        assert_eq!(
            broken(|c| c.clocks.future_max = Span::from_secs(1)),
            "clocks.future_max"
        );
    }
}
