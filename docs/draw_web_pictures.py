"""Draws the pictures of docs/web.md: the page of `make web` in headless Chromium.

    make web-pictures

The cat, scikit-image's, is classified by DeiT-tiny, so the real data must be there (KERAS_VIT_DATA).
"""

import shutil
import subprocess
import sys
from pathlib import Path

from keras_vit_plugin.temporary import temporary_folder

REPOSITORY = Path(__file__).parents[1]
IMAGES, WEB = REPOSITORY / "docs" / "images", REPOSITORY / "examples" / "web"
DEIT = "deit_tiny_patch16_224"
NEEDED = (f"weights/{DEIT}_in1k.npz", "imagenet_calibration", "imagenet_labels.txt")  # of the real data
PICTURES = {  # of the digits page, and of the page of a person's own model
    "web-dark.png": ("digits", {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}),
    "web-390.png": ("digits", {"viewport": {"width": 390, "height": 844}}),
    "web-1280.png": ("cat", {"viewport": {"width": 1280, "height": 900}}),
}


def main():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import browser
    import real_data

    if missing := browser.missing_tools():
        sys.exit(f"The web page needs what is missing: {missing}")
    data = real_data.folder()
    if reason := real_data.lacking(data, NEEDED):
        sys.exit(f"KERAS_VIT_DATA must name the folder of the real data: {reason}")
    weights, photos = data / "weights" / f"{DEIT}_in1k.npz", data / "imagenet_calibration"
    labels = data / "imagenet_labels.txt"
    sites = {
        "digits": [],
        "cat": [DEIT, "--weights", weights, "--calibration", photos, "--labels", labels, "--modes", "dynamic", "int8"],
    }
    with temporary_folder() as folder, browser.Browser(webgpu=True) as opened:
        for name, arguments in sites.items():
            shutil.copytree(WEB, folder / name, ignore=shutil.ignore_patterns("site", "__pycache__"))
            command = [sys.executable, folder / name / "prepare.py", *arguments]
            subprocess.run(list(map(str, command)), check=True)
        for file, (name, settings) in PICTURES.items():
            page = opened.open(folder / name, **settings)
            page.wait_for_function("document.querySelector('#status').textContent !== 'Loading…'")
            page.evaluate("vit.idle()")
            modes = page.locator("#models .choice")
            modes.nth(modes.count() - 1 if name == "cat" else 0).click()
            page.evaluate("vit.idle()")
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / file, full_page=True)
            page.close()


if __name__ == "__main__":
    main()
