"""Side by side against the peers: the same DeiT-tiny weights and photos through every road, in one run.

    python benchmarks/compare.py --data DATA --output docs
    python benchmarks/compare.py --draw docs

DATA holds `weights/deit_tiny_patch16_224_in1k.npz`, `imagenet_calibration`, `imagenet_eval` and `imagenet_test`. Writes
`benchmark.json`, and from it the page and the pictures; `--draw` writes these two again. The rounds are interleaved, so
a busy moment hits every road; medians are over at least 50 rounds. Where qemu is installed, the ARM instructions of
every `.tflite` are counted too.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import page
import picture
import real_data
from readme import README, with_part

from keras_vit_plugin.files import write_atomically

CALIBRATION_IMAGES = 64
PRESET = "deit_tiny_patch16_224"
ROADS = (
    "(a) KerasHub + Keras export, (b) litert-quantizer",
    "(c) ONNX Runtime",
    "(d) OpenVINO + NNCF",
    "(e) keras-vit-plugin",
    "(f) litert-torch",
    "(g) ExecuTorch + XNNPACK",
)
SETS = ("imagenet_eval", "imagenet_test")  # methods were chosen on the first; the second is for figures only
THREADS = (1, 2)
WRITER = "compare.py"
OPENINGS = 6  # every file is loaded anew so often: where its memory lies changes its speed by some percent
NEEDED = (f"weights/{PRESET}_in1k.npz", "imagenet_calibration", *SETS)  # of the real data
LEAST_ROUNDS = 50  # for a median to quote


def main():
    arguments = parsed()
    if arguments.draw:
        write(arguments.measured, arguments.draw)
        return

    import keras_vit_plugin as kv
    from keras_vit_plugin.progress import print_lines

    code = commit()  # now: the files may change while this runs
    weights = arguments.data / "weights" / f"{PRESET}_in1k.npz"
    with print_lines(), tempfile.TemporaryDirectory() as name:
        model = kv.build(PRESET, weights=weights)
        sets = photos(model, arguments.data, arguments.photos)
        image = next(iter(sets.values()))[0][0]
        candidates, failures = make(model, weights, arguments, Path(name))
        instructions = count_on_arm(candidates, image, arguments.arm)
        judged = judge(candidates, sets)
        medians = {threads: time_interleaved(candidates, image, threads, arguments.rounds) for threads in THREADS}
    measured = {
        "commit": code,
        "cpu": processor(),
        "rounds": arguments.rounds,
        "photos": {name: len(images) for name, (images, *_) in sets.items()},
        "keras_top1": {name: float((logits.argmax(-1) == labels).mean()) for name, (_, labels, logits) in sets.items()},
        "rows": [
            {
                "road": candidate.road,
                "mode": candidate.mode,
                "made_by": candidate.made_by,
                "milliseconds": {str(threads): round(medians[threads][i], 3) for threads in THREADS},
                "judged": judged[i],
                "size_bytes": candidate.size_bytes,
            }
            for i, candidate in enumerate(candidates)
        ],
        "failures": [vars(failure) for failure in failures],
        "arm": instructions,
    }
    write_atomically(arguments.output / "benchmark.json", (json.dumps(measured, indent=1) + "\n").encode())
    write(measured, arguments.output)


def parsed():
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=real_data.folder())
    parser.add_argument("--output", type=Path, help="a folder; docs, if nothing is left out")
    parser.add_argument("--rounds", type=int, default=90)
    parser.add_argument("--photos", type=int, default=500, help="of each set")
    parser.add_argument("--only", help="roads whose name has this in it, such as (c); needs --output")
    parser.add_argument("--arm", type=Path, default=Path(".arm"), help="where the ARM userland is unpacked, once")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write page and pictures of FOLDER/benchmark.json")
    arguments = parser.parse_args()
    if arguments.draw:
        try:
            arguments.measured = json.loads((arguments.draw / "benchmark.json").read_text())
        except (OSError, ValueError) as error:
            parser.error(f"--draw must name a folder with a benchmark.json: {error}")
        return arguments
    for name, value in (("--rounds", arguments.rounds), ("--photos", arguments.photos)):
        if value < 1:
            parser.error(f"{name} must be at least 1, got {value}")
    partial = arguments.only or arguments.rounds < LEAST_ROUNDS or arguments.photos < 500
    if partial and not arguments.output:
        parser.error(f"--only, fewer than {LEAST_ROUNDS} rounds or 500 photos are for trying: they need an --output")
    arguments.roads = [name for name in ROADS if (arguments.only or "").lower() in name.lower()]
    if not arguments.roads:
        parser.error(f"--only must be in the name of a road, got {arguments.only!r}; roads: {'; '.join(ROADS)}")
    real_data.check_data(parser, arguments.data, NEEDED)
    arguments.output = arguments.output or Path("docs")
    real_data.make_output(parser, arguments.output)
    return arguments


def photos(model, data, count):
    """`{set: (uint8 images, labels, the Keras model's logits)}`."""
    from keras_vit_plugin.export.verification.outputs import keras_logits
    from keras_vit_plugin.images.gather import gather_labelled
    from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of

    sets = {}
    for name in SETS:
        images, labels = gather_labelled(data / name, None, preprocessing_of(model), (), model.num_classes)
        images, labels = images[:count], labels[:count]
        sets[name] = images, labels, keras_logits(model, images, *pixel_normalization(model, 3))
    return sets


def make(model, weights, arguments, folder):
    """The files of every road that `--only` leaves: candidates, and failures with their reason."""
    import roads

    from keras_vit_plugin.images.gather import gather_images
    from keras_vit_plugin.images.preprocessing import preprocessing_of

    photos = arguments.data / "imagenet_calibration"
    images = gather_images(photos, preprocessing_of(model), "calibration", CALIBRATION_IMAGES)
    normalize = roads.normalizer(model)
    ways = (
        lambda: roads.keras_litert(model, folder, images, normalize),
        lambda: roads.onnx_runtime(weights, folder, images, normalize),
        lambda: roads.openvino(weights, folder, images, normalize),
        lambda: roads.ours(model, folder, photos),
        lambda: roads.litert_torch(weights, folder, images, normalize),
        lambda: roads.executorch(weights, folder, images, normalize),
    )
    made = []
    for name, way in zip(ROADS, ways):
        if name in arguments.roads:
            started = time.monotonic()
            for each in way():
                made.append(each)
                print(f"{each.road}: {each.mode}, {time.monotonic() - started:.0f} s", flush=True)
    failures = [each for each in made if isinstance(each, roads.Failure)]
    return [each for each in made if each not in failures], failures


def judge(candidates, sets):
    """`{set: {agreement, snr_db, top1}}` of each candidate; two are judged at a time, on a thread each."""
    from keras_vit_plugin.export.verification.parity import compare
    from keras_vit_plugin.progress import track

    def judged(candidate, name):
        images, labels, reference = sets[name]
        run = candidate.open(1)
        logits = np.stack([run(candidate.prepare(image[None])) for image in images]).astype(np.float32)
        parity = compare(reference, logits, labels)
        return {"agreement": parity.agreement, "snr_db": round(parity.snr_db, 2), "top1": parity.top1_accuracy_tflite}

    with ThreadPoolExecutor(2) as pool:
        # The slowest, int16x8, first: it takes as long as all others.
        order = sorted(range(len(candidates)), key=lambda i: candidates[i].mode != "int16x8")
        tasks = {pool.submit(judged, candidates[i], name): (i, name) for i in order for name in sets}
        answers = {tasks[done]: done.result() for done in track(as_completed(tasks), "Judging", len(tasks))}
    return [{name: answers[i, name] for name in sets} for i in range(len(candidates))]


def time_interleaved(candidates, image, threads, rounds):
    """Median milliseconds of one image per candidate, the candidates taking turns, pinned to `threads` cores."""
    from keras_vit_plugin.progress import track

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:threads])
    try:
        times = np.zeros((rounds, len(candidates)))
        taken = iter(track(range(rounds), f"Timing on {threads} thread{'s' if threads > 1 else ''}"))
        for opening in np.array_split(times, min(OPENINGS, rounds)):
            runs = [(candidate.open(threads), candidate.prepare(image[None])) for candidate in candidates]
            for run, pixels in runs:  # warm up
                for _ in range(3):
                    run(pixels)
            for row in opening:
                next(taken)
                for i, (run, pixels) in enumerate(runs):
                    row[i] = seconds(run, pixels) * 1000
            del runs
        next(taken, None)
    finally:
        os.sched_setaffinity(0, cores)
    return np.median(times, axis=0).tolist()


def seconds(run, pixels):
    """The seconds of one inference; a worker takes them itself."""
    if hasattr(run, "seconds"):
        return run.seconds(pixels)
    started = time.perf_counter()
    run(pixels)
    return time.perf_counter() - started


def count_on_arm(candidates, image, folder):
    """Instructions per inference of every `.tflite` on every ARM CPU; none, and a word why, where that cannot be."""
    import arm

    from keras_vit_plugin.progress import track

    if missing := arm.missing_tools():
        print(f"ARM instructions are not counted: {missing}.")
        return []
    folder = arm.prepare(folder)
    rows = []
    # Under qemu int16x8, which no optimized kernel takes, would need longer than all others; auto is one of these.
    counted = [each for each in candidates if each.tflite and not each.mode.startswith(("int16x8", "auto"))]
    for candidate in track(counted, "ARM instructions"):
        for cpu in arm.CPUS:
            count = arm.instructions_per_inference(folder, candidate.tflite, candidate.prepare(image[None]), cpu)
            rows.append({"road": candidate.road, "mode": candidate.mode, "cpu": cpu, "instructions": count})
    return rows


def processor():
    """The name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            flags = "with AVX-512 VNNI" if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else "without VNNI"
            return f"{line.split(':', 1)[1].strip()} ({flags})"
    return platform.machine()


def commit():
    """What `git describe` calls the code that is measured."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def write(measured, folder):
    """The page and its pictures, from what was measured, and the README's part where the folder is that of the docs."""
    write_atomically(folder / "benchmark.md", page.as_markdown(measured).encode())
    for theme, path in (("light", "benchmark.png"), ("dark", "benchmark-dark.png")):
        picture.draw(measured["rows"], folder / path, theme)
    if folder.resolve() == (README.parent / "docs").resolve():
        write_atomically(README, with_part(README.read_text(), WRITER, page.in_short(measured)).encode())


if __name__ == "__main__":
    main()
