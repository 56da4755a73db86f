"""One file a published data layout; each yields rows without a split."""
