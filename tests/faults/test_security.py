"""What untrusted images, models, configs and names must not be able to do."""

from __future__ import annotations

import html.parser
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
import yaml

from tests.faults.strange import MATHS, NAMES, ROOT, SCRIPT, snakemake, strange_run
from tests.faults.tallies import Tally
from tests.faults.test_fuzz import zarr_image
from tests.report.page_policy import assert_scripts_allowed
from unet.config.load import load, load_file
from unet.config.presets import architecture_of
from unet.data.file_names import safe_id
from unet.errors import UserError
from unet.io.images import open_image, open_label
from unet.models.build import build
from unet.models.keras_files import read_keras
from unet.models.model_file import ModelFile, load_model, save_model


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self.marker}'",))


def model_of(**changes: Any) -> ModelFile:
    arch = architecture_of("unet-bn", width=2, depth=1)
    values: dict[str, Any] = {
        "architecture": arch, "in_channels": 1, "head": ("background", "cell"),
        "class_names": ("background", "cell"), "class_values": (0, 255), "task": "semantic",
        "normalize": {"method": "none"}, "pixel_size_um": None, "settings": {}, "versions": {},
        "score": 0.5, "step": 1, "weights": build(1, 2, arch).state_dict(),
    }  # fmt: skip
    return ModelFile(**{**values, **changes})


# Model files.


def payloads(folder: Path, marker: Path) -> dict[str, Path]:
    """Model files that run code when they are unpickled, in every disguise."""
    save_model(folder / "good.pt", model_of())
    value = torch.load(folder / "good.pt", weights_only=True)
    found = {name: folder / f"{name}.pt" for name in ("bare", "old", "new", "nested", "swapped")}
    found["bare"].write_bytes(pickle.dumps(Payload(marker)))
    torch.save(
        {**value, "task": Payload(marker)}, found["old"], _use_new_zipfile_serialization=False
    )
    torch.save({**value, "task": Payload(marker)}, found["new"])
    torch.save({**value, "weights": {"a": [Payload(marker)]}}, found["nested"])
    with (
        zipfile.ZipFile(folder / "good.pt") as good,
        zipfile.ZipFile(found["swapped"], "w") as evil,
    ):
        for name in good.namelist():
            data = pickle.dumps(Payload(marker)) if name.endswith("data.pkl") else good.read(name)
            evil.writestr(name, data)
    return found


@pytest.mark.parametrize("how", ["bare", "old", "new", "nested", "swapped"])
def test_a_payload_in_a_model_is_refused(tmp_path: Path, how: str) -> None:
    path = payloads(tmp_path, tmp_path / "executed")[how]
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "a pickle" in str(caught.value) or "more than tensors" in str(caught.value)
    assert not (tmp_path / "executed").exists()


def other_formats(folder: Path, marker: Path) -> dict[str, Path]:
    """Formats of other versions of torch, with code in them, and files that two readers read
    differently."""
    found = {
        name: folder / f"{name}.pt" for name in ("script", "tar", "polyglot", "pipe", "device")
    }

    class Runs(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions have another format
        torch.jit.save(torch.jit.script(Runs()), found["script"])
    # Before version 0.1.10: a tar of pickles.
    with tarfile.open(found["tar"], "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            data = pickle.dumps(Payload(marker), protocol=2)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    # A zip is recognised by its end, a pickle by its beginning.
    save_model(folder / "fine.pt", model_of())
    found["polyglot"].write_bytes(pickle.dumps(Payload(marker)) + (folder / "fine.pt").read_bytes())
    os.mkfifo(found["pipe"])
    found["device"].symlink_to("/dev/zero")
    return found


@pytest.mark.parametrize("how", ["script", "tar", "polyglot", "pipe", "device"])
def test_other_formats_of_models_are_refused(tmp_path: Path, how: str) -> None:
    from unet.prediction.apply.chosen_settings import model_files

    path = other_formats(tmp_path, tmp_path / "executed")[how]
    for read in (load_model, lambda path: model_files([path]) and load_model(path)):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_predict_nothing(tmp_path: Path, value: float) -> None:
    weights = {name: tensor.clone() for name, tensor in model_of().weights.items()}
    next(t for t in weights.values() if t.is_floating_point()).view(-1)[0] = value
    path = tmp_path / "model.pt"
    save_model(path, model_of(weights=weights))
    with pytest.raises(UserError, match=r"NaN or infinite weights \(in .*, 1 of \d+ tensors\)"):
        load_model(path)


def hostile(path: Path) -> dict[str, Any]:
    """Ways to put something else in place of a config."""
    lists = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    merged = "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], k{i}: 1}}\n" for i in range(1, 30)
    )
    return {
        "bomb": lambda: path.write_text("a0: &a0 [x]\n" + lists, encoding="utf-8"),
        "merged": lambda: path.write_text("a0: &a0 {k: 1}\n" + merged, encoding="utf-8"),
        "deep": lambda: path.write_text("[" * 100_000, encoding="utf-8"),
        "huge": lambda: path.write_text("a: 1\n" * 300_000, encoding="utf-8"),
        "tag": lambda: path.write_text(
            "a: !!python/object/apply:os.system [touch executed]\n", encoding="utf-8"
        ),
        "itself": lambda: path.write_text("seed: &a [*a]\n", encoding="utf-8"),
        "binary": lambda: path.write_bytes(bytes(range(256))),
        "pipe": lambda: os.mkfifo(path),
        "zero": lambda: path.symlink_to("/dev/zero"),
        "nowhere": lambda: path.symlink_to("nowhere"),
        "folder": path.mkdir,
        "invalid": lambda: path.write_text("datasets: {}\n", encoding="utf-8"),
    }


@pytest.mark.parametrize("how", list(hostile(Path())))
def test_a_config_beside_a_model_does_no_harm(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`unet predict` reads it for the threshold: a model from elsewhere may bring one along."""
    from unet.prediction.apply.chosen_settings import TrainingChoices, training_choices

    file = tmp_path / "results" / "d" / "m" / "fold-0" / "model.pt"
    file.parent.mkdir(parents=True)
    path = tmp_path / "results" / "config.yaml"
    assert training_choices(file) == TrainingChoices()
    assert caplog.text == ""  # a model without its run is nothing unusual
    hostile(path)[how]()
    assert training_choices(file) == TrainingChoices()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert str(path) in lines[0]
    assert "using defaults" in lines[1]
    assert all("\n" not in line and len(line) < 600 for line in lines)
    assert not (tmp_path / "executed").exists()


def test_a_pipe_as_config_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    for path in (tmp_path / "c.yaml", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=rf"{path}: not a regular file \(a \w+"):
            load_file(path)


@pytest.mark.faults
def test_a_payload_through_the_command(tmp_path: Path, tally: Tally) -> None:
    """`unet predict`, as a user runs it with a model from the internet."""
    import numpy as np
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    marker = tmp_path / "executed"
    models = payloads(tmp_path, marker)
    for path in models.values():
        done = subprocess.run(
            [sys.executable, "-m", "unet", "predict", str(path), str(tmp_path / "a.tif"),
             "-o", str(tmp_path / "out")],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"error: {path}: ")
        assert not marker.exists()
    tally(
        "a model file holds code",
        "pickle payloads: bare, in torch's old and new format, nested, in place of another's",
        "refused in one line that names the file; nothing is executed",
        len(models),
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": {"a": torch.zeros(1)}}, "its weights do not fit its architecture"),
        ({"architecture": architecture_of("unet-bn", width=4, depth=1)}, "do not fit its arch"),
        ({"architecture": architecture_of("unet-bn", width=2, depth=10**6)}, "depth"),
        ({"architecture": architecture_of("unet-bn", convs=10**9)}, "convs"),
        ({"architecture": architecture_of("unet-bn", blocks=(10**9,))}, "layers"),
        ({"in_channels": 3}, "its weights do not fit its architecture"),
        ({"in_channels": 10**12}, "model file"),
        ({"weights": {"a": torch.zeros(1).expand(10**12)}}, "more weights than the file contains"),
        ({"weights": {"a": "text"}}, "not tensors"),
        ({"normalize": [1]}, "normalize is not a mapping"),
        ({"head": (1, 2)}, "names that are not text"),
    ],
)
def test_a_model_that_lies_about_itself(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    """No network is built from it: with a width of millions it would fill the memory."""
    path = tmp_path / "model.pt"
    save_model(path, model_of(**changes))
    with pytest.raises(UserError, match=says):
        load_model(path)


@pytest.mark.faults
def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path, tally: Tally) -> None:
    """A zip of zeros: neither kind of model file is normally compressed."""
    save_model(tmp_path / "good.pt", model_of())
    zeros = io.BytesIO(bytes(1 << 24))
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as evil,
    ):
        for name in good.namelist():
            evil.writestr(name, zeros.getvalue() if "/data/0" in name else good.read(name))
    with pytest.raises(UserError, match="archive is compressed"):
        load_model(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", zeros.getvalue())
        # A member outside of the folder: nothing is ever unpacked to disk.
        archive.writestr("../../escaped", "x")
    with pytest.raises(UserError, match="unpacks to 1677721"):
        read_keras(tmp_path / "a.keras")
    assert not (tmp_path.parent.parent / "escaped").exists()
    tally(
        "an archive is a bomb",
        "`model.pt` and `.keras` whose members unpack to many times the file",
        "refused in one line before anything is unpacked (archives are never unpacked to disk)",
        2,
    )


# Images.


@pytest.mark.parametrize(
    "more",
    [
        {"compressor": {"id": "pickle", "protocol": 4}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}, "dtype": "|O"},
        {"compressor": {"id": "something-of-a-plugin"}},
    ],
)
def test_codecs_that_are_not_known(tmp_path: Path, more: dict[str, Any]) -> None:
    path = zarr_image(tmp_path / "a.zarr", (8, 8), (8, 8), **more)
    (path / "0" / "0.0").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    for reader in (open_image, open_label):
        with pytest.raises(UserError, match=r"\.zarray: refused, codec .* is not known to be safe"):
            reader(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("inner", ["pickle", "numcodecs.pickle"])
def test_codecs_within_shards(tmp_path: Path, inner: str) -> None:
    import numpy as np
    import zarr

    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    array = group.create_array("0", shape=(8, 8), chunks=(4, 4), shards=(8, 8), dtype="u1")
    array[...] = np.arange(64).reshape(8, 8)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    assert open_image(tmp_path / "a.zarr").shape == (1, 8, 8)
    file = tmp_path / "a.zarr" / "0" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["codecs"][0]["configuration"]["codecs"].append({"name": inner, "configuration": {}})
    file.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="refused, codec 'pickle'"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("level", ["../b.zarr/0", "/etc", "0/../../b.zarr/0", "link"])
def test_levels_outside_of_the_image(tmp_path: Path, level: str) -> None:
    zarr_image(tmp_path / "b.zarr", (8, 8), (8, 8))
    path = zarr_image(tmp_path / "a.zarr", (8, 8), (8, 8))
    (path / "link").symlink_to(tmp_path / "b.zarr" / "0")
    text = (path / ".zattrs").read_text().replace('"path": "0"', json.dumps({"path": level})[1:-1])
    (path / ".zattrs").write_text(text)
    with pytest.raises(UserError, match="refused, its metadata refer to a level outside of it"):
        open_image(path)


# Configs and names.

TAGS = (
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/object/new:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object/apply:subprocess.check_output [[touch, executed]]",
)


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"output: {tag}\n")
    with pytest.raises(
        UserError, match=rf"config\.yaml: line 1, column 9: tag {re.escape(tag.split()[0])} is not"
    ):
        load_file(tmp_path / "config.yaml")
    assert not (tmp_path / "executed").exists()


EVIL_NAMES = (
    "..",
    "../x",
    "/tmp/x",
    "a/b",
    ".hidden",
    "",
    "a b",
    "a\n",
    "-x",
    "$(x)",
    "é",
    "a" * 65,
)


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_names_cannot_leave_the_output_folder(kind: str, name: str) -> None:
    raw: dict[str, Any] = {
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
        "models": {"m": {"preset": "unet-bn"}},
    }
    load(raw)
    raw[kind] = {name: next(iter(raw[kind].values()))}
    with pytest.raises(UserError, match=rf"config: {kind}: name .* is not usable as a folder"):
        load(raw)


@pytest.mark.parametrize("name", [n for n in EVIL_NAMES if not n.startswith("-")])
def test_names_on_the_command_line(tmp_path: Path, name: str) -> None:
    from unet.cli.stage import parser

    good = ["--settings", "{}", "--dataset", "d", "--model", "m@e"]
    assert parser("train", "", model=True).parse_args(good).model == "m@e"
    for bad in (["--dataset", name, "--model", "m"], ["--dataset", "d", "--model", f"m@{name}"]):
        with pytest.raises(SystemExit):
            parser("train", "", model=True).parse_args(["--settings", "{}", *bad])


@pytest.mark.parametrize(
    "name", [*NAMES.values(), "../../x", "/etc/passwd", "..", ".", "a/../../b", "\x00", "\n", ""]
)
def test_ids_are_folders_of_their_own(name: str) -> None:
    """Ids become folders, file names and wildcards."""
    found = safe_id(name)
    assert found
    assert not set(found) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert found[0] not in "._-"
    assert len(found) <= 107


@pytest.mark.faults
def test_configs_through_snakemake(tmp_path: Path, tally: Tally) -> None:
    """Snakemake reads the config before the pipeline does."""
    base = {
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
        "models": {"m": {"preset": "unet-bn"}},
    }
    tried = 0
    for text in (*(f"seed: {tag}" for tag in TAGS[:3]), "seed: &a [*a]"):
        (tmp_path / "x.yaml").write_text(f"{yaml.safe_dump(base)}{text}\n")
        done = snakemake(tmp_path, base, "--dry-run", "--configfile", str(tmp_path / "x.yaml"))
        assert done.returncode != 0, done.stdout
        assert not (tmp_path / "executed").exists()
        tried += 1
    evil = {**base, "datasets": {"../../x": base["datasets"]["d"]}}
    done = snakemake(tmp_path, evil, "--dry-run")
    assert done.returncode != 0
    assert "is not usable as a folder" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    tally(
        "a config tries to run code or to leave the folder",
        "Python tags, an alias of itself and `../../x` as a dataset, through Snakemake",
        "refused; nothing is executed or written",
        tried + 1,
    )


# A whole run in which every name could break something.


class Seen(html.parser.HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links.update(str(value) for name, value in attrs if name in ("href", "src"))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.faults
def test_nothing_reaches_a_shell(tally: Tally) -> None:
    run = strange_run()
    assert run.code == 0, run.said
    left = sorted(path.name for path in run.folder.iterdir())
    assert left == sorted([".snakemake", "config.yaml", run.output.name, run.raw.name])
    # Wherever a shell may have been: a command in a name would have left this.
    for place in (run.folder, ROOT, Path.cwd(), Path.home(), run.folder.parent):
        assert not list(place.glob("executed*")), place
    tally(
        "a name is a command",
        "a whole run by Snakemake: working folder, data folder, output and images are named "
        "`$(touch x)`, with `;`, backticks, quotes and braces",
        "the run finishes as usual; no command is executed",
    )


@pytest.mark.faults
def test_reports_escape_what_they_show(tally: Tally) -> None:
    run = strange_run()
    assert run.code == 0, run.said
    pages = [run.output / "report.html", run.output / "d" / "report.html"]
    for path in pages:
        page = path.read_text(encoding="utf-8")
        seen = Seen()
        seen.feed(page)
        assert not seen.tags & {"i", "u", "iframe", "object", "embed", "form"}
        assert_scripts_allowed(page)
        assert not [name for name in seen.attributes if name.startswith("on")]
        for link in seen.links:
            if not link.startswith(("#", "data:image/")):
                target = (path.parent / unquote(link.partition("#")[0])).resolve()
                assert target.is_relative_to(run.output.resolve()), link
                assert target.is_file(), link
        assert SCRIPT not in page
        assert "alert(1)" in page  # it is there, as text: in the config at least
        assert "default-src 'none'" in page
    # Of the dataset: the names of classes and of files that were set aside.
    assert SCRIPT in seen.text
    assert MATHS in seen.text
    assert "<i>constant.tif" in seen.text
    assert "<u onload=alert(4)>nan.tif" in seen.text
    tally(
        "a name is a script",
        "classes and images named `<script>alert(1)</script>` and the like",
        "the reports show them as text; pages run only their own scripts, which their policy "
        "allows by hash, and have no event handler or external link",
        len(pages),
    )


@pytest.mark.faults
def test_a_stranger_at_a_cluster(tmp_path: Path, tally: Tally) -> None:
    """Anyone who can connect to a dask scheduler or worker can run any code on it."""
    pytest.importorskip("distributed")
    pytest.importorskip("cryptography")
    from distributed import Client, Security

    from tests.prediction.test_cluster import say_something
    from unet.config.sections import ClusterSection
    from unet.prediction.tiles.cluster import client_of

    refused = 0
    with client_of(ClusterSection(workers=2), tmp_path) as client:
        client.wait_for_workers(2, timeout=600)
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        assert len(workers) == 2
        for place in (a.removeprefix("tls://") for a in (client.scheduler.address, *workers)):
            for address, keys in (
                (f"tcp://{place}", None),
                (f"tls://{place}", Security.temporary()),
            ):
                with pytest.raises((OSError, TimeoutError)):
                    Client(address, security=keys, timeout="2s", set_as_default=False)
                refused += 1
            with pytest.raises(OSError, match=r"certificate required|reset|EOF"):
                say_something(place)
            refused += 1
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    tally(
        "a stranger talks to a cluster",
        "without TLS, with TLS but no certificate, and with its own certificate, to the scheduler "
        "and to each worker",
        "refused; the cluster keeps working",
        refused,
    )
