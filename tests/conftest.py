"""What the tests share: tiny presets, random images, and where the real data lies."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).parents[1]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it in what runs in the background, and so would every program that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if "PYTEST_XDIST_WORKER" in os.environ and CORES:
    # Test processes side by side keep to a core each: their libraries' threads would wait for each other in loops.
    os.sched_setaffinity(0, {CORES[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(CORES)]})
LONG_SECONDS = 3600
DEIT = "deit_tiny_patch16_224"
TINY_PRESETS = (
    "vit_test",
    "deit_distilled_test",
    "vit_registers_test",
    "vit_mean_pooling_test",
    "simple_vit_test",
)


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        default="1/1",
        metavar="K/N",
        help="of the cases that `@pytest.mark.sampled` leaves to the long tests, part K of N parts of each test",
    )


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config, items):
    """Marks what is long by `@pytest.mark.sampled`, leaves out other parts of it, and gives what is long more time."""
    part, parts = _part(config.getoption("part"))
    sampled, left_out = {}, []
    for item in items:
        if item.get_closest_marker("sampled"):
            sampled.setdefault((item.path, item.originalname), []).append(item)
    for (_, name), cases in sampled.items():
        taken = _sample(cases, *cases[0].get_closest_marker("sampled").args)
        # Not every test's first cases are in part 1: parts are about as long as each other.
        for i, item in enumerate([case for case in cases if case not in taken], zlib.crc32(name.encode())):
            item.add_marker(pytest.mark.long)
            left_out += [item] if i % parts != part else []
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


def _part(text):
    """`K/N` as `(K - 1, N)`."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]):
        raise pytest.UsageError(f"--part must be K/N with K from 1 to N, such as 1/3, got {text!r}")
    return int(found[1]) - 1, int(found[2])


def _sample(cases, count):
    """So many cases of a test, of which each brings as many new values of its parameters as can be."""
    seen, taken = set(), []
    while cases and len(taken) < count:
        values = {item: {(name, str(value)) for name, value in item.callspec.params.items()} for item in cases}
        best = max(cases, key=lambda item: len(values[item] - seen))
        seen |= values[best]
        taken.append(best)
        cases = [item for item in cases if item is not best]
    return taken


def pytest_runtest_setup(item):
    """Weights that a test does not set are the same in every order of the tests."""
    import keras

    keras.utils.set_random_seed(0)


def real_data(*parts):
    """A path in the real data, or a skip where a clone has none."""
    folder = Path(os.environ.get("KERAS_VIT_DATA") or REPOSITORY.parent / "shared" / "data")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data not found at {path}: set KERAS_VIT_DATA to its folder")
    return path


def run_python(code, *arguments, **environment):
    """Runs code in a new process and returns what it printed; a failure shows its standard error."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=REPOSITORY,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


@contextlib.contextmanager
def started(command, **options):
    """A `subprocess.Popen` whose program ends with the block, whatever ends it: a time limit too."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def pixels(image_shape, count=4, seed=0):
    """Random raw pixels, uint8 `(count, H, W, C)`."""
    return np.random.default_rng(seed).integers(0, 256, (count, *image_shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def every_core():
    """Every core for the module's tests: OpenVINO crashes on one of two, and a browser on one has no threads."""
    if not CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture(params=TINY_PRESETS)
def tiny_preset(request):
    return request.param


@pytest.fixture
def tiny_model(tiny_preset):
    """A tiny model of every family with all its weights random, biases and norms too."""
    import keras

    import keras_vit_plugin as kv

    keras.utils.set_random_seed(1)
    model = kv.build(tiny_preset)
    randomize(model)
    return model


def randomize(model, seed=0):
    """Moves every weight off its initial value, so that nothing is right only because it is 0 or 1."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if str(weight.dtype).startswith(("float", "bfloat")):
            weight.assign(np.asarray(weight) + generator.normal(0, 0.1, weight.shape).astype(np.float32))


@pytest.fixture(scope="session")
def deit_file(few_tuning_steps, tmp_path_factory, worker_id):
    """`deit_file(mode, target, **options)`: a file of the real DeiT-tiny, exported once for all test processes.

    CI, which runs the tests in two parts, names a folder for both.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = Path(os.environ.get("KERAS_VIT_TEST_FILES") or (folder if worker_id == "master" else folder.parent))

    def export(mode, target="litert", **options):
        import keras_vit_plugin as kv
        from keras_vit_plugin.export.quantization.steps import tune_gains

        weights = real_data("weights", f"{DEIT}_in1k.npz")
        given = kv.export.mode_of(mode).to_dict() | {"target": target} | options
        name = "-".join(f"{key}_{value}" for key, value in given.items())
        path = folder / f"{name}.tflite"
        with FileLock(f"{path}.lock"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune_gains, "STEPS", few_tuning_steps)
            if not path.exists():
                kv.export.export_tflite(
                    kv.build(DEIT, weights=weights),
                    path,
                    quantize=mode,
                    target=target,
                    calibration=real_data("imagenet_calibration"),
                    labels=real_data("imagenet_labels.txt").read_text().splitlines(),
                    **options,
                )
        return path

    return export


def functional_model():
    """A model of the user's own that contains these layers."""
    import keras

    from keras_vit_plugin import layers

    images = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.PrefixTokensAndPositions()(layers.PatchEmbedding(4, 16)(x))
    x = layers.EncoderBlock(2, 32, layer_scale=0.5)(x)
    x = keras.layers.Dense(4, use_bias=False)(layers.TokenPooling()(x))
    return keras.Model(images, x)


@pytest.fixture(scope="session")
def dense_digits():
    """A trained model of digits with three dense layers: each of many files is made in a second."""
    import keras

    from keras_vit_plugin.presets.digits import load_digits_split

    (x_train, y_train), _ = load_digits_split()
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(64, "gelu"), keras.layers.Dense(64, "gelu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), *dense])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x_train, y_train, batch_size=64, epochs=30, verbose=0)
    return model


@pytest.fixture(scope="session", autouse=True)
def few_tuning_steps():
    """`int4` tunes the gains of tiny models in 10 steps, not 100, but for tests that ask for `all_tuning_steps`."""
    from keras_vit_plugin.export.quantization.steps import tune_gains

    with pytest.MonkeyPatch.context() as patch:
        usual = tune_gains.STEPS
        patch.setattr(tune_gains, "STEPS", (2, 10))
        yield usual


@pytest.fixture
def all_tuning_steps(few_tuning_steps, monkeypatch):
    from keras_vit_plugin.export.quantization.steps import tune_gains

    monkeypatch.setattr(tune_gains, "STEPS", few_tuning_steps)
