//! Tables of the documents that name tests: how they are read, and whether those tests are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the tests of each binary are, from this crate's folder.
const BINARIES: [(&str, &str); 5] = [
    ("core", "tests/core"),
    ("vswitch_core", "src"),
    ("datapath", "../daemon/tests/datapath"),
    ("vswitchd", "../daemon/src"),
    ("labs", "../../tests/tests/labs"),
];

/// A path from this crate's folder.
pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file, if it can be read.
pub(crate) fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The names in backquotes.
pub(crate) fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The cells of each row of the tables whose first column has this head, without heads.
pub(crate) fn rows(text: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let mut rows = Vec::new();
    let mut within = false;
    let mut before = "";
    for line in text.lines() {
        let row: Vec<String> = cells(line);
        if !line.starts_with('|') {
            within = false;
        } else if !before.starts_with('|') {
            within = row[0] == head;
        } else if within && !line.starts_with("|---") {
            rows.push(row);
        }
        before = line;
    }
    rows
}

/// Whether there is a test of that name, given as its binary and path: `core::guarded::fragments::the_rest_follows_the_first`.
pub(crate) fn exists(test: &str) -> bool {
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

/// The check itself: it finds what is there and nothing else.
#[test]
fn a_test_is_found_by_its_whole_name_only() {
    assert!(exists("core::tables::a_test_is_found_by_its_whole_name_only"));
    assert!(exists("vswitch_core::drop_reason::tests::names_are_unique_and_the_same_everywhere"));
    assert!(exists("labs::routing::a_router_passes_on_what_its_routes_lead_to_and_nothing_else"));
    for name in [
        "core::tables::exists",
        "core::tables::a_test_is_found_by_its_whole_name",
        "core::guarded::frames::a_test_is_found_by_its_whole_name_only",
        "elsewhere::tables::a_test_is_found_by_its_whole_name_only",
        "core",
        "",
    ] {
        assert!(!exists(name), "{name}");
    }
}

#[test]
fn of_several_tables_the_one_with_that_head_is_read() {
    let text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n| row | b |\n|---|---|\n| 3 | 4 |\ntext\n| row | b |\n| 5 | 6 |\n";
    assert_eq!(rows(text, "row"), [["3", "4"], ["5", "6"]]);
}
