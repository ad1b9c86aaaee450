"""Training: patches, augmentation, losses, the loop and its checkpoints.

In: the prepared store, the splits of a fold, and the settings of a model.
Out: `model.pt`, `history.csv`, `curves.png`; checkpoints during the training.

Start with `train.py`, which builds everything, then read `trainer.py`, the loop. `sampling.py` cuts
the patches, `augment.py` augments them on the device, `checkpoint.py` lets a stopped training
continue.
"""
