//! Certificate, key and client authorities from their files.

use std::path::Path;
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::GatewayError;
use crate::config::TlsConfig;

fn wrong(setting: &'static str, path: &Path, problem: impl std::fmt::Display) -> GatewayError {
    GatewayError::Tls {
        setting,
        path: path.display().to_string(),
        problem: problem.to_string(),
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, GatewayError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(setting, path, error))?;
    if all.is_empty() {
        return Err(wrong(setting, path, "holds no certificate in PEM form"));
    }
    Ok(all)
}

/// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1.
pub(super) fn config(config: &TlsConfig) -> Result<RustlsConfig, GatewayError> {
    let chain = certificates("certificate", &config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| wrong("key", &config.key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("certificate", &config.certificate, error))?;
    let builder = match &config.client_authorities {
        None if config.client_certificate_required => {
            let problem = "client_certificate_required needs client_authorities: name the file with \
                           the authorities that issue the devices' certificates";
            return Err(wrong("client_authorities", Path::new(""), problem));
        }
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_authorities", path)? {
                roots
                    .add(authority)
                    .map_err(|error| wrong("client_authorities", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match config.client_certificate_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier = verifier
                .build()
                .map_err(|error| wrong("client_authorities", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong("key", &config.key, error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(server)))
}
