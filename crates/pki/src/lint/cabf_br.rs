//! The Baseline Requirements.

use super::Rule;

pub(super) const RULES: &[Rule] = &[];
