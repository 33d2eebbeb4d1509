"""Pictures for training: folders, pairs, splits, and batches that depend on (seed, step) alone."""
