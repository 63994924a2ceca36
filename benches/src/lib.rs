//! Measurements as ratios against baselines of the same run.
