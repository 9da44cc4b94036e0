"""The web page of examples/web in headless Chromium: a person's photos and files, against Python's interpreter."""

import base64
import io
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import kinds
import numpy as np
import pytest
from conftest import DEIT, REPOSITORY, pixels, real_data
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import keras_vit_plugin as kv
from keras_vit_plugin.export import Runner
from keras_vit_plugin.export.tflite.flatbuffer import read
from keras_vit_plugin.export.tflite.stored_metadata import get_metadata, set_metadata
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.image_model.decibels import snr_db
from keras_vit_plugin.images.folders import image_files
from keras_vit_plugin.images.gather import gather_labelled
from keras_vit_plugin.images.preprocessing import INTERPOLATIONS, Preprocessing, pixel_normalization, preprocessing_of
from keras_vit_plugin.presets.digits import load_digits_split

pytestmark = pytest.mark.long
WEB = REPOSITORY / "examples" / "web"
PHOTOS = 20


@pytest.fixture(scope="module")
def browser(every_core):
    import browser

    if missing := browser.missing_tools():
        pytest.skip(f"the web page needs what is missing: {missing}")
    with browser.Browser(webgpu=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(browser, tmp_path_factory):
    """A copy of examples/web in which `make web` runs, and the address that it prints."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(WEB, root / "examples" / "web", ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copy(REPOSITORY / "Makefile", root)
    (root / ".venv").symlink_to(sys.prefix)
    installed = (".venv/installed", "examples/web/node_modules/installed")
    command = ["make", *(f"--old-file={path}" for path in installed), "web", "PORT=0"]
    with open(root / "errors.txt", "w") as errors:
        server = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
        printed = next((line for line in server.stdout if line.startswith("Open ")), None)
    assert printed, (root / "errors.txt").read_text()[-3000:]
    yield root / "examples" / "web", printed.split()[1]
    os.killpg(server.pid, signal.SIGINT)
    server.communicate()


@pytest.fixture(scope="module")
def site(made):
    """The folder of a page with what prepare.py makes of the shipped model."""
    return made[0]


@pytest.fixture
def page(browser, site):
    page = browser.open(site)
    settle(page)
    yield page
    page.close()


@pytest.fixture(scope="module")
def digits_files(tmp_path_factory):
    """`digits_files(mode, **options)`: a file of the shipped model."""
    folder = tmp_path_factory.mktemp("digits")

    def export(mode, **options):
        path = folder / f"{mode}-{'-'.join(map(str, options.values()))}.tflite"
        calibration = load_digits_split()[0][0][:64]
        kv.export.export_tflite(
            kv.build("vit_digits", weights="pretrained"), path, quantize=mode, calibration=calibration, **options
        )
        return path

    return export


def settle(page):
    """Waits until the page has nothing left to do."""
    page.wait_for_function("document.querySelector('#status').textContent !== 'Loading…'")
    for _ in range(2):  # what a click began may ask for more
        page.evaluate("vit.idle()")
        page.wait_for_timeout(20)


def give(page, kind, *paths):
    """Picks files as a person does, `kind` being photo or model, and returns what the page then says is wrong."""
    for path in paths:
        page.set_input_files(f"#{kind}", path)
        settle(page)
    return page.inner_text("#error") if page.is_visible("#error") else None


def answer(page):
    return page.evaluate("({...vit.answer, logits: [...vit.answer.logits], attention: null})")


# Photos


@pytest.mark.parametrize("rule", ["cover", "pad", "stretch"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_photos_are_resized_as_pillow_does(interpolation, rule, browser, tmp_path):
    generator = np.random.default_rng(0)
    for (width, height), size, resize, channels in [
        ((300, 200), (64, 64), (73, 73), 3),
        ((41, 90), (64, 48), None, 3),  # tall: Pillow resizes the height first
        ((64, 64), (64, 64), None, 3),  # as it is
        ((100, 3), (32, 32), None, 1),  # thin, and grey
        ((100, 80), (48, 48), (40, 40), 3),  # cropped to more than it was resized to
    ]:
        colours = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / "photo.png"
        Image.fromarray(colours).save(path)
        preprocessing = Preprocessing(size, channels, resize, interpolation, rule)
        found = browser.pixels(path.read_bytes(), preprocessing)
        np.testing.assert_array_equal(found, preprocessing.load(path), err_msg=f"{size} {resize} {channels}")


def test_photos_of_every_kind_are_read_as_pillow_does(browser, tmp_path):
    preprocessing = Preprocessing((64, 64), 3, (73, 73))
    photo = Image.effect_mandelbrot((160, 120), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    photo.paste((200, 30, 90), (10, 10, 50, 60))
    exif = Image.Exif()
    kinds = {
        "grey.png": photo.convert("L"),
        "palette.png": photo.convert("P"),
        "photo.webp": photo,
        "bw.png": photo.convert("1"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        photo.save(tmp_path / f"{orientation}.jpg", exif=exif, quality=90)
    linear = PngInfo()
    linear.add(b"gAMA", (100_000).to_bytes(4, "big"))
    photo.save(tmp_path / "gamma.png", pnginfo=linear)  # a browser shows it brighter; the colours stored count
    for path in sorted(tmp_path.iterdir()):
        difference = np.abs(browser.pixels(path.read_bytes(), preprocessing).astype(int) - preprocessing.load(path))
        assert difference.max() <= 2, path.name


# Real photos on DeiT-tiny


@pytest.mark.parametrize("mode, least_snr_db", [("float32", 80), ("dynamic", 25), ("int8", 18), ("int8-full", 80)])
@pytest.mark.sampled(1)
def test_deit_tiny_answers_here_as_in_python(mode, least_snr_db, page, deit_file):
    path = deit_file(mode)
    photos = image_files(real_data("imagenet_eval"))[0]
    photos = [photos[i] for i in np.linspace(0, len(photos) - 1, PHOTOS).astype(int)]
    content = path.read_bytes()
    preprocessing = Preprocessing.from_dict(kv.export.inspect(path).metadata["preprocessing"])
    expected = Runner(content)(np.stack([preprocessing.load(photo) for photo in photos]))
    assert give(page, "model", path) is None
    found = []
    for photo in photos:
        assert give(page, "photo", photo) is None
        shown = answer(page)
        assert shown["photo"] == photo.name and shown["labels"][0].startswith("tench")
        assert page.inner_text("#status") == shown["labels"][int(np.argmax(shown["logits"]))]
        found.append(shown["logits"])
    found = np.asarray(found, np.float32)
    assert snr_db(expected, found) >= least_snr_db
    # Where activations are quantized on the fly, the browser's kernels round otherwise, and near ties fall otherwise.
    second, first = np.sort(expected, 1)[:, -2:].T
    clear = first - second > (0 if least_snr_db >= 80 else 4 * np.square(found - expected).mean() ** 0.5)
    assert clear.mean() >= 0.75
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])


# Which way a file is run


@pytest.mark.parametrize("mode", ["float32", "int8-full"])
def test_threads_answer_as_one_thread_does(mode, browser, site):
    assert browser.page.evaluate("crossOriginIsolated")
    content, images = (site / "site" / f"{mode}.tflite").read_bytes(), load_digits_split()[1][0][:20]
    one, _ = browser.run(content, images)
    two, ms = browser.run(content, images, threads=2, rounds=3)
    assert snr_db(one, two) >= 60 and ms > 0
    assert snr_db(Runner(content)(images), two) >= 60


def test_threads_that_answer_wrong_are_not_used(browser, site):
    """Whatever the reason: here the runtime is changed to be fast and wrong wherever it has threads."""

    def sabotage(page):
        code = (WEB / "runtime.js").read_text()
        wrong = "outputs[name] = (await result.data()).slice().map((value) => (threads > 1 ? 1 - value : value))"
        slow = "performance.now() - started + (threads > 1 ? 0 : 1000)"
        changed = code.replace("outputs[name] = (await result.data()).slice()", wrong)
        changed = changed.replace("performance.now() - started", slow)
        assert wrong in changed and slow in changed
        page.route("**/runtime.js", lambda route: route.fulfill(body=changed, content_type="text/javascript"))

    page = browser.open(site, sabotage)
    settle(page)
    assert answer(page)["backend"] == "single"
    assert "2 threads is not used: its answers differ" in page.inner_text("#note")
    assert page.is_disabled("input[value=threads]")
    expected = Runner((site / "site" / "float32.tflite").read_bytes())(load_digits_split()[1][0][:1])
    assert snr_db(expected[0], np.asarray(answer(page)["logits"], np.float32)) >= 80
    page.close()


def test_faster_threads_are_used(browser, site):
    def slow_down(page):
        code = (WEB / "runtime.js").read_text()
        changed = code.replace("performance.now() - started", "performance.now() - started + (threads > 1 ? 0 : 1000)")
        assert changed != code
        page.route("**/runtime.js", lambda route: route.fulfill(body=changed, content_type="text/javascript"))

    page = browser.open(site, slow_down)
    settle(page)
    assert answer(page)["backend"] == "threads"
    expected = Runner((site / "site" / "float32.tflite").read_bytes())(load_digits_split()[1][0][:1])
    assert snr_db(expected[0], np.asarray(answer(page)["logits"], np.float32)) >= 80
    page.close()


def test_without_isolation_there_are_no_threads(browser, site):
    def drop_headers(page):
        def answered(route):
            reply = route.fetch()
            headers = {name: value for name, value in reply.headers.items() if not name.startswith("cross-origin")}
            route.fulfill(response=reply, headers=headers)

        page.route("**/*", answered)

    page = browser.open(site, drop_headers)
    settle(page)
    assert answer(page)["backend"] == "single"
    assert "2 threads is not used: the page is not cross-origin isolated" in page.inner_text("#note")
    page.unroute_all(behavior="wait")  # a request in flight would fail in the next test
    page.close()


def test_webgpu_is_used_for_files_made_for_it_only(page, digits_files):
    """A file for `litert` compiles there and answers wrong, which LiteRT.js does not say."""
    page.click("label:has(input[value=webgpu])")
    settle(page)
    assert answer(page)["backend"] != "webgpu" and "WebGPU is not used: its answers differ" in page.inner_text("#note")
    path = digits_files("float16", target="gpu")
    assert give(page, "model", path) is None
    page.click("label:has(input[value=webgpu])")
    settle(page)
    assert answer(page)["backend"] == "webgpu"
    expected = Runner(path.read_bytes())(load_digits_split()[1][0][:1])
    assert snr_db(expected[0], np.asarray(answer(page)["logits"], np.float32)) >= 40


def test_deit_tiny_on_webgpu(browser, deit_file):
    model = kv.build(DEIT, weights=real_data("weights", f"{DEIT}_in1k.npz"))
    photos, _ = gather_labelled(real_data("imagenet_eval"), None, preprocessing_of(model), (), 1000, limit=2)
    logits, _ = browser.run(deit_file("float16", "gpu").read_bytes(), photos, accelerator="webgpu")
    parity = compare(keras_logits(model, photos, *pixel_normalization(model, 3)), logits)
    assert parity.agreement == 1.0 and parity.snr_db >= 40


# The page as shipped


def test_make_web_serves_the_page(made):
    with urllib.request.urlopen(made[1]) as reply:
        assert b"<h1>Vision Transformer" in reply.read()
        assert reply.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_prepare_replaces_no_folder_of_something_else(tmp_path):
    (tmp_path / "letter.txt").touch()
    command = [sys.executable, WEB / "prepare.py", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"{str(tmp_path)!r} holds something else" in done.stderr
    assert (tmp_path / "letter.txt").exists()


def test_the_digits_page(page, site):
    images, labels = load_digits_split()[1]
    modes = page.locator("#models .choice")
    assert [text.split()[0] for text in modes.all_inner_texts()] == ["float32", "dynamic", "int8", "int8-full"]
    samples = page.locator("#samples button")
    assert samples.count() == 12
    for mode in range(4):
        modes.nth(mode).click()
        settle(page)
        content = (site / "site" / f"{answer(page)['model']}.tflite").read_bytes()
        expected = Runner(content)(images[:12])
        for index in range(12):
            samples.nth(index).click()
            settle(page)
            assert page.inner_text("#status") == str(labels[index])
            assert page.locator("#top li").count() == 5
            assert snr_db(expected[index], np.asarray(answer(page)["logits"], np.float32)) >= 25
    assert page.inner_text("#size") == f"{(site / 'site' / 'int8-full.tflite').stat().st_size / 1e3:.0f} kB"
    assert page.inner_text("#time").endswith("ms")
    assert page.locator("iframe").count() == 1  # what is not used is freed


def test_the_attention_is_drawn_where_the_file_has_it(page):
    def drawn():
        content = page.evaluate("document.querySelector('#view').toDataURL()").split(",")[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), int)

    with_attention = drawn()
    page.uncheck("#show-attention")
    without = drawn()
    assert np.ptp(without, axis=-1).max() == 0  # a grey digit
    attention = page.evaluate("({...vit.answer.attention, values: [...vit.answer.attention.values]})")
    values = np.reshape(attention["values"], (attention["rows"], attention["columns"]))
    assert values.min() >= 0 and values.std() > 0
    colour = np.ptp(with_attention, axis=-1)
    patches = np.asarray(Image.fromarray(colour.astype(np.float32)).resize(values.shape[::-1], Image.Resampling.BOX))
    assert np.corrcoef(patches.ravel(), values.ravel())[0, 1] > 0.8
    page.locator("#models .choice").nth(3).click()  # int8-full has none
    settle(page)
    assert not page.is_visible("#show-attention")


def test_digits_can_be_drawn(page):
    page.click("#draw")
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.9, steps=20)
    page.mouse.up()
    settle(page)
    assert answer(page)["photo"] == "Drawing"
    assert page.inner_text("#status") == "1"


def test_nothing_is_fetched_from_elsewhere(browser, site):
    requests, errors = [], []

    def listen(page):
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))

    page = browser.open(site, listen)
    settle(page)
    assert any(url.endswith(".wasm") for url in requests)
    assert all(url.startswith((page.url, "data:", "blob:")) for url in requests)
    assert errors == []
    page.close()


def test_the_page_keeps_to_its_content_security_policy(browser, site, tmp_path):
    """On threads and WebGPU, with a photo and a file of a person's own."""
    said = []
    page = browser.open(site, lambda page: page.on("console", lambda message: said.append(message.text)))
    settle(page)
    Image.fromarray(pixels((64, 64, 3), 1)[0]).save(tmp_path / "p.png")
    assert give(page, "photo", tmp_path / "p.png") is None
    assert give(page, "model", site / "site" / "int8.tflite") is None
    page.click("label:has(input[value=webgpu])")
    settle(page)
    assert browser.page.evaluate("crossOriginIsolated")
    assert [text for text in said if "Content Security Policy" in text or "Refused" in text] == []
    page.close()


def test_the_content_security_policy_holds(page):
    """Markup that found a way in runs nothing, loads nothing and sends nothing."""
    directives = {"img-src", "script-src-attr", "script-src-elem", "frame-src", "object-src", "style-src-attr"}
    directives |= {"connect-src", "script-src", "form-action"}
    refused = page.evaluate(
        """async (directives) => {
            const refused = [];
            addEventListener("securitypolicyviolation", ({ effectiveDirective }) => refused.push(effectiveDirective));
            const markup = document.createElement("div");
            markup.innerHTML = `<img src="https://example.org/x.png"><img src="x" onerror="window.hacked = true">
                <iframe src="https://example.org"></iframe><object data="https://example.org"></object>
                <form action="https://example.org"></form><p style="color: red"></p>`;
            document.body.append(markup);
            const script = document.createElement("script");
            script.textContent = "window.hacked = true";
            document.body.append(script);
            await fetch("https://example.org").catch(() => {});
            setTimeout(() => new Function("window.hacked = true")()); // what a debugger calls may evaluate text
            markup.querySelector("form").submit();
            for (let i = 0; i < 100 && !directives.every((each) => refused.includes(each)); i++)
                await new Promise((resolve) => setTimeout(resolve, 100));
            markup.remove();
            return refused;
        }""",
        sorted(directives),
    )
    assert directives <= set(refused)
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_fits_its_window(width, page):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#view").bounding_box()["width"] >= min(width, 480) * 0.75
    for control in page.locator(".buttons button:visible, .button:visible, .choice:visible").all():
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 32


def test_the_page_works_by_keyboard(page):
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"photo", "camera", "draw", "show-attention", "model", "backend"} <= reached
    page.focus("#models input:checked")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert answer(page)["model"] == "dynamic"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme, browser, site):
    page = browser.open(site, color_scheme=scheme)
    settle(page)
    for selector in ("h1", "header p", "dt", "dd", ".choice small", "legend", "#top li", ".button.primary", "#status"):
        text, behind = page.eval_on_selector(
            selector,
            """(element) => {
                let ancestor = element;
                const behind = () => getComputedStyle(ancestor).backgroundColor;
                while (behind() === "rgba(0, 0, 0, 0)") ancestor = ancestor.parentElement;
                const numbers = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
                return [numbers(getComputedStyle(element).color), numbers(behind())];
            }""",
        )
        light, dark = sorted([_luminance(text), _luminance(behind)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector
    page.close()


def _luminance(colour):
    """Relative luminance of sRGB, as WCAG defines it."""
    shares = np.asarray(colour) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


# Other files, bad files and bad photos


def _foreign_file(function, shape):
    """Bytes of a TensorFlow function of one float tensor as its own converter writes them."""
    import tensorflow as tf

    call = tf.function(function).get_concrete_function(tf.TensorSpec(shape))
    return tf.lite.TFLiteConverter.from_concrete_functions([call]).convert()


def test_a_file_of_another_origin_runs_with_class_numbers(page, tmp_path):
    import tensorflow as tf

    colours = tf.constant([[0.2, -0.4, 0.1, 0.3], [0.5, 0.3, 0.1, 0.2], [0.1, 0.6, 0.2, 0.2]])
    content = _foreign_file(lambda images: tf.reduce_mean(images, (1, 2)) @ colours, (1, 20, 24, 3))
    model, photo = tmp_path / "other.tflite", tmp_path / "photo.png"
    model.write_bytes(content)
    Image.fromarray(pixels((40, 40, 3), 1)[0]).save(photo)
    assert not page.is_visible("#pixels")
    assert give(page, "model", model) is None
    assert give(page, "photo", photo) is None
    assert page.inner_text("#status") == "Say which pixels this file takes"
    assert page.locator("#top li").count() == 0 and page.evaluate("vit.answer") is None
    raw = Preprocessing((20, 24), 3, None, "bilinear", "stretch").load(photo)[None].astype(np.float32)
    for taken, given in (("0..1", raw / 255), ("-1..1", raw / 127.5 - 1), ("0..255", raw)):
        page.click(f"label:has(input[value='{taken}'])")
        settle(page)
        expected = Runner(content)(given.astype(np.float32))[0]
        assert snr_db(expected, np.asarray(answer(page)["logits"], np.float32)) >= 80
        assert page.inner_text("#status") == f"class {expected.argmax()}"
    assert page.inner_text("#parity") == "not known"
    page.locator("#models .choice").first.click()  # a file that says it
    settle(page)
    assert not page.is_visible("#pixels")


# What outputs mean


@pytest.fixture(scope="module")
def kind_files(tmp_path_factory):
    """`{kind: (path, what Keras gives)}`, and the paths of photos."""
    folder, images, made = tmp_path_factory.mktemp("kinds"), kinds.photos(), {}
    for kind, (_, _, options) in kinds.KINDS.items():
        model, path = kinds.model_of(kind), folder / f"{kind}.tflite"
        kv.export.export_tflite(model, path, pixels="0..1", **options)
        made[kind] = path, kinds.scores_of(model, images)
    photos = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(photos, images):
        Image.fromarray(image).save(path)
    return made, photos


def lines_of(page):
    """`[(label, text, width of the bar in percent)]` of the list of answers."""
    return [
        (
            line.locator(".label").inner_text(),
            line.locator(".share").inner_text(),
            float(line.locator(".bar").evaluate("bar => parseFloat(bar.style.width)")),
        )
        for line in page.locator("#top li").all()
    ]


@pytest.mark.parametrize("kind", [kind for kind in kinds.KINDS if kind not in ("regression", "embedding", "features")])
def test_the_page_says_what_the_output_means(kind, page, kind_files):
    path, scores = kind_files[0][kind]
    assert give(page, "model", path) is None
    names = kinds.names_of(kind)
    for photo, probabilities in zip(kind_files[1][:3], kinds.probabilities_of(kind, scores)):
        assert give(page, "photo", photo) is None
        np.testing.assert_allclose(answer(page)["probabilities"], probabilities, atol=1e-4)
        order = probabilities.argsort()[::-1]
        assert [(label, text) for label, text, _ in lines_of(page)] == [
            (names[i], f"{100 * probabilities[i]:.1f} %") for i in order
        ]
        np.testing.assert_allclose([width for *_, width in lines_of(page)], 100 * probabilities[order], atol=0.01)
        holds = [names[i] for i in order if probabilities[i] >= 0.5]
        several = kind.startswith("multi-label")
        title = (", ".join(holds) or "None of its labels") if several else names[order[0]]
        assert page.inner_text("#status") == title
    called = {"multi": "Same yes or no, worst label", "binar": "Same yes or no as the model"}
    assert page.inner_text("#agreement") == called.get(kind[:5], "Same answer as the model")
    assert page.inner_text("#parity") == "100.0 %"


def test_the_page_shows_the_numbers_of_a_regression(page, kind_files):
    path, scores = kind_files[0]["regression"]
    assert give(page, "model", path) is None
    assert give(page, "photo", kind_files[1][0]) is None
    lines = lines_of(page)
    assert [(label, width) for label, _, width in lines] == [("width", 0), ("height", 0)]
    np.testing.assert_allclose([float(text) for _, text, _ in lines], scores[0], rtol=1e-3)
    assert answer(page)["probabilities"] is None and "%" not in page.inner_text("#status")
    assert kv.export.inspect(path).metadata["parity"]["relative_error"] < 1e-4
    assert page.inner_text("#agreement") == "Error, as it decides nothing" and page.inner_text("#parity") == "< 0.01 %"
    page.locator("#models .choice").first.click()  # classes again
    settle(page)
    assert page.inner_text("#agreement") == "Same answer as the model" and page.inner_text("#parity") == "100.0 %"


@pytest.mark.parametrize("kind", ["embedding", "features"])
def test_a_file_without_an_answer_is_refused(kind, page, kind_files):
    said = give(page, "model", kind_files[0][kind][0])
    assert f"{kind}.tflite gives a photo's {kind}" in said and "not what it shows" in said
    assert page.locator("#models .choice").count() == 4


@pytest.mark.parametrize("kind", ["logits", "softmax", "binary sigmoid", "multi-label sigmoid"])
@pytest.mark.parametrize("schema", [0, 1])
def test_a_file_that_does_not_say_what_it_means_is_read_by_its_graph(schema, kind, page, kind_files, tmp_path):
    """Of another program, or of this package before files said it."""
    path, scores = kind_files[0][kind]
    path = kinds.without_metadata(path, tmp_path) if schema == 0 else kinds.of_older_version(path, tmp_path)
    assert give(page, "model", path) is None
    assert give(page, "photo", kind_files[1][1]) is None
    assert not page.is_visible("#pixels")  # uint8 pixels are raw
    np.testing.assert_allclose(answer(page)["probabilities"], kinds.probabilities_of(kind, scores)[1], atol=1e-4)
    assert page.inner_text("#parity") == ("not known" if schema == 0 else "97.0 %")


def test_of_several_outputs_the_first_answer_is_shown(page, kind_files, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 5, strides=5)(images))
    model = keras.Model(images, {"kind": keras.layers.Dense(3, "softmax")(x), "age": keras.layers.Dense(1)(x)})
    kv.export.export_tflite(model, tmp_path / "m.tflite", pixels="0..1")
    first = kv.export.inspect(tmp_path / "m.tflite").metadata["answers"][0]
    assert give(page, "model", tmp_path / "m.tflite") is None
    assert give(page, "photo", kind_files[1][0]) is None
    expected = np.asarray(model(kinds.photos()[:1].astype("float32") / 255)[first["name"]])[0]
    assert first["name"] == "age" and len(answer(page)["logits"]) == 1
    np.testing.assert_allclose(answer(page)["logits"], expected, atol=1e-4)


def test_an_offset_of_all_scores_hides_no_error_of_a_backend(browser, site):
    """Softmax ignores it, so the agreement of threads must."""

    def sabotage(page):
        code = (WEB / "runtime.js").read_text()
        wrong = "(value, i) => value + 1000 + (threads > 1 ? i % 3 : 0)"
        changed = code.replace("(await result.data()).slice()", f"(await result.data()).slice().map({wrong})")
        assert wrong in changed
        page.route("**/runtime.js", lambda route: route.fulfill(body=changed, content_type="text/javascript"))

    page = browser.open(site, sabotage)
    settle(page)
    assert answer(page)["backend"] == "single"
    assert "2 threads is not used: its answers differ" in page.inner_text("#note")
    page.close()


@pytest.mark.parametrize(
    "content, error",
    [
        ('{"models": [], "samples": []}', None),  # prepare.py was ended
        (None, None),
        ("", "site/site.json is damaged: run `make web` again."),
        ("[]", "site/site.json is damaged: run `make web` again."),
        (
            '{"models": [{"file": "none.tflite", "name": "x"}], "samples": []}',
            "site/none.tflite is missing: run `make web`.",
        ),
    ],
)
def test_a_site_that_is_not_whole(content, error, browser, site):
    def answer(route):
        route.fulfill(body=content or "", status=404 if content is None else 200, content_type="application/json")

    page = browser.open(site, lambda page: page.route("**/site.json", answer))
    settle(page)
    assert (page.inner_text("#error") if page.is_visible("#error") else None) == error
    assert page.inner_text("#status") == "Open a .tflite to begin"
    page.close()


def test_scores_that_are_no_numbers_get_a_sentence(page, tmp_path):
    """The photo before it had an answer, which does not stay; the one after it has one again."""
    import tensorflow as tf

    def function(images):
        return tf.math.log(tf.reduce_mean(images, (1, 2)) - 10) @ tf.ones((3, 3))

    (tmp_path / "log.tflite").write_bytes(_foreign_file(function, (1, 8, 8, 3)))
    for name, colour in (("white", (255, 200, 100)), ("black", (0, 0, 0)), ("ten", (10, 100, 100))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    assert give(page, "model", tmp_path / "log.tflite") is None
    page.click("label:has(input[value='0..255'])")
    settle(page)
    for bad in ("black", "ten"):  # NaN, and minus infinity
        assert give(page, "photo", tmp_path / "white.png") is None
        assert page.locator("#top li").count() == 3 and page.inner_text("#time").endswith("ms")
        said = give(page, "photo", tmp_path / f"{bad}.png")
        assert said == "log.tflite answers with NaN or infinity: it has no answer."
        assert page.locator("#top li").count() == 0 and page.evaluate("vit.answer") is None
        assert page.inner_text("#status") == "No answer" and page.inner_text("#time") == "–"
        assert "NaN" not in page.inner_text("main").replace(said, "")


def test_texts_of_a_file_are_shown_as_text(page, kind_files, tmp_path):
    labels = [
        "<img src=x onerror='window.hacked = true'>",
        "</li><script>window.hacked = true</script>",
        "\u202egpj.exe\u2066\x00\x07",
        "&lt;b&gt; \U0001f600 \u05d0\u05d1",
    ]
    stored = get_metadata(read(kind_files[0]["logits"][0].read_bytes()))
    stored = {key: value for key, value in stored.items() if key != "content_sha256"}
    model = tmp_path / "<i onclick=x>\u202e.tflite"
    model.write_bytes(set_metadata(kind_files[0]["logits"][0].read_bytes(), stored | {"labels": labels}))
    photo = tmp_path / "<b>\u202ephoto.png"
    photo.write_bytes(kind_files[1][0].read_bytes())
    title, tags = page.title(), "[...document.querySelectorAll('*')].map((element) => element.tagName)"
    known = set(page.evaluate(tags))
    assert give(page, "model", model) is None and give(page, "photo", photo) is None
    shown = [
        line.evaluate("line => line.querySelector('.label').textContent") for line in page.locator("#top li").all()
    ]
    labels[2] = " gpj.exe   "
    assert sorted(shown) == sorted(labels) and page.title() == title
    markup = page.content()
    assert not any(character in markup for character in "\u202e\u2066\x00\x07")
    assert set(page.evaluate(tags)) == known and page.evaluate("window.hacked") is None
    assert page.locator("#models .choice").last.inner_text().startswith("<i onclick=x> .tflite")
    (tmp_path / "<i>\u202ewrong.tflite").write_bytes(b"This is a letter, not a model.")
    assert give(page, "model", tmp_path / "<i>\u202ewrong.tflite").startswith("<i> wrong.tflite is no TFLite model")


def test_a_thousand_labels_that_hold_are_counted(page, tmp_path):
    import tensorflow as tf

    def function(images):
        return tf.sigmoid(tf.reduce_mean(images, (1, 2)) @ tf.ones((3, 1000)))

    (tmp_path / "many.tflite").write_bytes(_foreign_file(function, (1, 8, 8, 3)))
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    give(page, "model", tmp_path / "many.tflite")
    page.click("label:has(input[value='0..1'])")
    assert give(page, "photo", tmp_path / "white.png") is None
    assert page.locator("#top li").count() == 101
    assert page.locator("#top li").last.inner_text().strip() == "and 900 more"


def test_a_file_with_wrong_metadata_is_refused_before_it_is_run(page, kind_files, tmp_path):
    """What is compared with Python in test_web_metadata.py, here as a person does it."""
    content = kind_files[0]["logits"][0].read_bytes()
    stored = {key: value for key, value in get_metadata(read(content)).items() if key != "content_sha256"}
    for key, value in (("preprocessing", None), ("labels", ["one"]), ("schema", 99), ("answers", [])):
        (tmp_path / "m.tflite").write_bytes(set_metadata(content, stored | {key: value}))
        assert give(page, "model", tmp_path / "m.tflite").startswith("m.tflite"), key
        assert page.locator("#models .choice").count() == 4 and page.locator("iframe").count() == 1
    page.locator("#samples button").first.click()
    settle(page)
    assert not page.is_visible("#error") and page.locator("#top li").count() == 5


def test_bad_files_get_a_sentence_and_the_page_goes_on(page, site, digits_files, tmp_path):
    import tensorflow as tf

    content = (site / "site" / "float32.tflite").read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    bad = {
        "empty.tflite": (b"", "is empty"),
        "text.tflite": (b"This is a letter, not a model.", "is no TFLite model"),
        "short.tflite": (content[:2000], "is damaged"),
        "damaged.tflite": (bytes(damaged), "is damaged: it is not what was exported"),
        "integers.tflite": (digits_files("int8-full", input_dtype="int8").read_bytes(), "has INT8 inputs or outputs"),
        "vector.tflite": (_foreign_file(lambda numbers: 2 * numbers, (1, 5)), "this page runs models of photos"),
        "two.tflite": (
            _foreign_file(lambda images: (tf.reduce_mean(images, (1, 2)), tf.reduce_max(images, (1, 2))), (1, 8, 8, 3)),
            "has 2 outputs and does not say which of them is the answer",
        ),
        "open.tflite": (_foreign_file(lambda images: 2 * images, (None, 8, 8, 1)), "leaves its batch size open"),
    }
    for name, (wrong, sentence) in bad.items():
        (tmp_path / name).write_bytes(wrong)
        said = give(page, "model", tmp_path / name)
        assert said and name in said and sentence in said, (name, said)
        assert page.locator("#models .choice").count() == 4 and page.locator("iframe").count() == 1
    page.locator("#samples button").first.click()
    settle(page)
    assert not page.is_visible("#error") and page.inner_text("#status") == str(load_digits_split()[1][1][0])


def test_bad_photos_get_a_sentence_and_the_page_goes_on(page, tmp_path):
    noise = io.BytesIO()
    Image.fromarray(pixels((64, 64, 3), 1)[0]).save(noise, "PNG")
    bomb = io.BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    bad = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"This is a letter, not a photo.", "is no image"),
        "short.png": (noise.getvalue()[:40], "is no image"),
        "bomb.png": (bomb.getvalue(), "20000 × 20000 pixels"),
        "model.bin": (bytes(100), "is no image"),
    }
    shown = page.inner_text("#status")
    for name, (wrong, sentence) in bad.items():
        (tmp_path / name).write_bytes(wrong)
        said = give(page, "photo", tmp_path / name)
        assert said and name in said and sentence in said, (name, said)
        assert page.inner_text("#status") == shown
    good = tmp_path / "good.png"
    good.write_bytes(noise.getvalue())
    assert give(page, "photo", good) is None
