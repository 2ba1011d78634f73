//! Data files as they come: plain or packed text, numbers, and what counts as missing.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Result;

/// Opens a text file; `.gz` and `.zst` are unpacked on the way.
///
/// # Errors
/// When the file cannot be opened; the caller says which one it was.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = BufReader::new(File::open(path)?);
    Ok(match path.extension().and_then(|ext| ext.to_str()) {
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// Whether a file is Parquet, by its name.
pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "parquet")
}

/// Whether a text of a CSV file stands for no value.
pub(crate) fn is_missing(text: &str) -> bool {
    matches!(text, "" | "NA" | "null" | "NULL")
}
