"""The parts of the benchmark that need no peer installed."""

import json
import os
import sys

import conftest
import numpy as np
import pytest
from conftest import REPOSITORY, pixels, randomize

import keras_vit_plugin as kv


@pytest.fixture(scope="module")
def roads_and_compare():
    import compare
    import roads

    return roads, compare


def test_the_kerashub_model_has_the_same_function(roads_and_compare):
    roads, _ = roads_and_compare
    model = kv.build("vit_test")
    randomize(model)
    x = (pixels(model.image_shape) / 255).astype("float32")
    np.testing.assert_allclose(roads.kerashub_twin(model)(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_our_files_are_judged_and_timed_in_every_mode(roads_and_compare, dense_digits, tmp_path):
    roads, compare = roads_and_compare
    from keras_vit_plugin.export import mode_of
    from keras_vit_plugin.export.verification.outputs import keras_logits
    from keras_vit_plugin.presets.digits import load_digits_split

    (x_train, _), (x_test, y_test) = load_digits_split()
    candidates = list(roads.ours(dense_digits, tmp_path, x_train))
    assert [candidate.mode for candidate in candidates][-4:] == ["int16x8", "int4", "auto, 99 %", "auto, 99 %, size"]
    reference = keras_logits(dense_digits, x_test[:40], 1.0, 0.0)
    modes = [type(mode_of(candidate.mode.split(",")[0])).__name__ for candidate in candidates]
    assert all(f"quantize={mode}(" in candidate.made_by for mode, candidate in zip(modes, candidates))
    judged = compare.judge(candidates, {"a": (x_test[:40], y_test[:40], reference)})
    assert len(judged) == len(candidates) and min(each["a"]["agreement"] for each in judged) >= 0.9
    medians = compare.time_interleaved(candidates, x_test[0], 1, 3)
    assert len(medians) == len(candidates) and min(medians) > 0


@pytest.fixture
def measured():
    """What `compare.py` writes, of three files."""
    kept = {"agreement": 0.99, "snr_db": 20.0, "top1": 0.8}
    rows = [
        {"road": road, "mode": mode, "made_by": f"make({mode!r})", "milliseconds": {"1": taken, "2": taken / 2}}
        | {"judged": {"imagenet_eval": kept, "imagenet_test": kept | {"agreement": 0.97}}, "size_bytes": 6_300_000}
        for road, mode, taken in (("(a) A", "float32", 20.0), ("(d) D", "int8", 10.0), ("(e) E", "int8", 5.0))
    ]
    arm = [
        {"road": road, "mode": mode, "cpu": cpu, "instructions": count * scale}
        for cpu, scale in (("cortex-a72", 2_000_000), ("cortex-a76", 1_000_000))
        for road, mode, count in (("(a) A", "float32", 400), ("(a) A", "dynamic", 200), ("(e) E", "int8", 120))
    ]
    sets = {"imagenet_eval": 500, "imagenet_test": 400}
    measured = {"commit": "v1-2-gabc", "cpu": "a CPU", "rounds": 60, "photos": sets, "rows": rows, "arm": arm}
    failures = [{"road": "(g) G", "mode": "dynamic", "why": "it said no"}]
    return measured | {"keras_top1": dict.fromkeys(sets, 0.872), "failures": failures}


def test_the_page_holds_the_ratios_and_what_was_measured(roads_and_compare, measured):
    import page

    text = page.as_markdown(measured)
    assert (
        "| (e) E | int8 | 5.00 | 0.25 | 0.50 | 6.3 |" in text and "| (e) E | int8 | 2.50 | 0.25 | 0.50 | 6.3 |" in text
    )
    assert "| (e) E | int8 | 99.0% | 20.0 | 80.0% | 97.0% | 20.0 | 80.0% |" in text
    assert "| (e) E | int8 | 240 | 0.60 | 120 | 0.60 |" in text
    assert "a CPU" in text and "`v1-2-gabc`" in text and "400 photos of `imagenet_test`" in text
    assert "| (e) E | int8 | `make('int8')` |" in text and "* (g) G, dynamic: it said no" in text
    without = page.as_markdown(measured | {"arm": [], "failures": [], "rows": measured["rows"][2:]})
    assert "ARM" not in without and "not be run" not in without and "| (e) E | int8 | 5.00 |  |  | 6.3 |" in without


def test_the_readme_has_each_file_of_ours_beside_the_fastest_that_keeps_as_many(roads_and_compare, measured):
    import page
    import readme

    base, peer, ours = measured["rows"]
    peer["size_bytes"] = 7_000_000
    lossy = peer | {"mode": "quick", "milliseconds": {"1": 1.0}}
    lossy["judged"] = {name: {"agreement": 0.9} for name in peer["judged"]}
    alone = ours | {"mode": "float32", "milliseconds": {"1": 19.0}}
    alone["judged"] = {name: {"agreement": 1.0} for name in ours["judged"]}
    arm = [*measured["arm"], measured["arm"][-1] | {"mode": "dynamic", "instructions": 150_000_000}]
    lines = list(page.in_short(measured | {"rows": [base, peer, lossy, ours, alone], "arm": arm}))
    assert lines[0].startswith("Side by side with A and D in one interleaved run, one thread of a CPU")
    assert "| `int8` | 98.0% | 0.25 | D, int8 (98.0%) | 0.50 | 0.90 |" in lines
    assert "| `float32` | 100.0% | 0.95 | none | |  |" in lines
    assert (
        lines[-1] == "Of the instructions of Keras's dynamic file on an ARM Cortex-A76, `dynamic` 0.75 and `int8` 0.60."
    )
    text = f"a\n{readme.begin('compare.py')}old\n{readme.END}b\n"
    assert readme.with_part(text, "compare.py", ["new"]) == text.replace("old", "new")


def test_the_page_of_the_benchmark_is_what_was_measured(roads_and_compare):
    import page
    import readme

    measured = json.loads((REPOSITORY / "docs" / "benchmark.json").read_text(encoding="utf-8"))
    assert page.as_markdown(measured) == (REPOSITORY / "docs" / "benchmark.md").read_text(encoding="utf-8")
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_part(text, "compare.py", page.in_short(measured)) == text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_names_files_where_nothing_is_covered(roads_and_compare, measured, tmp_path, theme, monkeypatch):
    import picture
    from matplotlib.figure import Figure
    from PIL import Image

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k))[1])
    modes = ("int8", "dynamic", "int4", "int8-full", "int16x8", "float32", "float16")
    rows = [
        {"road": road, "mode": mode, "milliseconds": {"1": (6 + i + 2 * j) * (20 if mode == "int16x8" else 1)}}
        | {"judged": {"a": {"agreement": 0.92 + 0.012 * j + 0.003 * i}}}
        for i, road in enumerate(("(a) A", "(c) C", "(e) E"))
        for j, mode in enumerate(modes)
    ]
    picture.draw(rows, tmp_path / "p.png", theme)
    assert Image.open(tmp_path / "p.png").size == (1660, 1120)
    figures[0].canvas.draw()
    axis = figures[0].axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    names = [text for text in axis.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in names]
    assert set(modes) <= {text.get_text() for text in names}, "ours are all named"
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--rounds", "5"], "they need an --output"),
        (["--only", "(c)"], "they need an --output"),
    ],
)
def test_a_part_of_the_benchmark_does_not_replace_the_page(roads_and_compare, monkeypatch, capsys, arguments, message):
    _, compare = roads_and_compare
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit):
        compare.parsed()
    assert message in capsys.readouterr().err


WEIGHTS = "weights/deit_tiny_patch16_224_in1k.npz"


def said_by(program, arguments, monkeypatch, capsys):
    """What the arguments of a benchmark are refused with; its program has done nothing else."""
    monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        program.parsed()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["accuracy", "compare", "matrix"])
def test_a_benchmark_names_the_data_that_is_not_there(roads_and_compare, name, tmp_path, monkeypatch, capsys):
    program, output = __import__(name), tmp_path / "out"
    nowhere, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    for data, said in ((nowhere, f"'{nowhere}' is no folder"), (empty, f"'{empty}' lacks {WEIGHTS}, imagenet_cal")):
        assert said in said_by(program, ["--data", data, "--output", output], monkeypatch, capsys)
        monkeypatch.setenv("KERAS_VIT_DATA", str(data))
        assert said in said_by(program, ["--output", output], monkeypatch, capsys)
    assert not output.exists()


@pytest.mark.parametrize("name", ["accuracy", "compare", "matrix"])
def test_a_benchmark_names_an_output_that_is_no_folder(roads_and_compare, name, tmp_path, monkeypatch, capsys):
    import real_data

    monkeypatch.setattr(real_data, "lacking", lambda data, needed: "")
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "folder"):
        said = said_by(__import__(name), ["--output", output], monkeypatch, capsys)
        assert f"--output must be a folder, '{output}' cannot be one: " in said


def test_digits_need_no_data(roads_and_compare, tmp_path, monkeypatch):
    import accuracy

    arguments = ["--data", "/nowhere", "--output", str(tmp_path), "--only", "digits, registers", "--modes", "int8"]
    monkeypatch.setattr(sys, "argv", ["accuracy.py", *arguments])
    assert accuracy.parsed()[1] == {"digits, registers": ["int8"]}
    row = {"model": "digits, registers", "mode": "int8"}
    (tmp_path / "accuracy.json").write_text(json.dumps([row]))
    assert accuracy.parsed()[1] == {}


def test_every_model_that_takes_real_data_says_which(roads_and_compare):
    from judged_models import MODELS, NEEDED

    assert set(MODELS) - set(NEEDED) == {name for name in MODELS if name.startswith("digits")}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--draw", "/nowhere"], "--draw must name a folder with a benchmark.json: "),
        (["--only", "zzz", "--output", "out"], "--only must be in the name of a road, got 'zzz'; roads: (a) KerasHub"),
    ],
)
def test_unfit_arguments_of_the_benchmark_are_refused(roads_and_compare, arguments, said, monkeypatch, capsys):
    assert said in said_by(roads_and_compare[1], arguments, monkeypatch, capsys)


def test_an_empty_variable_names_no_data(roads_and_compare, monkeypatch):
    import real_data

    for value in ("", None):
        monkeypatch.delenv("KERAS_VIT_DATA") if value is None else monkeypatch.setenv("KERAS_VIT_DATA", value)
        assert real_data.folder() == REPOSITORY.parent / "shared" / "data"
    monkeypatch.setenv("KERAS_VIT_DATA", "")
    with pytest.raises(pytest.skip.Exception, match="not found at .*shared"):
        conftest.real_data("no such file")
    monkeypatch.setenv("KERAS_VIT_DATA", os.sep)
    assert conftest.real_data() == real_data.folder()


def test_a_road_without_its_environment_says_so(roads_and_compare, tmp_path, monkeypatch):
    roads, _ = roads_and_compare
    import workers

    monkeypatch.setattr(workers, "PYTHON", tmp_path / "none")
    images = np.zeros((1, 4, 4, 3), "uint8")
    for road in (roads.onnx_runtime, roads.openvino, roads.litert_torch, roads.executorch):
        (failure,) = road("weights.npz", tmp_path, images, np.float32)
        assert failure.mode == "every mode" and "make .venv-torch/installed" in failure.why


def test_a_worker_runs_a_file_and_times_itself(roads_and_compare, tmp_path, monkeypatch):
    """With a program in the place of ExecuTorch's."""
    import workers

    program = tmp_path / "serve.py"
    program.write_text(
        "import json, sys, numpy as np\n"
        "for line in sys.stdin:\n"
        "    command = json.loads(line)\n"
        "    if 'logits' in command:\n"
        "        np.save(command['logits'], np.load(command['image']).ravel() * 2)\n"
        "    print(json.dumps({'threads': int(sys.argv[2]), 'seconds': 0.25}), flush=True)\n"
    )
    monkeypatch.setattr(workers, "PYTHON", sys.executable)
    monkeypatch.setattr(workers, "PROGRAM", program)
    monkeypatch.setattr(workers, "_workers", {})
    run = workers.opened("file.pte", 1)
    np.testing.assert_array_equal(run(np.arange(3.0)), [0, 2, 4])
    np.testing.assert_array_equal(run(np.arange(2.0)), [0, 2])
    _, compare = roads_and_compare
    assert compare.seconds(run, np.arange(2.0)) == 0.25
    run.worker.process.kill()
    run.worker.process.wait()
    with pytest.raises((workers.Unavailable, BrokenPipeError)):
        run(np.arange(2.0))
