"""The benchmark of a GPU tries itself out on the processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_tiny_on_the_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "gpu.json"
    assert gpu.main(["--tiny", "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["parts"]) == set(gpu.PARTS)
    (step,) = found["parts"]["steps"].values()
    assert step["ms, with cutting"] > 0
    assert step["patches/s"] == pytest.approx(2000 / step["ms, with cutting"])
    (case,) = found["parts"]["prediction"].values()
    assert set(case) >= {"one by one", "two at a time", "the network", "softmax"}
    assert "width 4, batch 2: ms" in capsys.readouterr().out


def test_a_part_that_fails_or_takes_too_long_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "steps", (gpu.steps, 0))
    out = tmp_path / "gpu.json"
    # No such device.
    assert gpu.main(["steps", "ceilings", "--device", "xla", "--tiny", "--out", str(out)]) == 1
    parts = json.loads(out.read_text())["parts"]
    assert parts["steps"] == {"error": "stopped after 0 s"}
    assert "Error: " in parts["ceilings"]["error"]
    assert "xla" in parts["ceilings"]["error"].lower()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no GPU; --tiny --device cpu tries the program"),
        (["--device", "cpu"], "--device cpu needs --out"),
        (["stepz"], "no part stepz; there are: steps, prediction"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(words)
    assert message in capsys.readouterr().err
