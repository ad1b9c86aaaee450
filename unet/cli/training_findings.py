"""What the check says about the settings of trainings."""

from __future__ import annotations

from unet.config.run import Config
from unet.config.warm_up import WARM_UP_KEY, long_warm_up
from unet.data.survey.findings import Finding


def training_findings(config: Config, dataset: str) -> list[Finding]:
    """Settings with which a dataset's trainings learn little, each line once."""
    models: dict[str, list[str]] = {}
    sections = {model: config.train_for(dataset, model) for model in config.trained_for(dataset)}
    trained = {model: train for model, train in sections.items() if train.epochs}
    for model, train in trained.items():
        if text := long_warm_up(train):
            models.setdefault(text, []).append(model)
    some = {text: f" (models: {', '.join(named)})" for text, named in models.items()}
    if any(len(named) == len(trained) for named in models.values()):
        some = dict.fromkeys(models, "")
    return [
        Finding("warn", "long_warm_up", text + which, WARM_UP_KEY) for text, which in some.items()
    ]
