"""Classify photos on a device. Copy this file and a .tflite there; it needs an interpreter, NumPy and Pillow.

pip install ai-edge-litert numpy pillow            # or, on an old board: tflite-runtime "numpy<2" pillow
python classify.py model.tflite photo.jpg ...
"""

import argparse
import json

import numpy as np
from PIL import Image, ImageOps

TOP = 5
METADATA_START = b'{"keras_vit_plugin":'


def load_interpreter(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise SystemExit("No interpreter: pip install ai-edge-litert, or tflite-runtime with numpy<2") from error
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def read_metadata(path):
    """What the exporter stored in the file: class names and how to resize; empty for other files."""
    with open(path, "rb") as file:
        content = file.read()
    start = content.rfind(METADATA_START)
    if start < 0:
        return {}
    return json.JSONDecoder().raw_decode(content[start:].decode("utf-8", errors="ignore"))[0]


def read_pixels(path, shape, preprocessing):
    """The photo as raw pixels (height, width, channels), resized as the file says, else to cover and centre cropped."""
    height, width, channels = shape
    resized_height, resized_width = preprocessing.get("resize") or (height, width)
    method = preprocessing.get("interpolation", "bicubic").upper().replace("LANCZOS3", "LANCZOS")
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):  # 16-bit grey
        image = Image.fromarray((np.asarray(image) / 257.0).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    rule = preprocessing.get("rule", "cover")
    if rule == "pad":
        image = ImageOps.pad(image, (resized_width, resized_height), Image.Resampling[method])
    else:
        if rule == "cover":
            scale = max(resized_height / image.height, resized_width / image.width)
            resized_height, resized_width = round(image.height * scale), round(image.width * scale)
        image = image.resize((resized_width, resized_height), Image.Resampling[method])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, np.uint8).reshape(shape)


def classify(interpreter, pixels):
    """Class probabilities of one image."""
    model_input, model_output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    batch = np.repeat(pixels[None], model_input["shape"][0], axis=0)
    interpreter.set_tensor(model_input["index"], batch.astype(model_input["dtype"]))
    interpreter.invoke()
    logits = interpreter.get_tensor(model_output["index"])[0].astype(np.float64)
    if logits.min() >= 0 and abs(logits.sum() - 1) < 1e-2:
        return logits  # the model ends in a softmax
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print probabilities as JSON, one object a line")
    arguments = parser.parse_args()

    interpreter = load_interpreter(arguments.model, arguments.threads)
    shape = tuple(int(side) for side in interpreter.get_input_details()[0]["shape"][1:])
    metadata = read_metadata(arguments.model)
    for photo in arguments.photos:
        probabilities = classify(interpreter, read_pixels(photo, shape, metadata.get("preprocessing", {})))
        labels = metadata.get("labels") or [f"class {index}" for index in range(len(probabilities))]
        best = probabilities.argsort()[::-1][:TOP]
        if arguments.json:
            answers = [{"label": labels[i], "probability": float(probabilities[i])} for i in best]
            print(json.dumps({"file": photo, "top": answers}))
            continue
        print(photo)
        for index in best:
            print(f"  {probabilities[index]:6.1%}  {labels[index]}")


if __name__ == "__main__":
    main()
