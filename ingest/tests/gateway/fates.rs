//! What becomes of rows: each line of the table in the crate's documentation.

use driftline_schemas::clock::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};
use driftline_schemas::frame::{Body, Overrides, Sent};
use driftline_schemas::quantity::{NAN, POSITIVE_INFINITY, UNSEEN};
use driftline_schemas::rows::{Column, Rows};
use driftline_schemas::source::inference_time_us;
use driftline_schemas::topic::INFERENCES;

use crate::estate::{Estate, NOW, encode, rows};

fn send_rows(estate: &Estate, body: Rows) -> crate::estate::Answer {
    let schema = &estate.bundle.inferences;
    let none = Overrides::default();
    let frame = encode(1, 0, Sent::At(NOW), none, Body::Rows(body), schema);
    estate.send("d1", &[frame])
}

fn int32(estate: &Estate, name: &str) -> Vec<Option<i32>> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    let records = estate.records(INFERENCES);
    let (_, record) = &records[0];
    let column = record.batch.column_by_name(name).unwrap();
    column.as_primitive::<Int32Type>().iter().collect()
}

/// Features that are no numbers are signals, and are kept as what they are; a category that the
/// bundle does not list is "unseen".
#[test]
fn strange_features_are_kept() {
    let estate = Estate::new();
    let mut body = rows(&estate.bundle.inferences, &[NOW; 4]);
    let temps = [Some(NAN), Some(POSITIVE_INFINITY), None, Some(250)];
    body.columns[1] = Column::Int32(temps.into_iter().collect());
    let modes = [Some(2), Some(3), Some(UNSEEN), None];
    body.columns[2] = Column::Int32(modes.into_iter().collect());
    assert_eq!(send_rows(&estate, body).acknowledged(), (1, 4));
    assert_eq!(int32(&estate, "temp"), temps);
    let expected = [Some(2), Some(UNSEEN), Some(UNSEEN), None];
    assert_eq!(int32(&estate, "mode"), expected);
    let metrics = estate.get("/metrics").text;
    assert!(
        metrics.contains("driftline_gateway_unseen_categories_total 2"),
        "{metrics}"
    );
}

/// Event times that cannot be are dead letters, row by row; the others are taken in, and keep the
/// index that they had in the frame.
#[test]
fn impossible_event_times_are_dead_letters() {
    let estate = Estate::new();
    let times = [0, NOW, NOW + 9 * MINUTE_US, NOW + 11 * MINUTE_US, -5, NOW];
    let answer = estate.send("d1", &[estate.inferences(1, 0, &times)]);
    assert_eq!(answer.acknowledged(), (1, 3));
    let reasons = answer.rejected();
    assert_eq!(reasons["event_time_before_2000"], 2);
    assert_eq!(reasons["event_time_in_future"], 1);
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(record.row_index(), [1, 2, 5]);
    let letters = estate.letters();
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        assert_eq!((&*letter.tenant, &*letter.device), ("acme", "d1"));
        assert_eq!((&*letter.kind, letter.at_us), ("inferences", NOW));
        let row: serde_json::Value = serde_json::from_str(&letter.payload).unwrap();
        assert!(
            row["event_time"].is_i64() && row["temp"].is_number(),
            "{letter:?}"
        );
    }
    assert!(letters[0].detail.starts_with("row 0: "), "{:?}", letters[0]);
}

/// A frame full of garbage cannot fill the log with dead letters: they are bounded, and say how
/// many rows they stand for.
#[test]
fn dead_letters_are_bounded_and_nothing_is_silent() {
    let estate = Estate::new();
    let answer = estate.send("d1", &[estate.inferences(1, 0, &[0; 1_000])]);
    assert_eq!(answer.acknowledged(), (1, 0));
    assert_eq!(answer.rejected()["event_time_before_2000"], 1_000);
    let letters = estate.letters();
    assert_eq!(letters.len(), 65);
    assert!(
        letters[64].detail.starts_with("936 more rows"),
        "{:?}",
        letters[64]
    );
    assert!(estate.records(INFERENCES).is_empty());
}

/// A clock within tolerance is believed, one that is hours off is corrected and marked, one beyond
/// the bound makes dead letters; an inference keeps the identity that its device gave it.
#[test]
fn clocks_are_corrected_within_their_bound() {
    let estate = Estate::new();
    let send = |device: &str, sequence: u64, off: i64| {
        let now = NOW + sequence as i64 * SECOND_US;
        estate.clock.set(now);
        let (sent, time) = (Sent::At(now + off), now + off - SECOND_US);
        let frame = estate.frame(1, sequence, sent, &[time], Overrides::default());
        estate.send(device, &[frame])
    };
    // One late request is no proof of a clock that is behind, two are.
    for sequence in 0..2 {
        for (device, off) in [("d1", 90), ("d2", 18_000), ("d3", -18_000)] {
            let answer = send(device, sequence, off * SECOND_US);
            assert_eq!(answer.acknowledged(), (1, 1));
        }
    }
    let answer = send("p1", 0, 30 * DAY_US);
    assert_eq!(answer.rejected()["clock_beyond_bound"], 1);
    let expected = [
        ("d1", 0, NOW + 89 * SECOND_US, 0),
        ("d1", 1, NOW + 90 * SECOND_US, 0),
        ("d2", 0, NOW - SECOND_US, -5 * HOUR_US),
        ("d2", 1, NOW, -5 * HOUR_US),
        ("d3", 0, NOW - SECOND_US - 5 * HOUR_US, 0),
        ("d3", 1, NOW, 5 * HOUR_US),
    ];
    let records = estate.records(INFERENCES);
    for (device, sequence, event_time, correction) in expected {
        let found = records.iter().find_map(|(_, record)| {
            let frame = record
                .frames
                .iter()
                .find(|it| &*it.origin.device == device && it.head.sequence == sequence)?;
            let row = frame.first_row as usize;
            let id = record.inference_id(row)?;
            let time = record.event_times_us()[row];
            Some((time, frame.head.clock_correction_us, inference_time_us(id)))
        });
        // Within an identity, times are whole milliseconds of the device's own clock.
        let own = (event_time - correction).div_euclid(1_000) * 1_000;
        assert_eq!(found, Some((event_time, correction, own)), "{device}");
    }
    let metrics = estate.get("/metrics").text;
    assert!(
        metrics.contains("clock_corrected_frames_total 3"),
        "{metrics}"
    );
}

/// A frame that was tried in vain keeps its stamp; coming hours later, as the first that is heard of
/// its boot, it does not make a right clock wrong.
#[test]
fn an_outage_is_not_taken_for_a_wrong_clock() {
    let estate = Estate::new();
    let frame = estate.inferences(1, 0, &[NOW - SECOND_US]);
    estate.clock.advance(6 * HOUR_US);
    assert_eq!(estate.send("d1", &[frame]).acknowledged(), (1, 1));
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(record.event_times_us(), [NOW - SECOND_US]);
}

/// A device without a clock says times since it booted; the least delay of the boot tells when that
/// was.
#[test]
fn time_since_boot_is_understood() {
    let estate = Estate::new();
    let frame = |sequence, sent, time| {
        let sent = Sent::SinceBoot(sent);
        estate.frame(1, sequence, sent, &[time], Overrides::default())
    };
    let first = frame(0, 10 * MINUTE_US, 9 * MINUTE_US);
    assert_eq!(estate.send("d1", &[first]).acknowledged(), (1, 1));
    // This one was an hour on its way.
    estate.clock.advance(HOUR_US + MINUTE_US);
    let second = frame(1, 11 * MINUTE_US, 11 * MINUTE_US);
    assert_eq!(estate.send("d1", &[second]).acknowledged(), (1, 1));
    let records = estate.records(INFERENCES);
    let mut times: Vec<i64> = records
        .iter()
        .flat_map(|(_, record)| record.event_times_us().to_vec())
        .collect();
    times.sort_unstable();
    assert_eq!(times, [NOW - MINUTE_US, NOW + MINUTE_US]);
    let (_, record) = &records[0];
    let head = &record.frames[0].head;
    assert_eq!(head.sent_at_us, None);
    assert_eq!(head.clock_correction_us, NOW - 10 * MINUTE_US);
}

/// Frames that were stamped long ago and are sent now do not make a right clock wrong, when the
/// request says what time it is.
#[test]
fn a_backlog_with_the_present_beside_it_is_not_corrected() {
    let estate = Estate::new();
    let sent = Sent::At(NOW - 5 * HOUR_US);
    let frame = estate.frame(1, 0, sent, &[NOW - 5 * HOUR_US], Overrides::default());
    let now = NOW.to_string();
    let headers = [
        ("content-type", crate::estate::FRAMES),
        ("driftline-sent-at", now.as_str()),
    ];
    let body = driftline_schemas::frame::join([frame]);
    let answer = estate.post("d1", "/v1/frames", &headers, &body);
    assert_eq!(answer.acknowledged(), (1, 1));
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(record.event_times_us(), [NOW - 5 * HOUR_US]);
    assert_eq!(record.frames[0].head.clock_correction_us, 0);
}
