"""A warm-up that is as long as the training. Torch-free."""

from __future__ import annotations

from unet.config.sections import TrainSection

WARM_UP_KEY = "train.warmup_steps"


def long_warm_up(train: TrainSection) -> str:
    """What is wrong if the learning rate rises until the training ends; "" if it does not."""
    total = train.epochs * train.steps_per_epoch
    if not total or train.warmup_steps < total:
        return ""
    return (
        f"{train.warmup_steps} steps, but the training has {total} (epochs x steps_per_epoch), so "
        f"the learning rate never reaches lr; write a smaller number, such as {total // 10}, or "
        "more epochs"
    )
