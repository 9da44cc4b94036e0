"""Writes `export/tflite/op_versions.py`: which TensorFlow Lite release first ran each version of each builtin op.

    python make_op_versions.py RUNTIME_VERSION_CC RELEASE

RUNTIME_VERSION_CC is the file tflite/converter/tools/versioning/runtime_version.cc of LiteRT at the tag RELEASE, or its
ancestor tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc. Only its facts are taken: an op, a version
of it, and the release that first had that.
"""

import re
import sys
from pathlib import Path

TABLE = Path(__file__).parents[1] / "export" / "tflite" / "op_versions.py"
ENTRY = re.compile(r'\{\{BuiltinOperator_(\w+),\s*(\d+)\},\s*"(\d+(?:\.\d+)*)"\}')
HEADER = '''"""The runtime that first ran version 1, 2, ... of each builtin op; "-" where its source does not say.

Written by `benchmarks/make_op_versions.py`, not by hand. Source: LiteRT {release},
tflite/converter/tools/versioning/runtime_version.cc.
"""

FIRST_RUNTIME = {{
    op: tuple(runtimes.split())
    for op, runtimes in {{
{rows}
    }}.items()
}}
'''


def table_of(source, release):
    """The text of `op_versions.py` from that of runtime_version.cc."""
    runtimes = {}
    for op, version, runtime in ENTRY.findall(source):
        runtimes.setdefault(op, {})[int(version)] = runtime.removesuffix(".0") if runtime.count(".") > 1 else runtime
    rows = [
        f'        "{op}": "{" ".join(known.get(version, "-") for version in range(1, max(known) + 1))}",'
        for op, known in sorted(runtimes.items())
    ]
    return HEADER.format(release=release, rows="\n".join(rows))


if __name__ == "__main__":
    source, release = sys.argv[1:]
    TABLE.write_text(table_of(Path(source).read_text(), release))
