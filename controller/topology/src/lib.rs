//! The topology file (`*.vnet.yaml`): said, checked, compiled. It cannot start anything, by construction.
//!
//! ```text
//! text -> said::tree (YAML, bounded) -> said::lab (what was written) -> check (rules) -> compile -> plan::Plan
//!              \________________________ report: every error at once ________________/
//! ```

mod check;
pub mod codes;
mod compile;
mod mac;
pub mod plan;
mod read_file;
pub mod report;
mod said;
mod schema;

pub use mac::mac_for;
pub use read_file::{ReadError, read_file, read_text};
pub use report::{Diagnostic, Report};
pub use schema::schema;

use codes::Code;
use report::Sink;
use said::{lab::Lab, read::Read, tree::Value};
use std::path::Path;

/// A file that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it means.
    pub plan: plan::Plan,
    /// What may not mean what it should.
    pub warnings: Vec<Diagnostic>,
}

/// Reads, checks and compiles the topology file whose text is `text`.
///
/// `file` is its name as the user gave it, for messages and, without `name:`, for the lab's name. Relative paths in the
/// file are relative to the folder `base`, which should be absolute; it is only joined, never opened.
///
/// # Errors
/// A [`Report`] of everything that is wrong with the file.
pub fn load(text: &str, file: &str, base: &Path) -> Result<Loaded, Report> {
    load_as(None, text, file, base)
}

/// The same of a lab that has this name, whatever the file says: that of its domain, and what its nodes' MAC addresses follow from.
///
/// # Errors
/// As [`load`].
pub fn load_as(name: Option<&str>, text: &str, file: &str, base: &Path) -> Result<Loaded, Report> {
    let mut sink = Sink::default();
    let plan = compile(name, text, file, base, &mut sink);
    let report = sink.into_report(file, text);
    match plan {
        Some(plan) if report.errors.is_empty() => Ok(Loaded { plan, warnings: report.warnings }),
        _ => Err(report),
    }
}

fn compile(name: Option<&str>, text: &str, file: &str, base: &Path, sink: &mut Sink) -> Option<plan::Plan> {
    let tree = said::tree::parse(text, sink)?;
    if matches!(tree.value, Value::Null) {
        sink.error(Code::Empty, tree.span, "the file says nothing").help("`vnet init` writes a first lab");
        return None;
    }
    let lab = Lab::read(&tree, sink)?;
    compile::compile(&lab, tree.span, (name, file, base), sink)
}
