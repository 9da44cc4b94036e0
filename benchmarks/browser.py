"""Runs a `.tflite` in headless Chromium with LiteRT.js, by the page in examples/web.

with Browser() as browser:
    logits, ms = browser.run(Path("m.tflite").read_bytes(), pixels, accelerator="wasm", threads=2)
"""

import base64
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np

WEB = Path(__file__).parents[1] / "examples" / "web"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NO_GPU = ("--disable-gpu",)
VULKAN_DRIVER = "vk_swiftshader_icd.json"  # of Chromium, which computes on the CPU
FOLDERS = ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome")
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # WebGPU on the CPU


def missing_tools():
    """What a browser needs and this machine lacks, in words; empty where nothing is missing."""
    missing = []
    if _chromium() is None:
        missing.append("chromium")
    try:
        import playwright  # noqa: F401
    except ImportError:
        missing.append("playwright")
    if not (WEB / "node_modules" / "@litertjs" / "core" / "wasm").is_dir():
        missing.append("LiteRT.js (make examples/web/node_modules/installed)")
    return ", ".join(missing)


def find_any_gpu():
    """As `find_gpu` of the package; where there is none, Chromium's Vulkan driver is taken by VK_DRIVER_FILES."""
    from keras_vit_plugin.export.tflite.webgpu import find_gpu

    adapter, reason = find_gpu()
    drivers = [path for path in (Path(folder, VULKAN_DRIVER) for folder in FOLDERS) if path.exists()]
    if not adapter and drivers:
        os.environ["VK_DRIVER_FILES"] = str(drivers[0])
        adapter, reason = find_gpu()
    return adapter, "" if adapter else f"{reason}: needs libvulkan1, and a driver or chromium"


class Browser:
    """A page of examples/web in headless Chromium, as a context manager; one at a time.

    Args:
        webgpu: gives the page WebGPU, computed on the CPU: right, and slow.
        flags: more arguments for Chromium.

    Attributes:
        page: Playwright's page.
    """

    def __init__(self, webgpu=False, flags=()):
        self._flags = [*FLAGS, *(SOFTWARE_GPU if webgpu else NO_GPU), *flags]
        self._servers = []

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._chromium = self._playwright.chromium.launch(executable_path=_chromium(), args=self._flags)
        self.page = self.open()
        return self

    def __exit__(self, *_):
        self._chromium.close()
        self._playwright.stop()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def open(self, folder=WEB, prepare=lambda page: None, **settings):
        """Another page.

        Args:
            folder: what is served: examples/web, or a copy with a `site` of its own.
            prepare: called with the page before it is loaded.
            settings: for Playwright's `new_page`.
        """
        server = _serve().make_server(folder=folder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        page = self._chromium.new_page(**settings)
        prepare(page)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("window.vit")
        return page

    def run(self, content, pixels, accelerator="wasm", threads=1, rounds=1):
        """Runs a file on photos.

        Args:
            content: bytes of the file.
            pixels: uint8 `(N, H, W, C)`, 0..255.
            accelerator: `"wasm"` or `"webgpu"`.
            threads: of wasm.
            rounds: how many runs of the first photo the time is of.

        Returns:
            Logits float32 `(N, classes)`, and the median milliseconds per photo.

        Raises:
            playwright.sync_api.Error: LiteRT.js cannot run the file so.
        """
        found = self.page.evaluate(
            "([file, pixels, options]) => vit.run(file, pixels, options)",
            [
                _base64(content),
                _base64(pixels.tobytes()),
                {"accelerator": accelerator, "threads": threads, "rounds": rounds},
            ],
        )
        return np.asarray(found["logits"], np.float32), found["ms"]

    def pixels(self, photo, preprocessing):
        """uint8 pixels `(H, W, C)` of a photo's bytes, resized by the page."""
        found = self.page.evaluate(
            "([photo, preprocessing]) => vit.pixels(photo, preprocessing)", [_base64(photo), preprocessing.to_dict()]
        )
        return np.asarray(found, np.uint8).reshape(preprocessing.image_shape)


def _chromium():
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def _base64(content):
    return base64.b64encode(content).decode()


def _serve():
    sys.path.insert(0, str(WEB))
    import serve

    sys.path.remove(str(WEB))
    return serve
