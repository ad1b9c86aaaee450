"""Scores a segmentation against its labels, and estimates how certain the mean scores are.

In: a stitched segmentation and the labels of the prepared store.
Out: rows of `metrics.csv`: image, class, metric, value. For the report: intervals and tests.

Start with `evaluate.py` (the stage) and `families.py` (the list of metrics). `arrays.py` scores
label arrays of any origin, `mask_folders.py` folders of masks. `statistics.py` has the confidence
intervals and the comparison of models.
"""
