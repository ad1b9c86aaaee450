"""Scores of a segmentation against its labels, and how sure their means are.

In: a stitched segmentation and the labels of the prepared store.
Out: rows of `metrics.csv`: image, class, metric, value. For the report: intervals and tests.

Start with `evaluate.py` (the stage) and `families.py` (which metrics there are). `statistics.py`
has the confidence intervals and the comparison of models.
"""
