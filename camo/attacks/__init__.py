"""Per-image and universal attacks, to compare the filter with."""
