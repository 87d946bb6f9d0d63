//! Every file under `topologies/` loads, and every one under `topologies/bad/` gets exactly the error beside it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use topology::{Loaded, Report, codes, load, read_file, schema};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies")
}

/// The topology files in `folder`, with the names that golden texts show.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).expect("the folder is part of the repository");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let named = paths.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    let mut files: Vec<_> = named.filter(|(name, _)| name.ends_with(".vnet.yaml")).collect();
    files.sort();
    files
}

fn try_load(name: &str, path: &Path) -> Result<Loaded, Report> {
    load(&read_file(path).expect("a readable file"), name, Path::new("/lab"))
}

/// Compares with a golden file; with UPDATE_GOLDEN=1 writes it.
fn golden(path: &Path, now: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, now).expect("the golden file can be written");
    }
    let then = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(then, now, "{} differs; look, then run with UPDATE_GOLDEN=1", path.display());
}

#[test]
fn good_files_compile_to_their_golden_plans_and_fit_the_schema() {
    let validator = jsonschema::validator_for(&schema()).expect("the schema is one");
    let good = files(&folder());
    assert!(good.len() >= 5);
    for (name, path) in good {
        let loaded = try_load(&name, &path).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        let plan = serde_json::to_string_pretty(&loaded.plan).expect("a plan is JSON");
        let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
        golden(&plans.join(name.replace(".vnet.yaml", ".json")), &format!("{plan}\n"));
        let value: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
}

#[test]
fn the_schema_is_golden_and_refuses_gross_errors() {
    let schema = schema();
    golden(&folder().join("vnet.schema.json"), &format!("{:#}\n", schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "version": 2, "nodes": {} }),
        serde_json::json!({ "version": 1, "nodes": { "a": { "kind": "vn" } } }),
        serde_json::json!({ "version": 1, "nodes": { "A": { "kind": "vm" } } }),
        serde_json::json!({ "version": 1, "nodes": {}, "vlans": { "x": { "id": 4095 } } }),
        serde_json::json!({ "version": 1, "nodes": {}, "nodez": {} }),
        serde_json::json!({ "version": 1, "nodes": {}, "security-groups": { "g": [{}] } }),
        serde_json::json!({ "version": 1, "nodes": {}, "security-groups": { "g": [{ "direction": "ingress", "port": [] }] } }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn bad_files_get_exactly_the_errors_beside_them() {
    let bad = files(&folder().join("bad"));
    assert!(bad.len() >= 45, "{} files", bad.len());
    for (name, path) in bad {
        let told = match try_load(&name, &path) {
            Err(report) => report.render(false),
            Ok(loaded) => {
                assert!(!loaded.warnings.is_empty(), "{name} is not bad");
                Report::of_warnings(&loaded, &read_file(&path).expect("a readable file")).render(false)
            }
        };
        let headings = told.lines().filter(|line| line.starts_with("error[") || line.starts_with("warning["));
        let mends = told.lines().filter(|line| {
            line.trim_start().starts_with("= help: ") || line.trim_start().starts_with("help: ")
        });
        assert!(headings.count() <= mends.count(), "{name}: an error without a mend:\n{told}");
        golden(&PathBuf::from(path.to_str().unwrap().replace(".vnet.yaml", ".error")), &told);
    }
}

#[test]
fn every_code_has_a_bad_file_and_every_bad_file_a_code() {
    let told: BTreeSet<_> = files(&folder().join("bad"))
        .iter()
        .flat_map(|(name, path)| match try_load(name, path) {
            Err(report) => {
                report.errors.into_iter().chain(report.warnings).map(|told| told.code).collect::<Vec<_>>()
            }
            Ok(loaded) => loaded.warnings.into_iter().map(|told| told.code).collect(),
        })
        .collect();
    let all: BTreeSet<_> = codes::ALL.iter().copied().collect();
    let untold: Vec<_> = all.difference(&told).map(|code| code.name()).collect();
    assert!(untold.is_empty(), "codes without a file under topologies/bad: {untold:?}");
    for code in codes::ALL {
        assert_eq!(codes::explain(code.name()), Some(code.explanation()));
    }
}
