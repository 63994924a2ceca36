//! The operator's own limits.

use super::Rule;

pub(super) const RULES: &[Rule] = &[];
