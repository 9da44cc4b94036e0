"""Side by side against the peers: the same DeiT-tiny weights and photos through every road, in one run.

    python benchmarks/compare.py --data DATA --output docs

DATA holds `weights/deit_tiny_patch16_224_in1k.npz`, `imagenet_calibration` and `imagenet_eval`. Writes
`benchmark.json`, `benchmark.md` and `benchmark.png`. The rounds are interleaved, so a busy moment hits every road;
medians are over at least 50 rounds. Where qemu is installed, the ARM instructions of every `.tflite` are counted too.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import arm
import numpy as np
import roads

import keras_vit_plugin as kv
from keras_vit_plugin.export.images import gather_images, gather_labelled
from keras_vit_plugin.export.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.export.progress import track
from keras_vit_plugin.export.verify import compare, keras_logits

CALIBRATION_IMAGES = 64
THREADS = (1, 2)
OPENINGS = 6  # every file is loaded anew so often: where its memory lies changes its speed by some percent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("KERAS_VIT_DATA", default)))
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--rounds", type=int, default=90)
    parser.add_argument("--arm", type=Path, default=Path(".arm"), help="where the ARM userland is unpacked, once")
    arguments = parser.parse_args()
    if arguments.rounds < 50:
        parser.error(f"--rounds must be at least 50 for a median to quote, got {arguments.rounds}")

    model = kv.build(roads.PRESET, weights=arguments.data / "weights" / "deit_tiny_patch16_224_in1k.npz")
    preprocessing = preprocessing_of(model)
    calibration = gather_images(
        arguments.data / "imagenet_calibration", preprocessing, "calibration", CALIBRATION_IMAGES
    )
    images, labels = gather_labelled(arguments.data / "imagenet_eval", None, preprocessing, (), model.num_classes)
    reference = keras_logits(model, images, *pixel_normalization(model, 3))
    normalize = roads.normalizer(model)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates = [
            *roads.keras_litert(model, folder, calibration, normalize),
            *roads.onnx_runtime(model, folder, calibration, normalize),
            *roads.openvino(model, folder, calibration, normalize),
            *roads.ours(model, folder, arguments.data / "imagenet_calibration"),
        ]
        instructions = count_on_arm(candidates, images[0], arguments.arm)
        parities = [judge(candidate, images, labels, reference) for candidate in candidates]
        medians = {threads: time_interleaved(candidates, images[0], threads, arguments.rounds) for threads in THREADS}

    rows = [
        {
            "road": candidate.road,
            "mode": candidate.mode,
            "threads": threads,
            "median_ms": round(medians[threads][i], 3),
            "agreement": parity.agreement,
            "snr_db": round(parity.snr_db, 2),
            "top1": parity.top1_accuracy_tflite,
            "size_bytes": candidate.size_bytes,
        }
        for threads in THREADS
        for i, (candidate, parity) in enumerate(zip(candidates, parities))
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "benchmark.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = as_markdown(rows, len(images), arguments.rounds)
    (arguments.output / "benchmark.md").write_text(table + arm_as_markdown(instructions))
    (arguments.output / "benchmark_arm.json").write_text(json.dumps(instructions, indent=1) + "\n")
    draw(rows, arguments.output / "benchmark.png")


def judge(candidate, images, labels, reference):
    """A `ParityReport` of the candidate on all images."""
    run = candidate.open(max(THREADS))
    logits = [run(candidate.prepare(image[None])) for image in track(images, f"{candidate.road}: {candidate.mode}")]
    return compare(reference, np.stack(logits).astype(np.float32), labels)


def time_interleaved(candidates, image, threads, rounds):
    """Median milliseconds of one image per candidate, the candidates taking turns, pinned to `threads` cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:threads])
    try:
        times = np.zeros((rounds, len(candidates)))
        for opening in np.array_split(times, OPENINGS):
            runs = [(candidate.open(threads), candidate.prepare(image[None])) for candidate in candidates]
            for run, pixels in runs:  # warm up
                for _ in range(3):
                    run(pixels)
            for row in track(opening, f"{threads} thread(s)"):
                for i, (run, pixels) in enumerate(runs):
                    started = time.perf_counter()
                    run(pixels)
                    row[i] = (time.perf_counter() - started) * 1000
            del runs
    finally:
        os.sched_setaffinity(0, cores)
    return np.median(times, axis=0).tolist()


def count_on_arm(candidates, image, folder):
    """Instructions per inference of every `.tflite` on every ARM CPU; none, and a word why, where that cannot be."""
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


def arm_as_markdown(rows):
    """The ARM part of the page."""
    if not rows:
        return ""
    base = {
        row["cpu"]: row["instructions"] for row in rows if row["road"].startswith("(a)") and row["mode"] == "dynamic"
    }
    lines = [
        "",
        "## ARM",
        "",
        "Millions of instructions of one inference, counted by qemu with one thread, and their ratio to (a) dynamic.",
        "Counts of two runs differ by less than 1 %.",
        "",
        "| road | mode | " + " | ".join(f"{cpu} | / (a) dynamic" for cpu in base) + " |",
        "|---|---|" + "---|---|" * len(base),
    ]
    for road, mode in dict.fromkeys((row["road"], row["mode"]) for row in rows):
        counts = {row["cpu"]: row["instructions"] for row in rows if (row["road"], row["mode"]) == (road, mode)}
        cells = " | ".join(f"{counts[cpu] / 1e6:.0f} | {counts[cpu] / base[cpu]:.2f}" for cpu in base)
        lines.append(f"| {road} | {mode} | {cells} |")
    return "\n".join(lines) + "\n"


def as_markdown(rows, num_images, rounds):
    base = {
        row["threads"]: row["median_ms"] for row in rows if row["road"].startswith("(a)") and row["mode"] == "float32"
    }
    best = {
        threads: min(r["median_ms"] for r in rows if r["road"].startswith("(d)") and r["threads"] == threads)
        for threads in THREADS
    }
    lines = [
        "# Benchmark",
        "",
        f"DeiT-tiny/16, 224x224, batch 1, on {processor()}. Agreement, SNR and top-1 on {num_images} photos",
        f"against the Keras model in float32; times are medians of {rounds} interleaved rounds (`make benchmark`).",
        "Only ratios within one run mean anything on another machine: `/ (a)` is the time over that of (a) in float32,",
        "`/ (d)` over the fastest of (d). All runtimes share one process: with two threads, where their pools may",
        "hinder each other, the figures are less certain than with one.",
    ]
    for threads in THREADS:
        lines += [
            "",
            f"## {threads} thread{'s' if threads > 1 else ''}",
            "",
            "| road | mode | ms | / (a) | / (d) | agreement | SNR dB | top-1 | MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['road']} | {row['mode']} | {row['median_ms']:.2f} | {row['median_ms'] / base[threads]:.2f} "
            f"| {row['median_ms'] / best[threads]:.2f} | {row['agreement']:.1%} | {row['snr_db']:.1f} "
            f"| {row['top1']:.1%} | {row['size_bytes'] / 1e6:.1f} |"
            for row in rows
            if row["threads"] == threads
        ]
    return "\n".join(lines) + "\n"


def processor():
    """The name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            flags = "with AVX-512 VNNI" if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else "without VNNI"
            return f"{line.split(':', 1)[1].strip()} ({flags})"
    return platform.machine()


def draw(rows, path):
    """Latency against agreement, one thread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axis = figure.subplots()
    rows = [row for row in rows if row["threads"] == 1]
    for road in dict.fromkeys(row["road"] for row in rows):
        mine = [row for row in rows if row["road"] == road]
        axis.scatter(
            [row["median_ms"] for row in mine],
            [row["agreement"] * 100 for row in mine],
            label=road,
            s=70,
            marker="*" if road.startswith("(e)") else "o",
        )
        for row in mine:
            axis.annotate(
                row["mode"].split(" preset")[0],
                (row["median_ms"], row["agreement"] * 100),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
    axis.set_xlabel("milliseconds per image, one thread")
    axis.set_ylabel("same top-1 answer as Keras, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
