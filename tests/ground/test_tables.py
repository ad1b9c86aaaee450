"""Reading and writing of tables."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.errors import UserError
from unet.tables import guarded, read_table, table_writer, unguarded, write_table

# What UTF-8 and CSV can hold; pandas' parser ends a cell at NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_text_comes_back_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "texts.csv"
    write_table(path, ["a", "b"], rows)
    found = read_table(path, "test", ["a", "b"])
    assert list(found.itertuples(index=False, name=None)) == rows
    with path.open(newline="", encoding="utf-8") as handle:
        _, *plain = csv.reader(handle)
    assert len(plain) == len(rows)
    for cell in (cell for row in plain for cell in row if cell[:1] in tuple("=+-@\t\r") and cell):
        float(cell)  # a number is no formula


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-x", "-1-1", "@SUM(A1)", "\tx", "'=1", "''-", "'", "a=b"]
)
def test_formulas_are_guarded_and_given_back(text):
    assert guarded(text)[:1] not in tuple("=+-@\t\r")
    assert unguarded(guarded(text)) == text


def test_numbers_given_as_text_stay_numbers(tmp_path):
    write_table(tmp_path / "n.csv", ["a", "b"], [("-1.25", "'-1.25"), ("+2e-05", "-inf")])
    assert (tmp_path / "n.csv").read_text() == "a,b\n-1.25,''-1.25\n+2e-05,'-inf\n"
    found = read_table(tmp_path / "n.csv", "test")
    assert found.to_numpy().tolist() == [["-1.25", "'-1.25"], ["+2e-05", "-inf"]]


def test_numbers_keep_their_sign_and_digits(tmp_path):
    path = tmp_path / "n.csv"
    write_table(path, ["x", "n", "text"], [(-1.5, 3, "NA"), (math.nan, 4, ""), (1 / 3, 5, "nan")])
    assert path.read_text() == "x,n,text\n-1.5,3,NA\n,4,\n0.33333333,5,nan\n"
    found = read_table(path, "test", numbers=["x", "n"])
    assert found["x"].tolist()[0] == -1.5
    assert math.isnan(found["x"][1])
    assert found["n"].tolist() == [3, 4, 5]
    assert found["text"].tolist() == ["NA", "", "nan"]


def test_many_rows_are_written_in_parts(tmp_path):
    path = tmp_path / "many.csv"
    with table_writer(path, ["i", "t"]) as append:
        append((i, f"={i}") for i in range(10_000))
        append([(10_000, "x")])
    found = read_table(path, "test", numbers=["i"])
    assert found["i"].tolist() == list(range(10_001))
    assert found["t"].tolist() == [*(f"={i}" for i in range(10_000)), "x"]


def test_a_failed_write_leaves_nothing(tmp_path):
    def rows():
        yield (1,)
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        write_table(tmp_path / "t.csv", ["a"], rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "run the evaluate stage first"),
        (b"", "damaged"),
        (b"a,b\n1\xff,2\n", "damaged"),
        (b"a,b\n1,2,3\n1,2,3,4\n", "damaged"),
        (b"a,b\n1,2\n", "has no column c; run the evaluate stage again"),
        (b"a,c\nx,2\n", "damaged"),
    ],
)
def test_errors_of_bad_tables_are_one_line(tmp_path, content, says):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_table(path, "evaluate", ["a", "c"], numbers=["a"])
    assert "\n" not in str(caught.value)


def test_planning_does_without_pandas():
    code = (
        "import sys, unet.tables, unet.planning.jobs, unet.config.load;"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_integers_stay_whole_in_columns_with_other_values(tmp_path):
    path = tmp_path / "n.csv"
    rows = [(123456789, 123456789, 2**60), (None, 0.123456789, None), (np.int64(7), 1, None)]
    write_table(path, ["a", "b", "c"], rows)
    assert path.read_text() == (
        "a,b,c\n123456789,123456789,1152921504606846976\n,0.12345679,\n7,1,\n"
    )


def test_numbers_of_numpy_are_numbers(tmp_path):
    row = (np.float32(1 / 3), np.float64("nan"), np.int32(-4), np.bool_(True), True)
    write_table(tmp_path / "n.csv", list("abcde"), [row])
    assert (tmp_path / "n.csv").read_text() == "a,b,c,d,e\n0.33333334,,-4,True,True\n"
