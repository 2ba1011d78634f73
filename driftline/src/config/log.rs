//! Where the log is, and how its brokers are spoken to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use driftline_log::kafka::{GroupProtocol, KafkaOptions, SESSION_TIMEOUT, TRANSACTION_TIMEOUT};
use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// Kafka brokers, `host:port`, separated by commas. Without them the log is embedded, in the
    /// data folder, and all roles run in one process.
    pub kafka: Option<String>,
    /// Goes before every name on the broker.
    pub prefix: String,
    /// Speak TLS with the brokers.
    pub tls: Option<BrokerTls>,
    /// Say to the brokers who this is.
    pub sasl: Option<BrokerSasl>,
    /// Further settings of librdkafka, by name.
    pub settings: BTreeMap<String, String>,
    /// Partitions of every topic. They cannot change later, since a device's partition never does.
    pub partitions: u32,
    /// Copies of every partition on a Kafka cluster.
    pub replication: u16,
    /// Copies that must have a record before it is acknowledged; without it 2 where there are three
    /// copies or more, else 1.
    pub min_insync_replicas: Option<u16>,
    /// How the processes of a role find out who has which partitions. All of them must have the same.
    pub group_protocol: Groups,
    /// Without a sign of life for this long a process has lost its partitions to others. Not below
    /// the broker's `group.min.session.timeout.ms`. With `group_protocol = "consumer"` it is the
    /// broker's `group.consumer.session.timeout.ms` instead.
    pub session_timeout: Span,
    /// The broker ends a transaction whose process is gone after this time; until then readers of
    /// what it wrote to stand still. Not above the broker's `transaction.max.timeout.ms`.
    pub transaction_timeout: Span,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            kafka: None,
            prefix: "driftline.".into(),
            tls: None,
            sasl: None,
            settings: BTreeMap::new(),
            partitions: 2,
            replication: 1,
            min_insync_replicas: None,
            group_protocol: Groups::Classic,
            session_timeout: Span::from_us(SESSION_TIMEOUT.as_micros() as i64),
            transaction_timeout: Span::from_us(TRANSACTION_TIMEOUT.as_micros() as i64),
        }
    }
}

/// How the processes of a role find out who has which partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Groups {
    /// One of them deals them out.
    #[default]
    Classic,
    /// The broker does (KIP-848, Kafka 4.0 and later).
    Consumer,
}

/// TLS with the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BrokerTls {
    /// PEM file with the authorities that the brokers' certificates are checked against; without it
    /// those of the system.
    pub authorities: Option<PathBuf>,
    /// PEM file with the certificate that this process shows, where brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
}

/// How a password is shown to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum SaslMechanism {
    /// As it is: with TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// By a challenge (RFC 7677).
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By a challenge.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Who this is to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrokerSasl {
    /// How the password is shown.
    pub mechanism: SaslMechanism,
    /// Name of the user.
    pub username: String,
    /// File with the password; white space around it is left out.
    pub password_file: PathBuf,
}

impl LogConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// Names the setting.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.partitions == 0 {
            return Err("partitions: must be 1 at least".into());
        }
        if self.replication == 0 {
            return Err("replication: must be 1 at least".into());
        }
        for (name, span) in [
            ("session_timeout", self.session_timeout),
            ("transaction_timeout", self.transaction_timeout),
        ] {
            if span.us() < 1_000_000 {
                return Err(format!("{name}: must be 1s at least"));
            }
        }
        let own = ["security.", "sasl.", "ssl."];
        let both = self.settings.keys().find(|key| {
            (self.tls.is_some() || self.sasl.is_some())
                && own.iter().any(|prefix| key.starts_with(prefix))
        });
        match both {
            Some(key) => Err(format!(
                "settings.{key}: with [log.tls] or [log.sasl] it is set by them"
            )),
            None => Ok(()),
        }
    }

    /// How to reach the brokers; reads the password.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn kafka_options(&self, brokers: &str) -> anyhow::Result<KafkaOptions> {
        let mut settings = self.settings.clone();
        let mut set = |key: &str, value: String| settings.insert(key.to_owned(), value);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => None,
            (Some(_), None) => Some("ssl"),
            (None, Some(_)) => Some("sasl_plaintext"),
            (Some(_), Some(_)) => Some("sasl_ssl"),
        };
        if let Some(protocol) = protocol {
            set("security.protocol", protocol.into());
        }
        if let Some(tls) = &self.tls {
            for (key, file) in [
                ("ssl.ca.location", &tls.authorities),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ] {
                if let Some(file) = file {
                    set(key, readable(file)?);
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            let file = &sasl.password_file;
            let password = std::fs::read_to_string(file)
                .with_context(|| format!("[log.sasl] password_file {}", file.display()))?;
            set("sasl.mechanism", mechanism.into());
            set("sasl.username", sasl.username.clone());
            set("sasl.password", password.trim().to_owned());
        }
        Ok(KafkaOptions {
            prefix: self.prefix.clone(),
            settings,
            session_timeout: self.session_timeout.duration(),
            transaction_timeout: self.transaction_timeout.duration(),
            min_insync_replicas: self.min_insync_replicas,
            group_protocol: match self.group_protocol {
                Groups::Classic => GroupProtocol::Classic,
                Groups::Consumer => GroupProtocol::Consumer,
            },
            ..KafkaOptions::new(brokers)
        })
    }
}

/// A file's name for librdkafka, which says little when it cannot read one.
fn readable(file: &Path) -> anyhow::Result<String> {
    std::fs::metadata(file).with_context(|| format!("[log.tls] file {}", file.display()))?;
    Ok(file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> LogConfig {
        toml::from_str(text).unwrap()
    }

    /// TLS and SASL become librdkafka's settings, the password comes from its file, and settings that
    /// would contradict are refused by name.
    #[test]
    fn security_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, secret) = (folder.path().join("ca.pem"), folder.path().join("secret"));
        std::fs::write(&ca, "pem").unwrap();
        std::fs::write(&secret, "s3cret\n").unwrap();
        let text = format!(
            "[tls]\nauthorities = {ca:?}\n[sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"u\"\npassword_file = {secret:?}\n"
        );
        let options = config(&text).kafka_options("b:1").unwrap();
        let setting = |key: &str| options.settings.get(key).map(String::as_str);
        assert_eq!(setting("security.protocol"), Some("sasl_ssl"));
        assert_eq!(setting("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(setting("sasl.password"), Some("s3cret"));
        assert_eq!(setting("ssl.ca.location"), ca.to_str());

        let mut twice = config(&text);
        twice.settings.insert("ssl.ca.location".into(), "x".into());
        assert!(twice.check().unwrap_err().contains("ssl.ca.location"));
        std::fs::remove_file(&secret).unwrap();
        let error = config(&text).kafka_options("b:1").unwrap_err();
        assert!(format!("{error:#}").contains("password_file"), "{error:#}");
    }

    /// The group protocol is named in lower case, classic where nothing is said, and others are refused.
    #[test]
    fn group_protocols_have_names() {
        let options = |text: &str| config(text).kafka_options("b:1").unwrap();
        assert_eq!(options("").group_protocol, GroupProtocol::Classic);
        let consumer = options("group_protocol = \"consumer\"");
        assert_eq!(consumer.group_protocol, GroupProtocol::Consumer);
        assert!(toml::from_str::<LogConfig>("group_protocol = \"range\"").is_err());
    }

    /// Time-outs that no broker takes are refused by name.
    #[test]
    fn timeouts_have_a_floor() {
        let problem = |text: &str| config(text).check().unwrap_err();
        assert!(problem("session_timeout = \"10ms\"").contains("session_timeout"));
        assert!(problem("transaction_timeout = \"0s\"").contains("transaction_timeout"));
        assert!(problem("partitions = 0").contains("partitions"));
    }
}
