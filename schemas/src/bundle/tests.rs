use super::*;

const TEXT: &str = r#"
format = 1
name = "boiler"
version = "1.0.0"
task = "classification"

[[features]]
name = "temp"
type = "numeric"
resolution = 0.01
unit = "°C"

[[features]]
name = "mode"
type = "categorical"
categories = ["heat", "idle"]

[output]
classes = ["ok", "fail"]
"#;

#[test]
fn a_manifest_gives_its_signals_in_order_and_survives_a_round_trip() {
    let manifest = Manifest::parse(TEXT).unwrap();
    let names: Vec<_> = manifest
        .signals()
        .into_iter()
        .map(|signal| signal.name)
        .collect();
    assert_eq!(names, ["temp", "mode", "prediction", "confidence", "error"]);
    assert_eq!(
        Manifest::parse(&manifest.to_toml().unwrap()).unwrap(),
        manifest
    );
}

#[test]
fn what_is_wrong_is_named() {
    let twice = TEXT.replace("name = \"mode\"", "name = \"temp\"");
    assert!(
        Manifest::parse(&twice)
            .unwrap_err()
            .to_string()
            .contains("\"temp\"")
    );
    let reserved = TEXT.replace("name = \"mode\"", "name = \"error\"");
    assert!(
        Manifest::parse(&reserved)
            .unwrap_err()
            .to_string()
            .contains("reserved")
    );
    let resolution = TEXT.replace("0.01", "0.0");
    assert!(
        Manifest::parse(&resolution)
            .unwrap_err()
            .to_string()
            .contains("above 0")
    );
    assert_eq!(
        Manifest::parse(&TEXT.replace("format = 1", "format = 9")),
        Err(ManifestError::Format(9))
    );
}
