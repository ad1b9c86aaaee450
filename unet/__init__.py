"""U-Net for microscopy: preparation, training, seamless tiled prediction, stitching, metrics."""

__version__ = "0.1.0"
