"""``unet export`` and the rule ``export``: models of a run and files alone, missing keys, texts."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import export as script
from tests.conftest import StoreMaker
from tests.zoo import CONVERTS, WRITES, package, system
from unet.cli import main
from unet.config.export_section import ExportSection
from unet.config.export_settings import ExportSettings
from unet.config.licences import known_licences
from unet.config.load import load
from unet.config.stage_settings import TrainSettings
from unet.errors import UserError
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.models.model_file import save_model
from unet.models.zoo_layers import sizes_of
from unet.paths import Paths
from unet.planning.jobs import Run
from unet.provenance import read_made_by
from unet.report.zoo_card import Trained, notes_of, texts_of

RAW: dict[str, Any] = {
    "datasets": {"d": {"images": "i", "labels": "l", "task": "instances",
                       "split": {"folds": 2}}},
    "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 2}},
}  # fmt: skip
TERMS = {"license": "MIT", "authors": {"Ada Example": {"affiliation": "Institute"}}}


@pytest.fixture
def run(make_store: StoreMaker) -> Paths:
    """Results with a model of one fold, its scores and a prepared image."""
    paths, _ = make_store()
    section = {**TERMS, "weights": [], "cite": {"A paper": "10.1000/xyz"}}
    raw = {**RAW, "output": str(paths.output), "export": section}
    raw["datasets"] = {"d": {**RAW["datasets"]["d"], "split": {"folds": 2, "run": [0]}}}
    paths.config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    settings = TrainSettings.of(load(raw), "d", "m").to_json()
    model = replace(system("unet-bn"), task="instances", settings=settings)
    save_model(paths.model("d", "m", 0), model)
    rows = [
        MetricRow("d", "m", 0, name, "", "instances", metric, value, 1.0)
        for metric in ("f1_50", "pq")
        for name, value in (("d", 0.5), ("e", 0.7), ("f", 0.9))
    ]
    write_metrics(paths.metrics("d", "m"), rows)
    return paths


def read(path: Path, name: str = "bioimageio.yaml") -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode()


@WRITES
def test_a_model_of_a_run(run: Paths, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    assert main.main(["export", str(run.fold("d", "m", 0).parent), "-o", str(out)]) == 0
    about = yaml.safe_load(read(out))
    assert about["name"] == "m on d"
    assert about["license"] == "MIT"
    assert about["authors"] == [{"name": "Ada Example", "affiliation": "Institute"}]
    assert [each["doi"] for each in about["cite"]] == [
        "10.1000/xyz",
        "10.1007/978-3-319-24574-4_28",
    ]
    page = read(out, "README.md")
    assert "| PQ | 0.700 |" in page
    assert "fold 0" in page
    assert set(about["weights"]) == {"pytorch_state_dict"}


@WRITES
def test_the_rule_writes_the_same(run: Paths, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    assert main.main(["export", str(run.fold("d", "m", 0)), "-o", str(out)]) == 0
    words = ["--output", str(run.output), "--config", str(run.config), "--dataset", "d",
             "--model", "m"]  # fmt: skip
    assert script.main(words) == 0
    package = run.package("d", "m")
    assert package.read_bytes() == out.read_bytes()
    made = read_made_by(package)
    assert made is not None
    assert made["stage"] == "export"
    assert set(made["inputs"]) == {"d/m/fold-0/model.pt", "d/m/metrics.csv", "d/splits.csv",
                                   "d/prepared.json"}  # fmt: skip


@WRITES
def test_a_file_alone(run: Paths, tmp_path: Path) -> None:
    file, out = tmp_path / "model.pt", tmp_path / "a.zip"
    shutil.copy(run.model("d", "m", 0), file)
    words = ["export", str(file), "-o", str(out), "--license", "MIT", "--author", "Ada Example"]
    assert main.main([*words, "--name", "My model"]) == (0 if _converts() else 2)
    if _converts():
        assert yaml.safe_load(read(out))["name"] == "My model"
        assert "No scores are known" in read(out, "README.md")


@WRITES
def test_info_says_what_the_package_says(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "a.zip", run.fold("d", "m", 0)
    assert main.main(["export", str(folder), "-o", str(out)]) == 0
    found = []
    for path in (folder, out):
        capsys.readouterr()
        assert main.main(["info", str(path), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    ours, package = found
    assert package["title"] == "m on d"
    assert package["terms"]["licence"] == "MIT"
    assert package["terms"]["authors"] == "Ada Example, Institute"
    assert "A paper, 10.1000/xyz; Ronneberger" in package["terms"]["citation"]
    for key in ("dataset", "model", "folds"):
        assert package["training"][key] == ours["training"][key]
    scores, before = package["results"]["scores"], ours["results"]["scores"]
    assert [each["label"] for each in scores] == [each["label"] for each in before]
    assert [each["mean"] for each in scores] == [each["mean"] for each in before]
    assert package["notes"] == []
    assert main.main(["info", str(out)]) == 0
    text = capsys.readouterr().out
    for words in ("MIT", "m on d", "d (model m, fold 0)", "PQ", "all folds that the run had"):
        assert words in text


def _converts() -> bool:
    return not CONVERTS.args[0]


@CONVERTS
def test_onnx_alone(run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    out = tmp_path / "a.onnx"
    assert main.main(["export", str(run.fold("d", "m", 0)), "-o", str(out)]) == 0
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input"]
    size = sizes_of(system("unet-bn"))[0]
    assert size.least == 2 * size.halo + size.step  # as docs/export.md says
    line = f"images of {size.least} x {size.least} px or more in steps of {size.step} x {size.step}"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "export.license: missing; a package needs the licence, such as CC-BY-4.0"),
        (["--license", "MIT"], "export.authors: missing; a package needs its authors"),
        (["--license", "MIT", "--author", "A", "--name", "x"], "error: --name: got 'x'; write 5"),
        (["--fold", "x"], "--fold"),
    ],
)
def test_what_is_missing_is_named(
    words: list[str], message: str, run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "model.pt", tmp_path / "a.zip"
    shutil.copy(run.model("d", "m", 0), file)
    try:
        code = main.main(["export", str(file), "-o", str(out), *words])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_other_endings_and_folds_are_refused(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(run.fold("d", "m", 0).parent)
    assert main.main(["export", folder, "-o", str(tmp_path / "a.txt")]) == 2
    assert "write a name that ends in .zip or .onnx" in capsys.readouterr().err
    assert main.main(["export", folder, "-o", str(tmp_path / "a.zip"), "--fold", "4"]) == 2
    assert "no fold 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--author", "A/B"], "--author: got 'A/B'; write each name without slashes"),
        (["--author", ""], "--author: got ''; write a full name, such as Ada Example"),
        (["--author", "A", "--author", "C\\D"], "--author: got 'C\\\\D'; write each name without"),
        (["--name", "a/b/c/d"], "--name: got 'a/b/c/d'; write 5 to 128 letters"),
        (["--description", "x" * 1025], "--description: must have at most 1024 characters (got"),
        pytest.param(
            ["--license", "CC-BY"], "--license: not a licence of https://spdx.org/licenses",
            marks=WRITES,
        ),
        pytest.param(["--license", ""], "--license: not a licence of https", marks=WRITES),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["zip", "onnx"])
def test_wrong_texts_of_options_are_found_before_any_work(
    words: list[str], message: str, ending: str, run: Paths, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("unet.report.exported_model.load_model", None)
    out = str(tmp_path / f"a.{ending}")
    assert main.main(["export", str(run.fold("d", "m", 0)), "-o", out, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


@WRITES
def test_a_wrong_licence_of_the_config_is_its_key(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet.report.exported_model.load_model", None)
    text = run.config.read_text(encoding="utf-8").replace("license: MIT", "license: mine")
    run.config.write_text(text, encoding="utf-8")
    words = ["export", str(run.fold("d", "m", 0)), "-o", str(tmp_path / "a.zip")]
    assert main.main(words) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"error: {run.config}: export.license: not a licence of")


def test_a_config_that_cannot_be_read_is_named(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run.config.read_text(encoding="utf-8").replace("Ada Example", "A/B")
    run.config.write_text(text, encoding="utf-8")
    assert main.main(["export", str(run.fold("d", "m", 0)), "-o", str(tmp_path / "a.zip")]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: {run.config} cannot be read: config: export.authors: got")
    assert first.endswith("; so its texts are not used")
    assert "export.license: missing" in second
    assert "export.authors: missing" in third


@WRITES
def test_what_passes_the_config_passes_the_format(tmp_path: Path) -> None:
    """Texts that are odd, but allowed; and names as long as they can be."""
    odd = {
        "license": "GPL-3.0", "name": "x" * 128, "tags": ["", "ä"], "description": "",
        "authors": {"Ä. Example, Jr.": {"orcid": "0000-0002-1694-233X", "github_user": "no one"}},
        "cite": {"": "10.1000/x", "B": "https://a.b:80/c?d=e#f"},
        "data_url": "http://a",
    }  # fmt: skip
    score = {"label": "F1", "metric": "f1", "class": "c", "mean": 0.7, "low": 0.6, "high": None,
             "images": 9}  # fmt: skip
    section = ExportSection.model_validate(odd)
    trained = Trained("d" * 64, "m" * 64, 0, [score])
    for number, each in enumerate((section, section.model_copy(update={"name": None}))):
        texts = texts_of(system("unet-bn"), each, trained)
        package(tmp_path / f"{number}.zip", system("unet-bn"), texts=texts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.zip", "is a folder; write the name of a file"),
        ("folder.onnx", "is a folder; write the name of a file"),
        ("file.txt/a.zip", "cannot be written (Not a directory); write a file in another folder"),
        ("x" * 300 + ".zip", "cannot be written (File name too long); write a file in another"),
        ("/proc/w.onnx", "cannot be written ("),
    ],
)
def test_what_cannot_be_written_is_found_before_any_work(
    name: str, message: str, run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if name.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    monkeypatch.setattr("unet.report.exported_model.load_model", None)
    for folder in ("folder.zip", "folder.onnx"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file.txt").touch()
    before = sorted(tmp_path.iterdir())
    assert main.main(["export", str(run.fold("d", "m", 0)), "-o", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / name}: {message}")
    assert sorted(tmp_path.iterdir()) == before


def test_a_package_is_no_model_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.zip").touch()
    assert main.main(["export", str(tmp_path / "b.zip"), "-o", str(tmp_path / "a.zip")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'b.zip'}: is made for other programs already; give")


def test_a_stopped_export_begins_again(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unet.report.exported_model.export_onnx", stop)
    words = ["export", str(run.fold("d", "m", 0)), "-o", str(tmp_path / "a.onnx")]
    assert main.main(words) == 143
    said = capsys.readouterr().err
    assert said == "stopped by Ctrl-C; run the same command to start again\n"


def test_a_fold_is_chosen_only_from_a_models_folder(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = run.model("d", "m", 0), run.fold("d", "m", 0)
    out = str(tmp_path / "a.zip")
    for given, fold, what in ((file, 0, "is a file"), (folder, 1, "is fold-0")):
        assert main.main(["export", str(given), "-o", out, "--fold", str(fold)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --fold: {given} {what}, but --fold chooses from the folds")


@WRITES
def test_a_folds_own_folder_is_that_fold(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    raw["datasets"]["d"]["split"] = {"folds": 2}
    raw["export"]["fold"] = 1
    run.config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    words = ["export", str(run.fold("d", "m", 0)), "-o", str(tmp_path / "a.zip")]
    assert main.main(words) == main.main([*words, "--fold", "0"]) == 0
    capsys.readouterr()
    folder = run.fold("d", "m", 0).parent
    assert main.main(["export", str(folder), *words[2:]]) == 2
    assert capsys.readouterr().err == (
        f"error: {run.config}: export.fold: no fold 1 in {folder}; there are: fold-0; choose one "
        "with --fold, or change that key\n"
    )


def test_a_run_that_wants_packages_needs_licence_and_authors() -> None:
    with pytest.raises(UserError) as caught:
        load({**RAW, "export": {"write": True}})
    assert str(caught.value).splitlines() == [
        f"config: export.{key}: missing; a package needs it (dataset d, model m)"
        for key in ("license", "authors")
    ]
    with pytest.raises(UserError, match=r"export\.fold: no fold 7 .* there are: 0, 1"):
        load({**RAW, "export": {"write": True, "fold": 7, **TERMS}})
    if known_licences():
        with pytest.raises(UserError, match=r"^config: export\.license: .* \(got 'CC-BY'\); did"):
            load({**RAW, "export": {"write": True, **TERMS, "license": "CC-BY"}})
    # For one model only.
    load({**RAW, "models": {"m": {**RAW["models"]["m"], "export": {"write": True, **TERMS}}}})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"authors": {"A B": {"orcid": "12"}}},
         "export.authors.A B.orcid: write an ORCID iD, such as 0000-0001-2345-6789 (got '12')"),
        ({"cite": {"x": "Me 2020"}}, "export.cite.x: write a DOI, such as 10.1000/xyz, or an "
         "address that starts with https:// (got 'Me 2020')"),
        ({"authors": {"A/B": {}}},
         "export.authors: got 'A/B'; write each name without slashes"),
        ({"authors": {" ": {}}},
         "export.authors: got ' '; write a full name, such as Ada Example"),
        ({"authors": {"A B": {"orcid": "0000-0001-2345-6788"}}}, "export.authors.A B.orcid: no "
         "such ORCID iD (a digit is wrong); copy it again (got '0000-0001-2345-6788')"),
        ({"cite": {"x": "https://"}}, "export.cite.x: write a DOI, such as 10.1000/xyz, or an "
         "address that starts with https:// (got 'https://')"),
        ({"cite": {"x": "https://a:99999"}}, "export.cite.x: not an address; write one such as "
         "https://example.org/data (got 'https://a:99999')"),
        ({"data_url": "https://"}, "export.data_url: not an address; write one such as "
         "https://example.org/data (got 'https://')"),
        ({"data_url": "mine"}, "export.data_url: write an address that starts with https:// "
         "(got 'mine')"),
    ],
)  # fmt: skip
def test_what_to_write_is_said_in_words(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        load({**RAW, "export": changes})
    assert str(caught.value) == f"config: {line}"


def test_scores_in_the_form_of_the_zoo() -> None:
    scores = [
        {"label": "F1", "metric": "f1@0.5", "class": "c", "mean": 0.7, "low": 0.61234, "high": None,
         "images": 9},
        {"label": "none", "metric": "seg", "class": "c", "mean": None, "low": None, "high": None,
         "images": 9},
    ]  # fmt: skip
    section = ExportSection.model_validate({**TERMS, "data_url": "https://example.org"})
    texts = texts_of(system("unet-bn"), section, Trained("Cells", "m", 0, scores))
    (found,) = texts.details["evaluations"]
    assert found["results"] == [[0.7, 0.6123, ""]]
    assert found["dataset_id"] == "cells"
    assert json.dumps(texts.details)
    without = texts_of(system("unet-bn"), ExportSection(), Trained("Cells", "m", 0, scores))
    assert "evaluations" not in without.details


def test_notes_name_what_applies() -> None:
    assert any("image's edge" in note for note in notes_of(system("unet-bn")))
    assert not any("image's edge" in note for note in notes_of(system("unet2015")))


def test_the_package_follows_how_the_run_makes_objects(run: Paths) -> None:
    """A package also says the threshold and the method for objects, so edits of them count."""
    raw = {**RAW, "output": str(run.output)}

    def settings(**changes: Any) -> dict[str, Any]:
        return ExportSettings.of(load({**raw, **changes}), "d", "m").to_json()

    assert settings() == settings(stitch={"tiff": False}) == settings(export={"fold": 0})
    for changed in ({"stitch": {"min_size": 3}}, {"predict": {"tta": True}}):
        assert settings() != settings(**changed)


@pytest.mark.parametrize(("threshold", "folds"), [("auto", (0, 1)), (0.5, ())])
def test_chosen_thresholds_are_inputs(run: Paths, threshold: object, folds: Sequence[int]) -> None:
    raw = {**RAW, "output": str(run.output), "stitch": {"threshold": threshold}}
    found = Run(load(raw)).export_inputs("d", "m")["thresholds"]
    assert found == [run.segmentation_done("d", "m", k) for k in folds]
