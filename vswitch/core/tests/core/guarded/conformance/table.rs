//! `docs/conformance.md` itself: every row has its tests, every test its row, every reason is one.

use crate::tables::{exists, here, quoted, read, rows};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};
use vswitch_core::drop_reason::DropReason;

#[test]
fn the_table_is_true_of_the_sources() {
    let text = read(&here("../../docs/conformance.md")).expect("the table is there");
    let mut tests = BTreeSet::new();
    let mut ids = BTreeMap::<String, u32>::new();
    for cells in rows(&text, "row") {
        let [id, sent, becomes, clause, held] = &cells[..] else { panic!("five cells: {cells:?}") };
        assert!([sent, becomes, clause].into_iter().all(|cell| !cell.is_empty()), "{cells:?}");
        for id in id.split(", ") {
            *ids.entry(id.to_owned()).or_default() += 1;
        }
        for reason in quoted(becomes) {
            assert!(reason.parse::<DropReason>().is_ok(), "`{reason}` is no reason: {cells:?}");
        }
        let names = quoted(held);
        assert!(!names.is_empty(), "no test: {cells:?}");
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
