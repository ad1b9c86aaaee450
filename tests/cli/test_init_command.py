"""``unet init``: the config for each form of folder is accepted, and its stages find the images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests import folder_forms as forms
from unet.cli import init_text
from unet.cli.init_command import config_text
from unet.cli.init_draft import drafts_of
from unet.cli.init_text import LEAST_STEPS, architecture, sized
from unet.cli.main import main
from unet.config.load import load, load_file
from unet.config.run import Config
from unet.data.raw_files import RawSource
from unet.data.survey.survey import survey_dataset
from unet.errors import UserError

SPEED = 2e10
DATA = Path(os.environ.get("UNET_REAL_DATA") or os.devnull)


def written(folder: Path, **options: Any) -> tuple[str, Config]:
    text = config_text(folder, flops=SPEED, **options)
    return text, load(yaml.safe_load(text))


def usable(config: Config) -> dict[str, int]:
    """Images with labels that the first stages find, per dataset; there is nothing that stops."""
    found = {}
    for name, section in config.datasets.items():
        assert section.images is not None
        source = RawSource.below(
            Path(config.data_root), section.images, section.labels, section.layout
        )
        survey = survey_dataset(config, name, source, threads=1, sampled=0)
        assert not [f for f in survey.findings if f.level == "stop"], survey.findings
        assert survey.splits is not None
        assert all(survey.splits[0].values())
        found[name] = survey.labelled
    return found


@pytest.mark.parametrize(
    ("form", "images"),
    [
        ("two folders", 6), ("one folder", 6), ("words", 6), ("nnunet", 6), ("ctc", 9),
        ("dsb2018", 6), ("sheet", 6), ("stack", 6), ("volumes", 4), ("zarr", 6),
    ],
)  # fmt: skip
def test_every_form_runs_as_written(tmp_path: Path, form: str, images: int) -> None:
    folder = forms.FORMS[form](tmp_path / "mine")
    text, config = written(folder)
    assert usable(config) == {"mine": images}
    assert config.output == "results-mine"
    assert Path(config.data_root) == folder.resolve()
    assert all(len(line) <= 120 for line in text.splitlines())
    (model,) = config.models.values()
    assert model.dims == (3 if form == "volumes" else None)
    # What was seen stands in it.
    assert f"# Seen in {folder.resolve()}:" in text


def test_classes_stand_with_what_was_seen(tmp_path: Path) -> None:
    folder = forms.two_folders(tmp_path, change=lambda a: ((a == 0) * 255).astype(np.uint8))
    text, config = written(folder)
    (dataset,) = config.datasets.values()
    assert dataset.classes == {"value_0": 0, "value_255": 255}
    assert "# CHECK: two values: which one is the background?" in text
    assert "    # classes: {value_255: 255, value_0: 0}" in text
    # The other line is ready to be switched on.
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    classes:"))
    lines[at : at + 2] = [lines[at + 1].replace("# ", "", 1)]
    (swapped,) = load(yaml.safe_load("\n".join(lines))).datasets.values()
    assert list((swapped.classes or {}).values()) == [255, 0]


def test_a_sample_is_measured_and_that_is_said(tmp_path: Path) -> None:
    few, _ = written(forms.two_folders(tmp_path / "few", number=12))
    assert "objects measured in" not in few
    many, config = written(forms.two_folders(tmp_path / "many", number=30))
    assert "#   objects measured in 12 of 30 images; unet check measures more" in many
    assert usable(config) == {"many": 30}


def test_several_datasets_have_a_model_each_that_suits(tmp_path: Path) -> None:
    forms.two_folders(tmp_path / "d" / "nuclei")
    forms.volumes(tmp_path / "d" / "tissue")
    _, config = written(tmp_path / "d")
    assert usable(config) == {"nuclei": 6, "tissue": 4}
    models = {name: section.models for name, section in config.datasets.items()}
    assert models == {"nuclei": ("unet",), "tissue": ("unet-2",)}
    assert [m.dims for m in config.models.values()] == [None, 3]


@pytest.mark.parametrize("number", [3, 4])
def test_few_images_are_split_and_said(tmp_path: Path, number: int) -> None:
    text, config = written(forms.two_folders(tmp_path, number=number))
    assert list(usable(config).values()) == [number]
    assert f"CHECK: only {number} to split" in text


@pytest.mark.parametrize("number", [1, 2])
def test_too_few_images(tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match=rf"{number} labelled images?; at least 3"):
        config_text(forms.two_folders(tmp_path, number=number), flops=SPEED)


def test_one_volume_becomes_planes(tmp_path: Path) -> None:
    text, config = written(forms.volumes(tmp_path, 1))
    assert list(usable(config).values()) == [12]
    assert "layout: stack" in text
    assert "CHECK: 1 labelled volume" in text


def test_output_and_minutes(tmp_path: Path) -> None:
    folder = forms.two_folders(tmp_path)
    brief, short = written(folder, output="elsewhere", minutes=1)
    text, long = written(folder, minutes=60)
    assert "1 minutes" not in brief
    assert "about 1 minute " in brief or "more than the 1 that you asked for" in brief
    assert "first result in about 60 minutes " in text
    assert short.output == "elsewhere"
    steps = [c.train.epochs * c.train.steps_per_epoch for c in (short, long)]
    assert steps[0] < steps[1]


def test_the_training_fits_the_time(tmp_path: Path) -> None:
    (draft,) = drafts_of(forms.two_folders(tmp_path))
    for speed in (1e8, 1e9, 1e10, 1e12):
        got = sized(draft, speed, 300)
        assert got.seconds <= 300 or got.epochs * got.steps_per_epoch <= LEAST_STEPS
        assert got.width == architecture(draft, got.width).widths[0]
    # A slow machine gets less work per step, not only fewer steps.
    slow, fast = (sized(draft, speed, 300) for speed in (2e9, 1e12))
    assert slow.batch * slow.patch[0] ** 2 <= fast.batch * fast.patch[0] ** 2


# The command


def run_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unet", "init", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_command(tmp_path: Path) -> None:
    folder = forms.two_folders(tmp_path / "nuclei")
    done = run_in(tmp_path, "nuclei")
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert "wrote nuclei.yaml; next:" in said
    assert said[-2:] == ["  unet check nuclei.yaml", "  unet run nuclei.yaml"]
    config = load(yaml.safe_load((tmp_path / "nuclei.yaml").read_text()))
    assert Path(config.data_root) == folder.resolve()
    # A config is never replaced by accident.
    (tmp_path / "nuclei.yaml").write_text("mine\n")
    again = run_in(tmp_path, "nuclei")
    assert again.returncode == 2
    assert again.stderr.startswith("error: nuclei.yaml: exists already; write --force")
    assert (tmp_path / "nuclei.yaml").read_text() == "mine\n"


def test_command_replaces_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forms.two_folders(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("old\n")
    words = ["init", "d", "-o", "my.yaml", "--output", "out", "--force"]
    assert main(words) == 0
    assert "output: out\n" in (tmp_path / "my.yaml").read_text()
    assert main(["init", "d", "-o", "my.txt"]) == 2
    assert "not the name of a config" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["a\nstrict: true\nb", "a\u2028strict: true", "a\x1b[31m", "a # b: [c", "caf\udce9", "ü"],
)
def test_names_of_folders_cannot_break_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = forms.two_folders(tmp_path / name / "sub", images=f"images {name}")
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(folder), "-o", "my.yaml"]) == 0
    config = load_file(tmp_path / "my.yaml")
    assert config.strict is False
    assert Path(config.data_root) == folder.resolve()
    assert usable(config) == {"sub": 6}


def test_a_config_that_does_not_load_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forms.two_folders(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    good = config_text(tmp_path / "d", flops=SPEED)
    for text in ("a: [", "datasets: {}", good.replace(str(tmp_path), "/elsewhere")):
        monkeypatch.setattr(init_text, "text_of", lambda *_, text=text: text)
        assert main(["init", "d"]) == 2
        said = capsys.readouterr().err
        assert "rename files and folders" in said
        assert len([line for line in said.splitlines() if line.startswith("error")]) == 1
        assert not (tmp_path / "d.yaml").exists()


def test_what_stops_is_to_be_mended_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forms.two_folders(tmp_path / "d", change=lambda label: label * 0)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "d"]) == 0
    said = capsys.readouterr().err
    assert "  stop: " in said
    assert "of level stop first, then:\n  unet check d.yaml" in said
    assert "unet run" not in said


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    done = run_in(tmp_path, "missing")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no such folder" in done.stderr
    assert not list(tmp_path.iterdir())


# Real images

REAL = [
    ("bbbc007_sparse", "instances", 6), ("dsb2018_fluo", "instances", 120),
    ("dsb2018_rgb", "instances", 20), ("isbi2012_em", "semantic", 24),
    ("isbi2012_em/stacks", "semantic", 24), ("plant_em_chloroplast", "instances", 3),
    ("plant_ovule_3d", "instances", 32), ("plant_ovule_nuclei_3d", "instances", 100),
    ("stardist_examples_3d", "instances", 31), ("t98g_phase", "instances", 20),
]  # fmt: skip


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="UNET_REAL_DATA names no folder of real images")
@pytest.mark.parametrize(("folder", "task", "images"), REAL)
def test_real_folders(folder: str, task: str, images: int) -> None:
    _, config = written(DATA / folder)
    assert list(usable(config).values()) == [images]
    assert [dataset.task for dataset in config.datasets.values()] == [task]


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="UNET_REAL_DATA names no folder of real images")
def test_real_folder_with_too_few_images() -> None:
    with pytest.raises(UserError, match="2 labelled images"):
        config_text(DATA / "stardist_examples", flops=SPEED)
