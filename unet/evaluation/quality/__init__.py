"""Can a model's results be believed on images of another dataset: a line per image.

In: segmentations of the new images, and of the held-out (test) images of the dataset that the model
was trained on, with their scores (`metrics.csv`).
Out: `quality.csv`: per image a predicted score, an interval for the number of objects, how unlike
the training images it is, and whether somebody should look at it.

Start with `quality.py` (the stage). `evidence.py` measures an image, `held_out.py` collects the
images whose score is known, `score_model.py` predicts scores, `conformal.py` gives intervals,
`doubt.py` decides which images need a look, `quality_table.py` reads and writes the table.
"""
