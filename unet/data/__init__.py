"""From raw files to the prepared store: readers, manifest, splits, normalisation, tiling."""
