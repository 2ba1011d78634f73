//! Replaying against a gateway that is a few lines of this file.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use clap::Parser as _;
use driftline_emitter::pack::{
    BINS_DEFAULT, Data, Draft, PackInput, TENANT_DEFAULT, Table, Unlearned, pack,
};
use driftline_emitter::store;
use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::frame::{self, Body, Frame, FrameLimits};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
use driftline_schemas::source::{device_hash, inference_id};

use super::*;

/// Frames by token, in the order in which they came.
type Taken = Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>;

/// Takes everything, except that each connection's first request is told to come again.
fn gateway() -> (String, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Taken::default();
    let keep = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || serve(stream.unwrap(), &keep));
        }
    });
    (url, taken)
}

fn serve(stream: std::net::TcpStream, taken: &Taken) {
    let mut reader = BufReader::new(stream);
    let mut is_first = true;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let field = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| {
                line.to_lowercase()
                    .strip_prefix(name)
                    .map(|it| it.trim().to_owned())
            })
        };
        let mut body = vec![0; field("content-length:").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let answer = match std::mem::take(&mut is_first) {
            true => "HTTP/1.1 503 busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
            false => {
                let token = field("authorization: bearer").unwrap();
                let frames = frame::split(&body, &FrameLimits::default()).unwrap();
                let mut taken = taken.lock().unwrap();
                taken
                    .entry(token)
                    .or_default()
                    .extend(frames.into_iter().map(<[u8]>::to_vec));
                "HTTP/1.1 200 ok\r\ncontent-length: 2\r\n\r\n{}"
            }
        };
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ReplayArgs,
}

const ONNX: &[u8] = include_bytes!("../../../emitter/fixtures/threshold.onnx");

fn bundle(dir: &std::path::Path) -> PathBuf {
    let mut table = Table::new(200);
    for (name, scale) in [("temperature", 10.0), ("pressure", 100.0)] {
        let numbers = (0..200).map(|row| Some(f64::from(row) / scale)).collect();
        table.add(name, Data::Numbers(numbers)).unwrap();
    }
    let mut draft = Draft::new("boiler", "1", Task::Classification);
    draft.classes = vec!["ok".into(), "hot".into()];
    let packed = pack(&PackInput {
        draft,
        onnx: ONNX,
        rows: &table,
        made_from: "test".into(),
        tenant: TENANT_DEFAULT.into(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from: None,
        now_us: 0,
    })
    .unwrap();
    let path = dir.join("bundle");
    store::write_dir(&path, &packed.files).unwrap();
    path
}

fn rows(frame: &Frame) -> &Rows {
    match &frame.body {
        Body::Rows(rows) => rows,
        Body::Profile(_) => panic!("rows are expected"),
    }
}

fn integers(column: &Column) -> Vec<i32> {
    match column {
        Column::Int32(values) => values.values.clone(),
        _ => panic!("integers are expected"),
    }
}

/// Rows go to devices in turn and in order, each with its token; outcomes carry the identities that
/// the gateway derives; what was answered with 503 is sent again and counted.
#[test]
fn rows_are_shared_out_in_order_and_labels_follow() {
    let dir = tempfile::tempdir().unwrap();
    let bundle_dir = bundle(dir.path());
    let input = dir.path().join("rows.csv");
    let mut text = String::from("p,temperature,truth,keep\n");
    for row in 0..60 {
        let keep = if row % 3 == 2 { "no" } else { "yes" };
        text += &format!("0.5,{row},{},{keep}\n", if row > 30 { "hot" } else { "ok" });
    }
    std::fs::write(&input, text).unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "d1 one\nd2 two\n").unwrap();
    let (url, taken) = gateway();
    let cli = Cli::parse_from([
        "replay",
        "--bundle",
        bundle_dir.to_str().unwrap(),
        "--input",
        input.to_str().unwrap(),
        "--tokens-file",
        tokens.to_str().unwrap(),
        "--devices",
        "2",
        "--to",
        url.as_str(),
        "--label",
        "truth",
        "--map",
        "pressure=p",
        "--where",
        "keep=yes",
        "--start",
        "2024-01-01T00:00:00Z",
        "--interval",
        "1m",
        "--batch-rows",
        "8",
    ]);
    let replayed = replay(&cli.args, true, &AtomicBool::new(false)).unwrap();
    assert_eq!(
        (replayed.rows, replayed.acknowledged, replayed.outcomes),
        (40, 40, 40)
    );
    assert_eq!((replayed.devices, replayed.refused), (2, 0));
    assert!(
        replayed.retries >= 1,
        "the first request was answered with 503"
    );

    let bundle = Bundle::from_files(store::read_files(&bundle_dir).unwrap()).unwrap();
    let kept: Vec<i32> = (0..60).filter(|row| row % 3 != 2).collect();
    let taken = taken.lock().unwrap();
    for (device, (name, token)) in [("d1", "one"), ("d2", "two")].into_iter().enumerate() {
        let (mut temperatures, mut expected, mut reported) = (Vec::new(), Vec::new(), Vec::new());
        for bytes in &taken[token] {
            let decode =
                |schema: &RowSchema| frame::decode(bytes, schema, &FrameLimits::default()).unwrap();
            match frame::peek(bytes).unwrap().kind {
                Kind::Inferences => {
                    let frame = decode(&bundle.inferences);
                    let Column::Time(times) = &rows(&frame).columns[0] else {
                        panic!("times first")
                    };
                    for (row, time) in (0..).zip(&times.values) {
                        let hash = device_hash("default", name);
                        let envelope = &frame.envelope;
                        expected.push(inference_id(
                            hash,
                            envelope.boot,
                            envelope.sequence,
                            row,
                            *time,
                        ));
                    }
                    temperatures.extend(integers(&rows(&frame).columns[1]));
                }
                _ => {
                    let frame = decode(&bundle.outcomes);
                    let Column::Id(ids) = &rows(&frame).columns[1] else {
                        panic!("identities second")
                    };
                    reported.extend(ids.values.clone());
                }
            }
        }
        let own: Vec<i32> = kept
            .iter()
            .copied()
            .skip(device)
            .step_by(2)
            .map(|row| row * 10)
            .collect();
        assert_eq!(temperatures, own, "tenths, in the file's order");
        assert_eq!(reported, expected);
    }
}

#[test]
fn a_token_is_needed_for_each_device() {
    let dir = tempfile::tempdir().unwrap();
    let bundle_dir = bundle(dir.path());
    let input = dir.path().join("rows.csv");
    std::fs::write(&input, "temperature,pressure\n1,2\n").unwrap();
    let cli = Cli::parse_from([
        "replay",
        "--bundle",
        bundle_dir.to_str().unwrap(),
        "--input",
        input.to_str().unwrap(),
        "--token",
        "t",
        "--devices",
        "2",
        "--to",
        "http://127.0.0.1:1",
    ]);
    let error = replay(&cli.args, true, &AtomicBool::new(false)).unwrap_err();
    assert!(
        error.to_string().contains("2 devices need as many tokens"),
        "{error}"
    );
}
