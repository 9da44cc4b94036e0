"""Who may import whom, and other rules of the package's structure, read from its source."""

import ast
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "keras_vit_plugin"
# Room of `export/` -> the rooms that it may import, and files beside the rooms. Those files may import all.
MAY_IMPORT = {
    "tflite": (),
    "spec": (),
    "rewrites": ("spec",),
    "lowering": ("spec", "tflite"),
    "quantization": ("tflite", "spec"),
    "targets": ("tflite",),
    "verification": ("spec", "rewrites", "lowering", "quantization", "targets", "tflite", "float_files", "image_sets"),
}


def modules():
    """`{module: its source}` of the package, `export/` as `keras_vit_plugin.export`."""
    found = {}
    for path in (*(REPOSITORY / PACKAGE).rglob("*.py"), *(REPOSITORY / "export").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        parts = (PACKAGE, *parts) if parts[0] == "export" else parts
        if "export" not in parts[2:]:
            found[".".join(parts)] = path.read_text()
    return found


def imported(module, source):
    """The modules of this package that a module imports anywhere."""
    known = modules_names()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(PACKAGE))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names if base.startswith(PACKAGE) else ():
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base


def modules_names():
    return {name.removesuffix(".__init__") for name in modules()}


def room(module):
    """The folder or file of `export/` that a module is in, `"package"` for a module elsewhere."""
    parts = module.split(".")
    return "package" if parts[1:2] != ["export"] else parts[2] if len(parts) > 2 else "export"


def test_rooms_import_only_what_they_may():
    found = set()
    for module, source in modules().items():
        own = room(module)
        for other in imported(module, source):
            theirs = room(other)
            if own in MAY_IMPORT and theirs not in (own, "package", *MAY_IMPORT[own]):
                found.add((module.removeprefix(f"{PACKAGE}.export."), other.removeprefix(f"{PACKAGE}.export.")))
    assert found == set()


def test_oracle_needs_numpy_and_scipy_alone():
    for module, source in modules().items():
        if room(module) in ("spec", "rewrites") and ".readers." not in module:
            names = {name.split(".")[0] for name in _outside(source)}
            assert not names & {"tensorflow", "keras", "ai_edge_litert", "litert_quantizer"}, module


def _outside(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_all_packages_are_installed():
    folders = {name.removesuffix(".__init__") for name in modules() if name.endswith(".__init__")}
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(folders) == listed
