"""What a file computes and how far that is from the model, by means of its own: an interpreter and NumPy."""

import warnings

import numpy as np

CEILING_DB = 300.0
LEAST_POWER = 1e-6  # of the mean square of the outputs, as the report's


def file_outputs(path, images):
    """`{name: float32 (N, ...)}` of a file for raw pixels, by ai-edge-litert's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = Interpreter(model_path=str(path), num_threads=2)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    entry = runner.get_input_details()["images"]
    details = runner.get_output_details()
    size = int(entry["shape"][0])
    parts = {name: [] for name in details}
    for start in range(0, len(images), size):
        rows = images[start : start + size]
        batch = np.concatenate([rows, np.zeros((size - len(rows), *images.shape[1:]), np.uint8)])
        pixels = (batch.astype(np.int16) - 128) if entry["dtype"] == np.int8 else batch
        for name, values in runner(images=pixels.astype(entry["dtype"])).items():
            scale, zero_point = details[name]["quantization"]
            values = (values.astype(np.float32) - zero_point) * np.float32(scale) if scale else values
            parts[name].append(np.array(values, np.float32)[: len(rows)])
    return {name: np.concatenate(values) for name, values in parts.items()}


def as_probabilities(task, activation, outputs):
    """Scores of a classifier as MediaPipe wants them."""
    if activation != "linear":
        return outputs
    if task == "classes":
        exponentials = np.exp(outputs - outputs.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-outputs))


def snr_db(task, activation, reference, outputs):
    """The signal-to-noise ratio as the documentation defines it."""
    reference, outputs = reference.astype(np.float64), outputs.astype(np.float64)
    if not np.isfinite(outputs).all():
        return -CEILING_DB
    error = outputs - reference
    if task == "classes":
        signal = reference - reference.mean(1, keepdims=True)
        if activation == "linear":
            error = error - error.mean(1, keepdims=True)
    else:
        signal = reference - reference.mean(0)
    axes = 0 if task == "regression" else None
    power = np.maximum(np.mean(signal**2, axis=axes), LEAST_POWER * np.mean(reference**2, axis=axes))
    ratio = np.max(np.mean(error**2, axis=axes) / np.maximum(power, 1e-300))
    return float(np.clip(-10 * np.log10(max(ratio, 1e-300)), -CEILING_DB, CEILING_DB))


def agreement(task, activation, reference, outputs):
    """The share of images with the same decision, of the worst label; None where nothing is decided."""
    if task == "classes":
        return float(np.mean(reference.argmax(1) == outputs.argmax(1)))
    if task not in ("binary", "multi-label"):
        return None
    threshold = 0.5 if activation == "sigmoid" else 0.0
    return float(np.min(np.mean((reference >= threshold) == (outputs >= threshold), axis=0)))
