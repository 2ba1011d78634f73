//! What an HTTP answer means for the frames that were sent.

use std::time::Duration;

use super::Reply;

/// Longest part of an answer's body that is kept as the reason.
const REASON_CHARS_MAX: usize = 300;

/// Reads status, `Retry-After` (seconds) and body of an answer.
///
/// 2xx is an acknowledgement. 408, 425, 429 and 5xx mean later. 401, 403, 404, 405 and redirects
/// are about the sender or the address, not about the frames. Every other status refuses the body.
pub fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Reply {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let reason = || reason(status, json.as_ref(), body);
    match status {
        200..=299 => Reply::Acknowledged { body: json },
        408 | 425 | 429 | 500..=599 => Reply::Later {
            retry_after: retry_after
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            reason: reason(),
        },
        300..=399 | 401 | 403 | 404 | 405 => Reply::Denied {
            status,
            reason: reason(),
        },
        _ => Reply::Refused {
            status,
            reason: reason(),
        },
    }
}

/// The `error`, `message` or `detail` of a JSON answer, or the text itself.
fn reason(status: u16, json: Option<&serde_json::Value>, body: &[u8]) -> String {
    let named = json.and_then(|json| {
        ["error", "message", "detail", "reason"]
            .iter()
            .find_map(|key| json.get(key))
            .map(|found| match found.as_str() {
                Some(text) => text.to_owned(),
                None => found.to_string(),
            })
    });
    let text = named.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let text: String = text.chars().take(REASON_CHARS_MAX).collect();
    match text.is_empty() {
        true => format!("status {status}"),
        false => format!("status {status}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_module_says() {
        assert!(matches!(
            read(202, None, br#"{"rows":3}"#),
            Reply::Acknowledged { body: Some(_) }
        ));
        let Reply::Later {
            retry_after,
            reason,
        } = read(503, Some("7"), b"busy")
        else {
            panic!("503 is transient");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        assert_eq!(reason, "status 503: busy");
        assert!(matches!(read(429, None, b""), Reply::Later { .. }));
        assert!(matches!(read(401, None, b""), Reply::Denied { .. }));
        assert!(matches!(read(308, None, b""), Reply::Denied { .. }));
        let refused = read(400, None, br#"{"error":"checksum"}"#);
        assert_eq!(
            refused,
            Reply::Refused {
                status: 400,
                reason: "status 400: checksum".into()
            }
        );
    }

    #[test]
    fn a_retry_after_that_is_no_number_is_left_to_the_backoff() {
        assert!(matches!(
            read(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), b""),
            Reply::Later {
                retry_after: None,
                ..
            }
        ));
    }
}
