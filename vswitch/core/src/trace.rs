//! A frame's journey, step by step, told by the code that decides it.

use serde::{Deserialize, Serialize};

/// One step of a frame's way through the switch. (in work)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {}
