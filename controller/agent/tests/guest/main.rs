//! The agent as a guest runs it: asked over its line, in a network namespace of its own.

mod alone;
mod lab;
mod line;
mod pair;
