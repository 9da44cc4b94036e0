"""Copies of the working tree in which tests run, so that a mutation never touches the tree itself."""

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / ".mutation"  # ignored by git: the copies, and which test runs which line
# Installed things that tests start; linked, not copied.
LINKED = (".venv", ".venv-device", ".venv-node", ".arm", "examples/web/node_modules")


class TreeCopy:
    """A copy of all files that git knows or would add, with `export` where an import of the package finds it."""

    def __init__(self, name):
        self.folder = FOLDER / name
        shutil.rmtree(self.folder, ignore_errors=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for path in subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True).stdout.split(b"\0"):
            source = REPOSITORY / os.fsdecode(path)
            if path and source.is_file():
                target = self.folder / os.fsdecode(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        for path in LINKED:
            if (REPOSITORY / path).exists():
                (self.folder / path).symlink_to(REPOSITORY / path)
        (self.folder / "keras_vit_plugin" / "export").symlink_to("../export")
        self._changes = 0

    def write(self, path, text):
        """Writes a file of the copy, with a time that no cached bytecode has."""
        self._changes += 1
        target = self.folder / path
        target.write_text(text)
        os.utime(target, (self._changes, self._changes))

    def enter(self):
        """Makes this process, and those it starts, work in the copy."""
        data = Path(os.environ.get("KERAS_VIT_DATA") or REPOSITORY.parent / "shared" / "data")
        os.environ["KERAS_VIT_DATA"] = str(data.absolute())
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder)
