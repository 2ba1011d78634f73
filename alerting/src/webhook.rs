//! Bodies and signatures of webhooks, after the Standard Webhooks specification 1.0.
//!
//! A message has three headers: `webhook-id` (its identity, the same in every attempt),
//! `webhook-timestamp` (Unix seconds of the attempt), and `webhook-signature` (`v1,` and the base64
//! of HMAC-SHA256 over `id.timestamp.body` under the secret's bytes).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftline_schemas::measure::{Alert, AlertChange};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// Identity of the message.
pub const ID_HEADER: &str = "webhook-id";
/// Unix seconds of the attempt.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Signature.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How far a timestamp may be from the receiver's clock, seconds, so that a message that was
/// overheard cannot be sent again later.
pub const TOLERANCE_S: i64 = 300;

/// Why a secret, or a message, is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WebhookError {
    /// The text is no secret.
    #[error("a signing secret is `whsec_` and the base64 of 24 to 64 bytes")]
    Secret,
    /// A header is not there or not text.
    #[error("header {0} is missing or no text")]
    Header(&'static str),
    /// The timestamp is too far from now.
    #[error("the timestamp is {0} s from now, more than {TOLERANCE_S} s")]
    Stale(i64),
    /// No signature of the message is right.
    #[error("no signature of the message is right")]
    Signature,
}

/// A signing secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// [`WebhookError::Secret`].
    pub fn parse(text: &str) -> Result<Self, WebhookError> {
        let coded = text.strip_prefix("whsec_").ok_or(WebhookError::Secret)?;
        let bytes = STANDARD.decode(coded).map_err(|_| WebhookError::Secret)?;
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(WebhookError::Secret)
        }
    }

    /// The text form of 32 random bytes that the caller drew.
    pub fn from_random(bytes: [u8; 32]) -> (Self, String) {
        (
            Self(bytes.to_vec()),
            format!("whsec_{}", STANDARD.encode(bytes)),
        )
    }

    fn mac(&self, id: &str, timestamp_s: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        Some(mac)
    }

    /// Value of [`SIGNATURE_HEADER`].
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        // HMAC takes a key of any length, so there always is a MAC.
        let tag = self
            .mac(id, timestamp_s, body)
            .map(|mac| mac.finalize().into_bytes())
            .unwrap_or_default();
        format!("v1,{}", STANDARD.encode(tag))
    }

    /// Checks a message as its receiver: timestamp, then signature in constant time.
    ///
    /// # Errors
    /// [`WebhookError`] says what is wrong.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now_s: i64,
    ) -> Result<(), WebhookError> {
        let timestamp_s: i64 = timestamp
            .parse()
            .map_err(|_| WebhookError::Header(TIMESTAMP_HEADER))?;
        let apart = (now_s - timestamp_s).abs();
        if apart > TOLERANCE_S {
            return Err(WebhookError::Stale(apart));
        }
        let right = signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|coded| STANDARD.decode(coded).ok())
            .any(|tag| {
                self.mac(id, timestamp_s, body)
                    .is_some_and(|mac| mac.verify_slice(&tag).is_ok())
            });
        if right {
            Ok(())
        } else {
            Err(WebhookError::Signature)
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    data: &'a Alert,
}

/// Body of the message that tells of an alert's change: `{"type": "alert.opened", "timestamp":
/// RFC 3339, "data": alert}`.
pub fn body(alert: &Alert) -> String {
    let kind = match alert.change {
        AlertChange::Opened => "alert.opened",
        AlertChange::Updated => "alert.updated",
        AlertChange::Resolved => "alert.resolved",
        AlertChange::Superseded => "alert.superseded",
    };
    let timestamp = jiff::Timestamp::from_microsecond(alert.at_us)
        .unwrap_or_default()
        .to_string();
    let body = Body {
        kind,
        timestamp,
        data: alert,
    };
    // Strings, numbers and lists of them always have a JSON form.
    serde_json::to_string(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_the_specification_does() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_changed_body_a_stale_message_and_a_wrong_secret_are_refused() {
        let (secret, text) = Secret::from_random([7; 32]);
        assert_eq!(Secret::parse(&text).unwrap(), secret);
        let (other, _) = Secret::from_random([8; 32]);
        let signature = secret.sign("m1", 1_000, b"{}");
        assert_eq!(
            secret.verify("m1", "1000", &signature, b"{}", 1_100),
            Ok(())
        );
        assert_eq!(
            secret.verify("m1", "1000", &signature, b"{ }", 1_100),
            Err(WebhookError::Signature)
        );
        assert_eq!(
            other.verify("m1", "1000", &signature, b"{}", 1_100),
            Err(WebhookError::Signature)
        );
        assert_eq!(
            secret.verify("m1", "1000", &signature, b"{}", 2_000),
            Err(WebhookError::Stale(1_000))
        );
        assert!(Secret::parse("whsec_AAAA").is_err());
    }
}
