"""Opens a `.tflite` in the tflite-runtime of the Python that runs this, and lets another process use it by pipes.

It is given to that Python as text (`python -c`): it may import the standard library, NumPy and tflite_runtime alone.
Every message is 8 bytes of length, big-endian, and an .npz; requests come by standard input, answers go to standard
output. The first request is `model`; then `image` is answered by one array for every output, or `error` by a sentence.
"""

import io
import json
import os
import struct
import sys

import numpy as np

DETAILS = ("index", "name", "shape", "quantization")


def receive(stream):
    """The arrays of the next message, or None where the stream has ended."""
    start = stream.read(8)
    length = struct.unpack(">Q", start)[0] if len(start) == 8 else 0
    content = stream.read(length)
    return dict(np.load(io.BytesIO(content), allow_pickle=False)) if 0 < length == len(content) else None


def send(stream, **arrays):
    """Writes a message."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    stream.write(struct.pack(">Q", content.tell()) + content.getvalue())
    stream.flush()


def described(details):
    """What the interpreter says of its inputs or outputs, as JSON has it."""
    plain = [{key: detail[key] for key in DETAILS} for detail in details]
    for entry, detail in zip(plain, details):
        scale, zero_point = entry["quantization"]
        entry.update(
            index=int(entry["index"]),
            shape=[int(side) for side in entry["shape"]],
            quantization=[float(scale), int(zero_point)],
            dtype=np.dtype(detail["dtype"]).name,
        )
    return plain


def serve(requests, answers):
    """Opens the file of the first request, and runs it on the images of those that follow."""
    from tflite_runtime.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=receive(requests)["model"].tobytes(), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return send(answers, error=np.array(str(error)))
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    told = {
        "inputs": described(interpreter.get_input_details()),
        "outputs": described(outputs),
        "signatures": interpreter._get_full_signature_list(),
    }
    send(answers, told=np.array(json.dumps(told)))
    while True:
        request = receive(requests)
        if request is None:
            return None
        try:
            interpreter.set_tensor(entry["index"], request["image"])
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            send(answers, error=np.array(str(error)))
            continue
        send(answers, **{str(detail["index"]): interpreter.get_tensor(detail["index"]) for detail in outputs})


if __name__ == "__main__":
    # What libraries print must not come between the messages.
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, private)
