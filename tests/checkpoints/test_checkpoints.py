"""Weights from files: what fits is read exactly, what does not is listed."""

import pickle

import numpy as np
import pytest
from conftest import pixels, randomize, real_data
from safetensors.numpy import save_file

import keras_vit_plugin as kv
from keras_vit_plugin.checkpoints import hub, keras_files
from keras_vit_plugin.checkpoints.positions import resize_positions


def timm_tensors(name, seed=0):
    """Random tensors under timm's names and shapes, written down here independently of the loader."""
    preset = kv.presets.get_preset(name)
    width, hidden, patch = preset.hidden_dim, preset.mlp_dim, preset.patch_size
    patches = (preset.image_shape[0] // patch) * (preset.image_shape[1] // patch)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, patches + 1 + preset.distilled, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (preset.num_classes, width),
        "head.bias": (preset.num_classes,),
    }
    if preset.distilled:
        shapes |= {"dist_token": (1, 1, width)}
        shapes |= {"head_dist.weight": (preset.num_classes, width), "head_dist.bias": (preset.num_classes,)}
    if preset.num_register_tokens:
        shapes["reg_token"] = (1, preset.num_register_tokens, width)
    for i in range(preset.num_layers):
        block = f"blocks.{i}."
        shapes |= {block + f"norm{k}.{part}": (width,) for k in (1, 2) for part in ("weight", "bias")}
        shapes |= {block + "attn.qkv.weight": (3 * width, width), block + "attn.qkv.bias": (3 * width,)}
        shapes |= {block + "attn.proj.weight": (width, width), block + "attn.proj.bias": (width,)}
        shapes |= {block + "mlp.fc1.weight": (hidden, width), block + "mlp.fc1.bias": (hidden,)}
        shapes |= {block + "mlp.fc2.weight": (width, hidden), block + "mlp.fc2.bias": (width,)}
        if preset.layer_scale is not None:
            shapes |= {block + "ls1.gamma": (width,), block + "ls2.gamma": (width,)}
    generator = np.random.default_rng(seed)
    return {key: generator.normal(0, 0.2, shape).astype(np.float32) for key, shape in shapes.items()}


def timm_forward(tensors, images, heads):
    """timm's VisionTransformer forward pass in float64, one image at a time, for a class-token model."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    width, _, patch, _ = t["patch_embed.proj.weight"].shape

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * t[name + ".weight"] + t[name + ".bias"]

    def linear(x, name):
        return x @ t[name + ".weight"].T + t[name + ".bias"]

    def erf_gelu(x):
        from scipy.special import erf

        return x * 0.5 * (1 + erf(x / np.sqrt(2)))

    logits = []
    for image in images.astype(np.float64):
        rows = []
        for top in range(0, image.shape[0], patch):
            for left in range(0, image.shape[1], patch):
                cut = image[top : top + patch, left : left + patch].transpose(2, 0, 1)
                rows.append(np.tensordot(t["patch_embed.proj.weight"], cut, 3) + t["patch_embed.proj.bias"])
        tokens = [t["cls_token"][0]] + ([t["dist_token"][0]] if "dist_token" in t else [])
        x = np.concatenate([*tokens, np.stack(rows)]) + t["pos_embed"][0]
        if "reg_token" in t:
            x = np.concatenate([x[:1], t["reg_token"][0], x[1:]])
        block = 0
        while f"blocks.{block}.norm1.weight" in t:
            name = f"blocks.{block}."
            qkv = linear(norm(x, name + "norm1"), name + "attn.qkv")
            query, key, value = (qkv[:, i * width : (i + 1) * width].reshape(len(x), heads, -1) for i in range(3))
            scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            y = linear(np.einsum("hqk,khd->qhd", scores, value).reshape(len(x), width), name + "attn.proj")
            x = x + y * t.get(name + "ls1.gamma", 1)
            y = linear(erf_gelu(linear(norm(x, name + "norm2"), name + "mlp.fc1")), name + "mlp.fc2")
            x = x + y * t.get(name + "ls2.gamma", 1)
            block += 1
        x = norm(x, "norm")
        y = linear(x[0], "head")
        logits.append((y + linear(x[1], "head_dist")) / 2 if "dist_token" in t else y)
    return np.stack(logits)


@pytest.mark.parametrize("name", ["vit_test", "deit_distilled_test", "vit_registers_test"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_timm_tensors_compute_what_timm_computes(name, suffix, tmp_path):
    tensors = timm_tensors(name)
    path = tmp_path / f"weights{suffix}"
    np.savez(path, **tensors) if suffix == ".npz" else save_file(tensors, path)
    model = kv.build(name, weights=path)
    x = (pixels(model.image_shape) / 255).astype("float32")
    expected = timm_forward(tensors, x, kv.presets.get_preset(name).num_heads)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_one_error_lists_all_that_does_not_fit(tmp_path):
    tensors = timm_tensors("vit_test")
    del tensors["blocks.1.mlp.fc1.bias"]
    tensors["blocks.7.norm1.bias"] = np.zeros(3, np.float32)
    tensors["norm.weight"] = np.zeros(33, np.float32)
    tensors["cls_token"][0, 0, 0] = np.nan
    np.savez(tmp_path / "w.npz", **tensors)
    model = kv.build("vit_test")
    before = model.get_weights()
    with pytest.raises(ValueError) as error:
        kv.checkpoints.load_weights(model, tmp_path / "w.npz")
    message = str(error.value)
    assert "4 problems" in message
    assert "missing: blocks.1.mlp.fc1.bias (64,)" in message
    assert "extra: blocks.7.norm1.bias (3,)" in message
    assert "misshapen: norm.weight has (33,), the model needs (32,)" in message
    assert "not finite: cls_token holds NaN or infinity" in message
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_a_new_head_is_kept_when_asked_for(tmp_path):
    np.savez(tmp_path / "w.npz", **timm_tensors("vit_test"))
    with pytest.raises(ValueError, match="new_head=True"):
        kv.build("vit_test", num_classes=3, weights=tmp_path / "w.npz")
    model = kv.build("vit_test", num_classes=3, weights=tmp_path / "w.npz", new_head=True)
    expected = timm_tensors("vit_test")["norm.bias"]
    np.testing.assert_array_equal(model.backbone.norm.beta, expected)


def test_no_pickle_is_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    np.savez(tmp_path / "w.npz", cls_token=np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="w.npz' cannot be used: .*cls_token.npy' holds Python objects, a pickle"):
        kv.build("vit_test", weights=tmp_path / "w.npz")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="must be a .weights.h5, a .keras"):
        kv.build("vit_test", weights=tmp_path / "w.pkl")


@pytest.mark.parametrize("name", ["vit_test", "deit_distilled_test", "simple_vit_test"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ""])
def test_keras_files_give_the_same_weights(name, suffix, tmp_path):
    if name == "simple_vit_test" and not suffix:
        pytest.skip("SimpleViT is no KerasHub task and has no preset folder")
    model = kv.build(name)
    randomize(model)
    path = tmp_path / f"saved{suffix}"
    {".weights.h5": model.save_weights, ".keras": model.save}.get(suffix, lambda p: model.save_to_preset(str(p)))(path)
    loaded = kv.build(name, weights=path)
    for old, new in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_keras_files_for_another_image_size_and_class_count(tmp_path):
    model = kv.build("vit_test")
    randomize(model)
    model.save(tmp_path / "m.keras")
    larger = kv.build("vit_test", image_size=(24, 16), weights=tmp_path / "m.keras")
    old, new = (np.asarray(m.backbone.tokens.position_embedding)[0] for m in (model, larger))
    np.testing.assert_array_equal(new[0], old[0])
    np.testing.assert_allclose(new[1:], resize_positions(old[1:], (4, 4), (6, 4)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"misshapen: layers/dense/vars/0 has \(32, 5\), the model needs \(32, 9\)"):
        kv.build("vit_test", num_classes=9, weights=tmp_path / "m.keras")
    kv.build("vit_test", num_classes=9, weights=tmp_path / "m.keras", new_head=True)


@pytest.mark.parametrize("name, prefix", [("vit_test", 1), ("deit_distilled_test", 2), ("vit_registers_test", 1)])
def test_timm_positions_for_another_image_size(name, prefix, tmp_path):
    tensors = timm_tensors(name)
    old = tensors["pos_embed"][0]
    np.savez(tmp_path / "w.npz", **tensors)
    model = kv.build(name, image_size=(24, 16), weights=tmp_path / "w.npz")
    new = np.asarray(model.backbone.tokens.position_embedding)[0]
    np.testing.assert_array_equal(new[:prefix], old[:prefix])
    np.testing.assert_allclose(new[prefix:], resize_positions(old[prefix:], (4, 4), (6, 4)), rtol=1e-6)
    np.savez(tmp_path / "w.npz", **{**tensors, "pos_embed": old})
    with pytest.raises(ValueError, match=r"misshapen: pos_embed has \(1[678], 32\), the model needs \(1, 2[456], 32\)"):
        kv.build(name, image_size=(24, 16), weights=tmp_path / "w.npz")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_room_is_asked_for_as_much_as_a_models_weights_take(dtype, tmp_path, monkeypatch):
    """HDF5 does not survive a disk that is full."""
    asked, make_folder = [], keras_files.temporary_folder
    monkeypatch.setattr(keras_files, "temporary_folder", lambda size: asked.append(size) or make_folder(size))
    model = kv.SimpleViT((8, 8, 3), mlp_dim=8192, dtype=dtype)
    model.save_weights(tmp_path / "m.weights.h5")
    kv.checkpoints.load_weights(model, tmp_path / "m.weights.h5")
    size = (tmp_path / "m.weights.h5").stat().st_size
    assert len(asked) == 1 and size <= asked[0] <= 1.05 * size


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.npz", "m.safetensors"])
def test_truncated_files(name, tmp_path):
    model = kv.build("vit_test")
    path = tmp_path / name
    if name == "m.keras":
        model.save(path)
    elif name.endswith("h5"):
        model.save_weights(path)
    elif name.endswith("npz"):
        np.savez(path, **timm_tensors("vit_test"))
    else:
        save_file(timm_tensors("vit_test"), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f"{name}' is damaged"):
        kv.build("vit_test", weights=path)


def test_an_empty_preset_folder(tmp_path):
    with pytest.raises(ValueError, match="cannot be used: it has no file model.weights.h5"):
        kv.build("vit_test", weights=tmp_path)


def test_positions_keep_their_meaning_when_resized():
    rows, columns = np.mgrid[0:8, 0:8] / 7
    positions = np.stack([rows.ravel(), columns.ravel()], axis=1)  # each position says where it is
    resized = resize_positions(positions, (8, 8), (16, 4)).reshape(16, 4, 2)
    assert np.all(np.diff(resized[:, 1, 0]) > 0) and np.all(np.diff(resized[3, :, 1]) > 0)
    np.testing.assert_allclose(resized[..., 0].mean(), 0.5, atol=1e-3)
    assert np.ptp(resized[5, :, 0]) < 1e-5  # a row's positions agree on the row
    np.testing.assert_array_equal(resize_positions(positions, (8, 8), (8, 8)), positions.astype(np.float32))


def keys_kernel(distance):
    """The cubic convolution kernel with a = -0.5 (Keys 1981, eq. 15)."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


@pytest.mark.parametrize("target", [(6, 9), (3, 2)])
def test_positions_are_resized_by_antialiased_cubic_convolution(target):
    source = (4, 5)
    positions = np.random.default_rng(0).normal(size=(*source, 3))
    expected = positions
    for axis, (old, new) in enumerate(zip(source, target)):
        scale = max(old / new, 1)  # a smaller grid is filtered by a wider kernel
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        weights = keys_kernel((np.arange(old)[None] - centres[:, None]) / scale)
        weights /= weights.sum(axis=1, keepdims=True)
        expected = np.moveaxis(np.tensordot(weights, expected, (1, axis)), 0, axis)
    resized = resize_positions(positions.reshape(20, 3), source, target)
    np.testing.assert_allclose(resized.reshape(*target, 3), expected, atol=1e-5)


def test_the_hub_is_asked_for_the_presets_file(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def fake_download(repo_id, filename):
        asked.append((repo_id, filename))
        tensors = timm_tensors("vit_test")
        save_file(tensors, tmp_path / filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake_download)
    path = hub.download("timm/some_vit")
    assert asked == [("timm/some_vit", "model.safetensors")]
    model = kv.build("vit_test", weights=path)
    np.testing.assert_array_equal(model.backbone.norm.gamma, timm_tensors("vit_test")["norm.weight"])


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def out_of_reach(**_):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", out_of_reach)
    with pytest.raises(ConnectionError, match="timm/deit_tiny_patch16_224.fb_in1k .* pass weights=PATH"):
        kv.build("deit_tiny_patch16_224", weights="pretrained")


def test_real_deit_tiny_loads():
    model = kv.build("deit_tiny_patch16_224", weights=real_data("weights", "deit_tiny_patch16_224_in1k.npz"))
    assert model.count_params() == 5_717_416


@pytest.mark.parametrize("kind", ["file.keras", "folder"])
def test_positions_between_non_square_grids(kind, tmp_path):
    wide = kv.build("vit_test", image_size=(8, 32))  # 2 x 8 patches
    randomize(wide)
    wide.save(tmp_path / kind) if kind == "file.keras" else wide.save_to_preset(str(tmp_path / kind))
    old = np.asarray(wide.backbone.tokens.position_embedding)[0, 1:]
    for size, grid in (((32, 8), (8, 2)), ((16, 16), (4, 4)), ((8, 16), (2, 4))):
        new = kv.build("vit_test", image_size=size, weights=tmp_path / kind)
        positions = np.asarray(new.backbone.tokens.position_embedding)[0, 1:]
        np.testing.assert_allclose(positions, resize_positions(old, (2, 8), grid), rtol=1e-6)


def of_transformers(tensors, family):
    """timm's tensors under the names of Transformers, written down here independently of the loader."""
    renamed = {}
    top = {
        "cls_token": f"{family}.embeddings.cls_token",
        "dist_token": f"{family}.embeddings.distillation_token",
        "pos_embed": f"{family}.embeddings.position_embeddings",
        "patch_embed.proj.weight": f"{family}.embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": f"{family}.embeddings.patch_embeddings.projection.bias",
        "norm.weight": f"{family}.layernorm.weight",
        "norm.bias": f"{family}.layernorm.bias",
        "head.weight": "cls_classifier.weight" if family == "deit" else "classifier.weight",
        "head.bias": "cls_classifier.bias" if family == "deit" else "classifier.bias",
        "head_dist.weight": "distillation_classifier.weight",
        "head_dist.bias": "distillation_classifier.bias",
    }
    parts = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    for name, value in tensors.items():
        if name in top:
            renamed[top[name]] = value
            continue
        _, block, rest = name.split(".", 2)
        layer = f"{family}.encoder.layer.{block}."
        part, kind = rest.rsplit(".", 1)
        if part == "attn.qkv":
            for which, third in zip(("query", "key", "value"), np.split(value, 3)):
                renamed[f"{layer}attention.attention.{which}.{kind}"] = third
        else:
            renamed[f"{layer}{parts[part]}.{kind}"] = value
    # of other tasks, alone and below the trunk
    unused = ("mask_token", "decoder.0.bias", f"{family}.pooler.dense.bias", f"{family}.embeddings.mask_token")
    return renamed | dict.fromkeys(unused, np.zeros(3, np.float32))


@pytest.mark.parametrize("preset, family", [("vit_test", "vit"), ("deit_distilled_test", "deit")])
def test_checkpoints_of_transformers_are_read(preset, family, tmp_path):
    tensors = timm_tensors(preset)
    save_file(tensors, tmp_path / "timm.safetensors")
    save_file(of_transformers(tensors, family), tmp_path / "model.safetensors")
    wanted, got = (kv.build(preset, weights=tmp_path / name) for name in ("timm.safetensors", "model.safetensors"))
    for ours, theirs in zip(got.weights, wanted.weights):
        np.testing.assert_array_equal(ours, theirs)


def test_a_misshapen_checkpoint_is_called_by_its_name_and_its_errors_are_few(tmp_path):
    tensors = timm_tensors("vit_test")
    path = tmp_path / "mine.npz"
    np.savez(path, **{name: value[..., :-1] for name, value in tensors.items()})
    with pytest.raises(ValueError, match=r"mine.npz does not fit the model, \d+ problems") as refused:
        kv.build("vit_test", weights=path)
    assert len(str(refused.value).splitlines()) <= 13 and "more" in str(refused.value)
