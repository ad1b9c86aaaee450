"""The table of public datasets, its page, and the configs made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from docs import datasets_docs
from unet.config.load import load
from unet.config.public_datasets import left_out, name_in_config, public_names, public_set
from unet.data.download import CONVERSIONS
from unet.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", datasets_docs.pages(), ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    made = datasets_docs.pages()[path]
    assert path.is_file(), f"{path.relative_to(ROOT)}: run make config-docs"
    assert path.read_text(encoding="utf-8") == made, "run make config-docs"


def test_no_example_is_left_of_an_earlier_set() -> None:
    there = {path.stem for path in datasets_docs.EXAMPLES.glob("*.yaml")}
    assert there == {name_in_config(name) for name in public_names()}


@pytest.mark.parametrize("name", public_names())
def test_a_set_is_sound(name: str) -> None:
    found = public_set(name)
    path = datasets_docs.EXAMPLES / f"{name_in_config(name)}.yaml"
    config = load(yaml.safe_load(path.read_text(encoding="utf-8")))
    ((_, data),) = config.datasets.items()
    assert data.download == name
    # A single model and split of its own, or the sheet's.
    assert (data.split.column == "part") == bool(
        found.sheet and (found.sheet.part or found.sheet.lists)
    )
    assert (data.images == "sheet.csv") == (found.sheet is not None)
    assert not found.convert or found.convert in CONVERSIONS
    names = [file.filename for file in found.files]
    assert len(set(names)) == len(names)
    if found.sheet is not None:
        groups = re.compile(found.sheet.image).groups
        for template in (found.sheet.label, found.sheet.part, found.sheet.group):
            assert all(int(n) <= groups for n in re.findall(r"\\(\d)", template))
    for file in found.files:
        assert not file.url or re.match(r"https://[^/ ]+/\S+$", file.url)
    assert (found.dims == 3) == (data.axes == "ZYX")


def test_what_is_not_here_has_a_reason() -> None:
    assert left_out()
    assert not set(left_out()) & set(public_names())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PhC-C2DH-U37", "did you mean PhC-C2DH-U373?"),
        ("x", "no public dataset 'x'; `unet download` lists them"),
        ("_ctc", "no public dataset '_ctc'"),
    ],
)
def test_an_unknown_name(name: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        public_set(name)


DATA = {"images": "i", "labels": "l", "task": "instances"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"download": "x"}, "datasets.d.download: no public dataset 'x'"),
        ({"download_from": "a.zip"}, "datasets.d.download_from: needs download"),
        ({"download": "isbi2012", "images": None, "labels": None,
          "synthetic": {"kind": "nuclei"}}, "download: generated images are not downloaded"),
    ],
)  # fmt: skip
def test_mistakes_in_a_config(keys: dict[str, object], words: str) -> None:
    datasets = {"d": {**DATA, **keys}}
    with pytest.raises(UserError, match=re.escape(words)) as error:
        load({"datasets": datasets, "models": {"m": {"preset": "unet-bn"}}})
    assert len(str(error.value).splitlines()) == 1
