"""What can compute a network's scores, and what each engine needs; free of torch. The code is in
`unet.models.engines.ENGINES`."""

from __future__ import annotations

from dataclasses import dataclass

from unet.config.choices import Entry


@dataclass(frozen=True, kw_only=True)
class Engine(Entry):
    """What computes a network's scores."""

    packages: tuple[str, ...] = ()
    """What must be installed for it."""
    precisions: tuple[str, ...] = ("float32",)
    """What it can compute in."""

    @property
    def line(self) -> str:
        return f"{self.text}; computes in {', '.join(self.precisions)}"


ENGINE_TABLE = {
    "torch": Engine(text="PyTorch, on all devices", precisions=("float32", "tf32", "bfloat16")),
    "openvino": Engine(
        text="OpenVINO, on CPUs: the fastest there",
        packages=("openvino",),
        precisions=("float32", "bfloat16"),
    ),
    "onnxruntime": Engine(
        text="ONNX Runtime, on CPUs", packages=("onnx", "onnxscript", "onnxruntime")
    ),
}
