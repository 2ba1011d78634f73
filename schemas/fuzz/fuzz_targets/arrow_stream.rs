//! Arrow streams and JSON lines from outside: rows or an error, whatever the bytes.

#![no_main]

use std::sync::{Arc, LazyLock};

use driftline_schemas::frame::FrameLimits;
use driftline_schemas::rows::RowSchema;
use driftline_schemas::telemetry::Intake;
use libfuzzer_sys::fuzz_target;

static INTAKE: LazyLock<Intake> = LazyLock::new(|| Intake::new(&Arc::new(RowSchema::health()), None));

fuzz_target!(|data: &[u8]| {
    let _ = INTAKE.arrow_stream(data, &FrameLimits::default());
    let _ = INTAKE.json_lines(data, &FrameLimits::default());
});
