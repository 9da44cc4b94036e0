"""PyTorch's roads from DeiT-tiny's weights: ONNX, litert-torch and ExecuTorch files, and ExecuTorch's runtime.

    python torch_roads.py make ROAD WEIGHTS.npz CALIBRATION.npy FOLDER
    python torch_roads.py serve THREADS

ROAD is a key of `ROADS`; CALIBRATION holds normalized images, float32 `(N, H, W, 3)`. `serve` answers commands, a line
of JSON each, with a line of JSON each. It runs in an environment of its own (`make .venv-torch/installed`), which
PyTorch makes several GB large.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FLOAT_BYTES = 22.9e6  # of the weights in float32; a file of more than half of it is not quantized


class Block(nn.Module):
    """A pre-norm encoder block under timm's names; tokens `(B, N, D)` in and out."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Deit(nn.Module):
    """DeiT-tiny under timm's names: normalized images `(B, 3, 224, 224)` to logits `(B, 1000)`."""

    def __init__(self, size=224, patch=16, dim=192, depth=12, heads=3, classes=1000):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, 4 * dim) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)

    def forward(self, images):
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def make(road, weights, calibration, folder):
    """Writes the road's files and prints `{mode: file name}`, or `{mode: {"failed": why}}`."""
    model = Deit().eval()
    with np.load(weights) as tensors:
        model.load_state_dict({name: torch.from_numpy(tensors[name]) for name in tensors.files})
    images = [torch.from_numpy(image[None].transpose(0, 3, 1, 2).copy()) for image in np.load(calibration)]
    write, suffix, modes = ROADS[road]
    made = {}
    for mode in modes:
        seen = images if mode == "int8" else images[:1]  # nothing else has ranges that are fixed
        path = Path(folder) / f"{road}_{mode}{suffix}"
        try:
            write(model, mode, seen, path)
            if mode != "float32" and path.stat().st_size > FLOAT_BYTES / 2:
                raise ValueError(f"nothing was quantized: the file has {path.stat().st_size / 1e6:.1f} MB")
            made[mode] = path.name
        except Exception as error:  # a peer's failure is a row of the page
            words = " ".join(str(error).split()).replace(sys.prefix, ".venv-torch")
            made[mode] = {"failed": f"{type(error).__name__}: {words[:300]}"}
        print(f"{road} {mode}: {made[mode]}", file=sys.stderr, flush=True)
    return made


def litert_torch_file(model, mode, images, path):
    """litert-torch: the float model, or its PT2E quantization with per-channel weights."""
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer, quant_config

    if mode == "float32":
        return litert_torch.convert(model, (images[0],)).export(str(path))
    settings = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=mode == "dynamic")
    quantizer = pt2e_quantizer.PT2EQuantizer().set_global(settings)
    # Its converter takes kernels with their quantizers, not kernels that are integers already.
    quantized = prepared_and_converted(model, quantizer, images, fold_quantize=False)
    config = quant_config.QuantConfig(pt2e_quantizer=quantizer)
    litert_torch.convert(quantized, (images[0],), quant_config=config).export(str(path))


def executorch_file(model, mode, images, path):
    """ExecuTorch with its XNNPACK backend: the float model, or its PT2E quantization with per-channel weights."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower

    partitioners = [XnnpackPartitioner()]
    if mode != "float32":
        settings = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=mode == "dynamic")
        model = prepared_and_converted(model, XNNPACKQuantizer().set_global(settings), images)
    if mode == "dynamic":
        partitioners.insert(0, XnnpackDynamicallyQuantizedPartitioner())
    exported = torch.export.export(model, (images[0],))
    program = to_edge_transform_and_lower(exported, partitioner=partitioners).to_executorch()
    path.write_bytes(program.buffer)


def onnx_file(model, mode, images, path):
    """An ONNX graph of opset 20, where LayerNormalization and GELU are ops of their own."""
    torch.onnx.export(
        model, (images[0],), str(path), opset_version=20, dynamo=False, input_names=["images"], output_names=["logits"]
    )


def prepared_and_converted(model, quantizer, images, fold_quantize=True):
    """The model with PT2E's quantizers in it, calibrated on the images; its kernels integers where they are folded."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(torch.export.export(model, (images[0],)).module(), quantizer)
    with torch.no_grad():
        for image in images:
            prepared(image)
    return convert_pt2e(prepared, fold_quantize=fold_quantize)


def serve(threads):
    """Answers commands until its input ends.

    `{"open": PATH}` loads a file and gives the number of threads; `{"run": PATH, "image": NPY}` runs an opened one once
    on an image `(1, 3, H, W)` and gives the seconds, with `"logits": NPY` saving the answer too.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    from executorch.extension.pybindings import portable_lib as runtime

    torch.set_num_threads(threads)
    runtime._unsafe_reset_threadpool(threads)
    models = {}
    for line in sys.stdin:
        command = json.loads(line)
        if path := command.get("open"):
            models[path] = runtime._load_for_executorch(path)
            answer = {"threads": runtime._threadpool_get_thread_count()}
        else:
            run, image = models[command["run"]].forward, torch.from_numpy(np.load(command["image"]))
            started = time.perf_counter()
            logits = run((image,))
            answer = {"seconds": time.perf_counter() - started}
            if "logits" in command:
                np.save(command["logits"], logits[0][0].numpy())
        print(json.dumps(answer), file=answers, flush=True)


# What writes a file, its suffix, and the modes.
ROADS = {
    "onnx": (onnx_file, ".onnx", ("float32",)),
    "litert-torch": (litert_torch_file, ".tflite", ("float32", "dynamic", "int8")),
    "executorch": (executorch_file, ".pte", ("float32", "dynamic", "int8")),
}

if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(json.dumps(make(*sys.argv[2:])))
    else:
        serve(int(sys.argv[2]))
