//! Wire frames: whatever the bytes, an error or rows that can be written and read again.
//!
//! The first byte chooses the schema. Fingerprint and checksum are made right, because a fuzzer does
//! not guess them and an attacker computes them.

#![no_main]

use std::sync::LazyLock;

use driftline_schemas::bundle::Manifest;
use driftline_schemas::frame::{FrameLimits, decode, encode, split};
use driftline_schemas::rows::RowSchema;
use libfuzzer_sys::fuzz_target;

static SCHEMAS: LazyLock<Vec<RowSchema>> = LazyLock::new(|| {
    let manifest = Manifest::parse(
        "format = 1\nname = \"m\"\nversion = \"1\"\ntask = \"classification\"\n[output]\nclasses = [\"a\", \"b\"]\nscores = true\n[[features]]\nname = \"x\"\ntype = \"numeric\"\nresolution = 0.1\n",
    )
    .expect("the manifest is right");
    vec![
        RowSchema::inferences(&manifest),
        RowSchema::outcomes(&manifest),
        RowSchema::health(),
        RowSchema::events(),
    ]
});

fuzz_target!(|data: &[u8]| {
    let limits = FrameLimits::default();
    let _ = split(data, &limits);
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let schema = &SCHEMAS[usize::from(*which) % SCHEMAS.len()];
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 13 {
        bytes[..3].copy_from_slice(b"DL\x01");
        bytes[4..8].copy_from_slice(&schema.fingerprint().to_le_bytes());
        bytes[8] = 0;
        let mut hash = crc32fast::Hasher::new();
        hash.update(&bytes[..9]);
        hash.update(&bytes[13..]);
        bytes[9..13].copy_from_slice(&hash.finalize().to_le_bytes());
    }
    if let Ok(frame) = decode(&bytes, schema, &limits) {
        let again = encode(&frame, schema).expect("what was read can be written");
        assert_eq!(decode(&again, schema, &limits), Ok(frame));
    }
});
