"""Tables, figures and HTML pages of a run.

In: `metrics.csv`, histories, segmentations and logs of the other stages.
Out: `report.csv` and `report.html`, for each dataset and for all datasets.

Start with `pages.py` (the pages) and `score_tables.py` (the numbers in them). `collect.py` reads
the results of the stages; the templates are in `templates/`. `evaluated_page.py` makes the page of
`unet evaluate`.
"""
