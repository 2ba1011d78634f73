//! What a device counts.

/// What a device has counted since it booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Inferences made, whether their telemetry was kept or not.
    pub inferences: u64,
    /// Rows of any kind that were taken for sending.
    pub rows_taken: u64,
    /// Rows of any kind that found the spool full.
    pub rows_refused: u64,
    /// Frames put into the spool.
    pub frames_sealed: u64,
    /// Rows of acknowledged frames, those that went to the dead letters included.
    pub rows_acknowledged: u64,
    /// Rows that the gateway said went to the dead letters.
    pub rows_rejected: u64,
    /// Inference rows among them.
    pub inferences_acknowledged: u64,
    /// Outcomes among them.
    pub outcomes_acknowledged: u64,
    /// Frames that the gateway acknowledged.
    pub frames_acknowledged: u64,
    /// Frames that the gateway refused for good.
    pub frames_refused: u64,
    /// Rows of those frames.
    pub rows_of_refused_frames: u64,
    /// Requests made.
    pub requests: u64,
    /// Requests that were to be made again.
    pub retries: u64,
    /// Bytes of the requests' bodies, resends included.
    pub bytes_sent: u64,
}
