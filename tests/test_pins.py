"""What `make` installs is pinned to a version and the hashes of its files, the build's own tool included."""

import json
import re
import tomllib

import pytest
from conftest import REPOSITORY

PIN = re.compile(r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
# What the Makefile makes an environment for, and the extras that it has.
EXTRAS = {"main": ("checkpoints", "demo", "notebook", "plots", "test"), "benchmark": ("benchmark",)}
# The files that `pip` checks hashes by, and those that people change.
CONSTRAINTS = {"main": "constraints.txt"} | {
    name: f"constraints-{name}.txt" for name in ("device", "benchmark", "torch", "node")
}


def pins(name):
    """`{package: version}` of a file in `hashes`."""
    text = (REPOSITORY / "hashes" / f"{name}.txt").read_text() + "\n"
    return {normalized(package): version for package, version, _ in PIN.findall(text)}


def normalized(name):
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name, file", CONSTRAINTS.items())
def test_every_pin_has_a_hash(name, file):
    lines = [line for line in (REPOSITORY / file).read_text().splitlines() if not line.startswith("#")]
    named = {normalized(package): version for package, version in (line.split("==") for line in lines)}
    assert named and pins(name) == named, "the versions changed: make hashes"
    assert CONSTRAINTS.keys() == {path.stem for path in (REPOSITORY / "hashes").iterdir()}


@pytest.mark.parametrize("name, extras", EXTRAS.items())
def test_all_that_the_project_names_is_pinned(name, extras):
    project = PROJECT["project"]
    named = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    assert {normalized(re.match(r"[\w.-]+", each)[0]) for each in named} <= pins(name).keys()


@pytest.mark.parametrize("name", EXTRAS)
def test_the_build_has_the_pinned_setuptools(name):
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={pins(name)['setuptools']}"]


def test_the_web_example_has_the_hashes_of_what_it_names():
    web = REPOSITORY / "examples" / "web"
    named = json.loads((web / "package.json").read_text())["dependencies"]
    own, *packages = json.loads((web / "package-lock.json").read_text())["packages"].values()
    assert own["dependencies"] == named and len(packages) >= len(named)
    assert all(package["integrity"].startswith("sha512-") for package in packages)
