"""What a dataset's raw files look like, before anything is trained.

In: a config and the raw images and labels of one of its datasets. Out: a
:class:`~unet.data.survey.facts.DatasetSurvey`, with findings: what looks wrong, and what to write.
Start with `survey.py`; `judge.py` lists the
kinds of findings.
"""
