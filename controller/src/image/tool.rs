//! Runs a program of the host and keeps what it said, for an error that a person can act on.

use super::ImageError;
use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

/// Runs `command` to its end and returns its standard output.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>, ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        ErrorKind::NotFound => ImageError::NoTool(program.clone()),
        _ => ImageError::Tool { program: program.clone(), said: e.to_string() },
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<_> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(5));
    Err(ImageError::Tool { program, said: format!("{}\n{}", output.status, lines.join("\n")) })
}

/// [`output`] as text.
pub(super) fn text(command: &mut Command) -> Result<String, ImageError> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}
