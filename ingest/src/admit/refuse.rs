//! What is refused as a whole, and how it is said.

use driftline_log::registry::Model;
use driftline_schemas::frame::{DeviceProfile, FrameError};

use super::Sender;
use crate::devices::Stop;
use crate::problem::{Problem, ProblemKind};

/// A profile is the model's own layout, and rests on its sender only.
pub(super) fn check_profile(
    profile: &DeviceProfile,
    model: &Model,
    sender: &Sender,
) -> Result<(), Problem> {
    let mismatch = |detail: String| {
        let remedy = "bring the device to the registered bundle, or register the one that it runs";
        Problem::new(ProblemKind::SchemaMismatch, detail, remedy).at("profile")
    };
    if profile.version != model.record.version {
        return Err(mismatch(format!(
            "the profile is of version {:?}, its frame of {:?}",
            profile.version, model.record.version
        )));
    }
    let signals = &profile.profile.signals;
    let bins = signals.iter().map(|signal| signal.bins.len());
    if profile.profile.layout != model.layout_digest || !bins.eq(model.layout_bins.iter().copied())
    {
        return Err(mismatch(format!(
            "the profile has layout {:016x} with {} signals, the bundle {:016x} with {}",
            profile.profile.layout,
            signals.len(),
            model.layout_digest,
            model.layout_bins.len()
        )));
    }
    let devices = &profile.profile.devices;
    if devices.is_truncated() || devices.iter().any(|(hash, _)| hash != sender.hash) {
        return Err(another_device(&sender.device.origin.device, "another").at("profile, devices"));
    }
    Ok(())
}

pub(super) fn another_device(own: &str, named: &str) -> Problem {
    Problem::new(
        ProblemKind::AnotherDevice,
        format!("the token is of device {own:?}, what it sends of {named:?}"),
        "send with the token of the device that it is about; only a device registered as a probe may report outcomes of others",
    )
}

pub(super) fn stopped(stop: Stop) -> Problem {
    match stop {
        Stop::Rate { rows, wait_s } => {
            let what = if rows { "rows" } else { "requests" };
            Problem::new(
                ProblemKind::RateLimited,
                format!("the device sends more {what} than its rate allows"),
                "send the same again after the pause, in fewer and larger requests",
            )
            .retry_after(wait_s)
        }
        Stop::TooOld { frame, highest } => Problem::new(
            ProblemKind::FrameTooOld,
            format!("frames up to {highest} of this boot are there, and this one can no longer be told from a resend"),
            "drop the frame; send frames in order, or start a new boot to begin again",
        )
        .in_frame(frame),
    }
}

/// A frame's error as a problem: its text says what and the remedy, parted by a semicolon.
pub(super) fn frame_problem(error: &FrameError) -> Problem {
    let kind = match error {
        FrameError::Damaged { .. } | FrameError::Profile { .. } => ProblemKind::DamagedFrame,
        FrameError::Version { .. } => ProblemKind::FrameVersion,
        FrameError::Schema { .. } => ProblemKind::SchemaMismatch,
        FrameError::Limit { .. } => ProblemKind::TooLarge,
        FrameError::Unfit { .. } => ProblemKind::BadRequest,
    };
    let text = error.to_string();
    let (detail, remedy) = text
        .rsplit_once("; ")
        .unwrap_or((&text, "correct the sender"));
    let problem = Problem::new(kind, detail, remedy);
    match error {
        FrameError::Damaged { part, at, .. } => problem.at(format!("{part} at byte {at}")),
        FrameError::Version { .. } => problem.at("frame at byte 2"),
        FrameError::Schema { .. } => problem.at("frame at byte 4"),
        FrameError::Profile { at, .. } => problem.at(format!("frame body at byte {at}")),
        FrameError::Limit { .. } | FrameError::Unfit { .. } => problem,
    }
}
