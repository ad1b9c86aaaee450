"""An error in a config file is one line: which file, where, and the likely cause; also if Snakemake
reads the file."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_config import BASE
from unet.config.yaml_file import read_yaml
from unet.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]

# (text, line and column, likely cause)
MISTAKES = [
    ("train:\n\tlr: 1\n", (2, 1), "found a tab, indent with spaces"),
    ("train:\n  lr: 1\n\tbatch: 2\n", (3, 1), "found a tab, indent with spaces"),
    ("train: {lr: 1\nseed: 3\n", (2, 5), "is the { in line 1 closed"),
    ("a: 1\nb: [1, 2\nc: 3\n", (3, 2), "is the [ in line 2 closed"),
    ("a: [1", (1, 6), "is the [ in line 1 closed"),
    ("a: 'x\nb: 1\n", (3, 1), "the quote in line 1 is not closed"),
    ('a: "x\\q"\n', (1, 7), "unknown escape character"),
    ("seed:3\noutput: x\n", (2, 7), "write a space after seed: (line 1)"),
    ("output: a: b\n", (1, 10), "needs quotes"),
    ("train:\n  lr: 1\n batch: 2\n", (3, 2), "the same indent"),
    ("train: {lr: 1}}\n", (1, 15), "there is one } too many"),
    ("train: {lr: 1, lr: 2}\n", (1, 16), "key 'lr' occurs a second time, first in line 1"),
    ("a: 1\nb:\n  c: 1\n  c: 2\n", (4, 3), "key 'c' occurs a second time, first in line 3"),
    ('{"a": 1, "a": 2}', (1, 10), "key 'a' occurs a second time, first in line 1"),
    ('{\n\t"a": {"b":1,\n\t"b":2}}', (3, 2), "key 'b' occurs a second time, first in"),
    ("a:\n- {c: 1, c: 2}\n", (2, 10), "key 'c' occurs a second time"),
    ("a: @x\n", (1, 4), "cannot start any token"),
    ("a: *b\n", (1, 4), "undefined alias"),
    ("a: !!python/object:os.system x\n", (1, 4), "tag !!python/object:os.system is not allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "likely"), MISTAKES, ids=[repr(m[0]) for m in MISTAKES])
def test_yaml_that_does_not_parse(
    tmp_path: Path, text: str, place: tuple[int, int], likely: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: line {place[0]}, column {place[1]}: ")
    assert likely in said
    assert "\n" not in said
    assert len(said) - len(str(path)) < 200


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("seed:3", "contains no keys; write a space after seed: (line 1)"),
        ("- a\n- b\n", "contains no keys"),
        ("", "contains no keys"),
        ("a: 2020-13-45\n", "not valid YAML: month"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_yaml_without_a_place(tmp_path: Path, text: str, likely: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert likely in str(caught.value)
    assert "\n" not in str(caught.value)


def test_valid_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text, value in (
        ("a: &x {b: 1}\nc: {<<: *x}\nd: *x\n", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}),
        ("<<: {a: 1}\n<<: {b: 1}\n", {"a": 1, "b": 1}),
        ('{\n\t"a": {"b": 1}\n}', {"a": {"b": 1}}),  # JSON may indent with tabs
        ("a: http://x/y\nb: C:\\x\nc: 'd:e'\n", {"a": "http://x/y", "b": "C:\\x", "c": "d:e"}),
        ("? [1, 2]\n: 1\n? [3]\n: 2\na: 1\n", None),
    ):
        path.write_text(text, encoding="utf-8")
        if value is not None:
            assert read_yaml(path) == value


# Without control characters, which even YAML's own writer does not preserve.
WORDS = st.text(alphabet=string.ascii_letters + "019:-#{}[]'\"\n ,äß°", max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(WORDS, VALUES, min_size=1, max_size=4))
def test_what_yaml_writes_is_read(tmp_path_factory: pytest.TempPathFactory, value: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    for style in (True, False):
        text = yaml.safe_dump(value, default_flow_style=style, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        assert read_yaml(path) == value


@given(st.text(alphabet="ab:{}[]'\"\t\n ,-&*?!#%1\\", max_size=30))
def test_any_text_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        found, said = read_yaml(path), "one line"
    except UserError as error:
        found, said = {}, str(error)
    assert isinstance(found, dict)
    assert len(said.splitlines()) == 1


def test_paths_that_are_not_readable_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin.yaml").write_bytes("output: größe\n".encode("latin-1"))
    (tmp_path / "my.yaml").write_text("a: 1\n")
    for name, likely in (
        ("pipe", "pipe: not a regular file (a named pipe)"),
        ("latin.yaml", "not UTF-8"),
        ("my.yml", "no such file; did you mean my.yaml?"),
        (".", "not a regular file (a folder)"),
        ("nowhere/my.yaml", "no such file"),
    ):
        with pytest.raises(UserError) as caught:
            read_yaml(tmp_path / name)
        assert likely in str(caught.value)
    with pytest.raises(UserError, match=r"not a regular file \(a device\)"):
        read_yaml(Path("/dev/null"))


# Files that Snakemake reads itself.


def said_by_snakemake(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [*SNAKEMAKE, "--dry-run", *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).strip().splitlines()
    return [line for line in lines if not line.startswith("Using workflow specific profile")]


@pytest.mark.workflow
def test_mistakes_that_snakemake_would_meet_first(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.yaml").write_text("train:\n\tlr: 1\n")
    (tmp_path / "worse.yaml").write_text("a: [1\n")
    (tmp_path / "over.yaml").write_text("seed: 1\n")
    cases = {
        ("bad.yaml",): ["error: bad.yaml: line 2, column 1: "],
        ("over.yaml", "bad.yaml", "worse.yaml"): ["error: bad.yaml: line 2", "error: worse.yaml: "],
        ("none.yaml",): ["error: none.yaml: cannot be read: no such file"],
        ("pipe",): ["error: pipe: not a regular file (a named pipe)"],
        ("over.yaml", "results/d/splits.csv"): [
            "error: results/d/splits.csv: cannot be read: no such file; write "
            "targets before --configfile"
        ],
        # It has no datasets, and there is no config/config.yaml here.
        ("over.yaml",): ["error: config/config.yaml: missing"],
    }
    for files, lines in cases.items():
        said = said_by_snakemake(tmp_path, "--configfile", *files)
        assert len(said) == len(lines), said
        for line, start in zip(said, lines, strict=True):
            assert line.startswith(start), said
    assert said_by_snakemake(tmp_path, "--configfile=bad.yaml")[0].startswith("error: bad.yaml")
    # The file that is read without the option.
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("seed:3\noutput: x\n")
    (line,) = said_by_snakemake(tmp_path)
    assert line.startswith("error: config/config.yaml: line 2, column 7: ")
    (tmp_path / "config" / "config.yaml").write_text("trian: {}\n")
    said = said_by_snakemake(tmp_path)
    assert "config: trian: unknown key; did you mean train?" in said


PROFILES = {path.parent.name: path for path in ROOT.glob("workflow/profiles/*/config.yaml")}


@pytest.mark.workflow
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_mistakes_under_each_profile(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.yaml").write_text("train:\n\tlr: 1\n")
    words = ["--workflow-profile", str(PROFILES[name].parent), "--configfile", "bad.yaml"]
    (line,) = said_by_snakemake(tmp_path, *words)
    assert line.startswith("error: bad.yaml: line 2, column 1: ")
    assert "found a tab" in line


def test_profiles_share_what_checks_the_config() -> None:
    blocks = {
        name: path.read_text().partition("__use_yte__: true\n")[2]
        for name, path in PROFILES.items()
    }
    assert blocks.keys() >= {"default", "slurm", "cluster-generic"}
    assert len(set(blocks.values())) == 1, "the block of workflow/profiles/default is the same"
    assert "check(called.configfile or [])" in blocks["default"]


@pytest.mark.workflow
def test_from_another_folder(tmp_path: Path) -> None:
    """Relative paths start from the current folder; a file with datasets is used alone."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("nothing: of this workflow\n")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(BASE))
    done = subprocess.run(
        [*SNAKEMAKE, "results/d/raw.json", "--cores", "1", "--configfile", "my.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "extended by additional config" not in said
    # The profile next to the Snakefile is used.
    assert said.startswith(f"Using workflow specific profile {ROOT}/workflow/profiles/default")
    assert (tmp_path / "results" / "d" / "raw.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".snakemake", "config", "my.yaml", "results",
    ]  # fmt: skip


def test_copied_profiles_find_the_check_under_its_old_name() -> None:
    # Profiles suppress the ImportError, so a missing name would silently turn the check off.
    from unet import config_file
    from unet.config import yaml_file

    assert config_file.check is yaml_file.check
