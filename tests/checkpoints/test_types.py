"""Which types of tensors are weights: floats, exactly where they can be; every other is named and refused."""

import warnings

import ml_dtypes
import numpy as np
import pytest
from hostile_weights import change_hdf5
from safetensors.numpy import save_file
from test_checkpoints import timm_tensors

import keras_vit_plugin as kv

NAME = "norm.weight"


def saved(path, value):
    """A file of `vit_test` with one tensor replaced."""
    tensors = {**timm_tensors("vit_test"), NAME: value}
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    "dtype", ["int8", "uint32", "bool", "complex64", "datetime64[s]", "S3", "U2", "V2", "longdouble", [("a", "f4")]]
)
def test_what_is_no_float_is_named(dtype, tmp_path):
    path = saved(tmp_path / "w.npz", np.zeros(32, dtype))
    with pytest.raises(ValueError, match=f"another type: {NAME} is .*, the model needs float32") as error:
        kv.build("vit_test", weights=path)
    assert str(path) in str(error.value) and str(np.dtype(dtype)) in str(error.value)


@pytest.mark.parametrize(
    "dtype, name", [("int8", "I8"), ("bool", "BOOL"), ("complex64", "C64"), (ml_dtypes.float8_e4m3fn, "F8_E4M3")]
)
def test_what_is_no_float_is_named_by_safetensors(dtype, name, tmp_path):
    path = saved(tmp_path / "w.safetensors", np.zeros(32, dtype))
    with pytest.raises(ValueError, match=f"w.safetensors does not fit .*\n.*: {NAME} is {name}, the model needs float"):
        kv.build("vit_test", weights=path)


@pytest.mark.parametrize("dtype", ["int8", "bool", "longdouble"])
def test_what_is_no_float_is_named_in_keras_files(dtype, tmp_path):
    model = kv.build("vit_test")
    model.save_weights(tmp_path / "m.weights.h5")

    def change(h5, name):
        value = np.zeros(h5[name].shape, dtype)
        del h5[name]
        h5[name] = value

    change_hdf5(tmp_path / "m.weights.h5", change)
    with pytest.raises(ValueError, match=f"another type: layers/.* is {np.dtype(dtype)}, the model needs float32"):
        kv.checkpoints.load_weights(model, tmp_path / "m.weights.h5")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", ">f4", "float64"])
def test_floats_are_taken_exactly(dtype, suffix, tmp_path):
    if dtype == "bfloat16" and suffix == ".npz":
        pytest.skip("NumPy writes bfloat16 as two bytes of no type, which are refused")
    value = (np.arange(32) / 64).astype(dtype)
    with warnings.catch_warnings(action="error"):
        model = kv.build("vit_test", weights=saved(tmp_path / f"w{suffix}", value))
    np.testing.assert_array_equal(model.backbone.norm.gamma, np.arange(32) / 64)


def test_float64_that_is_rounded_is_told(tmp_path):
    value = np.arange(32) / 3
    with pytest.warns(UserWarning, match="w.npz: 1 float64 tensors are rounded to float32"):
        model = kv.build("vit_test", weights=saved(tmp_path / "w.npz", value))
    np.testing.assert_array_equal(model.backbone.norm.gamma, value.astype(np.float32))


@pytest.mark.parametrize("dtype, largest", [("float32", 1e200), ("float16", 1e6)])
def test_what_the_models_type_cannot_hold(dtype, largest, tmp_path):
    path = saved(tmp_path / "w.npz", np.full(32, largest))
    with pytest.raises(ValueError, match=rf"out of range: {NAME} holds .*, beyond the model's {dtype}"):
        kv.build("vit_test", dtype=dtype, weights=path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ""])
@pytest.mark.sampled(4)
def test_models_of_other_types_come_back(dtype, suffix, tmp_path):
    model = kv.build("vit_test", dtype=dtype)
    path = tmp_path / f"m{suffix}"
    {".weights.h5": model.save_weights, ".keras": model.save}.get(suffix, lambda p: model.save_to_preset(str(p)))(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*float64", UserWarning)
        for wanted in (dtype, "float32"):
            loaded = kv.build("vit_test", dtype=wanted, weights=path)
            for ours, theirs in zip(loaded.weights, model.weights):
                np.testing.assert_array_equal(ours, np.asarray(theirs).astype(wanted))


@pytest.mark.parametrize("narrowed", [True, False])
def test_parts_of_an_attention_that_do_not_fit_together(narrowed, tmp_path):
    """Tensors of Transformers, whose query, key and value are joined: one of another shape, and one missing."""
    from test_checkpoints import of_transformers

    tensors = of_transformers(timm_tensors("vit_test"), "vit")
    name = next(name for name in tensors if name.endswith("attention.key.weight"))
    key = tensors.pop(name)
    save_file({**tensors, name: key[:, :5]} if narrowed else tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing: blocks.0.attn.qkv.weight .*\n(.*\n)*.*extra: vit.encoder.layer.0."):
        kv.build("vit_test", weights=tmp_path / "w.safetensors")
