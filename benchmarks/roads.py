"""The roads from one DeiT-tiny in Keras to files that run: this package's, and its peers' on the same weights.

Every function returns `Candidate`s whose `open(threads)` gives a function from one uint8 image to its logits. Peers get
the image normalized; the file's own part of the work is what is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import workers


@dataclass(frozen=True)
class Candidate:
    """One file of one road.

    `made_by` is the call that makes it; `prepare` turns uint8 images into the road's input, `open(threads)` loads the
    file and gives `run(input) -> logits`; `tflite` is its path where it is a `.tflite`.
    """

    road: str
    mode: str
    made_by: str
    size_bytes: int
    prepare: Callable
    open: Callable
    tflite: Path | None = None


@dataclass(frozen=True)
class Failure:
    """What could not be made or run, and why."""

    road: str
    mode: str
    why: str


def ours(model, folder, calibration):
    """(e) this package, every mode. The peers calibrate on the 64 images that most modes here take of the folder.

    Args:
        calibration: the image folder.
    """
    from keras_vit_plugin.export import Tolerance, export_tflite, mode_of

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
        mode = mode_of(quantize, **arguments)
        tolerance = None if mode.chooses else Tolerance(0, 0)
        made = export_tflite(model, path, mode, calibration=calibration, tolerance=tolerance)
        if mode.chooses:
            print(made.choice)
        options = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        made_by = f"export_tflite(model, path, quantize={type(mode).__name__}({options}), calibration=folder)"
        yield _tflite("(e) keras-vit-plugin", name, made_by, path, lambda image: image)


def keras_litert(model, folder, calibration, normalize):
    """(a) KerasHub's ViT with Keras's LiteRT export, and (b) litert-quantizer's stock recipes on its float file."""
    import tensorflow as tf

    hub = kerashub_twin(model)

    def images():
        for image in calibration:
            yield [normalize(image[None])]

    optimized = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    integers = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]}
    options = {
        "float32": ({}, ""),
        "dynamic": (optimized, ", optimizations=[DEFAULT]"),
        "int8": (
            {**optimized, "representative_dataset": images, "target_spec": integers},
            ", optimizations=[DEFAULT], representative_dataset=images, supported_ops=[INT8, BUILTINS]",
        ),
    }
    for mode, (arguments, words) in options.items():
        path = folder / f"keras_{mode}.tflite"
        hub.export(str(path), format="litert", verbose=False, **arguments)
        made_by = f"keras_hub.models.ViTImageClassifier.export(path, format='litert'{words})"
        yield _tflite("(a) KerasHub + Keras export", mode, made_by, path, normalize)
    inputs = [normalize(image[None]) for image in calibration]
    yield from stock_recipes("(b) litert-quantizer", "", folder / "keras_float32.tflite", inputs, normalize)


def stock_recipes(road, prefix, float_file, inputs, prepare):
    """litert-quantizer's stock recipes on a float file; `inputs` are the calibration images as it takes them."""
    from litert_quantizer import quantizer, recipe

    for mode, name in (("dynamic", "dynamic_wi8_afp32"), ("int8", "static_wi8_ai8")):
        engine = quantizer.Quantizer(str(float_file), getattr(recipe, name)())
        for end in ("INPUT", "OUTPUT"):  # float, as in the other files
            engine.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        ranges = None
        if mode == "int8":
            tensor = next(iter(_signature(float_file)))
            ranges = engine.calibrate({"serving_default": [{tensor: image} for image in inputs]})
        path = float_file.with_name(f"{float_file.stem}_recipe_{mode}.tflite")
        path.write_bytes(engine.quantize(ranges).quantized_model)
        yield _tflite(road, prefix + mode, f"Quantizer(float32 file, recipe.{name}()).quantize()", path, prepare)


def onnx_runtime(weights, folder, calibration, normalize):
    """(c) ONNX Runtime: float32, dynamic int8, static QDQ int8, of a graph that keeps LayerNormalization whole.

    Keras's own ONNX export spells it out in primitives, each of which quantization would round; PyTorch's keeps it.
    """
    road, prepare = "(c) ONNX Runtime", _channels_first(normalize)
    try:
        float_file = _onnx_graph(weights, folder, normalize(calibration[:1]))
    except workers.Unavailable as error:
        yield Failure(road, "every mode", str(error))
        return

    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.images = iter(calibration)

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"images": prepare(image[None])}

    shaped = folder / "shaped.onnx"
    quantization.quant_pre_process(float_file, shaped, skip_symbolic_shape=True)  # shapes are fixed
    made_by = "torch.onnx.export(model, (image,), path, opset_version=20, dynamo=False)"
    files = [("float32", float_file, made_by)]
    # By default every operator that can be is quantized; dense layers alone keep more of the answers.
    dense = {"op_types_to_quantize": ["MatMul", "Gemm"]}
    for which, arguments in (("", {}), (", dense layers only", dense)):
        words = "".join(f", {name}={value!r}" for name, value in arguments.items())
        path = folder / f"dynamic{len(files)}.onnx"
        weights_type = quantization.QuantType.QInt8
        quantization.quantize_dynamic(shaped, path, weight_type=weights_type, per_channel=True, **arguments)
        made_by = f"quantize_dynamic(quant_pre_process(float32 file), weight_type=QInt8, per_channel=True{words})"
        files.append((f"dynamic{which}", path, made_by))
        if arguments:
            arguments = arguments | {"extra_options": {"MatMulConstBOnly": True}}
            words += ", extra_options={'MatMulConstBOnly': True}"
        path = folder / f"static{len(files)}.onnx"
        quantization.quantize_static(shaped, path, Reader(), per_channel=True, **arguments)
        made_by = f"quantize_static(quant_pre_process(float32 file), reader, per_channel=True{words})"
        files.append((f"int8{which}", path, made_by))
    for mode, path, made_by in files:

        def opened(threads, path=path):
            session = _onnx_session(path, threads)
            return lambda pixels: session.run(None, {"images": pixels})[0][0]

        yield Candidate(road, mode, made_by, path.stat().st_size, prepare, opened)


def openvino(weights, folder, calibration, normalize):
    """(d) OpenVINO with NNCF int8: both presets, both precision hints, from the ONNX graph of (c).

    Without the hint f32, OpenVINO computes what is not int8 in bfloat16 on CPUs that have it.
    """
    road, prepare = "(d) OpenVINO + NNCF", _channels_first(normalize)
    try:
        float_file = _onnx_graph(weights, folder, normalize(calibration[:1]))
    except workers.Unavailable as error:
        yield Failure(road, "every mode", str(error))
        return

    import nncf
    import openvino as ov

    float_model = ov.convert_model(str(float_file))
    data = nncf.Dataset(list(calibration), lambda image: prepare(image[None]))
    presets = {"default": {}, "transformer": {"model_type": nncf.ModelType.TRANSFORMER}}
    for preset, arguments in presets.items():
        path = folder / f"openvino_{preset}.xml"
        quantized = nncf.quantize(float_model, data, subset_size=len(calibration), **arguments)
        ov.save_model(quantized, path, compress_to_fp16=False)
        words = ", model_type=TRANSFORMER" if arguments else ""
        for hint in ("f32", "default"):

            def opened(threads, path=path, hint=hint):
                settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
                settings |= {"INFERENCE_PRECISION_HINT": "f32"} if hint == "f32" else {}
                request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
                return lambda pixels: request.infer([pixels])[0][0].copy()

            size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
            setting = "INFERENCE_PRECISION_HINT=f32" if hint == "f32" else "no precision hint"
            made_by = f"nncf.quantize(convert_model((c) float32), images{words}); compile_model with {setting}"
            mode = f"int8, {preset} preset, {hint} hint"
            yield Candidate(road, mode, made_by, size, prepare, opened)


def litert_torch(weights, folder, calibration, normalize):
    """(f) litert-torch: float32, PT2E's quantizations, and litert-quantizer's stock recipes on the float file."""
    road, prepare = "(f) litert-torch", _channels_first(normalize)
    try:
        files, failed = workers.make("litert-torch", weights, normalize(calibration), folder)
    except workers.Unavailable as error:
        files, failed = {}, {"every mode": str(error)}
    yield from (Failure(road, mode, why) for mode, why in failed.items())
    for mode, path in files.items():
        dynamic = ", is_dynamic=True" if mode == "dynamic" else ""
        settings = f", quant_config=PT2EQuantizer of get_symmetric_quantization_config(is_per_channel=True{dynamic})"
        made_by = f"litert_torch.convert(model, (image,){'' if mode == 'float32' else settings}).export(path)"
        yield _tflite(road, mode if mode == "float32" else f"PT2E {mode}", made_by, path, prepare)
    if "float32" in files:
        inputs = [prepare(image[None]) for image in calibration]
        yield from stock_recipes(road, "recipe ", files["float32"], inputs, prepare)


def executorch(weights, folder, calibration, normalize):
    """(g) ExecuTorch with its XNNPACK backend, run by a worker process: float32 and PT2E's quantizations."""
    road, prepare = "(g) ExecuTorch + XNNPACK", _channels_first(normalize)
    try:
        files, failed = workers.make("executorch", weights, normalize(calibration), folder)
    except workers.Unavailable as error:
        files, failed = {}, {"every mode": str(error)}
    yield from (Failure(road, mode, why) for mode, why in failed.items())
    for mode, path in files.items():
        dynamic = ", is_dynamic=True" if mode == "dynamic" else ""
        made_by = "to_edge_transform_and_lower(torch.export.export(model), partitioner=[XnnpackPartitioner()])"
        if mode != "float32":
            made_by += f", after XNNPACKQuantizer of get_symmetric_quantization_config(is_per_channel=True{dynamic})"

        def opened(threads, path=path):
            return workers.opened(path, threads)

        yield Candidate(road, mode, made_by, path.stat().st_size, prepare, opened)


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


def _tflite(road, mode, made_by, path, prepare):
    def opened(threads):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(image["index"], [1, *image["shape"][1:]])
        interpreter.allocate_tensors()

        def run(pixels):
            interpreter.set_tensor(image["index"], pixels)
            interpreter.invoke()
            answer = interpreter.get_tensor(logits["index"])[0]
            return answer if answer.dtype.kind == "f" else _dequantized(answer, logits)

        return run

    return Candidate(road, mode, made_by, Path(path).stat().st_size, _quantizing(path, prepare), opened, Path(path))


def _quantizing(path, prepare):
    """`prepare`, and behind it what a file with quantized inputs expects of its user."""
    from ai_edge_litert.interpreter import Interpreter

    image = Interpreter(model_path=str(path)).get_input_details()[0]
    scale, zero = image["quantization"]
    if image["dtype"] == np.uint8 or not scale:  # raw pixels, or float
        return prepare
    limits = np.iinfo(image["dtype"])

    def quantized(images):
        steps = np.round(prepare(images) / scale + zero)
        return np.clip(steps, limits.min, limits.max).astype(image["dtype"])

    return quantized


def _dequantized(values, detail):
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


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


def _onnx_graph(weights, folder, image):
    """The path of PyTorch's ONNX file, made once."""
    if not (path := folder / "onnx_float32.onnx").exists():
        _, failed = workers.make("onnx", weights, image, folder)
        for why in failed.values():
            raise workers.Unavailable(why)
    return path


def _channels_first(normalize):
    """The preparation of PyTorch's roads, which take `(N, 3, H, W)`."""
    return lambda images: np.ascontiguousarray(normalize(images).transpose(0, 3, 1, 2))


def normalizer(model):
    """The function from uint8 images to the float32 input of the peers' files."""
    from keras_vit_plugin.images.preprocessing import pixel_normalization

    scale, offset = (np.float32(value) for value in pixel_normalization(model, 3))
    return lambda images: images.astype(np.float32) * scale + offset
