"""The sliding-window classifier: patch by patch, densely, in tiles and in fragments it is the same
function; its layers are the paper's; it trains on windows and on larger patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.sliding_window import draw, equally_accurate, fragments, multiplications
from benchmarks.window_accuracy import N4_STAGES, STAGES, equal_unet, window_model
from tests.trainings import train
from unet.config.geometry import footprint
from unet.config.presets import PRESETS, WindowArchitecture, architecture_from
from unet.config.recipes import RECIPES
from unet.config.sections import AugmentSection, ModelSection, TrainSection
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.network import parameter_counts
from unet.models.sliding_window import WindowClassifier
from unet.training.augment import Augment
from unet.training.losses import make_loss
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.supervision import supervised_loss

CPU = torch.device("cpu")
N4 = WindowArchitecture()
# Its geometry, with few maps.
THIN_N4 = WindowArchitecture(stages=((3, 4), (3, 5), (3, 4), (3, 4)), hidden=(8,))
SMALL = WindowArchitecture(window=15, stages=((4, 4), (5, 5)), hidden=(6,))
# Odd and even kernels, one to four stages, none to two hidden layers, poolings of 2 and 3.
ARCHS = [
    SMALL,
    WindowArchitecture(window=19, stages=((4, 4), (5, 5)), hidden=(6,)),
    WindowArchitecture(window=9, stages=((3, 2),), hidden=()),
    WindowArchitecture(window=11, stages=((4, 4), (4, 3)), hidden=(5, 4)),
    WindowArchitecture(window=31, stages=((4, 4), (3, 5), (4, 4)), hidden=(5,)),
    WindowArchitecture(window=47, stages=((3, 4), (3, 5), (3, 4)), hidden=(4,)),
    WindowArchitecture(window=63, stages=((3, 4), (3, 5), (3, 4), (3, 4)), hidden=(4,)),
    WindowArchitecture(window=65, stages=((3, 4), (3, 4), (3, 5), (3, 4)), hidden=(4,)),
    WindowArchitecture(window=29, stages=((4, 3), (3, 4)), pool=3, hidden=(4,)),
]
NAMES = [f"{a.window}px-{len(a.stages)}stages-pool{a.pool}" for a in ARCHS]


def network(arch: WindowArchitecture, channels: int = 1, seed: int = 0) -> WindowClassifier:
    """Random weights and biases, with scores of about 1, as a trained network has them."""
    net = build(channels, 3, arch, seed).eval()
    assert isinstance(net, WindowClassifier)
    draws = torch.Generator().manual_seed(seed)
    last = net.full[-1]
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        for layer in (*net.convs, *net.full):
            assert isinstance(layer, nn.Conv2d)
            layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=draws))
        size = arch.window + 8
        last.weight /= net(torch.randn(4, channels, size, size, generator=draws)).std()
    return net


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# One function, however it is computed: in float64, since float32 rounds differently in each order
# and on each processor.

EXACT = {"atol": 1e-12, "rtol": 0.0}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arch", ARCHS, ids=NAMES)
@torch.inference_mode()
def test_patch_by_patch_equals_dense(arch: WindowArchitecture, channels: int) -> None:
    net = network(arch, channels).double()
    x = noise(2, channels, arch.window + 6, arch.window + 9).double()
    dense = net(x)
    assert dense.shape == (2, 3, 7, 10)
    torch.testing.assert_close(net.patches(x, batch=4), dense, **EXACT)
    # By hand: a window cut out, and the plain network of strided poolings.
    window = x[1:, :, 3 : 3 + arch.window, 5 : 5 + arch.window]
    y = window
    for conv in net.convs:
        y = F.max_pool2d(F.relu(conv(y)), arch.pool)
    for i, layer in enumerate(net.full):
        assert isinstance(layer, nn.Conv2d)
        y = F.linear(y.flatten(1), layer.weight.flatten(1), layer.bias)
        y = y if i == len(net.full) - 1 else F.relu(y)
    torch.testing.assert_close(dense[1:, :, 3, 5], y, **EXACT)


@torch.inference_mode()
def test_n4_patch_by_patch_equals_dense() -> None:
    net = network(N4).double()
    x = noise(1, 1, 97, 98).double()
    torch.testing.assert_close(net.patches(x), net(x), **EXACT)


@pytest.mark.parametrize("arch", ARCHS, ids=NAMES)
@torch.inference_mode()
def test_fragments_equal_dense(arch: WindowArchitecture) -> None:
    """The comparison of the benchmark compares equals."""
    net = network(arch).double()
    for extra in ((0, 0), (6, 20)):
        x = noise(2, 1, arch.window + extra[0], arch.window + extra[1]).double()
        torch.testing.assert_close(fragments(net, x), net(x), **EXACT)


@hypothesis_settings(max_examples=15)
@given(
    arch=st.sampled_from(ARCHS[:5]),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    tile=st.integers(8, 70),
)
def test_tiled_equals_whole_equals_patches(
    arch: WindowArchitecture, shape: tuple[int, int], tile: int
) -> None:
    """The pipeline's way to predict, against windows of the mirrored image."""
    net = network(arch)
    image = noise(1, *shape, seed=shape[0]).numpy()
    predictor = Predictor([net], CPU, "float32")
    tiled = predictor.image(image, max(tile, arch.window + 1))
    assert tiled.shape == (3, *shape)
    np.testing.assert_allclose(tiled, predictor.whole(image), atol=1e-5, rtol=0)
    half = arch.window // 2
    around = np.pad(image, ((0, 0), (half, half), (half, half)), mode="reflect")
    with torch.inference_mode():
        scores = net.patches(torch.from_numpy(around)[None])
    np.testing.assert_allclose(tiled, torch.softmax(scores, 1)[0].numpy(), atol=1e-5, rtol=0)


# Geometry and size.


def _seen(net: WindowClassifier, size: int, place: int) -> tuple[int, int, int, int]:
    """First and last row and column of the input that the output pixel (place, place) hears of."""
    x = noise(40, 1, size, size).requires_grad_()
    net(x)[:, :, place, place].sum().backward()
    assert x.grad is not None
    rows, columns = np.nonzero(x.grad.abs().sum(dim=(0, 1)).numpy())
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("place", [0, 1, 5])
@pytest.mark.parametrize("arch", [*ARCHS[:4], THIN_N4], ids=[*NAMES[:4], "N4"])
def test_the_receptive_field_is_the_window(arch: WindowArchitecture, place: int) -> None:
    (fp, _) = footprint(arch)
    assert (fp.receptive_field, fp.margin) == (arch.window, arch.window // 2)
    assert (fp.grid, fp.smallest) == (1, arch.window)
    ends = (place, place + arch.window - 1)
    assert _seen(network(arch), arch.window + 5, place) == (*ends, *ends)


def test_the_layers_of_n4() -> None:
    """Sizes of the maps and parameters, layer by layer."""
    net = build(1, 2, PRESETS["ciresan2012"])
    assert isinstance(net, WindowClassifier)
    x, sizes = torch.zeros(1, 1, 95, 95), []
    for conv in net.convs:
        x = conv(x)
        sizes.append(tuple(x.shape[1:]))
        x = F.max_pool2d(x, 2)
        sizes.append(tuple(x.shape[1:]))
    for layer in net.full:
        x = layer(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [
        (48, 92, 92), (48, 46, 46), (48, 42, 42), (48, 21, 21), (48, 18, 18), (48, 9, 9),
        (48, 6, 6), (48, 3, 3), (200, 1, 1), (2, 1, 1),
    ]  # fmt: skip
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (*net.convs, *net.full)]
    assert counts == [
        48 * 1 * 4 * 4 + 48, 48 * 48 * 5 * 5 + 48, 48 * 48 * 4 * 4 + 48, 48 * 48 * 4 * 4 + 48,
        200 * 48 * 3 * 3 + 200, 2 * 200 + 2,
    ]  # fmt: skip
    assert sum(counts) == 219_290


def test_multiplications_by_hand() -> None:
    """Window 11: 4 maps of 8 px, 4 px, convolved with 3x3 to 2 px, 1 px; 5 neurons; 2 classes."""
    arch = WindowArchitecture(window=11, stages=((4, 4), (4, 3)), hidden=(5,))
    one = 8 * 8 * 4 * 1 * 16 + 2 * 2 * 4 * 4 * 9 + 5 * 4 + 2 * 5
    # Dense, for 3 x 4 windows of an image of 13 x 14 px: nothing shrinks but by what is cut off.
    dense = 10 * 11 * 4 * 1 * 16 + (9 - 4) * (10 - 4) * 4 * 4 * 9 + 3 * 4 * (5 * 4 + 2 * 5)
    assert multiplications(arch, 1, 2, (3, 4)) == (12 * one, dense)


@pytest.mark.parametrize("arch", [*ARCHS, N4], ids=[*NAMES, "N4"])
def test_multiplications_as_torch_counts_them(arch: WindowArchitecture) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net, shape = build(1, 2, arch), (2, 3)
    assert isinstance(net, WindowClassifier)
    x = torch.zeros(1, 1, arch.window + 1, arch.window + 2)
    counted = []
    for way in (net.patches, net):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            way(x)
        counted.append(counter.get_total_flops() // 2)
    assert tuple(counted) == multiplications(arch, 1, 2, shape)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 94}, "odd"),
        ({"window": 93}, "does not fit the stages"),
        ({"window": 31}, "does not fit the stages"),
        ({"dims": 3}, "has 2"),
    ],
)
def test_what_cannot_be_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowArchitecture(**values)


@pytest.mark.parametrize("shape", [(1, 1, 94, 200), (1, 2, 95, 95), (1, 95, 95)])
def test_inputs_that_do_not_fit(shape: tuple[int, ...]) -> None:
    net = network(N4)
    for way in (net, net.patches):
        with pytest.raises(ValueError, match="input"):
            way(torch.zeros(shape))


# The config.


def test_other_networks_are_a_matter_of_config() -> None:
    """A window of 65 px, as of the paper's smaller networks, and three stages."""
    section = ModelSection(
        preset="ciresan2012", window=65, stages=[[48, 4], [48, 4], [48, 3]], hidden=[200]
    )
    assert section.layers == {
        "window": 65, "stages": ((48, 4), (48, 4), (48, 3)), "hidden": (200,),
    }  # fmt: skip
    arch = WindowArchitecture(**section.layers)
    assert arch.sizes == (31, 14, 6)
    assert architecture_from(arch.to_json()) == arch


def test_the_recipe() -> None:
    section = TrainSection.model_validate("ciresan2012")
    assert section.patch == PRESETS["ciresan2012"].window  # type: ignore[union-attr]
    assert (section.loss, section.class_weights) == ("weighted-ce", "auto")
    assert set(RECIPES["ciresan2012"]) <= set(TrainSection.model_fields)


# Training.


def _discs() -> list[TrainingImage]:
    from tests.conftest import discs

    image, classes, _ = discs(0, (40, 44))
    return [TrainingImage("x", image, classes, None, TargetSettings(), cached=True)]


def test_a_window_is_learned_with_the_class_of_its_centre() -> None:
    """Through sampling, augmentation and loss: the target is the pixel in the window's middle."""
    arch = SMALL
    images = _discs()
    sampler = PatchSampler(images, (15, 15), (7, 7), 16, 0.0, seed=3)
    batch = sampler.batch(0)
    whole = images[0].read([(0, 40), (0, 44)])
    for image, target in zip(batch.images, batch.targets, strict=True):
        places = np.argwhere(whole.image[0] == image[0, 7, 7])
        assert len(places) == 1
        assert target[7, 7] == whole.target[tuple(places[0])]
    settings = AugmentSection(**RECIPES["ciresan2012"]["augment"])
    seen, labels, _ = Augment(settings)(
        torch.from_numpy(batch.images), torch.from_numpy(batch.targets)[:, None], None,
        torch.Generator().manual_seed(0), (slice(None), 16),
    )  # fmt: skip
    assert not torch.equal(seen, torch.from_numpy(batch.images))
    centre = torch.from_numpy(batch.targets[:, 7, 7]).long()
    np.testing.assert_allclose(seen[:, :, 7, 7], batch.images[:, :, 7, 7], atol=1e-6)
    scores = network(arch)(seen)
    loss = supervised_loss(make_loss("ce", 3), [scores], labels.long(), {}, [(1, 1)])
    expected = F.cross_entropy(scores[:, :, 0, 0], centre)
    torch.testing.assert_close(loss, expected)


def test_it_learns_from_windows(make_store) -> None:  # type: ignore[no-untyped-def]
    """The recipe itself, at one pixel per patch."""
    recipe = {**RECIPES["ciresan2012"], "patch": 15}
    model, rows = train(*make_store(), arch=SMALL, epochs=3, steps_per_epoch=50, **recipe)
    assert model.architecture == SMALL
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert model.score > 0.6


def test_it_learns_from_larger_patches(make_store) -> None:  # type: ignore[no-untyped-def]
    """The same network on all windows of a patch at once."""
    recipe = {**RECIPES["ciresan2012"], "patch": 30, "batch": 4}
    model, rows = train(*make_store(), arch=SMALL, epochs=3, steps_per_epoch=30, **recipe)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert model.score > 0.6


def test_gradients_of_both_ways_are_the_same() -> None:
    """Dense training is training on all windows of the patch."""
    grads = []
    for way in ("patches", "forward"):
        net = network(SMALL).double()
        x = noise(1, 1, 20, 18).double()
        getattr(net, way)(x).square().mean().backward()
        grads.append([p.grad for p in net.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


# The benchmark.


def test_its_windows_are_networks_and_n4_is_among_them() -> None:
    archs = {size: ModelSection(**window_model(size, 10)).layers for size in STAGES}
    assert all(WindowArchitecture(**layers).window == size for size, layers in archs.items())
    assert WindowArchitecture(**archs[95]) == N4
    assert tuple(map(tuple, N4_STAGES)) == N4.stages


def test_the_unet_of_equal_parameters() -> None:
    found = parameter_counts(build(1, 2, equal_unet(219_290)))[0]
    assert abs(found / 219_290 - 1) < 0.1


def _row(name: str, kind: str, window: int | None, error: float, work: int) -> dict[str, Any]:
    return {
        "name": name, "label": name, "kind": kind, "window": window, "multiplications": work,
        "scores": {"pixel_error": error, "v_rand": 1 - error},
    }  # fmt: skip


def test_the_unet_of_equal_accuracy_is_the_cheapest_that_is_enough(tmp_path: Path) -> None:
    rows = [
        _row("w23", "window", 23, 0.12, 10), _row("w95", "window", 95, 0.10, 20),
        _row("small", "unet", None, 0.11, 1), _row("middle", "unet", None, 0.10, 3),
        _row("large", "unet", None, 0.08, 9),
    ]  # fmt: skip
    found = equally_accurate(rows)
    assert found is not None
    assert found["name"] == "middle"
    assert equally_accurate(rows[:3]) is None
    assert equally_accurate(rows[2:]) is None
    draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
