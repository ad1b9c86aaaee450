"""Keras's U-Net and ours, with the same weights, give the same probabilities."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from unet.config.presets import PRESETS, architecture_of
from unet.errors import UserError
from unet.models.keras_import import architecture_of_weights, convert, load_keras_unet
from unet.models.model_file import ModelFile, load_model
from unet.models.unet import UNet

ROOT = Path(__file__).resolve().parents[2]
# Of Keras itself, with this version of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FORMATS = (".keras", ".h5", ".weights.h5")


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Keras on PyTorch; it writes its settings to a separate folder."""
    before = {key: os.environ.get(key) for key in ("KERAS_BACKEND", "KERAS_HOME")}
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    import keras

    assert keras.config.backend() == "torch"
    yield keras
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


def model_of(
    keras: Any,
    width: int = 4,
    depth: int = 2,
    channels: int = 1,
    classes: int = 2,
    *,
    order: str = "CRN",
    convs: int = 2,
    skip_first: bool = False,
    head: str | None = "softmax",
    bias: bool = True,
    epsilon: float = 1e-3,
    dropout: float = 0.0,
    dims: int = 2,
    separate: bool = False,
    scale: bool = True,
    center: bool = True,
    up_activation: str | None = None,
    seed: int = 0,
) -> Any:
    """The usual Keras U-Net, with random weights and running statistics."""
    layers = keras.layers
    conv, up = getattr(layers, f"Conv{dims}D"), getattr(layers, f"Conv{dims}DTranspose")
    pool = getattr(layers, f"MaxPooling{dims}D")

    def norm(x: Any) -> Any:
        return layers.BatchNormalization(epsilon=epsilon, scale=scale, center=center)(x)

    def block(x: Any, filters: int) -> Any:
        for _ in range(convs):
            inside = "relu" if order[1] == "R" and not separate else None
            x = conv(filters, 3, padding="same", activation=inside, use_bias=bias)(x)
            for letter in order[1:]:
                if letter == "N":
                    x = norm(x)
                elif inside is None:
                    x = layers.ReLU()(x) if separate else layers.Activation("relu")(x)
        return x

    given = x = keras.Input((*[None] * dims, channels))
    skips = []
    for level in range(depth):
        x = block(x, width * 2**level)
        skips.append(x)
        x = pool(2)(x)
    x = block(x, width * 2**depth)
    if dropout:
        x = layers.Dropout(dropout)(x)
    for level in reversed(range(depth)):
        x = up(width * 2**level, 2, strides=2, padding="same", activation=up_activation)(x)
        pair = [skips[level], x] if skip_first else [x, skips[level]]
        x = block(layers.Concatenate()(pair), width * 2**level)
    x = conv(classes, 1, activation=None if separate else head)(x)
    if separate and head:
        x = layers.Activation(head)(x)
    model = keras.Model(given, x)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights([random_like(rng, v.path, v.shape) for v in layer.weights])
    return model


def random_like(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Scaled so that values neither grow nor vanish from layer to layer."""
    if name.endswith("kernel"):
        return rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
    if name.endswith(("variance", "gamma")):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.2, shape)


def images(channels: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, *shape, channels)).astype(np.float32)


def ours(model: ModelFile, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        scores = model.network()(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
        assert isinstance(scores, torch.Tensor)
        return np.moveaxis(torch.softmax(scores, 1).numpy(), 1, -1)


def theirs(model: Any, x: np.ndarray) -> np.ndarray:
    return model(x, training=False).detach().cpu().numpy()


def save(model: Any, folder: Path, suffix: str) -> Path:
    path = folder / f"model{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    return path


def names(count: int) -> list[str]:
    return [f"class {n}" for n in range(count)]


SIZES = [
    {"width": 4, "depth": 1},
    {"width": 6, "depth": 3, "channels": 3, "classes": 5},
    {"width": 16, "depth": 4, "classes": 2},  # twelve layers of a kind: 10 comes after 9
]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_same_probabilities(keras: Any, sizes: dict[str, int], suffix: str, tmp_path: Path) -> None:
    model = model_of(keras, **sizes)  # type: ignore[arg-type]
    classes, channels = sizes.get("classes", 2), sizes.get("channels", 1)
    imported = load_keras_unet(save(model, tmp_path, suffix), names(classes))
    expected = architecture_of("unet-bn", width=sizes["width"], depth=sizes["depth"])
    assert imported.architecture == expected
    assert imported.in_channels == channels
    x = images(channels, 32, 48)
    found, wanted = ours(imported, x), theirs(model, x)
    assert wanted.std() > 0.05  # not the same everywhere, which would prove little
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


VARIANTS: list[dict[str, Any]] = [
    {"order": "CNR", "bias": False},
    {"order": "CR"},
    {"skip_first": True},
    {"epsilon": 1e-5},
    {"convs": 3, "depth": 1},
    {"convs": 1},
    {"dropout": 0.5},
    {"separate": True},
    {"separate": True, "order": "CNR", "skip_first": True, "epsilon": 1e-4},
    {"head": None},
    {"scale": False},
    {"center": False},
    {"scale": False, "center": False},
    {"dims": 3, "depth": 1, "width": 2},
]


@pytest.mark.parametrize("suffix", FORMATS[:2])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_that_the_config_tells(
    keras: Any, variant: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    model = model_of(keras, classes=3, **variant)
    imported = load_keras_unet(save(model, tmp_path, suffix), names(3))
    x = images(1, *(8, 16, 8)[: variant.get("dims", 2)])
    wanted = theirs(model, x)
    if variant.get("head", "softmax") is None:
        wanted = torch.softmax(torch.from_numpy(wanted), -1).numpy()
    np.testing.assert_allclose(ours(imported, x), wanted, atol=1e-4, rtol=0)


def test_weights_alone_need_to_be_told(keras: Any, tmp_path: Path) -> None:
    model = model_of(keras, order="CNR", skip_first=True, epsilon=1e-5)
    path, x = save(model, tmp_path, ".weights.h5"), images(1, 16, 16)
    told = load_keras_unet(path, names(2), order="norm-act", skip_first=True, norm_eps=1e-5)
    np.testing.assert_allclose(ours(told, x), theirs(model, x), atol=1e-4, rtol=0)
    untold = load_keras_unet(path, names(2))
    assert np.abs(ours(untold, x) - theirs(model, x)).max() > 1e-2  # so it does matter
    whole = save(model, tmp_path, ".keras")
    with pytest.raises(UserError, match="order: got act-norm, but the model has norm-act"):
        load_keras_unet(whole, names(2), order="act-norm")


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_channel_with_sigmoid(keras: Any, suffix: str, tmp_path: Path) -> None:
    model = model_of(keras, classes=1, head="sigmoid")
    imported = load_keras_unet(save(model, tmp_path, suffix), ["background", "cell"])
    x = images(1, 16, 24)
    p, wanted = ours(imported, x), theirs(model, x)
    np.testing.assert_allclose(p[..., 1:], wanted, atol=1e-4, rtol=0)
    np.testing.assert_allclose(p[..., :1], 1 - wanted, atol=1e-4, rtol=0)


def test_pixels_that_were_divided(keras: Any, tmp_path: Path) -> None:
    model = model_of(keras)
    x = (images(1, 16, 24) * 30 + 100).round()
    imported = load_keras_unet(save(model, tmp_path, ".keras"), names(2), divide_by=255)
    np.testing.assert_allclose(ours(imported, x), theirs(model, x / 255), atol=1e-4, rtol=0)


def test_transposed_convolution_is_not_mirrored(keras: Any) -> None:
    """By hand: a single pixel gives the kernel itself."""
    weights = {layer.name: layer.get_weights() for layer in model_of(keras, 1, 1).layers}
    weights = {name: arrays for name, arrays in weights.items() if arrays}
    up = next(name for name in weights if "transpose" in name)
    kernel = np.arange(8, dtype=np.float32).reshape(2, 2, 1, 2)  # [Y, X, out, in]
    weights[up] = [kernel, np.zeros(1, np.float32)]
    arch = architecture_of_weights(weights)
    network = UNet(1, 2, arch)
    network.load_state_dict(convert(weights, arch))
    x = torch.zeros(1, 2, 1, 1)
    x[0, 1] = 1
    torch.testing.assert_close(network.up[0](x)[0, 0], torch.from_numpy(kernel[:, :, 0, 1]))


def test_every_number_is_carried_over(keras: Any) -> None:
    """The full preset: the same number of values, in the same shapes."""
    model = model_of(keras, 64, 4)
    weights = {n.name: n.get_weights() for n in model.layers if n.weights}
    assert model.count_params() == 31_054_210
    arch = architecture_of_weights(weights)
    assert arch == PRESETS["unet-bn"]
    state = convert(weights, arch)
    assert sum(v.numel() for v in state.values() if v.is_floating_point()) == 31_054_210


def test_older_layouts(keras: Any, tmp_path: Path) -> None:
    """Files as Keras 2 writes them: another name for the layers' group, plain lists of inputs, long
    lists of names in parts."""
    model = model_of(keras, order="CNR", skip_first=True)
    x = images(1, 16, 16)

    def older(config: dict[str, Any]) -> str:
        for layer in config["config"]["layers"]:
            sources = re.findall(r'"keras_history": \["(\w+)"', json.dumps(layer["inbound_nodes"]))
            layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in sources]] if sources else []
        return json.dumps(config)

    new, old = save(model, tmp_path, ".keras"), tmp_path / "old.keras"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        target.writestr("config.json", older(json.loads(source.read("config.json"))))
        weights = io.BytesIO(source.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            file.move("layers", "_layer_checkpoint_dependencies")
        target.writestr("model.weights.h5", weights.getvalue())
    legacy, weights_only = save(model, tmp_path, ".h5"), tmp_path / "weights_only.h5"
    with h5py.File(legacy, "r+") as file:
        file.attrs["model_config"] = older(json.loads(file.attrs["model_config"])).encode()
        group = file["model_weights"]
        all_names = list(group.attrs["layer_names"])
        del group.attrs["layer_names"]
        group.attrs["layer_names0"] = [name.encode() for name in all_names[:7]]
        group.attrs["layer_names1"] = [name.encode() for name in all_names[7:]]
        with h5py.File(weights_only, "w") as target:
            for name in group:
                group.copy(name, target)
            target.attrs["layer_names"] = all_names
    for path in (old, legacy):
        np.testing.assert_allclose(
            ours(load_keras_unet(path, names(2)), x), theirs(model, x), atol=1e-4, rtol=0
        )
    told = load_keras_unet(weights_only, names(2), order="norm-act", skip_first=True)
    np.testing.assert_allclose(ours(told, x), theirs(model, x), atol=1e-4, rtol=0)


def refused(path: Path, says: str, classes: int = 2) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_keras_unet(path, names(classes))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"up_activation": "relu"}, "layer conv2d_transpose.*: activation is relu, which our"),
        ({"classes": 2, "head": "sigmoid"}, "2 channels with sigmoid; only softmax"),
        ({"classes": 1}, "1 channels with softmax; only softmax"),
        ({"order": "CRNN"}, "its layers are CRNN.*not those of a U-Net"),
        ({"head": "tanh"}, "activation is tanh"),
    ],
)
def test_other_networks(keras: Any, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    for suffix in FORMATS[:2]:
        refused(save(model_of(keras, **change), tmp_path, suffix), says)


def edited(keras: Any, folder: Path, kind: str, number: int, **settings: Any) -> Path:
    """A model whose config has other settings for a layer."""
    new, path = save(model_of(keras), folder, ".keras"), folder / "edited.keras"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(path, "w") as target:
        config = json.loads(source.read("config.json"))
        layer = [n for n in config["config"]["layers"] if n["class_name"] == kind][number]
        for key, value in settings.items():
            if key in layer:
                layer[key] = value
            else:
                layer["config"][key] = value
        target.writestr("config.json", json.dumps(config))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    return path


@pytest.mark.parametrize(
    ("kind", "number", "settings", "says"),
    [
        ("Conv2D", 1, {"padding": "valid"}, "padding is valid"),
        ("Conv2D", 1, {"strides": [2, 2]}, r"strides is \[2, 2\]"),
        ("Conv2D", 3, {"dilation_rate": [2, 2]}, r"dilation_rate is \[2, 2\]"),
        ("Conv2D", 0, {"activation": "elu"}, "activation is elu"),
        ("MaxPooling2D", 0, {"pool_size": [3, 3]}, r"pool_size is \[3, 3\]"),
        ("MaxPooling2D", 0, {"class_name": "AveragePooling2D"}, "is a AveragePooling2D, which our"),
        ("Conv2D", 0, {"class_name": "Lambda"}, "is a Lambda, which our U-Net does not support"),
        ("BatchNormalization", 2, {"epsilon": 0.1}, r"levels differ: epsilons \[0.001, 0.1\]"),
        ("Conv2D", 0, {"config": {}}, "config was not written by Keras"),
    ],
)
def test_unsupported_settings(
    keras: Any, kind: str, number: int, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    refused(edited(keras, tmp_path, kind, number, **settings), says)


def test_other_connections(keras: Any, tmp_path: Path) -> None:
    """A skip that leaves before the normalisation has the same shapes."""
    path = save(model_of(keras), tmp_path, ".keras")
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    names_now = [layer["name"] for layer in config["config"]["layers"]]
    norms = [name for name in names_now if "normalization" in name]
    convs = [name for name in names_now if name.startswith("conv2d") and "transpose" not in name]
    swap = (f'"{norms[3]}"', f'"{convs[3]}"')
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "skip.keras", "w") as target:
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Concatenate":
                text = json.dumps(layer["inbound_nodes"]).replace(*swap)
                layer["inbound_nodes"] = json.loads(text)
        target.writestr("config.json", json.dumps(config))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    refused(tmp_path / "skip.keras", "which a U-Net does not join")


def test_weights_that_do_not_fit(keras: Any, tmp_path: Path) -> None:
    weights = {n.name: n.get_weights() for n in model_of(keras, 4, 1).layers if n.weights}
    arch = architecture_of_weights(weights)
    convs = [name for name, arrays in weights.items() if arrays[0].ndim == 4]
    wrong = {**weights, convs[1]: [np.zeros((3, 3, 4, 5), np.float32), np.zeros(5, np.float32)]}
    says = f"layer {convs[1]}: weight is 3x3x4x5, this U-Net needs 3x3x4x4"
    with pytest.raises(UserError, match=re.escape(says)):
        convert(wrong, arch)
    # Upsampling and a convolution of 2x2 in place of the transposed one.
    up = next(name for name in weights if "transpose" in name)
    wrong = {**weights, up: [np.zeros((2, 2, 8, 4), np.float32), np.zeros(4, np.float32)]}
    says = f"layer {up}: weight is 2x2x8x4, this U-Net needs 2x2x4x8"
    with pytest.raises(UserError, match=says):
        convert(wrong, arch)
    with pytest.raises(UserError, match="layer dense: arrays of 3x4, 4; needs a convolution"):
        convert({**weights, "dense": [np.zeros((3, 4)), np.zeros(4)]}, arch)
    with pytest.raises(UserError, match="found 6 convolutions, 1 transposed"):
        architecture_of_weights({n: a for n, a in weights.items() if n != convs[1]})
    with pytest.raises(UserError, match="found no convolutions"):
        convert({}, arch)
    with pytest.raises(ValueError, match="has layers that the Keras U-Net lacks"):
        convert(weights, architecture_of("unet-res", width=4, depth=1))  # type: ignore[arg-type]


def test_unusable_files(keras: Any, tmp_path: Path) -> None:
    refused(tmp_path / "none.keras", "no such file")
    (tmp_path / "text.h5").write_text("weights")
    refused(tmp_path / "text.h5", "not a readable Keras file")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    refused(tmp_path / "empty.h5", "contains no layers")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme", "x")
    refused(tmp_path / "other.keras", "not a readable Keras file")
    path = save(model_of(keras), tmp_path, ".weights.h5")
    path.write_bytes(path.read_bytes()[:5000])
    refused(path, "not a readable Keras file")
    inner = model_of(keras)
    outer = keras.Model(inner.inputs, keras.layers.Activation("linear")(inner(inner.inputs[0])))
    refused(save(outer, tmp_path, ".keras"), "a model within the model|is a Functional")
    refused(save(outer, tmp_path, ".weights.h5"), "a model within the model")


def test_without_h5py_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet.models.keras_files.h5py", None)
    refused(tmp_path / "a.keras", r"needs the package h5py; run pip install h5py")


def test_links_to_other_files_are_not_followed(keras: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["values"] = np.ones((3, 3, 1, 4), np.float32)
    for link in (h5py.ExternalLink(secret, "values"), h5py.SoftLink("/layers/conv2d_1/vars/0")):
        path = save(model_of(keras), tmp_path, ".weights.h5")
        with h5py.File(path, "r+") as file:
            group = file["layers/conv2d/vars"]
            del group["0"]
            group["0"] = link
        refused(path, "refused, /layers/conv2d/vars/0 is a link")


def test_the_number_of_classes_must_match(keras: Any, tmp_path: Path) -> None:
    path = save(model_of(keras, classes=3), tmp_path, ".keras")
    refused(path, "--classes: got 2 names, .* has 3 classes")
    with pytest.raises(UserError, match=r"--divide-by: got 0\.0; write a number above 0"):
        load_keras_unet(path, names(3), divide_by=0.0)


def test_command_line(keras: Any, tmp_path: Path) -> None:
    """Without Keras: the process refuses to import it."""
    model = model_of(keras, classes=1, head="sigmoid", skip_first=True)
    path, out = save(model, tmp_path, ".keras"), tmp_path / "deep" / "model.pt"
    code = (
        "import sys; sys.modules['keras'] = None; sys.path.insert(0, 'scripts'); "
        "import import_keras; sys.exit(import_keras.main(sys.argv[1:]))"
    )
    words = [str(path), "-o", str(out), "--classes", "background, cell"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "U-Net of width 4 and depth 2, 1 channel, classes background, cell" in done.stderr
    assert "normalisation: none" in done.stderr
    imported = load_model(out)
    assert imported.head == imported.class_names == ("background", "cell")
    assert (imported.task, imported.normalize["method"]) == ("semantic", "none")
    x = images(1, 16, 24)
    np.testing.assert_allclose(ours(imported, x)[..., 1:], theirs(model, x), atol=1e-4, rtol=0)
