"""Training: patches, augmentation, losses, the loop and its checkpoints.

In: the prepared store, the splits of a fold, and the settings of a model.
Out: `model.pt`, `history.csv`, `curves.png`; checkpoints while it trains.

Start with `train.py`, which builds everything, then `trainer.py`, the loop. `sampling.py` cuts the
patches, `augment.py` changes them on the device, `checkpoint.py` lets a stopped training go on.
"""
