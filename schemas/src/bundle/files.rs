//! The files of a bundle, checked as a whole.
//!
//! A [`Bundle`] is made from bytes: reading folders and stores is the caller's. Its digest is the
//! SHA-256 of the list of its files' names and SHA-256 sums, so that one short text stands for all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    CALIBRATION_FILE, DIGEST_FILE, MANIFEST_FILE, MODEL_FILE, Manifest, ManifestError,
    REFERENCE_FILE, SBOM_FILE,
};
use crate::joint::{JOINT_FILE, Joint, JointError};
use crate::profile::{ProfileError, Reference};
use crate::rows::RowSchema;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file that every bundle has is not there.
    #[error("bundle has no {0}: pack it again with `driftline model pack`")]
    Missing(&'static str),
    /// A file is there that the digest does not list, or the other way round, or it changed.
    #[error(
        "bundle file {file}: {problem}; fetch the bundle again, or pack it again with `driftline model pack`"
    )]
    Damaged {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The reference is wrong.
    #[error("{REFERENCE_FILE}: {0}")]
    Reference(#[from] ProfileError),
    /// The numbers of the signal `joint` are wrong.
    #[error(transparent)]
    Joint(#[from] JointError),
    /// The reference was made for other signals than the manifest's.
    #[error(
        "{REFERENCE_FILE} does not fit bundle.toml at signal {signal:?}: {problem}; pack the bundle again"
    )]
    ForOtherFeatures {
        /// The first signal that differs.
        signal: String,
        /// How it differs.
        problem: String,
    },
}

/// Contents of [`DIGEST_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// `sha256:` and the hexadecimal digest over the list below.
    pub digest: String,
    /// Hexadecimal SHA-256 of each file but this one, by name.
    pub files: BTreeMap<String, String>,
}

impl Digest {
    /// Takes the digest of files.
    pub fn of(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let files: BTreeMap<String, String> = files
            .iter()
            .filter(|(name, _)| name.as_str() != DIGEST_FILE)
            .map(|(name, bytes)| (name.clone(), hex(&Sha256::digest(bytes))))
            .collect();
        let mut all = Sha256::new();
        for (name, sum) in &files {
            all.update(format!("{sum}  {name}\n"));
        }
        Self {
            digest: format!("sha256:{}", hex(&all.finalize())),
            files,
        }
    }
}

/// Hexadecimal text of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bundle that was read and found whole.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The manifest.
    pub manifest: Manifest,
    /// Digest over all files.
    pub digest: String,
    /// The reference.
    pub reference: Reference,
    /// What the signal `joint` is computed with, where the manifest asks for it.
    pub joint: Option<std::sync::Arc<Joint>>,
    /// Columns of the model's inferences.
    pub inferences: std::sync::Arc<RowSchema>,
    /// Columns of the model's outcomes.
    pub outcomes: std::sync::Arc<RowSchema>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// Checks files by name: all are there, none changed since the digest was taken, and the
    /// reference is for the manifest's signals.
    ///
    /// # Errors
    /// [`BundleError`] names the file or the field.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        let required = [
            MANIFEST_FILE,
            MODEL_FILE,
            REFERENCE_FILE,
            CALIBRATION_FILE,
            SBOM_FILE,
            DIGEST_FILE,
        ];
        if let Some(missing) = required.into_iter().find(|name| !files.contains_key(*name)) {
            return Err(BundleError::Missing(missing));
        }
        let damaged = |file: &str, problem: String| BundleError::Damaged {
            file: file.into(),
            problem,
        };
        let claimed: Digest = serde_json::from_slice(&files[DIGEST_FILE])
            .map_err(|error| damaged(DIGEST_FILE, error.to_string()))?;
        let actual = Digest::of(&files);
        for (name, sum) in &actual.files {
            match claimed.files.get(name) {
                Some(claim) if claim == sum => {}
                Some(_) => {
                    return Err(damaged(
                        name,
                        "its SHA-256 is not the one in digest.json".into(),
                    ));
                }
                None => return Err(damaged(name, "digest.json does not list it".into())),
            }
        }
        if claimed != actual {
            return Err(damaged(DIGEST_FILE, "it does not match the files".into()));
        }
        let text = std::str::from_utf8(&files[MANIFEST_FILE])
            .map_err(|error| ManifestError::Syntax(error.to_string()))?;
        let manifest = Manifest::parse(text)?;
        let reference = Reference::decode(&files[REFERENCE_FILE])?;
        same_signals(&manifest, &reference)?;
        let joint = match (&manifest.joint, files.get(JOINT_FILE)) {
            (None, _) => None,
            (Some(_), None) => return Err(BundleError::Missing(JOINT_FILE)),
            (Some(_), Some(bytes)) => {
                let joint = Joint::from_json(bytes)?;
                joint.check(&manifest)?;
                Some(joint.into())
            }
        };
        Ok(Self {
            joint,
            inferences: RowSchema::inferences(&manifest).into(),
            outcomes: RowSchema::outcomes(&manifest).into(),
            manifest,
            digest: actual.digest,
            reference,
            files,
        })
    }

    /// Bytes of a file of the bundle.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// All files by name.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// `name@version`, with `+variant` where there is one.
    pub fn title(&self) -> String {
        let Manifest {
            name,
            version,
            variant,
            ..
        } = &self.manifest;
        match variant.as_str() {
            "" => format!("{name}@{version}"),
            variant => format!("{name}@{version}+{variant}"),
        }
    }
}

fn same_signals(manifest: &Manifest, reference: &Reference) -> Result<(), BundleError> {
    let expected = manifest.signals();
    let actual = reference.layout.signals();
    for (index, signal) in expected.iter().enumerate() {
        let problem = match actual.get(index) {
            None => "the reference has no such signal".to_owned(),
            Some(layout) if layout.signal.name != signal.name => {
                format!("the reference has {:?} in its place", layout.signal.name)
            }
            Some(layout) if layout.signal.kind != signal.kind => {
                "type, resolution, range or categories differ".to_owned()
            }
            Some(_) => continue,
        };
        return Err(BundleError::ForOtherFeatures {
            signal: signal.name.clone(),
            problem,
        });
    }
    match actual.get(expected.len()) {
        Some(extra) => Err(BundleError::ForOtherFeatures {
            signal: extra.signal.name.clone(),
            problem: "bundle.toml has no such signal".into(),
        }),
        None => Ok(()),
    }
}
