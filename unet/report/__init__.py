"""Tables, figures and HTML pages of a run.

In: `metrics.csv`, histories, segmentations and logs of the other stages.
Out: `report.csv` and `report.html`, per dataset and over all.

Start with `pages.py` (the pages) and `score_tables.py` (the numbers in them). `collect.py` reads
what the stages left; the templates are in `templates/`.
"""
