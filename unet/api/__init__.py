"""The functions for Python: arrays in, arrays and tables out. `import unet` exposes them.

In: arrays (NumPy, dask, zarr), image files, trained models, the results of a run.
Out: labels, probabilities and tables of objects and scores. The numbers are those of `unet predict`
and of the workflow, to the last bit, because the same code computes them.

Start with `trained.py` (`load_model`, `Model.predict`); its results are in `segmented.py`.
docs/python.md has examples.
"""

from unet.api.reading import Image, read_image, read_report
from unet.api.segmented import Segmentation
from unet.api.trained import Model, load_model
from unet.errors import ArgumentError, UserError
from unet.evaluation.arrays import evaluate

__all__ = [
    "ArgumentError",
    "Image",
    "Model",
    "Segmentation",
    "UserError",
    "evaluate",
    "load_model",
    "read_image",
    "read_report",
]
