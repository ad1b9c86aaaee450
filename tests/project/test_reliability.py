"""The table of docs/reliability.md names the faults that tests/faults makes, and no others."""

from __future__ import annotations

import ast
import json

import pytest

from tests.faults.tallies import BEGIN, END, HEAD, PAGE, Tally, fault_of, rewritten, rows_of

FOLDER = PAGE.parents[1] / "tests" / "faults"


def made() -> set[str]:
    """The faults that the tests count."""
    found = set()
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tally":
                assert isinstance(node.args[0], ast.Constant), f"{path}: line {node.lineno}"
                found.add(node.args[0].value)
    return found


def test_each_fault_has_its_row() -> None:
    rows = rows_of(PAGE.read_text(encoding="utf-8"))
    assert made()
    assert {fault_of(row) for row in rows} == made()
    assert rows == sorted(rows)
    for row in rows:
        assert int(row.rstrip(" |").rsplit(" ", 1)[1]) >= 1


def test_twenty_kills() -> None:
    killed = [row for row in rows_of(PAGE.read_text(encoding="utf-8")) if "is killed" in row]
    assert sum(int(row.rstrip(" |").rsplit(" ", 1)[1]) for row in killed) >= 20


def test_the_table() -> None:
    tally = Tally()
    tally("b | c", "how", "what", 2)
    tally("a", "how", "what")
    tally("b | c", "how", "what")
    assert tally.lines() == ["| a | how | what | 1 |", "| b \\| c | how | what | 3 |"]
    assert [fault_of(line) for line in tally.lines()] == ["a", "b | c"]
    with pytest.raises(ValueError, match="at least 1"):
        tally("a", "how", "what", 0)
    # Of two processes.
    other = Tally()
    other("a", "how", "what", 5)
    other("d", "how", "what")
    tally.add(json.loads(json.dumps(other.plain())))
    assert [line[-3] for line in tally.lines()] == ["6", "3", "1"]


def test_a_page_keeps_what_was_not_run() -> None:
    page = f"text\n{BEGIN}\n| a | x | y | 1 |\n| b | x | y | 2 |\n| b | z | y | 2 |\n{END}\nmore\n"
    new = rewritten(page, ["| b | x | y | 7 |", "| c | x | y | 1 |"])
    assert rows_of(new) == ["| a | x | y | 1 |", "| b | x | y | 7 |", "| c | x | y | 1 |"]
    assert new.startswith(f"text\n{BEGIN}\n{HEAD[0]}\n{HEAD[1]}\n| a |")
    assert new.endswith(f"{END}\nmore\n")
    assert rewritten(new, []) == new
    with pytest.raises(ValueError, match="one"):
        rows_of("no markers")
