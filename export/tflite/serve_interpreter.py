"""Opens a `.tflite` in the Python that runs this, and lets another process use it by pipes.

It is given to that Python as text (`python -c PROGRAM MODULE THREADS BYTES SECONDS`): it may import the standard
library, NumPy and MODULE alone, the one with the `Interpreter`, by its name or the path of its `.py`. Every message is
8 bytes of length, big-endian, and an .npz; requests come by standard input, answers go to standard output. The first
request is `model`; then `image` is answered by one array for every output, or `error` by a sentence.

A file can make an interpreter do anything. This process ends when it wants more than BYTES of memory beside what its
libraries have (0: as much as it likes), or takes longer than SECONDS for an answer.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import signal
import struct
import sys

import numpy as np

DETAILS = ("index", "name", "shape", "quantization")
STACK_BYTES = 16 << 20  # of a thread, and what it allocates for itself


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
    stream.write(struct.pack(">Q", content.tell()))
    stream.write(content.getbuffer())
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


def nodes(interpreter):
    """The operators as the interpreter runs them, as JSON has it."""
    indices = ("inputs", "outputs")
    return [
        {"index": node["index"], "op_name": node["op_name"], **{key: list(map(int, node[key])) for key in indices}}
        for node in interpreter._get_ops_details()
    ]


def reason(error):
    """What an error says, or what it is where it says nothing."""
    return np.array(str(error) or type(error).__name__)


def limit_memory(size):
    """Lets this process have so many bytes beside what it has, where the system can say what that is."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as pages:
            data = int(pages.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + size, data + size))


@contextlib.contextmanager
def limited_time(seconds):
    """Ends this process by a signal where what is done within takes longer, be it a loop of the interpreter's own."""
    if not hasattr(signal, "alarm"):
        yield
        return
    signal.alarm(seconds)
    yield
    signal.alarm(0)


def imported(module):
    """A module by its name, or by the path of its `.py`."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location("interpreter_of_a_file", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def serve(requests, answers, module, threads, size, seconds):
    """Opens the file of the first request, and runs it on the images of those that follow."""
    with limited_time(seconds):
        opened = imported(module).Interpreter
        model = receive(requests)["model"].tobytes()
        if size:
            limit_memory(size + threads * STACK_BYTES)
        try:
            interpreter = opened(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
            entries, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            told = {"inputs": described(entries), "outputs": described(outputs), "nodes": nodes(interpreter)}
            told |= {"signatures": interpreter._get_full_signature_list(), "device": getattr(interpreter, "device", "")}
            told = json.dumps(told)
        except Exception as error:
            return send(answers, error=reason(error))
    send(answers, told=np.array(told))
    while True:
        request = receive(requests)
        if request is None:
            return None
        with limited_time(seconds):
            try:
                interpreter.set_tensor(entries[0]["index"], request["image"])
                interpreter.invoke()
                values = {str(detail["index"]): interpreter.get_tensor(detail["index"]) for detail in outputs}
            except Exception as error:
                values = {"error": reason(error)}
        send(answers, **values)


if __name__ == "__main__":
    # What libraries print must not come between the messages.
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, private, sys.argv[1], *map(int, sys.argv[2:]))
