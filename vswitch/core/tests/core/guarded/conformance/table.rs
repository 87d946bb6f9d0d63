//! `docs/conformance.md` itself: every row has its tests, every test its row, every reason is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use vswitch_core::drop_reason::DropReason;

/// Where the tests of each binary are, from this crate's folder.
const BINARIES: [(&str, &str); 4] = [
    ("core", "tests/core"),
    ("vswitch_core", "src"),
    ("datapath", "../daemon/tests/datapath"),
    ("vswitchd", "../daemon/src"),
];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The names in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The cells of each row, without heads.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows =
        lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect());
    rows.filter(|cells: &Vec<String>| cells[0] != "row").collect()
}

/// Whether there is a test of that name, given as its binary and path: `core::guarded::fragments::the_rest_follows_the_first`.
fn exists(test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let [binary, modules @ .., name] = &parts[..] else { return false };
    let Some((_, folder)) = BINARIES.iter().find(|(known, _)| known == binary) else { return false };
    let folder = here(folder);
    // A module of tests may stand within the file of what it tests.
    let places = (1..=modules.len()).rev().flat_map(|depth| {
        let path = modules[..depth].iter().fold(folder.clone(), |path, module| path.join(module));
        [path.with_extension("rs"), path.join("mod.rs")]
    });
    let text = places.into_iter().find_map(|place| read(&place)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test = |line: usize| lines[..line].iter().rev().take(3).any(|before| *before == "#[test]");
    (0..lines.len()).any(|line| lines[line].starts_with(&format!("fn {name}(")) && is_test(line))
}

#[test]
fn the_table_is_true_of_the_sources() {
    let text = read(&here("../../docs/conformance.md")).expect("the table is there");
    let mut tests = BTreeSet::new();
    let mut ids = BTreeMap::<String, u32>::new();
    for cells in rows(&text) {
        let [id, sent, becomes, clause, held] = &cells[..] else { panic!("five cells: {cells:?}") };
        assert!([sent, becomes, clause].into_iter().all(|cell| !cell.is_empty()), "{cells:?}");
        for id in id.split(", ") {
            *ids.entry(id.to_owned()).or_default() += 1;
        }
        for reason in quoted(becomes) {
            assert!(reason.parse::<DropReason>().is_ok(), "`{reason}` is no reason: {cells:?}");
        }
        let names = quoted(held);
        assert!(!names.is_empty() || held == "none: there is no such thing yet", "no test: {cells:?}");
        for name in names {
            assert!(exists(name), "there is no test {name}: {cells:?}");
            tests.insert(name.to_owned());
        }
    }
    for number in 1..=26 {
        assert!(ids.contains_key(&format!("K{number}")), "K{number} has no row");
    }
    // And no test of this folder is without a row.
    for file in fs::read_dir(here("tests/core/guarded/conformance")).expect("it is this folder") {
        let path = file.expect("it can be read").path();
        let text = read(&path).expect("it can be read");
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let names = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
        for name in names.filter(|_| module != "table") {
            let full = format!("core::guarded::conformance::{module}::{name}");
            assert!(tests.contains(&full), "{full} has no row");
        }
    }
}

/// The check itself: it finds what is there and nothing else.
#[test]
fn a_test_is_found_by_its_whole_name_only() {
    assert!(exists("core::guarded::conformance::table::a_test_is_found_by_its_whole_name_only"));
    assert!(exists("vswitch_core::drop_reason::tests::names_are_unique_and_the_same_everywhere"));
    for name in [
        "core::guarded::conformance::table::exists",
        "core::guarded::conformance::table::a_test_is_found_by_its_whole_name",
        "core::guarded::frames::a_test_is_found_by_its_whole_name_only",
        "elsewhere::guarded::conformance::table::a_test_is_found_by_its_whole_name_only",
        "core",
        "",
    ] {
        assert!(!exists(name), "{name}");
    }
}
