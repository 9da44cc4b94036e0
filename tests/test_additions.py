"""What is to be touched to add a part: each done for real, its file and one table, and used from end to end."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import pixels

import keras_vit_plugin as kv
from keras_vit_plugin.export import (
    MODES,
    TARGETS,
    ParityError,
    Tolerance,
    UnsupportedByTarget,
    export_tflite,
    verify,
    wanted_of,
)
from keras_vit_plugin.export import rewrites as rewrites_module
from keras_vit_plugin.export.quantization.mode import Mode, Whole
from keras_vit_plugin.export.quantization.modes.dynamic import with_int8_weights
from keras_vit_plugin.export.rewrites.stream import with_layers
from keras_vit_plugin.export.spec.layers import Dense
from keras_vit_plugin.export.targets.target import Target
from keras_vit_plugin.export.tflite.capabilities import Capability
from keras_vit_plugin.export.tflite.graph_form import GraphForm


@pytest.fixture
def model():
    return kv.build("vit_digits", weights="pretrained")


# A mode: its file, and a line in the table of `quantization/modes/__init__.py`.


@dataclass(frozen=True)
class SmallWeights(Mode):
    """Weights in int8 that become float when the file is loaded."""

    rounded: bool = True

    name = "small-weights"
    summary = "int8 weights, float arithmetic"
    advice = '"float16"'
    needs = frozenset({Capability.INTEGERS})
    tolerance = Tolerance(0.97, 25.0)
    needs_calibration = False

    def prepare(self, content, setting):
        return Whole(with_int8_weights(content, setting.images if self.rounded else None))


def test_a_mode_is_its_file_and_a_line_in_the_table(model, tmp_path, monkeypatch):
    monkeypatch.setitem(MODES, SmallWeights.name, SmallWeights)
    path, images = tmp_path / "m.tflite", pixels(model.image_shape, 24)
    report = export_tflite(model, path, "small-weights", calibration=images)
    assert report.config == {"mode": "small-weights", "rounded": True} and report.size_bytes < 1.2e6
    assert wanted_of(path, verify(model, path, images)).min_snr_db == 25.0
    assert kv.export.made_like(path) == (SmallWeights(), "litert")
    with pytest.raises(ValueError, match="target='gpu' does not run quantize='small-weights'"):
        export_tflite(model, path, "small-weights", "gpu")
    with pytest.raises(ValueError, match="must be one of float32, .*small-weights; got quantize='small'"):
        export_tflite(model, path, "small")


# A runtime: its file, and a line in the table of `targets/__init__.py`.

OLD = Target(
    name="old",
    runtime="an old runtime",
    version="2.5",
    has=frozenset({Capability.FLOAT32}),
    lacks={Capability.FLOAT16_WEIGHTS: "it has no halves"},
    input_dtypes=("float32",),
    form=GraphForm(gelu="float32"),
)


class Unloaded(Target):
    def load_error(self, content, runtime_python=None):
        return None  # it is not at hand: the table of op versions decides


def test_a_target_is_its_file_and_a_line_in_the_table(model, tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "old", OLD)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, target="old")
    assert report.target == "old" and "GELU" not in report.file.ops and report.file.inputs[0]["dtype"] == "float32"
    with pytest.raises(ValueError, match="does not run quantize='float16': it has no halves. Take one .* float32"):
        export_tflite(model, path, "float16", "old")
    with pytest.raises(ValueError, match="not known to run weights and activations in int8"):
        export_tflite(model, path, "dynamic", "old")
    monkeypatch.setitem(TARGETS, "old", Unloaded(**{**vars(OLD), "version": "1.5"}))
    with pytest.raises(UnsupportedByTarget, match="an old runtime cannot run: .* needs runtime"):
        export_tflite(model, path, target="old")


# A rewrite: its file, with `refuse`, and a line in the order of `rewrites/__init__.py`.


def refuse(spec):
    return "" if spec.blocks else "there are no blocks"


def negate_writers(spec):
    """What is added to the stream with another sign, and a scale of -1 that gives it back."""

    def negated(residual):
        writers = {name: Dense(-dense.kernel, -dense.bias) for name, dense in residual.body.writers().items()}
        ones = np.ones(spec.width) if residual.scale is None else residual.scale
        return replace(with_layers(residual, writers), scale=-ones)

    return spec.with_residuals(negated)


def test_a_rewrite_is_its_file_and_a_line_in_the_order(model, tmp_path, monkeypatch):
    monkeypatch.setattr(rewrites_module, "PASSES", (negate_writers, *rewrites_module.PASSES))
    report = export_tflite(model, tmp_path / "m.tflite")
    assert report.rewrites["negate_writers"] and "mlp.output.kernel" in report.changes["negate_writers"]
    assert report.rewrites["fold_layer_scale"]  # which takes it back
    assert report.parity.snr_db > 100


def double_writers(spec):
    """A wrong one: what is added to the stream, twice."""

    def doubled(residual):
        writers = {name: dense.scaled(2.0) for name, dense in residual.body.writers().items()}
        return with_layers(residual, writers)

    return spec.with_residuals(doubled)


def test_a_wrong_rewrite_is_named_on_demand(model, tmp_path, monkeypatch):
    monkeypatch.setattr(rewrites_module, "PASSES", (*rewrites_module.PASSES, double_writers))
    with pytest.raises(RuntimeError, match="The rewrite double_writers changes the model: its logits differ by"):
        export_tflite(model, tmp_path / "m.tflite", debug_passes=True)
    with pytest.raises(ParityError):  # without it too, but not by name
        export_tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
