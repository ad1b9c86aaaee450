"""A network of another program, as ONNX, that the Predictor applies like ours.

ONNX Runtime computes a fixed list of operators, so a file cannot run code of its own. TorchScript
is not run: its programs can read and write files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unet.config.geometry import Footprints
from unet.errors import UserError, how_many, one_line
from unet.models.foreign_steps import Pixelwise
from unet.models.network import Network

# Channels per pixel for estimates of memory: those of the first level in the U-Net's paper.
WIDTH = 64
# Smallest probability whose logarithm is taken.
LEAST = 1e-30
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class GivenArchitecture:
    """Stands for the layers of a network of another program, which are unknown."""

    dims: int
    width: int = WIDTH
    depth: int = 0
    kind: Literal["package"] = "package"


@dataclass(frozen=True)
class Layout:
    """How a network's array lies in memory.

    Attributes:
        axes: b, c and z, y, x, in the order of the array; b and c may be missing.
    """

    axes: str

    def from_ours(self, x: Tensor) -> Tensor:
        """The array for an image [1, C, *S]."""
        ours = _ours(x.ndim)
        for place, axis in reversed(list(enumerate(ours))):
            if axis not in self.axes:
                x = x.squeeze(place)
                ours = ours.replace(axis, "")
        return x.permute([ours.index(axis) for axis in self.axes])

    def to_ours(self, x: Tensor) -> Tensor:
        """An array as [1, K, *S]."""
        axes = self.axes
        for axis in "cb":
            if axis not in axes:
                x, axes = x[None], axis + axes
        return x.permute([axes.index(axis) for axis in _ours(x.ndim)])


def _ours(ndim: int) -> str:
    return "bc" + "zyx"[5 - ndim :]


@dataclass(frozen=True, eq=False)
class ForeignPlan:
    """How a network of another program is applied.

    Attributes:
        name: of its file, for messages.
        onnx: the network.
        taken, given: order of the axes of its input and output.
        halo: pixels at each side of the output that are not kept, per axis.
        before, after: what is done with each pixel before and after it.
        scores: its values after the steps are scores, of which the Predictor makes probabilities;
            otherwise they are probabilities.
    """

    name: str
    onnx: bytes
    taken: Layout
    given: Layout
    halo: Sequence[int]
    before: Sequence[Pixelwise]
    after: Sequence[Pixelwise]
    scores: bool


class ForeignNetwork(Network):
    """Scores of a network of another program.

    With a single channel of output, which is the foreground, that of the background is added.

    Args:
        footprint: grid, halo and sizes per axis.
        num_classes: K of the scores.
    """

    def __init__(
        self,
        plan: ForeignPlan,
        architecture: GivenArchitecture,
        in_channels: int,
        num_classes: int,
        footprint: Footprints,
    ) -> None:
        super().__init__()
        self.arch = architecture  # type: ignore[assignment] # only its dims are used
        self.plan, self.footprint = plan, footprint
        self.in_channels, self.num_classes = in_channels, num_classes
        self.session = _session(plan)
        self.value_type = TYPES[self.session.get_inputs()[0].type]

    def forward(self, x: Tensor) -> Tensor:
        """Scores [N, K, *S'] of windows x [N, C, *S], which are computed one by one."""
        for step in self.plan.before:
            x = step(x)
        y = torch.cat([self._window(x[n : n + 1]) for n in range(len(x))]).to(x.device)
        for step in self.plan.after:
            y = step(y)
        if self.plan.scores:
            return y if y.shape[1] > 1 else torch.cat([torch.zeros_like(y), y], dim=1)
        if y.shape[1] == 1:
            y = torch.cat([1 - y, y], dim=1)
        return y.clamp(min=LEAST).log()

    def _window(self, x: Tensor) -> Tensor:
        """The network's output [1, K, *S'] for a window [1, C, *S]."""
        array = np.ascontiguousarray(self.plan.taken.from_ours(x).cpu().numpy(), self.value_type)
        try:
            found = self.session.run(None, {self.session.get_inputs()[0].name: array})[0]
        except Exception as error:
            # ONNX Runtime's errors have no common base class.
            raise UserError(
                f"{self.plan.name}: ONNX Runtime cannot apply it to a window of shape "
                f"{list(array.shape)} ({one_line(error, 160)})"
            ) from None
        if found.ndim != len(self.plan.given.axes):
            raise UserError(
                f"{self.plan.name}: gives an array of {found.ndim} axes, the package says "
                f"{self.plan.given.axes}"
            )
        y = self.plan.given.to_ours(torch.from_numpy(found.astype(np.float32)))
        sizes = [
            n - 2 * (fp.margin - halo)
            for n, fp, halo in zip(x.shape[2:], self.footprint, self.plan.halo, strict=True)
        ]
        outputs = self.num_classes
        if list(y.shape[2:]) != sizes or y.shape[1] not in (outputs, 1 if outputs == 2 else 0):
            raise UserError(
                f"{self.plan.name}: gives {how_many(y.shape[1], 'channel')} of "
                f"{list(y.shape[2:])} px for a window of {list(x.shape[2:])} px, which is not "
                "what the package says"
            )
        for axis, halo in enumerate(self.plan.halo, start=2):
            y = y.narrow(axis, halo, y.shape[axis] - 2 * halo)
        return y


def _session(plan: ForeignPlan) -> Any:
    """The network, ready to run.

    Raises:
        UserError: ONNX Runtime is not installed, or does not read it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"{plan.name}: applying it needs onnxruntime, which is not installed; run "
            "pip install 'unet-pipeline[engines]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            plan.onnx, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise UserError(
            f"{plan.name}: ONNX Runtime does not read it ({one_line(error, 160)})"
        ) from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in TYPES:
        kinds = ", ".join(each.type for each in inputs)
        raise UserError(f"{plan.name}: its inputs are {kinds}; one array of floats is needed")
    return session
