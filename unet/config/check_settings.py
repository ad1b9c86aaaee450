"""Settings of the stage check; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from unet.config.load import load
from unet.config.run import Config
from unet.config.start_keys import START_FILE, is_start_file, origin_in_run
from unet.config.tracked import Settings
from unet.files import is_sheet
from unet.paths import origin_of


class CheckSettings(Settings):
    """Settings of the check before training.

    The check judges a dataset by everything that will be done with it. So its settings are the part
    of the config that concerns the dataset: the run's sections, the dataset (and those whose models
    predict it, or that its trainings start from), and their models. Keys at their default are left
    out, and so are paths. A sweep is a list of key and values, since a job's settings come as JSON
    with sorted keys and the order of a sweep's keys makes the names of its models.

    Attributes:
        config: that part.
        starts: model -> what identifies the file that its training starts from.
    """

    stage = "check"
    config: dict[str, Any]
    starts: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        origins = config.origins_for(dataset)
        names = dict.fromkeys((dataset, *(origin.dataset for origin in origins)))
        models = {origin.model for origin in origins}
        models |= {name for name in config.models_for(dataset) if origin_of(name) is None}
        _add_needed(config, names, models)
        found = config.model_dump(mode="json", exclude_defaults=True)
        for path in ("output", "data_root"):
            found.pop(path, None)
        found["datasets"] = {name: _without_paths(found["datasets"][name]) for name in names}
        # Other tools' masks are looked at for this dataset alone.
        tools = config.datasets[dataset].compare
        if tools:
            found["datasets"][dataset]["compare"] = dict.fromkeys(tools, "masks")
        # A dataset whose models predict another one may name more models.
        for data in found["datasets"].values():
            if data.get("models") is not None:
                data["models"] = [each for each in data["models"] if each in models] or None
        found["models"] = {name: _sweep_listed(found["models"][name]) for name in sorted(models)}
        found["train"] = _without_start(found.get("train", {}))
        for member in (*found["datasets"].values(), *found["models"].values()):
            if "train" in member:
                member["train"] = _without_start(member["train"])
        if not found["train"]:
            del found["train"]
        return cls.made(config=found)

    def with_starts(self, starts: Mapping[str, str]) -> Self:
        """A copy that notes the content of the files that trainings start from."""
        return self.model_copy(update={"starts": dict(starts)})

    def with_masks(self, dataset: str, masks: Mapping[str, str]) -> Self:
        """A copy that names the masks of each tool in ``compare`` differently: by what identifies
        their content, or by their path."""
        data = {**self.config["datasets"][dataset], **({"compare": dict(masks)} if masks else {})}
        datasets = {**self.config["datasets"], dataset: data}
        return self.model_copy(update={"config": {**self.config, "datasets": datasets}})

    def config_at(
        self, dataset: str, output: str, root: str, images: str, labels: str | None
    ) -> Config:
        """The config, with the paths of the dataset's files.

        Raises:
            UserError: the settings are not valid.
        """
        datasets = dict(self.config["datasets"])
        if "synthetic" not in datasets[dataset]:
            given = {"images": images} | ({} if labels is None else {"labels": labels})
            datasets[dataset] = {**datasets[dataset], **given}
        where = {"output": output, "data_root": root}
        models = {name: _sweep_mapped(each) for name, each in self.config["models"].items()}
        return load({**self.config, **where, "datasets": datasets, "models": models})


class CheckAllSettings(Settings):
    """Settings of what joins the checks of all datasets."""

    stage = "check"
    datasets: tuple[str, ...]

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        return cls.made(datasets=config.with_files)


def _sweep_listed(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's keys, with the keys of its sweep in a list, which keeps their order."""
    given = model.get("sweep")
    listed = {"sweep": [[key, values] for key, values in given.items()]} if given else {}
    return {**model, **listed}


def _sweep_mapped(model: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of :func:`_sweep_listed`."""
    given = model.get("sweep")
    return {**model, "sweep": dict(given)} if given else dict(model)


def _add_needed(config: Config, names: dict[str, None], models: set[str]) -> None:
    """Adds the datasets that these join, without which they are not valid, and the datasets and
    models of the run that trainings of these start from."""
    while True:
        names |= {each: None for name in list(names) for each in config.datasets[name].weights}
        found = {
            origin
            for name in names
            for model in config.trained_for(name)
            if (origin := origin_in_run(config.start_for(name, model))) is not None
        }
        if all(each.dataset in names and each.model in models for each in found):
            return
        names.update(dict.fromkeys(sorted(each.dataset for each in found)))
        models.update(each.model for each in found)


def _without_start(train: Any) -> Any:
    """Keys of train, with a name in place of the path of a file to start from."""
    if not isinstance(train, Mapping) or not is_start_file(train.get("from")):
        return train
    return {**train, "from": START_FILE}


def _without_paths(section: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's keys with names instead of its paths. A sheet stays a sheet: it has columns."""
    found = dict(section)
    for key in ("compare", "download", "download_from"):
        found.pop(key, None)
    if found.get("images") is not None:
        found["images"] = "sheet.csv" if is_sheet(found["images"]) else "images"
    if found.get("labels") is not None:
        found["labels"] = "labels"
    return found
