//! The device side stays small.

use std::process::Command;

/// Nothing of the pipeline gets into the device: no query engine, no lake, no Kafka, no async runtime.
#[test]
fn the_emitter_pulls_in_no_pipeline() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "-p",
            "driftline-emitter",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let text = String::from_utf8(tree.stdout).unwrap();
    assert!(text.contains("tract-onnx"), "the tree is the emitter's");
    for name in text.lines().filter_map(|line| line.split(' ').next()) {
        let is_pipeline = name.starts_with("datafusion")
            || name.starts_with("deltalake")
            || name.starts_with("rdkafka")
            || ["parquet", "object_store", "tokio", "redb", "driftline-log"].contains(&name);
        assert!(!is_pipeline, "{name} has no place on a device");
    }
}
