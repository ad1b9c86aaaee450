"""The workflow as a module of another one, with a Python without the package: from a folder, from a
local git repository, as snakedeploy writes it; with and without a prefix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from unet.paths import Paths

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).resolve().parents[2]
TAG = "v9.9.9"
CONFIG: dict[str, Any] = {
    "output": "out",
    "device": "cpu",
    "datasets": {
        "d": {"synthetic": {"kind": "nuclei", "images": 3, "size": 64}, "task": "instances"}
    },
    "models": {"a": {"preset": "unet-bn", "width": 2, "depth": 1, "train": {"patch": 32}}},
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 1, "steps_per_epoch": 1, "warmup_steps": 0},
    "report": {"bootstrap": 100},
}
IMPORTING = """
configfile: "config/config.yaml"

module unet:
    snakefile: {snakefile}
    config: config
    {prefix}

use rule * from unet as {name}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with all packages of the tests' own, except this one."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, symlinks=True)
    known = sysconfig.get_path("purelib")
    site = next((folder / "lib").glob("python*/site-packages"))
    # .pth files in folders that are listed here are not read, such as those of editable installs.
    (site / "known.pth").write_text(known + "\n")
    interpreter = folder / "bin" / "python"
    done = run([interpreter, "-c", "import unet"], folder)
    if done.returncode == 0:
        pytest.skip("the package is installed as a copy, so it cannot be left out")
    return interpreter


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the working tree's files, with a tag."""
    folder = tmp_path_factory.mktemp("git") / "owner" / "unet-pipeline"
    for part in ("unet", "scripts", "workflow", "config"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "profiles").symlink_to((ROOT / "profiles").readlink())
    shutil.copy(ROOT / "LICENSE", folder)
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "all"], ["tag", TAG]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment variables that keep Snakemake's cache out of the user's home."""
    return {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def run(words: list[Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, words)), cwd=folder, env={**kept, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def importing(folder: Path, snakefile: str, prefix: str, name: str) -> Path:
    """A workflow that uses this one as a module."""
    line = f'prefix: "{prefix}"' if prefix else ""
    for path, text in (
        ("workflow/Snakefile", IMPORTING.format(snakefile=snakefile, prefix=line, name=name)),
        ("config/config.yaml", yaml.safe_dump(CONFIG, sort_keys=False)),
    ):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


SPLITS = "out/d/splits.csv"


@pytest.mark.parametrize("prefix", ["", "below/here"])
@pytest.mark.parametrize("kind", ["folder", "git"])
def test_a_module(
    tmp_path: Path, python: Path, repository: Path, home: dict[str, str], kind: str, prefix: str
) -> None:
    local = f'"{ROOT}/workflow/Snakefile"'
    git = f'gitfile("{repository}", path="workflow/Snakefile", tag="{TAG}")'
    place = importing(
        tmp_path / "work", local if kind == "folder" else git, prefix, "unet_*" if prefix else "*"
    )
    # Only one of the cases is run completely.
    whole = kind == "git" and bool(prefix)
    target = [] if whole else [Path(prefix, SPLITS)]
    snakemake = [python, "-m", "snakemake"]
    done = run([*snakemake, *target, "--cores", "2"], place, **home)
    assert done.returncode == 0, done.stdout + done.stderr
    paths = Paths(place / prefix / "out")
    for path in (paths.splits("d"), paths.manifest("d"), paths.raw_done("d"), paths.config):
        assert path.stat().st_size > 0, path
    assert (paths.report_html.exists(), prefix != "" and (place / "out").exists()) == (whole, False)
    # A second run has nothing to do.
    done = run([*snakemake, *target, "--dry-run"], place, **home)
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout + done.stderr
    if whole:
        # Package and scripts are unpacked completely, and can resume the run.
        (unpacked,) = (place / ".snakemake" / "unet").iterdir()
        assert {path.name for path in unpacked.iterdir()} == {"unet", "scripts"}
        done = run([python, unpacked / "scripts" / "resume.py", "--stay"], place, **home)
        assert done.returncode == 0, done.stderr


def test_a_raw_file_of_a_module_is_looked_for_in_the_working_folder(
    tmp_path: Path, python: Path, home: dict[str, str]
) -> None:
    """A prefix applies only to outputs."""
    from unet.data.synthetic import write_dataset

    place = importing(tmp_path / "work", f'"{ROOT}/workflow/Snakefile"', "below", "*")
    write_dataset(place / "raw", "nuclei", 3, 3, (64, 64), 0.5)
    files = {"images": "raw/images", "labels": "raw/labels", "task": "instances"}
    config = {**CONFIG, "datasets": {"d": files}}
    (place / "config" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = [python, "-m", "snakemake", Path("below", SPLITS), "--cores", "2"]
    done = run(words, place, **home)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run([*words, "--dry-run"], place, **home)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_importing_workflow_has_its_own_start(
    tmp_path: Path, python: Path, home: dict[str, str]
) -> None:
    place = importing(tmp_path / "work", f'"{ROOT}/workflow/Snakefile"', "", "*")
    snakefile = place / "workflow" / "Snakefile"
    own = 'onstart:\n    print("their start")\n'
    snakefile.write_text(own + snakefile.read_text())
    done = run([python, "-m", "snakemake", "out/d/raw.json", "--cores", "1"], place, **home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("their start") == 1
    assert (place / "out" / "config.yaml").exists()
    assert (place / ".snakemake" / "unet-run.json").exists()


def test_the_importing_workflow_has_its_own_failures(
    tmp_path: Path, python: Path, home: dict[str, str]
) -> None:
    """Its failed jobs are shown in Snakemake's way, this one's in one line; both hooks run."""
    from unet.data.dataset_warnings import write_warnings
    from unet.data.synthetic import write_dataset

    place = importing(tmp_path / "work", f'"{ROOT}/workflow/Snakefile"', "", "*")
    snakefile = place / "workflow" / "Snakefile"
    own = (
        'onerror:\n    print("their end")\n\n'
        'rule mine:\n    output: "mine.txt"\n    log: "mine.log"\n'
        "    shell: \"echo 'disk quota exceeded' > {log}; exit 3\"\n"
    )
    snakefile.write_text(own + snakefile.read_text())
    write_warnings(place / "out" / "d" / "warnings.splits.json", ["looks odd"])
    # The labels are object numbers, not classes.
    write_dataset(place / "raw", "nuclei", 3, 3, (64, 64), 0.5)
    files = {"images": "raw/images", "labels": "raw/labels", "classes": {"a": 0, "b": 255}}
    config = {**CONFIG, "datasets": {"d": files}}
    (place / "config" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["mine.txt", SPLITS, "--cores", "1", "--keep-going", "--show-failed-logs"]
    done = run([python, "-m", "snakemake", *words], place, **home)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    # Its own log, and Snakemake's message about the command.
    assert "Error in rule mine:" in said
    assert "returned non-zero exit status 3" in said
    assert "\ndisk quota exceeded\n" in said
    assert "Job mine" not in said
    assert said.count("Job manifest d: error: ") == 1, said
    assert said.count("their end") == 1
    assert said.count("warning: d: looks odd") == 1


def test_an_archive_is_unpacked_by_a_python_without_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11.0 to 3.11.3 have none."""
    from unet.planning import root

    class Repository:
        def commit(self, ref: str) -> Any:
            return SimpleNamespace(hexsha=ref * 40)

        def archive(self, stream: Any, tree: str, path: list[str]) -> None:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for name in path:
                    archive.add(tmp_path / "given", arcname=name)

    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    extract = tarfile.TarFile.extractall
    for name in ("a", "b"):
        found = root.unpacked(Repository(), name, "")
        assert found == tmp_path / ".snakemake" / "unet" / (name * 40)
        assert (found / "scripts" / "a.py").read_text() == "x = 1\n"
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: extract(self, path))


# What `snakedeploy deploy-workflow` writes.
DEPLOYED = """
from snakemake.utils import min_version

min_version("6.10.0")

configfile: "config/config.yaml"

# declare {url} as a module
module unet_pipeline:
    snakefile:
        github("owner/unet-pipeline", path="workflow/Snakefile", tag="{tag}")
    config:
        config

# use all rules from {url}
use rule * from unet_pipeline
"""


@pytest.mark.parametrize("by", ["its text", "itself"])
def test_what_snakedeploy_writes(
    tmp_path: Path, python: Path, repository: Path, home: dict[str, str], by: str
) -> None:
    # A folder replaces GitHub.
    environment = {
        **home,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository.parents[1]}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
    }
    place = tmp_path / "work"
    url = "https://github.com/owner/unet-pipeline"
    if by == "itself":
        # Not in requirements.lock: it cannot be installed on every supported Python.
        found = pytest.importorskip("snakedeploy", reason="snakedeploy is not installed")
        code = (
            f"import sys; sys.path.append({str(Path(found.__file__).parents[1])!r});"
            "from snakedeploy.client import main; main()"
        )
        words = [python, "-c", code, "deploy-workflow", url, place, "--tag", TAG]
        done = run(words, tmp_path, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        for part in ("config", "profiles"):
            shutil.copytree(repository / part, place / part)
        (place / "workflow").mkdir()
        (place / "workflow" / "Snakefile").write_text(DEPLOYED.format(url=url, tag=TAG))
    # The configs and profiles are copied to where Snakemake finds them.
    for path in ("config/config.yaml", "config/README.md", "profiles/default/config.yaml"):
        assert (place / path).is_file(), path
    (place / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done = run([python, "-m", "snakemake", SPLITS], place, **environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "profiles/default" in said.splitlines()[0]
    assert (place / SPLITS).stat().st_size > 0


def test_a_single_file_from_elsewhere_is_refused(
    tmp_path: Path, python: Path, home: dict[str, str]
) -> None:
    import functools
    import http.server
    import threading

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/workflow/Snakefile"
        place = importing(tmp_path / "work", f'"{address}"', "", "*")
        done = run([python, "-m", "snakemake", "--dry-run"], place, **home)
        server.shutdown()
    assert done.returncode != 0
    assert "needs its package and scripts next to it" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
