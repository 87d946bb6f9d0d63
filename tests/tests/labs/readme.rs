//! The README is true: its topology file is taken from it as printed, and holds.

use crate::common::{Lab, kvm, real_guests};
use std::{fs, path::Path};

/// The YAML block of the README.
fn example() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let text = fs::read_to_string(root.join("README.md")).expect("there is a README");
    let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("the README has a topology file").into()
}

#[test]
fn the_file_in_the_readme_is_good_and_its_expectations_hold() {
    let lab = Lab::new();
    let printed = lab.write("readme.vnet.yaml", &example()).display().to_string();
    let (said, complaints) = lab.expect(0, &["validate", &printed]);
    assert!(said.contains("good") && complaints.is_empty(), "{said}{complaints}");
    // The same without a guest that takes a minute to boot, and without KVM.
    let at_once = example()
        .replace("kind: vm, image: debian,", "kind: station,")
        .replace("kind: vm,", "kind: station,");
    let at_once = lab.write("at-once.vnet.yaml", &at_once).display().to_string();
    let (said, _) = lab.expect(0, &["test", &at_once]);
    assert!(said.contains("2 of 2 expectations hold"), "{said}");
    if real_guests() && kvm("the README's topology file as printed") {
        lab.expect(0, &["test", &printed]);
    }
    lab.assert_gone();
}
