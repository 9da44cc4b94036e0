"""Writes `cifar10_simple_vit.ipynb` from the cells of `cifar10_simple_vit.py`, executed in a Jupyter kernel.

    python examples/make_notebook.py --data cifar10.npz

The notebook's pictures show photos of scikit-image, which anybody may publish, and none of CIFAR-10.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent
SCRIPT, NOTEBOOK = EXAMPLES / "cifar10_simple_vit.py", EXAMPLES / "cifar10_simple_vit.ipynb"
CELL = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)
SECONDS = 1800  # that a cell may take


class OwnPython(AsyncKernelManager):
    """Kernels of the Python that runs this, whatever specifications are installed on the machine."""

    def __init__(self, **options):
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)


def notebook_of(script):
    """A notebook without outputs.

    Args:
        script: text of a Python program whose cells begin with `# %%`, or `# %% [markdown]` where all is comments.
    """
    first, *parts = CELL.split(script)
    assert not first.strip(), f"there is code before the first cell: {first!r}"
    cells = []
    for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2])):
        text = text.strip("\n")
        if kind:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        new = nbformat.v4.new_markdown_cell if kind else nbformat.v4.new_code_cell
        cells.append(new(text, id=f"cell-{number}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(notebook, **environment):
    """Executes a notebook's cells in a kernel of this Python and keeps what they print and draw, but standard error.

    Args:
        notebook: is changed.
        environment: variables for the kernel.

    Raises:
        CellExecutionError: a cell raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_manager_class=OwnPython,
            timeout=SECONDS,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        search = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
        client.execute(env={**os.environ, "IPYTHONDIR": folder, "PYTHONPATH": search, **environment})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.validate(notebook)
    return notebook


def write(notebook, path):
    """Writes a notebook whole or not at all."""
    part = path.with_suffix(".part")
    try:
        nbformat.write(notebook, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz as for the script; default: keras.datasets")
    data = parser.parse_args().data
    from cifar10_data import load_cifar10  # it lies beside this file, and takes seconds

    try:
        load_cifar10(data)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    environment = {} if data is None else {"CIFAR10_DATA": str(data.resolve())}
    notebook = notebook_of(SCRIPT.read_text(encoding="utf-8"))
    execute(notebook, CIFAR10_PHOTOS="scikit-image", **environment)
    write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
