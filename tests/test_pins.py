"""What `make` installs is pinned to a version and the hashes of its files, the build's own tool included."""

import json
import re
import tomllib

import pytest
from conftest import REPOSITORY

PIN = re.compile(r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
# What the Makefile makes an environment for, and the extras that it has.
EXTRAS = {
    "constraints.txt": ("checkpoints", "demo", "plots", "test"),
    "constraints-benchmark.txt": ("benchmark",),
}


def pins(file):
    """`{package: version}` of a file."""
    return {normalized(name): version for name, version, _ in PIN.findall((REPOSITORY / file).read_text() + "\n")}


def normalized(name):
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("file", sorted(path.name for path in REPOSITORY.glob("constraints*.txt")))
def test_every_pin_has_a_hash(file):
    named = [line for line in (REPOSITORY / file).read_text().splitlines() if re.match(r"[\w.-]", line)]
    assert named and len(named) == len(pins(file))


@pytest.mark.parametrize("file, extras", EXTRAS.items())
def test_all_that_the_project_names_is_pinned(file, extras):
    project = PROJECT["project"]
    named = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    assert {normalized(re.match(r"[\w.-]+", each)[0]) for each in named} <= pins(file).keys()


@pytest.mark.parametrize("file", EXTRAS)
def test_the_build_has_the_pinned_setuptools(file):
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={pins(file)['setuptools']}"]


def test_the_web_example_has_the_hashes_of_what_it_names():
    web = REPOSITORY / "examples" / "web"
    named = json.loads((web / "package.json").read_text())["dependencies"]
    own, *packages = json.loads((web / "package-lock.json").read_text())["packages"].values()
    assert own["dependencies"] == named and len(packages) >= len(named)
    assert all(package["integrity"].startswith("sha512-") for package in packages)
