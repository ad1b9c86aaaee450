"""Packages that later jobs need and that are not installed: said by the check."""

from __future__ import annotations

from typing import Any

import pytest

from unet.cli import package_findings
from unet.config.load import load

RAW: dict[str, Any] = {
    "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
    "models": {name: {"preset": "unet-bn", "depth": 2} for name in ("a", "b")},
    "train": {"patch": 64},
}
EXPORT = {"license": "MIT", "authors": {"Ada Example": {}}, "weights": ["onnx"]}


@pytest.mark.parametrize(
    ("sections", "key", "needed"),
    [
        ({"predict": {"engine": "openvino"}}, "predict.engine", "openvino"),
        ({"predict": {"engine": "openvino", "precision": "int8"}}, "predict.engine",
         "openvino, nncf"),
        ({"export": {"write": True, **EXPORT}}, "export.write",
         "bioimageio.spec, onnx, onnxscript"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_once(
    monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], key: str, needed: str
) -> None:
    config = load({**RAW, **sections})
    monkeypatch.setattr(package_findings, "missing", list)
    (found,) = package_findings.package_findings(config, "d")
    assert (found.level, found.kind, found.where) == ("warn", "packages_missing", key)
    assert found.text.startswith(f"needs {needed}, which is not installed here; run pip install ")
    monkeypatch.setattr(package_findings, "missing", lambda packages: [])
    assert package_findings.package_findings(config, "d") == []


def test_what_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_findings, "missing", list)
    assert package_findings.package_findings(load({**RAW, "export": EXPORT}), "d") == []
