"""Changes to a folder of photos, beside those to the table and the photos in it."""

import os
import shutil

from mutation import Unfit

NAMES = (
    "\x1b[31mred.png",
    "a\nb.png",
    "[bold]x[/bold].png",
    "x" * 250 + ".png",
    ".hidden.png",
    "-v.png",
    " .png",
    "é.PNG",
)
CLASSES = ("\x1b[31mred", "[bold]x[/bold]", "-v", ".hidden", "__MACOSX", "a\nb", "é", "0")


def a_photo(folder, random):
    photos = sorted(path for path in folder.rglob("*.png") if path.is_file())
    if not photos:
        raise Unfit
    return random.choice(photos)


def photo_renamed(folder, random):
    """With a table, which names it no more, and without one."""
    photo = a_photo(folder, random)
    if random.random() < 0.5:
        without_a_table(folder, random)
    photo.rename(photo.with_name(random.choice(NAMES)))


def photo_with_a_name_that_is_no_text(folder, random):
    photo = a_photo(folder, random)
    without_a_table(folder, random)
    os.rename(photo, os.fsencode(photo.parent) + b"/\xff\xfe.png")


def photo_removed(folder, random):
    a_photo(folder, random).unlink()


def photo_that_is_none(folder, random):
    photo, kind = a_photo(folder, random), random.choice(("folder", "pipe", "link", "loop", "text", "empty", "zero"))
    photo.unlink()
    if kind == "folder":
        photo.mkdir()
    elif kind == "pipe":
        os.mkfifo(photo)
    elif kind in ("link", "loop", "zero"):
        photo.symlink_to({"link": "nothing", "loop": photo.name, "zero": "/dev/zero"}[kind])
    else:
        photo.write_text("no photo" if kind == "text" else "")


def photos_in_sub_folders(folder, random):
    """One per class, without a table; the names of some are odd."""
    (folder / "labels.csv").unlink(missing_ok=True)
    photos, names = sorted(folder.glob("*.png")), ["ant", "bee", "cat", "dog"]
    names[random.randrange(4)] = random.choice(CLASSES)
    for index, photo in enumerate(photos):
        (folder / names[index % 4]).mkdir(exist_ok=True)
        photo.rename(folder / names[index % 4] / photo.name)


def link_to_the_folder_itself(folder, random):
    (folder / "again").symlink_to(".")


def without_a_table(folder, random):
    (folder / "labels.csv").unlink(missing_ok=True)


def everything_removed(folder, random):
    shutil.rmtree(folder)
    if random.random() < 0.5:
        folder.mkdir()


FOLDER = (
    photo_renamed,
    photo_renamed,
    photo_with_a_name_that_is_no_text,
    photo_removed,
    photo_that_is_none,
    photo_that_is_none,
    photos_in_sub_folders,
    link_to_the_folder_itself,
    without_a_table,
    everything_removed,
)
