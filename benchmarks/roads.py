"""The roads from one DeiT-tiny in Keras to files that run: this package's, and its peers' on the same weights.

Every function returns `Candidate`s whose `open(threads)` gives a function from one uint8 image to its logits. Peers get
the image normalized; the file's own part of the work is what is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PRESET = "deit_tiny_patch16_224"


@dataclass(frozen=True)
class Candidate:
    """One file of one road.

    `prepare` turns uint8 images into the road's input, `open(threads)` loads the file and gives `run(input) -> logits`;
    `tflite` is its path where it is a `.tflite`.
    """

    road: str
    mode: str
    size_bytes: int
    prepare: Callable
    open: Callable
    tflite: Path | None = None


def ours(model, folder, calibration):
    """(e) this package, every mode. The peers calibrate on the 64 images that most modes here take of the folder.

    Args:
        calibration: the image folder.
    """
    from keras_vit_plugin.export import Tolerance, export_tflite

    modes = {
        "float32": {},
        "float16": {},
        "dynamic": {},
        "int8": {},
        "int8, prefer accuracy": {"prefer": "accuracy"},
        "int8-full": {},
        "int16x8": {},
        "int4": {},
        "auto, 99 %": {"min_agreement": 0.99},
        "auto, 99 %, size": {"min_agreement": 0.99, "prefer": "size"},
    }
    for number, (name, arguments) in enumerate(modes.items()):
        path = folder / f"ours_{number}.tflite"
        quantize = name.split(",")[0]
        tolerance = None if quantize == "auto" else Tolerance(0, 0)
        made = export_tflite(model, path, quantize=quantize, calibration=calibration, tolerance=tolerance, **arguments)
        if quantize == "auto":
            print(made.choice)
        yield _tflite("(e) keras-vit-plugin", name, path, lambda image: image)


def keras_litert(model, folder, calibration, normalize):
    """(a) KerasHub's ViT with Keras's LiteRT export, and (b) litert-quantizer's stock recipes on its float file."""
    import tensorflow as tf
    from litert_quantizer import quantizer, recipe

    hub = kerashub_twin(model)

    def images():
        for image in calibration:
            yield [normalize(image[None])]

    options = {
        "float32": {},
        "dynamic": {"optimizations": [tf.lite.Optimize.DEFAULT]},
        "int8": {
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": images,
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]},
        },
    }
    for mode, arguments in options.items():
        path = folder / f"keras_{mode}.tflite"
        hub.export(str(path), format="litert", verbose=False, **arguments)
        yield _tflite("(a) KerasHub + Keras export", mode, path, normalize)

    for mode, recipe_ in (("dynamic", recipe.dynamic_wi8_afp32()), ("int8", recipe.static_wi8_ai8())):
        engine = quantizer.Quantizer(str(folder / "keras_float32.tflite"), recipe_)
        for end in ("INPUT", "OUTPUT"):  # float, as in the other files
            engine.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        ranges = None
        if mode == "int8":
            name = next(iter(_signature(folder / "keras_float32.tflite")))
            data = [{name: normalize(image[None])} for image in calibration]
            ranges = engine.calibrate({"serving_default": data})
        path = folder / f"aeq_{mode}.tflite"
        path.write_bytes(engine.quantize(ranges).quantized_model)
        yield _tflite("(b) litert-quantizer", mode, path, normalize)


def onnx_runtime(model, folder, calibration, normalize):
    """(c) ONNX Runtime: float32, dynamic int8, static QDQ int8."""
    from onnxruntime import quantization

    float_path = folder / "model.onnx"
    model.export(str(float_path), format="onnx", verbose=False)
    _spell_erfc_in_onnx(float_path)
    name = _onnx_session(float_path, 1).get_inputs()[0].name

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.images = iter(calibration)

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {name: normalize(image[None])}

    quantization.quantize_dynamic(float_path, folder / "dynamic.onnx", weight_type=quantization.QuantType.QInt8)
    quantization.quantize_static(float_path, folder / "static.onnx", Reader(), per_channel=True)
    for mode, path in (("float32", "model.onnx"), ("dynamic", "dynamic.onnx"), ("int8", "static.onnx")):
        path = folder / path

        def opened(threads, path=path):
            session = _onnx_session(path, threads)
            return lambda pixels: session.run(None, {name: pixels})[0][0]

        yield Candidate("(c) ONNX Runtime", mode, path.stat().st_size, normalize, opened)


def openvino(model, folder, calibration, normalize):
    """(d) OpenVINO with NNCF int8: both presets, both precision hints."""
    import nncf
    import openvino as ov

    model.export(str(folder / "saved_model"), format="tf_saved_model", verbose=False)
    float_model = ov.convert_model(str(folder / "saved_model"), input=[1, *model.image_shape])
    data = nncf.Dataset(list(calibration), lambda image: normalize(image[None]))
    presets = {"default": {}, "transformer": {"model_type": nncf.ModelType.TRANSFORMER}}
    for preset, arguments in presets.items():
        path = folder / f"openvino_{preset}.xml"
        quantized = nncf.quantize(float_model, data, subset_size=len(calibration), **arguments)
        ov.save_model(quantized, path, compress_to_fp16=False)
        for hint in ("f32", "default"):

            def opened(threads, path=path, hint=hint):
                settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
                settings |= {"INFERENCE_PRECISION_HINT": "f32"} if hint == "f32" else {}
                request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
                return lambda pixels: request.infer([pixels])[0][0].copy()

            size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
            yield Candidate("(d) OpenVINO + NNCF", f"int8, {preset} preset, {hint} hint", size, normalize, opened)


def kerashub_twin(model):
    """KerasHub's `ViTImageClassifier` with the weights of ours."""
    import keras_hub

    backbone = model.backbone
    twin = keras_hub.models.ViTImageClassifier(
        keras_hub.models.ViTBackbone(
            backbone.image_shape,
            backbone.patch_size,
            backbone.num_layers,
            backbone.num_heads,
            backbone.hidden_dim,
            backbone.mlp_dim,
        ),
        model.num_classes,
    )
    patch_kernel, patch_bias, class_token, positions, *others = model.get_weights()
    # The rest comes in the same order on both sides; KerasHub splits the heads into an axis of their own.
    values = [class_token, patch_kernel, patch_bias, positions[0], *others]
    for variable, value in zip(twin.weights, values, strict=True):
        variable.assign(value.reshape(variable.shape))
    return twin


def _tflite(road, mode, path, prepare):
    def opened(threads):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(image["index"], [1, *image["shape"][1:]])
        interpreter.allocate_tensors()

        def run(pixels):
            interpreter.set_tensor(image["index"], pixels)
            interpreter.invoke()
            return interpreter.get_tensor(logits["index"])[0]

        return run

    return Candidate(road, mode, Path(path).stat().st_size, prepare, opened, Path(path))


def _signature(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path)).get_signature_list()["serving_default"]["inputs"]


def _onnx_session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A pool that spins between its turns would take the cores from the other roads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _spell_erfc_in_onnx(path):
    """tf2onnx leaves Keras's GELU with an Erfc, which ONNX does not have: 1 - Erf instead."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    for i in reversed(range(len(graph.node))):
        if graph.node[i].op_type == "Erfc":
            output = graph.node[i].output[0]
            graph.node[i].op_type, graph.node[i].output[0] = "Erf", output + "/erf"
            graph.node.insert(i + 1, onnx.helper.make_node("Sub", ["one", output + "/erf"], [output]))
    onnx.save(model, path)


def normalizer(model):
    """The function from uint8 images to the float32 input of the peers' files."""
    from keras_vit_plugin.export.preprocessing import pixel_normalization

    scale, offset = (np.float32(value) for value in pixel_normalization(model, 3))
    return lambda images: images.astype(np.float32) * scale + offset
