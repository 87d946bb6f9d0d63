//! Any text as a topology file: it is a lab that compiles, or a report that names what is wrong and can be shown.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use std::path::Path;
use vswitch_core::world::World;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    match topology::load(text, "fuzz.vnet.yaml", Path::new("/lab")) {
        Ok(loaded) => {
            let world = World::compile(&loaded.plan.description);
            assert!(world.is_ok(), "a file that was checked does not compile: {:?}", world.err());
        }
        Err(report) => {
            assert!(!report.errors.is_empty(), "refused without a word");
            assert!(!report.to_string().is_empty());
        }
    }
    Corpus::Keep
});
