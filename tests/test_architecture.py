"""Who may import whom, and other rules of the package's structure, read from its source."""

import ast
import re
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

# Texts with the name of a package that is also that of a target.
PACKAGES_NAMED = {
    (f"{PACKAGE}.export.tflite.runner", "tflite-runtime"),
    (f"{PACKAGE}.export.tflite.foreign_runner", " cannot import tflite-runtime: "),
    (
        f"{PACKAGE}.export.tflite.foreign_runner",
        "`runtime_python` must be the path of a Python with tflite-runtime, got ",
    ),
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


def test_no_mode_is_named_outside_the_modes():
    for module, text, line in _texts():
        if ".quantization.modes" not in module:
            named = re.findall(r"(?<![\w-])(?:int8-full|int16x8|int4|dynamic|auto)(?![\w-])", text)
            assert not named, f"{module}:{line}: {text[:80]!r}"


def test_no_target_is_named_outside_the_targets():
    for module, text, line in _texts():
        if ".targets." not in module and (module, text) not in PACKAGES_NAMED:
            named = re.findall(r"(?<![\w-])(?:tflite-runtime|mediapipe|gpu)(?![\w-])", text)
            assert not named, f"{module}:{line}: {text[:80]!r}"


def _texts():
    """`(module, text, line)` of every text in `export/` that is no docstring and no style sheet."""
    for module, source in modules().items():
        if not module.startswith(f"{PACKAGE}.export"):
            continue
        tree = ast.parse(source)
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and "{ display:" not in text:
                yield module, text, node.lineno


def test_one_file_imports_the_quantizer_and_one_opens_interpreters():
    importing = [module for module, source in modules().items() if "litert_quantizer" in set(_outside_parts(source))]
    assert importing == [f"{PACKAGE}.export.quantization.quantizer"]
    opening = [
        module
        for module, source in modules().items()
        for node in ast.walk(ast.parse(source))
        if ".export." in module
        and isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Interpreter", "interpreter_class", "opened")
    ]
    # The second is the program of another Python's process.
    assert set(opening) == {f"{PACKAGE}.export.tflite.{name}" for name in ("runner", "serve_interpreter")}


def _outside_parts(source):
    for name in _outside(source):
        yield name.split(".")[0]


def test_functions_are_short():
    for module, source in modules().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert _code_lines(node) <= 80, f"{module}.{node.name}"


def test_the_road_is_short():
    (road,) = [
        node
        for node in ast.walk(ast.parse(modules()[f"{PACKAGE}.export.pipeline"]))
        if isinstance(node, ast.FunctionDef) and node.name == "export_tflite"
    ]
    arguments = road.args
    assert _code_lines(road) <= 60
    assert len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.kwarg]) <= 12


def _code_lines(function):
    """The lines of a function without its docstring."""
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)
