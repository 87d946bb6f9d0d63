//! The table of standards in `docs/routing.md`: its tests are there, and no RFC is missing.

use crate::tables::{exists, here, quoted, read, rows};
use std::collections::BTreeSet;

/// The RFCs that have to have a row.
const STANDARDS: [u32; 14] =
    [792, 826, 1035, 1191, 1812, 2131, 2132, 3442, 4443, 4861, 4862, 5227, 8106, 8201];

/// Whose tests that begin with `rfc_` have a row.
const TOLD: [(&str, &[&str]); 2] = [
    ("core::routing", &["errors", "forwarding", "refusals"]),
    (
        "vswitchd::routers",
        &["tests/arp", "tests/nd", "tests/own", "tests/resolve", "tests/serve", "dhcp/tests", "dns/tests"],
    ),
];

#[test]
fn each_row_has_tests_that_are_there() {
    let text = read(&here("../../docs/routing.md")).expect("the document is there");
    let mut tests = BTreeSet::new();
    let mut standards = BTreeSet::new();
    for cells in rows(&text, "clause") {
        let [clause, does, held] = &cells[..] else { panic!("three cells: {cells:?}") };
        assert!(!clause.is_empty() && !does.is_empty(), "{cells:?}");
        let names = quoted(held);
        assert!(!names.is_empty(), "no test: {cells:?}");
        for name in names {
            assert!(exists(name), "there is no test {name}: {cells:?}");
            tests.insert(name.to_owned());
        }
        let numbers = clause.split("RFC ").skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().expect("a number behind RFC")
        });
        standards.extend(numbers);
    }
    for standard in STANDARDS {
        assert!(standards.contains(&standard), "RFC {standard} has no row");
    }
    for (path, modules) in TOLD {
        for module in modules {
            let folder =
                if path.starts_with("core") { "tests/core/routing" } else { "../daemon/src/routers" };
            let text = read(&here(&format!("{folder}/{module}.rs"))).expect("a module of tests");
            let names = text.split("fn rfc_").skip(1).filter_map(|rest| rest.split('(').next());
            for name in names {
                let full = format!("{path}::{}::rfc_{name}", module.replace('/', "::"));
                assert!(tests.contains(&full), "{full} has no row");
            }
        }
    }
}
