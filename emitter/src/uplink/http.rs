//! The blocking HTTP client.

use std::time::Duration;

use super::{FRAMES_CONTENT_TYPE, FRAMES_PATH, Reply, Uplink, answer};
use crate::limits::REPLY_BYTES_MAX;

/// Connections that uplinks may share.
pub type Agent = ureq::Agent;

/// Longest that one request may take, unless told otherwise: a body of the largest size over a link
/// of 300 kbit/s.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
/// Longest that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Posts bodies to a gateway, keeping its connection open.
#[derive(Debug, Clone)]
pub struct HttpUplink {
    agent: ureq::Agent,
    url: String,
    authorization: String,
}

impl HttpUplink {
    /// Sends to the gateway at `base` (`https://gateway.example`), with the device's token.
    pub fn new(base: &str, token: &str) -> Self {
        Self::sharing(&agent(), base, token)
    }

    /// The same, over the connections of an agent that other devices use as well.
    pub fn sharing(agent: &ureq::Agent, base: &str, token: &str) -> Self {
        Self {
            agent: agent.clone(),
            url: format!("{}{FRAMES_PATH}", base.trim_end_matches('/')),
            authorization: format!("Bearer {}", token.trim()),
        }
    }

    /// Where bodies go.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Connections with the time-outs of this module.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(TIMEOUT_DEFAULT))
        .build()
        .into()
}

impl Uplink for HttpUplink {
    fn send(&mut self, body: &[u8]) -> Reply {
        let sent = self
            .agent
            .post(&self.url)
            .header("authorization", &self.authorization)
            .header("content-type", FRAMES_CONTENT_TYPE)
            .send(body);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                return Reply::Later {
                    retry_after: None,
                    reason: error.to_string(),
                };
            }
        };
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = response
            .body_mut()
            .with_config()
            .limit(REPLY_BYTES_MAX)
            .read_to_vec();
        match body {
            Ok(body) => answer::read(status, retry_after.as_deref(), &body),
            // The status came, and with it the gateway's word; only what it said beside is lost.
            Err(_) => answer::read(status, retry_after.as_deref(), &[]),
        }
    }
}
