//! Who sent a frame, and in what state.
//!
//! [`Origin`] is what is alike in many frames of a device, [`FrameHead`] what differs. The identity
//! of an inference is derived, not sent ([`inference_id`]): it costs no bytes, a resend has the
//! same one, and an outcome can be joined by the time inside it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// Whether a unit only runs a model or also reports ground truth.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs a model.
    #[default]
    Device,
    /// Always connected, and reports ground truth as well.
    Probe,
}

/// What a unit is connected by.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Not declared.
    #[default]
    Unknown,
    /// Cable.
    Ethernet,
    /// Wireless local network.
    Wifi,
    /// LTE, NB-IoT, 5G.
    Cellular,
    /// LoRaWAN and its like.
    Lpwan,
    /// Satellite.
    Satellite,
}

impl Role {
    /// All of them; a role travels as its place in this list.
    pub const ALL: [Self; 2] = [Self::Device, Self::Probe];

    /// The name as it stands in tables and cohorts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Probe => "probe",
        }
    }
}

impl Link {
    /// All of them; a link travels as its place in this list.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Ethernet,
        Self::Wifi,
        Self::Cellular,
        Self::Lpwan,
        Self::Satellite,
    ];

    /// The name as it stands in tables and cohorts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ethernet => "ethernet",
            Self::Wifi => "wifi",
            Self::Cellular => "cellular",
            Self::Lpwan => "lpwan",
            Self::Satellite => "satellite",
        }
    }
}

/// What is alike in many frames of one device: identity, model and declared attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Owner of the device; part of every key.
    pub tenant: Arc<str>,
    /// Name of the device, unique within the tenant.
    pub device: Arc<str>,
    /// Device or probe.
    #[serde(default)]
    pub role: Role,
    /// Name of the model that runs there; empty where a frame has nothing to do with one.
    #[serde(default)]
    pub model: Arc<str>,
    /// Version of the model.
    #[serde(default)]
    pub version: Arc<str>,
    /// Variant of the version (`fp32`, `int8`).
    #[serde(default)]
    pub variant: Arc<str>,
    /// Hardware generation.
    #[serde(default)]
    pub hardware: Arc<str>,
    /// Firmware version.
    #[serde(default)]
    pub firmware: Arc<str>,
    /// Region, for routing and cohorts.
    #[serde(default)]
    pub region: Arc<str>,
    /// Site within the region.
    #[serde(default)]
    pub site: Arc<str>,
    /// Kind of link.
    #[serde(default)]
    pub link: Link,
    /// How often the device means to report, in seconds (a meter that reports daily is normal);
    /// 0 where it did not say.
    #[serde(default)]
    pub cadence_s: u32,
}

/// What differs from frame to frame of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameHead {
    /// Drawn at random at each boot of the device, so that sequences of two boots do not mix.
    pub boot: u64,
    /// Counts frames of one boot and kind of the device from 0.
    pub sequence: u64,
    /// The device's clock when it sent, microseconds; `None` for a device without a clock.
    pub sent_at_us: Option<i64>,
    /// The gateway's clock when it received, microseconds.
    pub received_at_us: i64,
    /// What the gateway added to the device's times, microseconds; 0 where its clock was right.
    pub clock_correction_us: i64,
}

/// Names of the attributes that make a cohort's base cell, in the order of [`Origin::attributes`].
pub const ATTRIBUTES: [&str; 7] = [
    "region", "site", "hardware", "firmware", "link", "variant", "role",
];

impl Origin {
    /// A device of which nothing else is known.
    pub fn new(tenant: &str, device: &str) -> Self {
        let unsaid: Arc<str> = "".into();
        Self {
            tenant: tenant.into(),
            device: device.into(),
            role: Role::default(),
            model: Arc::clone(&unsaid),
            version: Arc::clone(&unsaid),
            variant: Arc::clone(&unsaid),
            hardware: Arc::clone(&unsaid),
            firmware: Arc::clone(&unsaid),
            region: Arc::clone(&unsaid),
            site: unsaid,
            link: Link::default(),
            cadence_s: 0,
        }
    }

    /// Values of [`ATTRIBUTES`], in that order.
    pub fn attributes(&self) -> [&str; 7] {
        [
            &self.region,
            &self.site,
            &self.hardware,
            &self.firmware,
            self.link.name(),
            &self.variant,
            self.role.name(),
        ]
    }

    /// Hash of tenant and device: what partitions go by and profiles know a device by.
    pub fn device_hash(&self) -> u64 {
        device_hash(&self.tenant, &self.device)
    }
}

/// Hash of tenant and device; the same on every platform and in every version.
pub fn device_hash(tenant: &str, device: &str) -> u64 {
    xxh3_64_with_seed(device.as_bytes(), xxh3_64_with_seed(tenant.as_bytes(), 0))
}

/// Identity of an inference in the shape of a UUID version 7 (RFC 9562, section 5.7): 48 bits of
/// event time in milliseconds, then a hash of (device, boot, sequence, row).
///
/// `event_time_us` is the device's own time before any correction, so that a resend that was
/// corrected differently keeps its identity. `row` counts from 0 within the frame.
pub fn inference_id(
    device_hash: u64,
    boot: u64,
    sequence: u64,
    row: u32,
    event_time_us: i64,
) -> u128 {
    let mut seed = [0u8; 28];
    seed[..8].copy_from_slice(&device_hash.to_le_bytes());
    seed[8..16].copy_from_slice(&boot.to_le_bytes());
    seed[16..24].copy_from_slice(&sequence.to_le_bytes());
    seed[24..].copy_from_slice(&row.to_le_bytes());
    let hash = xxh3_128(&seed);
    let millis = u128::from(event_time_us.div_euclid(1_000).max(0) as u64 & 0xffff_ffff_ffff);
    let rand_a = (hash >> 64) & 0xfff;
    let rand_b = hash & 0x3fff_ffff_ffff_ffff;
    (millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b
}

/// The event time inside an inference's identity, microseconds (whole milliseconds).
pub fn inference_time_us(id: u128) -> i64 {
    ((id >> 80) as i64) * 1_000
}

/// Text form of an inference's identity (`xxxxxxxx-xxxx-7xxx-xxxx-xxxxxxxxxxxx`).
pub fn inference_id_text(id: u128) -> String {
    uuid::Uuid::from_u128(id).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_version_7_uuid_and_carries_its_time() {
        let id = inference_id(7, 1, 2, 3, 1_700_000_000_123_456);
        let uuid = uuid::Uuid::from_u128(id);
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(inference_time_us(id), 1_700_000_000_123_000);
        assert_ne!(id, inference_id(7, 1, 2, 4, 1_700_000_000_123_456));
    }
}
