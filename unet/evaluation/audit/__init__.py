"""Are the labels right? Compares each label with a prediction by networks that did not see it.

In: the segmentations of a model's folds, and the labels of the prepared store.
Out: doubts, ranked by confidence: rows of `audit.csv`, and outlines for QuPath and Fiji.

Start with `audit_model.py` (the stage). `object_doubts.py` has the kinds of doubt for task
instances (`unlabelled_parts.py`, `object_contacts.py` and `shifted_outlines.py` look closer at some
of them), `region_doubts.py` the one for task semantic, `exchanged_labels.py` the one for whole
images (`exchanged_warnings.py` warns about them). `object_trust.py` says how far a model can be
believed, `audit_summary.py` whether it can be believed at all.
"""
