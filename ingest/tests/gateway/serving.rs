//! Health, metrics, TLS and what goes on without a request.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use driftline_ingest::config::TlsConfig;
use driftline_ingest::{Gateway, GatewayError};
use driftline_schemas::rows::RowSchema;
use driftline_schemas::units::Span;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts};

use crate::estate::{Answer, Estate, NOW, agent, answer, config, eventually};

/// Alive is not ready: ready means that the log can be read, and comes back by itself.
#[test]
fn ready_while_the_log_can_be_read() {
    let mut config = config();
    config.registry_refresh = Span::from_us(1_000);
    let estate = Estate::with(config);
    eventually("ready", || estate.get("/readyz").status == 200);
    estate.log.reads_fail.store(true, Ordering::SeqCst);
    eventually("not ready", || estate.get("/readyz").status == 503);
    assert!(!estate.get("/readyz").text.trim().is_empty());
    assert_eq!(estate.get("/healthz").status, 200);
    // Devices that are known are served all the same.
    let answer = estate.send("d1", &[estate.inferences(1, 0, &[NOW])]);
    assert_eq!(answer.acknowledged(), (1, 1));
    estate.log.reads_fail.store(false, Ordering::SeqCst);
    eventually("ready again", || estate.get("/readyz").status == 200);
}

/// What was answered is counted, under the route's pattern and not what a sender wrote.
#[test]
fn answers_are_counted() {
    let estate = Estate::new();
    estate.send("d1", &[estate.inferences(1, 0, &[NOW, NOW, 0])]);
    estate.send("nobody", &[]);
    estate.get("/made/up/path");
    let text = estate.get("/metrics").text;
    for line in [
        "driftline_gateway_requests_total{route=\"/v1/frames\",status=\"200\"} 1",
        "driftline_gateway_requests_total{route=\"/v1/frames\",status=\"401\"} 1",
        "driftline_gateway_requests_total{route=\"other\",status=\"404\"} 1",
        "driftline_gateway_problems_total{problem=\"unauthenticated\"} 1",
        "driftline_gateway_frames_acknowledged_total{kind=\"inferences\"} 1",
        "driftline_gateway_rows_acknowledged_total{kind=\"inferences\"} 2",
        "driftline_gateway_rows_rejected_total{reason=\"event_time_before_2000\"} 1",
        "driftline_gateway_records_total 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// The gateway does not start on a log without its topics, or with settings that cannot work, and
/// says what is missing.
#[test]
fn what_is_missing_at_start_is_named() {
    let estate = Estate::new();
    let start = |config, log: driftline_log::memory::MemoryLog| {
        let (registry, clock) = (estate.registry.clone(), estate.clock.clone());
        Gateway::new(config, std::sync::Arc::new(log), registry, clock).unwrap_err()
    };
    let empty = driftline_log::memory::MemoryLog::new();
    let error = start(config(), empty.clone());
    assert!(matches!(error, GatewayError::Log(_)), "{error}");
    assert!(error.to_string().contains("inferences"), "{error}");
    let mut wrong = config();
    wrong.queue_requests = 0;
    assert!(start(wrong, empty).to_string().contains("queue_requests"));
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls");
    folder.join(name)
}

fn tls(required: bool) -> TlsConfig {
    TlsConfig {
        certificate: file("server.pem"),
        key: file("server.key.pem"),
        client_authorities: Some(file("ca.pem")),
        client_certificate_required: required,
    }
}

/// Asks for `/healthz` over TLS, with or without the device's certificate.
fn over_tls(estate: &Estate, with_certificate: bool) -> Result<Answer, ureq::Error> {
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    let certificate = |name: &str| Certificate::from_pem(&read(name)).unwrap();
    let client = with_certificate.then(|| {
        let key = PrivateKey::from_pem(&read("device.key.pem")).unwrap();
        ClientCert::new_with_certs(&[certificate("device.pem")], key)
    });
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[certificate("ca.pem")]))
        .client_cert(client)
        .build();
    let agent: ureq::Agent = agent().tls_config(tls).build().into();
    let url = format!("https://{}/healthz", estate.address);
    agent.get(url).call().map(answer)
}

/// TLS with and without client certificates.
#[test]
fn tls_with_optional_client_certificates() {
    let mut config = config();
    config.tls = Some(tls(false));
    let estate = Estate::with(config.clone());
    assert_eq!(over_tls(&estate, false).unwrap().status, 200);
    assert_eq!(over_tls(&estate, true).unwrap().status, 200);
    assert!(estate.agent.get(estate.url("/healthz")).call().is_err());
    config.tls = Some(tls(true));
    let estate = Estate::with(config);
    assert!(over_tls(&estate, false).is_err());
    assert_eq!(over_tls(&estate, true).unwrap().status, 200);
}

/// Beyond the limit a connection is closed, and one that ends makes room.
#[test]
fn connections_are_bounded() {
    let mut config = config();
    config.connections = 1;
    let mut estate = Estate::with(config);
    assert_eq!(estate.get("/healthz").status, 200);
    let other: ureq::Agent = agent().build().into();
    let url = estate.url("/healthz");
    assert!(other.get(&url).call().is_err());
    // Without its agent the first connection ends.
    estate.agent = agent().build().into();
    eventually("there is room", || other.get(&url).call().is_ok());
}

/// Every kind of rows has its topic; a schema that is not the kind's is refused.
#[test]
fn fixed_kinds_have_fixed_columns() {
    let estate = Estate::new();
    for schema in [RowSchema::health(), RowSchema::events()] {
        let mut body = crate::estate::rows(&schema, &[NOW]);
        for column in &mut body.columns {
            if let driftline_schemas::rows::Column::Text(values) = column {
                *values = [Some("boot".into())].into_iter().collect();
            }
        }
        let frame = crate::estate::encode(
            1,
            0,
            driftline_schemas::frame::Sent::At(NOW),
            Default::default(),
            driftline_schemas::frame::Body::Rows(body),
            &schema,
        );
        assert_eq!(estate.send("d1", &[frame]).acknowledged(), (1, 1));
        assert_eq!(estate.frames_of(schema.kind().topic()).len(), 1);
    }
}
