//! The software bill of materials: CycloneDX 1.6 JSON with the model as a
//! `machine-learning-model` component (<https://cyclonedx.org/docs/1.6/json/>).

use driftline_schemas::bundle::{Manifest, Task};
use serde_json::{Value, json};

use crate::model::origin_of;

/// The document. Its serial number follows from the model, so that packing the same model twice
/// names the same thing.
pub(super) fn make(
    manifest: &Manifest,
    onnx: &[u8],
    model_sha256: &str,
    made_from: &str,
    now_us: i64,
) -> Vec<u8> {
    let title = match manifest.variant.as_str() {
        "" => manifest.version.clone(),
        variant => format!("{}+{variant}", manifest.version),
    };
    let origin = origin_of(onnx).unwrap_or_default();
    let mut components = Vec::new();
    if !origin.producer.is_empty() {
        components.push(json!({
            "type": "application",
            "bom-ref": "producer",
            "name": origin.producer,
            "version": origin.producer_version,
            "description": "wrote the model file",
        }));
    }
    components.push(json!({
        "type": "data",
        "bom-ref": "reference",
        "name": made_from,
        "data": [{ "type": "dataset", "name": made_from }],
    }));
    let operators: Vec<Value> = origin
        .operator_sets
        .iter()
        .map(|(domain, version)| {
            json!({ "name": format!("onnx:opset:{domain}"), "value": version.to_string() })
        })
        .collect();
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid_of(model_sha256)),
        "version": 1,
        "metadata": {
            "timestamp": timestamp(now_us),
            "tools": { "components": [{
                "type": "application",
                "name": "driftline",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": manifest.name,
                "version": title,
                "hashes": [{ "alg": "SHA-256", "content": model_sha256 }],
                "properties": operators,
                "modelCard": { "modelParameters": {
                    "task": task_name(manifest.task),
                    "datasets": [{ "ref": "reference" }],
                    "inputs": manifest.features.iter().map(|feature| json!({ "format": feature.name })).collect::<Vec<_>>(),
                    "outputs": [{ "format": task_name(manifest.task) }],
                } },
            },
        },
        "components": components,
        "dependencies": [{ "ref": "model", "dependsOn": ["reference"] }, { "ref": "reference" }],
    });
    // A JSON value always has a text.
    serde_json::to_vec_pretty(&document).unwrap_or_default()
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::Classification => "classification",
        Task::Regression => "regression",
        Task::Anomaly => "anomaly detection",
    }
}

/// RFC 3339 in UTC, to the second.
fn timestamp(now_us: i64) -> String {
    jiff::Timestamp::from_second(now_us.div_euclid(1_000_000))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// A UUID of version 8 (RFC 9562, section 5.8) from the first 128 bits of a hash in hexadecimal.
fn uuid_of(hash: &str) -> String {
    let mut bits = u128::from_str_radix(hash.get(..32).unwrap_or_default(), 16).unwrap_or(0);
    bits = (bits & !(0xf << 76)) | (0x8 << 76);
    bits = (bits & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_is_a_uuid_of_the_hash() {
        let uuid = uuid_of(&"f".repeat(64));
        assert_eq!(uuid, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_time_stamp_is_rfc_3339() {
        assert_eq!(timestamp(1_700_000_000_999_999), "2023-11-14T22:13:20Z");
    }
}
