"""The examples run as they stand."""

import base64
import importlib.util
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, real_data
from PIL import Image

import keras_vit_plugin as kv

EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "cifar10_simple_vit.ipynb"


def run_example(name, *arguments, code=0):
    result = subprocess.run([sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == code, result.stderr[-3000:]
    return result.stderr if code else result.stdout


def example(name):
    """A program of `examples` as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_arrays(**others):
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8),
        "y_train": generator.integers(0, 10, 1000),
        "x_test": generator.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8),
        "y_test": generator.integers(0, 10, (50, 1)),
        **others,
    }


@pytest.mark.long
def test_the_script_runs_on_made_data(tmp_path):
    np.savez(tmp_path / "data.npz", **made_arrays())
    printed = run_example(
        "cifar10_simple_vit.py", "--data", tmp_path / "data.npz", "--output", tmp_path / "out", "--epochs", 1
    )
    assert "41,226" in printed and "the same answer on" in printed and "25/25" in printed  # 800 images, 32 at a time
    for picture in ("patches.png", "curves.png", "predictions.png", "attention.png"):
        assert np.asarray(Image.open(tmp_path / "out" / picture).convert("L")).std() > 5
    assert kv.export.inspect(tmp_path / "out" / "simple_vit_int8.tflite").metadata["labels"][0] == "airplane"


def printed_by(notebook):
    """All that the cells of a notebook printed."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def test_the_notebook_runs_on_cifar10():
    """As `make notebook` runs it: 800 images, five epochs, seed 42."""
    maker = example("make_notebook")
    data = str(real_data("cifar10_subset.npz"))
    notebook = maker.notebook_of(maker.SCRIPT.read_text(encoding="utf-8"))
    printed = printed_by(maker.execute(notebook, CIFAR10_DATA=data, CIFAR10_PHOTOS="scikit-image"))
    assert "Epoch 5/5" in printed and "25/25" in printed
    losses = [float(loss) for loss in re.findall(r"val_loss: ([\d.]+)", printed)]
    assert len(losses) == 5 and losses[-1] < 2.2 < losses[0]  # ten classes at chance: ln 10 = 2.3
    assert float(re.search(r"the same answer on ([\d.]+)%", printed)[1]) >= 85
    assert [cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"] == list(range(1, 16))


def test_the_stored_notebook_is_the_script_executed():
    """After a change of the script: `make notebook`."""
    maker = example("make_notebook")
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    made = maker.notebook_of(maker.SCRIPT.read_text(encoding="utf-8"))
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in stored["cells"]]
    assert sources == [(cell.cell_type, cell.source) for cell in made.cells]
    assert sum("41,226" in source for _, source in sources) >= 2
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = [output["data"]["image/png"] for output in outputs if "data" in output]
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert len(sizes) == 4 and any(abs(width / height - 3) < 0.15 for width, height in sizes)  # the curves: 12 x 4
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    printed = printed_by(stored)
    assert "Epoch 5/5" in printed and "bit for bit" in printed and not re.search(r"/(home|root|tmp|work)\b", printed)


def test_the_stored_notebook_shows_photos_that_anybody_may_publish():
    """The first picture is drawn again from scikit-image's photo, not from CIFAR-10."""
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    (output,) = next(
        found
        for cell in stored["cells"]
        if (found := [output for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})])
    )
    drawn = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")
    photo = example("cifar10_data").photos_to_show("scikit-image", None)[0]
    # The image fills a square of the left half.
    left = np.asarray(drawn, np.float32)[:, : drawn.width // 2]
    inked = (left < 250).any(-1)
    rows = np.flatnonzero(inked.mean(1) > 0.7)
    columns = np.flatnonzero(inked[rows].mean(0) > 0.9)
    square = left[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    small = np.asarray(Image.fromarray(square.astype(np.uint8)).resize((32, 32)), np.float32)
    assert np.abs(small - photo).mean() < 12


BAD_ARRAYS = {
    "missing array": ({"y_test": None}, "lacks y_test"),
    "few images": ({"x_train": np.zeros((999, 32, 32, 3), np.uint8), "y_train": np.zeros(999, int)}, "1000 images or"),
    "no images": ({"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.zeros(0, int)}, "1 images or more"),
    "scaled pixels": ({"x_train": np.zeros((1000, 32, 32, 3), np.float32)}, "must have uint8 pixels .* has float32"),
    "other size": ({"x_test": np.zeros((50, 28, 28, 3), np.uint8)}, r"as x_test; .* has uint8 \(50, 28, 28, 3\)"),
    "one hot": ({"y_train": np.zeros((1000, 10), int)}, r"one integer class per image as y_train; .* \(1000, 10\)"),
    "float classes": ({"y_train": np.zeros(1000)}, "one integer class per image as y_train; .* has float64"),
    "too few classes": ({"y_train": np.zeros(900, int)}, r"\(900,\) for 1000 images"),
    "classes of another set": ({"y_train": np.full(1000, 10)}, r"classes 0\.\.9 in y_train; .* has 10\.\.10"),
    "negative": ({"y_test": np.full(50, -1)}, r"classes 0\.\.9 in y_test; .* has -1\.\.-1"),
    "text": ({"y_test": np.full(50, "cat")}, "one integer class per image as y_test"),
    "objects": ({"y_test": np.full(50, None)}, "holds Python objects"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_other_arrays_than_cifar10s_are_refused(case, tmp_path):
    changed, said = BAD_ARRAYS[case]
    arrays = {name: array for name, array in made_arrays(**changed).items() if array is not None}
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=said) as error:
        example("cifar10_data").load_cifar10(tmp_path / "data.npz")
    assert "--data" in str(error.value) and str(tmp_path / "data.npz") in str(error.value)


def test_files_that_are_none_are_refused(tmp_path):
    load, path = example("cifar10_data").load_cifar10, tmp_path / "data.npz"
    with pytest.raises(ValueError, match="names no file"):
        load(path)
    with pytest.raises(ValueError, match=r"must be an \.npz file"):
        load(tmp_path / "data.csv")
    np.savez_compressed(path, **made_arrays())
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="--data=.* is damaged"):
        load(path)
    path.write_bytes(content[:5000] + bytes(200) + content[5200:])
    with pytest.raises(ValueError, match="`--data` is damaged"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="--data=.* no regular file"):
        load(path)


def test_the_script_says_so_in_one_line(tmp_path):
    data, out = tmp_path / "none.npz", tmp_path / "out"
    assert run_example("cifar10_simple_vit.py", "--data", data, "--output", out, code=2) == (
        f"`--data` names no file: '{data}'.\n"
    )
    assert not out.exists()
    said = run_example("cifar10_simple_vit.py", "--epochs", 0, code=2)
    assert said == "`--epochs` must be 1 or more, got 0.\n"


def test_an_output_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ValueError, match=f"`--output` must be a folder, '{path}' cannot be one: "):
            example("cifar10_data").make_folder(path)
    example("cifar10_data").make_folder(tmp_path / "made" / "folder")
    assert (tmp_path / "made" / "folder").is_dir()


def test_the_notebook_is_made_of_data_that_is_there(tmp_path):
    stored = NOTEBOOK.read_bytes()
    said = run_example("make_notebook.py", "--data", tmp_path / "none.npz", code=2)
    assert said.splitlines()[-1] == f"`--data` names no file: '{tmp_path / 'none.npz'}'."
    assert "Traceback" not in said and NOTEBOOK.read_bytes() == stored


def test_a_notebook_that_cannot_be_written_leaves_the_old_one(tmp_path):
    maker, path = example("make_notebook"), tmp_path / "n.ipynb"
    maker.write(maker.notebook_of("# %%\nprint(1)\n"), path)
    stored = path.read_bytes()
    with pytest.raises(AttributeError):
        maker.write("no notebook", path)
    assert path.read_bytes() == stored and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--epochs", "-3"], "--epochs must be 1 or more, got -3"),
        (["--output", "x.txt"], "--output must end in .weights.h5, got 'x.txt'"),
        (["--output", "no such folder/w.weights.h5"], "--output cannot be written: 'no such folder/w.weights.h5'"),
    ],
)
def test_what_the_digits_training_cannot_write_is_told_before_it_trains(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_vit_digits.py", "--output", "w.weights.h5", *arguments])
    with pytest.raises(SystemExit):
        example("train_vit_digits").parsed()
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_the_digits_training_script_learns(tmp_path):
    path = tmp_path / "w.weights.h5"
    printed = run_example("train_vit_digits.py", "--output", path, "--epochs", 10)
    assert float(printed.split("held-out accuracy ")[1].split()[0]) > 0.5
    kv.build("vit_digits", weights=path)
