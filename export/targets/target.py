"""What a runtime is: the door between an export and the runtime that its file is for."""

import importlib.metadata
from dataclasses import dataclass, field

from ..tflite.capabilities import Capability
from ..tflite.errors import UnsupportedByTarget
from ..tflite.graph_form import GraphForm
from ..tflite.op_versions import FIRST_RUNTIME
from ..tflite.operators import op_versions
from ..tflite.runner import Runner, load_error
from ..tflite.runtime_versions import first_runtime, number
from ..tflite.xnnpack import DEFAULT_CPU


@dataclass(frozen=True)
class Target:
    """A runtime, and what was measured of it.

    Attributes:
        name: what it is called in `target` and in a file's metadata.
        runtime: its name, for people.
        version: the TensorFlow Lite version it corresponds to.
        has: what it runs: a file of a mode that needs anything else is refused.
        lacks: `{Capability: why}` of what it does not run, for people.
        input_dtypes: those it takes images in, the usual one first.
        form: what it asks of the graph.
        rewrites: names of the rewrites that it wants besides those that all files have.
        largest_batch: images per call; None is any number.
        half_precision: whether it computes in float16, and files are checked in that.
        takes_python: whether files can be verified in another Python that has it.
        needs_labels: whether it reads class names from the file, and gives one output.
        cpu: a key of `xnnpack.COSTS`: the CPUs that operators' costs are those of where the caller names none.
    """

    name: str
    runtime: str
    version: str
    has: frozenset[Capability] = frozenset(Capability)
    lacks: dict[Capability, str] = field(default_factory=dict)
    input_dtypes: tuple[str, ...] = ("uint8", "float32", "int8")
    form: GraphForm = GraphForm()
    rewrites: tuple[str, ...] = ()
    largest_batch: int | None = None
    half_precision: bool = False
    takes_python: bool = False
    needs_labels: bool = False
    cpu: str = DEFAULT_CPU

    def refusal(self, mode):
        """Why it does not run the files of a `Mode`, in words; empty where it does."""
        missing = sorted(mode.needs - self.has, key=list(Capability).index)
        return "" if not missing else self.lacks.get(missing[0], f"it is not known to run {missing[0].value}")

    def check_arguments(self, runtime_python=None):
        """Raises `ValueError` or `ImportError` where it cannot be used here as the caller asks.

        Args:
            runtime_python: path of a Python, or None; for a target that `takes_python`.
        """

    def answers(self, answers):
        """The `Answer`s of the finished file, of those of the model."""
        return answers

    def adapted(self, content, metadata):
        """The file with what it wants of the graph, before this package's metadata is added.

        Args:
            content: bytes of the quantized file.
            metadata: the `Metadata` of the export.
        """
        return content

    def finished(self, content, metadata, description):
        """The file with what it wants of metadata of its own, the last thing to be added.

        Args:
            content: bytes of the file with this package's metadata.
            metadata: the `Metadata` of the export.
            description: of the model, for people.
        """
        return content

    def load_error(self, content, runtime_python=None):
        """What the runtime says when it is given the file, empty where it takes it; None where it is not at hand."""
        return load_error(content)

    def problems(self, model):
        """What keeps it from running a graph, in words, besides the versions of the ops.

        Args:
            model: the schema's object tree.
        """
        return []

    def check(self, content, model, runtime_python=None):
        """Raises `UnsupportedByTarget`, naming every op that it cannot run, or is not known to.

        Args:
            content: bytes of the finished file.
            model: its object tree.
            runtime_python: path of a Python that has the runtime, or None.
        """
        said = self.load_error(content, runtime_python)
        problems = list(self.problems(model))
        if said != "":  # where the runtime has taken the file, that decides
            problems += [
                problem for op, version in op_versions(model).items() if (problem := self._too_new(op, version))
            ]
        if said:
            problems.append(said)
        if problems:
            raise UnsupportedByTarget(f"{self.runtime} cannot run: " + "; ".join(problems))

    def _too_new(self, op, version):
        """What is wrong with a version of an op, empty where nothing is."""
        first = first_runtime(op, version)
        if op not in FIRST_RUNTIME:
            return f"{op}: a flex or custom op, or one that is unknown"
        if first is None:
            return f"{op} version {version}: unknown which runtime has it"
        return f"{op} version {version}: needs runtime {first}" if number(first) > number(self.version) else ""

    def open(self, content, runtime_python=None):
        """`(runner, name of the runtime)`: the finished file as it runs it, where that is possible here.

        The runner has `batch_size` and `outputs(images)`, as `Runner` has them.
        """
        return Runner(content), f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
