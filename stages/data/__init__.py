"""The table of samples: indexing, splits, audit, augmentation and batches."""
