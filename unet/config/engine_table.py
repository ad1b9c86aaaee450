"""The engines that can run a network, and what each of them needs. Torch-free. The code is in
`unet.models.engines.ENGINES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unet.config.choices import Entry


@dataclass(frozen=True, kw_only=True)
class Engine(Entry):
    """A library that runs networks."""

    packages: tuple[str, ...] = ()
    """Packages that it needs."""
    precisions: tuple[str, ...] = ("float32",)
    """Precisions that it can compute in."""
    packages_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More packages that a precision needs."""

    @property
    def line(self) -> str:
        return f"{self.text}; computes in {', '.join(self.precisions)}"


ENGINE_TABLE = {
    "torch": Engine(text="PyTorch, on all devices", precisions=("float32", "tf32", "bfloat16")),
    "openvino": Engine(
        text="OpenVINO, on CPUs: the fastest there",
        packages=("openvino",),
        precisions=("float32", "bfloat16", "int8"),
        packages_of={"int8": ("nncf",)},
    ),
    "onnxruntime": Engine(
        text="ONNX Runtime, on CPUs", packages=("onnx", "onnxscript", "onnxruntime")
    ),
}
