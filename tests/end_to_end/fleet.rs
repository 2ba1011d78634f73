//! A few devices that a test drives itself: what they measured, and what was acknowledged.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use driftline_emitter::uplink::{Delivery, deliver};
use driftline_emitter::{Batch, Device, DeviceConfig, HttpUplink, Runtime, Value, store};
use driftline_schemas::clock::{Clock as _, SystemClock};
use driftline_schemas::source::Origin;
use rand::RngExt as _;

use crate::harness::{self, Pipeline};

/// Makes a bundle of the boiler model from rows of the seed.
pub(crate) fn bundle(folder: &Path, rng: &mut impl rand::Rng) -> String {
    let rows = folder.join("rows.csv");
    let mut text = String::from("temperature,vibration,pressure,current,truth\n");
    for _ in 0..2_000 {
        let [a, b, c, d] = measured(rng);
        let truth = if b > 3.5 { "fail" } else { "ok" };
        text.push_str(&format!("{a},{b},{c},{d},{truth}\n"));
    }
    std::fs::write(&rows, text).unwrap();
    let labels = ["--label", "truth", "--classes", "ok,fail"];
    harness::pack(folder, "boiler", &rows, &folder.join("bundle"), &labels)
}

fn measured(rng: &mut impl rand::Rng) -> [f64; 4] {
    let mut around = |mean: f64, spread: f64| {
        let value = mean + spread * (rng.random::<f64>() + rng.random::<f64>() - 1.0);
        (value * 100.0).round() / 100.0
    };
    [
        around(60.0, 8.0),
        around(3.0, 1.0),
        around(5.0, 0.5),
        around(8.0, 2.0),
    ]
}

/// Devices of a pipeline, each with its token.
pub(crate) struct Fleet {
    devices: Vec<(Device, HttpUplink)>,
    /// Identities of everything that was measured.
    pub(crate) ids: BTreeSet<String>,
}

impl Fleet {
    /// Adds so many devices to a pipeline that knows the bundle.
    pub(crate) fn join(pipeline: &Pipeline, bundle: &str, count: usize) -> Self {
        let bundle = Arc::new(store::load(Path::new(bundle)).unwrap());
        let runtime = Runtime::load(bundle).unwrap();
        let devices = (0..count)
            .map(|at| {
                let name = format!("d{at}");
                let added =
                    pipeline.add_device(&name, &["--model", "boiler", "--version", "1.0.0"]);
                let origin: Origin = serde_json::from_value(serde_json::json!({
                    "tenant": "default", "device": name, "model": "boiler", "version": "1.0.0",
                }))
                .unwrap();
                let device = Device::new(Arc::clone(&runtime), DeviceConfig::new(origin, 1));
                let token = added["token"].as_str().unwrap();
                (device, HttpUplink::new(&pipeline.url, token))
            })
            .collect();
        Self {
            devices,
            ids: BTreeSet::new(),
        }
    }

    /// One device measures some rows and their truths.
    pub(crate) fn measure(&mut self, at: usize, rows: usize, rng: &mut impl rand::Rng) {
        let (device, _) = &mut self.devices[at];
        let runtime = Arc::clone(device.runtime());
        let mut batch: Batch = runtime.batch();
        let now_us = SystemClock.now_us();
        for row in 0..rows {
            let values = measured(rng).map(Value::Number);
            let time_us = now_us - (rows - row) as i64 * 1_000;
            batch.push(runtime.encoders(), time_us, &values).unwrap();
        }
        let inferred = device.infer(&batch, now_us).unwrap();
        assert_eq!(inferred.refused, 0, "the spool has room");
        for id in inferred.ids {
            let truth = if rng.random_bool(0.9) { "ok" } else { "fail" };
            device
                .outcome(id, Value::Text(truth), now_us, now_us)
                .unwrap();
            self.ids.insert(format!("{id:032x}"));
        }
    }

    /// Sends what a device has, until it is acknowledged or `go_on` says no. Whether it was.
    pub(crate) fn send(&mut self, at: usize, mut go_on: impl FnMut() -> bool) -> bool {
        let (device, uplink) = &mut self.devices[at];
        let mut wait = |span: Duration| {
            harness::pause(span.min(Duration::from_millis(200)));
            go_on()
        };
        let delivery = deliver(device, uplink, &SystemClock, &mut wait).unwrap();
        match delivery {
            Delivery::Done => true,
            Delivery::Stopped => false,
            Delivery::Denied { status, reason } => panic!("{status}: {reason}"),
        }
    }

    /// How many devices there are.
    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Rows that were acknowledged: inferences, outcomes.
    pub(crate) fn acknowledged(&self) -> (u64, u64) {
        let stats = self.devices.iter().map(|(device, _)| device.stats());
        stats.fold((0, 0), |(rows, truths), stats| {
            (
                rows + stats.inferences_acknowledged,
                truths + stats.outcomes_acknowledged,
            )
        })
    }

    /// Requests that were sent again.
    pub(crate) fn retries(&self) -> u64 {
        self.devices
            .iter()
            .map(|(device, _)| device.stats().retries)
            .sum()
    }
}

/// Waits until the lake and the profiles have everything, and holds it against what was measured.
pub(crate) fn assert_counted_once(pipeline: &Pipeline, fleet: &Fleet) {
    let (rows, truths) = fleet.acknowledged();
    assert_eq!(rows as usize, fleet.ids.len());
    let dir = &pipeline.dir;
    let counts = || {
        let count = |sql: &str| harness::number(dir, sql) as u64;
        [
            count("SELECT count(*) FROM inferences"),
            count("SELECT count(*) FROM outcomes"),
            count("SELECT coalesce(sum(rows), 0) FROM profiles WHERE signal = 'temperature'"),
            count("SELECT coalesce(sum(rows), 0) FROM profiles WHERE signal = 'error'"),
        ]
    };
    let want = [rows, truths, rows, truths];
    harness::until("every row in the lake and in the profiles", || {
        let seen = counts();
        let enough = seen.iter().zip(&want).all(|(seen, want)| seen >= want);
        if enough {
            Ok(())
        } else {
            Err(format!("{seen:?} of {want:?}"))
        }
    });
    assert_eq!(counts(), want, "once");
    let found: BTreeSet<String> = harness::sql(dir, "SELECT inference_id AS id FROM inferences")
        .iter()
        .map(|row| row["id"].as_str().unwrap().replace('-', ""))
        .collect();
    assert_eq!(found, fleet.ids, "the same identities");
    assert_eq!(
        harness::number(dir, "SELECT count(*) FROM deadletters"),
        0.0
    );
}
