"""Tables, figures and HTML pages of a run.

In: `metrics.csv`, histories, segmentations and logs of the other stages.
Out: `report.csv` and `report.html`, for each dataset and for all datasets.

Start with `dataset_page.py` (the page of a dataset), `sections/` (its parts) and `score_tables.py`
(the numbers in them). `overall_page.py` makes the page over all datasets, `evaluated_page.py` that
of `unet evaluate`. `collect.py` reads the results of the stages; the templates are in
`templates/`.
"""
