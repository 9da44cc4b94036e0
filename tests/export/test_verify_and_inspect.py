"""`verify`, `inspect` and reading images, checked against numbers worked out by hand."""

import json
import re

import hostile_tflite
import numpy as np
import pytest
from conftest import functional_model, pixels, randomize
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.export import (
    MODES,
    InvalidModelFile,
    ParityReport,
    Tolerance,
    export_tflite,
    inspect,
    verify,
    wanted_of,
)
from keras_vit_plugin.export.tflite.flatbuffer import write
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.export.verification.outputs import outputs_of, tflite_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.image_model.answers import Answer
from keras_vit_plugin.images.folders import image_files
from keras_vit_plugin.images.gather import gather_images, gather_labelled
from keras_vit_plugin.images.preprocessing import Preprocessing, pixel_normalization, preprocessing_of


def test_compare_computes_what_it_says():
    reference = np.array([[3.0, 0, 0], [0, 2, 1], [0, 0, 1]], np.float32)
    outputs = np.array([[3.0, 0, 0], [0, 1, 2], [0, 0, 1]], np.float32)
    parity = compare(reference, outputs, labels=np.array([0, 2, 2]))
    assert parity.images == 3
    assert parity.top1_agreement == pytest.approx(2 / 3)
    # Less their means over the classes the reference has the squares 6 + 2 + 2/3, the error 0 + 2 + 0.
    assert parity.snr_db == pytest.approx(10 * np.log10((6 + 2 + 2 / 3) / 2))
    assert parity.max_abs_error == 1
    assert parity.top1_accuracy_model == pytest.approx(2 / 3)
    assert parity.top1_accuracy_tflite == 1


def test_compare_at_the_extremes():
    logits = np.array([[1.0, 0]], np.float32)
    assert compare(logits, logits).snr_db == 300
    assert compare(logits, np.array([[np.nan, 0]])).snr_db == -300
    for outputs in (logits, np.array([[np.inf, np.nan]])):
        json.dumps(compare(logits, outputs).to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="Keras model gives NaN"):
        compare(np.array([[np.nan, 0]]), logits)
    with pytest.raises(ValueError, match=r"\(1, 2\), the file \(1, 3\)"):
        compare(logits, np.zeros((1, 3)))


def test_of_few_images_one_may_be_decided_otherwise():
    assert MODES["int8"].tolerance.on(3) == MODES["int8"].tolerance
    for images in range(4, 18):
        one_wrong, two_wrong = (np.mean(np.arange(images) >= wrong) for wrong in (1, 2))
        assert two_wrong < MODES["int8"].tolerance.on(images).min_agreement <= one_wrong
    for images in (128, 1000):
        assert MODES["int8"].tolerance.on(images).min_agreement == MODES["int8"].tolerance.min_agreement


@pytest.mark.parametrize("mode", ["dynamic", "int8", "int8-full", "int4"])
def test_a_good_file_is_as_rarely_refused_on_few_images(mode):
    """One whose decisions change at the rate that 128 images find two standard errors above the tolerance."""
    share = MODES[mode].tolerance.min_agreement
    good = share + 2 * (share * (1 - share) / 128) ** 0.5
    for images in (16, 32, 62, 96, 128):
        kept = np.random.default_rng(0).binomial(images, good, 20_000) / images
        assert (kept < MODES[mode].tolerance.on(images).min_agreement).mean() < 0.02
    assert MODES["float32"].tolerance.on(4) == MODES["float32"].tolerance


def test_a_tolerance_needs_both():
    parity = compare(np.eye(4), np.eye(4) + 0.25 * np.eye(4)[::-1])
    assert Tolerance(1.0, 10).holds(parity)
    assert not Tolerance(1.0, 30).holds(parity)
    swapped = compare(np.array([[2.0, 1.9, -4.0]]), np.array([[1.9, 2.0, -4.0]]))
    assert swapped.top1_agreement == 0 and swapped.snr_db > 10
    assert not Tolerance(0.5, 10).holds(swapped)
    with pytest.raises(ValueError, match="0..1, None or 'usual', got 98"):
        Tolerance(98, 10)
    for wrong in ("30", None, float("nan")):
        with pytest.raises(ValueError, match="`min_snr_db` must be a number of dB or 'usual', got"):
            Tolerance(1.0, wrong)


def test_what_a_tolerance_does_not_name_is_the_modes_own():
    usual = MODES["int8"].tolerance.on(16)
    assert Tolerance(min_snr_db=33).filled(usual) == Tolerance(usual.min_agreement, 33)
    assert Tolerance(min_agreement=0.5).filled(usual) == Tolerance(0.5, MODES["int8"].tolerance.min_snr_db)
    assert Tolerance(None, 1).filled(usual) == Tolerance(None, 1)
    with pytest.raises(ValueError, match="leaves a part to the mode: use its `filled"):
        Tolerance(min_agreement=0.9).holds(compare(np.eye(4), np.eye(4)))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_every_image_has_its_own_row_whatever_the_batch(batch_size):
    tree = hostile_tflite.classifier()
    for tensor, shape in ((0, (2, 2, 1)), (2, (4,)), (3, (4,))):
        tree.subgraphs[0].tensors[tensor].shape = [batch_size, *shape]
    tree.buffers[1].data = np.array([batch_size, 4], np.int32).view(np.uint8)
    content, images = write(tree), pixels((2, 2, 1), 7)

    def softmax(values):
        exponentials = np.exp(values - values.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    expected = softmax(images.reshape(7, 4).astype(float))
    np.testing.assert_allclose(tflite_logits(content, images), expected, atol=1e-6)
    answers, runner = (Answer("probabilities", "classes", "softmax"),), Runner(content)
    (found,) = outputs_of(runner, images, answers)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (found,) = outputs_of(runner, images, answers, given=(1 / 64, -2.0))
    np.testing.assert_allclose(found, softmax(images.reshape(7, 4) / 64 - 2.0), atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("stored, mode", [("FLOAT32", "float16"), ("FLOAT16", "float16"), ("INT8", "int8")])
def test_another_programs_file_is_to_keep_what_its_weights_can(stored, mode, tmp_path):
    tree, path = hostile_tflite.classifier(), tmp_path / "m.tflite"
    types = hostile_tflite.schema.TensorType
    tree.subgraphs[0].tensors.append(hostile_tflite.tensor("weights", (4,), getattr(types, stored)))
    path.write_bytes(write(tree))
    usual = MODES[mode].tolerance
    for images in (8, 128):
        parity = ParityReport(images=images, agreement=1.0, snr_db=99.0, max_abs_error=0.0)
        assert wanted_of(path, parity) == wanted_of(path.read_bytes(), parity) == usual.on(images)
        assert wanted_of(path, parity, 0.5) == Tolerance(0.5, usual.min_snr_db)
        assert wanted_of(path, parity, min_snr_db=3) == Tolerance(usual.on(images).min_agreement, 3)
    numbers = ParityReport(images=8, agreement=None, snr_db=99.0, max_abs_error=0.0, task="regression")
    assert wanted_of(path, numbers) == Tolerance(None, usual.min_snr_db)
    with pytest.raises(ValueError, match="this one gives regression; got min_agreement=0.5"):
        wanted_of(path, numbers, 0.5)


def test_verify_of_another_models_file(tmp_path):
    export_tflite(kv.build("vit_test"), tmp_path / "m.tflite")
    other = kv.build("vit_test")
    randomize(other)
    assert verify(other, tmp_path / "m.tflite", pixels((16, 16, 3), 32)).snr_db < 10
    with pytest.raises(ValueError, match=r"takes images of \(16, 16, 3\), the model of \(8, 8, 3\)"):
        verify(kv.build("simple_vit_test"), tmp_path / "m.tflite", pixels((8, 8, 3)))
    with pytest.raises(ValueError, match="one class index per image"):
        verify(other, tmp_path / "m.tflite", pixels((16, 16, 3)), labels=[1, 2])


def test_accuracy_from_a_folder_of_classes(tmp_path):
    model = kv.build("vit_digits", weights="pretrained")
    from keras_vit_plugin.presets.digits import load_digits_split

    (_, _), (images, labels) = load_digits_split()
    for image, label in zip(images[:30], labels[:30]):
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{len(list(folder.iterdir()))}.png")
    export_tflite(model, tmp_path / "m.tflite", labels=list("0123456789"))
    parity = verify(model, tmp_path / "m.tflite", tmp_path / "digits")
    assert parity.images == 30 and parity.top1_accuracy_tflite == parity.top1_accuracy_model >= 0.9


def test_a_folder_brings_its_own_labels(tmp_path):
    Image.fromarray(pixels((16, 16, 3), 1)[0]).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="a folder brings its own"):
        gather_labelled(tmp_path, [0], Preprocessing((16, 16)), (), 2)


@pytest.mark.parametrize(
    "wrong, got",
    [
        ([0, 5], "5 for image 1"),
        ([-1, 0], "-1 for image 0"),
        ([0, 1.5], "1.5 for image 1"),
        ([0.0, np.nan], "nan for image 1"),
        (["a", "b"], "'a' for image 0"),
        ([[0, 1], [0]], "[0, 1] for image 0"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(wrong, got):
    with pytest.raises(ValueError, match=re.escape(f"`labels` must hold class indices 0..4, got {got}")):
        gather_labelled(pixels((4, 4, 3), 2), wrong, Preprocessing((4, 4)), (), 5)


def test_labels_are_one_index_per_image():
    images, preprocessing = pixels((4, 4, 3), 2), Preprocessing((4, 4))
    for wrong in ([0], [[0, 1]]):
        with pytest.raises(ValueError, match="`labels` must hold one class index per image, got"):
            gather_labelled(images, wrong, preprocessing, (), 5)
    for right in ([0.0, 4.0], np.array([True, False]), (3, 4)):
        labels = gather_labelled(images, right, preprocessing, (), 5)[1]
        assert labels.tolist() == [int(label) for label in right] and labels.dtype.kind == "i"


def test_labels_csv(tmp_path):
    Image.fromarray(pixels((4, 4, 3), 1)[0]).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,7\n", encoding="utf-8-sig")  # as Excel writes it
    paths, labels, _ = image_files(tmp_path)
    assert [path.name for path in paths] == ["a.png"] and labels == ["7"]
    (tmp_path / "labels.csv").write_text("file,label\nb.png,7\n")
    with pytest.raises(ValueError, match="1 missing files, the first is 'b.png'"):
        image_files(tmp_path)
    (tmp_path / "labels.csv").write_text("name,label\na.png,7\n")
    with pytest.raises(ValueError, match="columns file and label"):
        image_files(tmp_path)


def test_photos_are_resized_to_cover_and_cropped_at_the_centre(tmp_path):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 40:] = 255  # the right half is white
    Image.fromarray(picture).save(tmp_path / "p.png")
    loaded = Preprocessing((16, 16), resize=(20, 20)).load(tmp_path / "p.png")
    assert loaded.shape == (16, 16, 3) and loaded.dtype == np.uint8
    assert loaded[:, :6].max() == 0 and loaded[:, -6:].min() == 255
    assert Preprocessing((10, 30), channels=1).load(tmp_path / "p.png").shape == (10, 30, 1)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16"])
def test_photos_of_every_colour_mode(mode, tmp_path):
    image = Image.new("I;16", (20, 20), 30000) if mode == "I;16" else Image.new("RGB", (20, 20), "red").convert(mode)
    path = tmp_path / ("p.tif" if mode in ("CMYK", "I;16") else "p.png")
    image.save(path)
    assert Preprocessing((16, 16)).load(path).shape == (16, 16, 3)


def test_a_16_bit_photo_keeps_its_greys(tmp_path):
    ramp = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(ramp).save(tmp_path / "p.png")
    for channels in (1, 3):
        loaded = Preprocessing((20, 20), channels).load(tmp_path / "p.png")
        np.testing.assert_allclose(loaded[..., 0], ramp / 257, atol=1)


@pytest.mark.parametrize("rule, left, top", [("cover", 255, 255), ("pad", 255, 0), ("stretch", 255, 255)])
def test_the_resize_rules(rule, left, top, tmp_path):
    Image.new("RGB", (80, 40), "white").save(tmp_path / "p.png")
    loaded = Preprocessing((16, 16), resize=(16, 16), rule=rule).load(tmp_path / "p.png")
    assert loaded[8, 0, 0] == left and loaded[0, 8, 0] == top


def test_a_rotated_photo_is_turned_upright(tmp_path):
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "p.jpg", exif=exif, quality=95)
    loaded = Preprocessing((20, 20)).load(tmp_path / "p.jpg")
    assert loaded[:8].max() < 30 and loaded[12:].min() > 225


def test_preprocessing_comes_from_the_model():
    model = kv.build("deit_tiny_patch16_224")
    preprocessing = preprocessing_of(model)
    assert preprocessing == Preprocessing((224, 224), 3, (256, 256), "bicubic")
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    scale, offset = pixel_normalization(model, 3)
    np.testing.assert_allclose(
        128 * scale + offset, (128 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    )
    # One that says nothing: as Keras's image_dataset_from_directory.
    assert preprocessing_of(kv.SimpleViT()) == Preprocessing((32, 32), 3, None, "bilinear", "stretch")
    scale, offset = pixel_normalization(kv.SimpleViT(), 3)
    np.testing.assert_array_equal(255 * scale + offset, 1)


def test_how_photos_are_resized_can_be_said(tmp_path):
    """A model trained on stretched photos answers worse on cropped ones."""
    model, path, folder = functional_model(), tmp_path / "m.tflite", tmp_path / "photos"
    folder.mkdir()
    for place in range(4):
        Image.fromarray(pixels((16, 48, 3), 1, seed=place)[0]).save(folder / f"{place}.png")
    said = []
    for options in ({}, {"resize": "cover", "interpolation": "nearest"}):
        report = export_tflite(model, path, verification=folder, **options)
        preprocessing = Preprocessing.from_dict(inspect(path).metadata["preprocessing"])
        np.testing.assert_allclose(  # verify reads photos as the file's users will
            verify(model, path, folder).max_abs_error, report.parity.max_abs_error, rtol=1e-6
        )
        assert preprocessing.words in report.photos
        said.append((preprocessing.rule, preprocessing.interpolation, "stretched as Keras does" in report.photos))
    assert said == [("stretch", "bilinear", True), ("cover", "nearest", False)]
    for wrong, match in (
        ({"resize": "crop"}, "cover, pad, stretch; got resize='crop'"),
        ({"interpolation": 2}, "one of"),
    ):
        with pytest.raises(ValueError, match=match):
            export_tflite(model, path, **wrong)
    with pytest.warns(UserWarning, match=r"stretch 256x256 .* though the model says otherwise: cover 256x256"):
        assert preprocessing_of(kv.build("deit_tiny_patch16_224"), resize="stretch").rule == "stretch"


def test_a_report_is_printed_for_people(tmp_path):
    report = export_tflite(functional_model(), tmp_path / "m.tflite", labels=list("abcd"))
    lines = str(report).splitlines()
    assert lines[0] == f"{tmp_path / 'm.tflite'}: float32 for litert" and max(map(len, lines)) < 200
    for told in (
        f"  size: {report.size_bytes / 1e6:.2f} MB",
        "  rewrites: none",
        "  graph: as Keras emits it, which is slower: Functional is not one of this package's classifiers",
        "  class names: 4: a, b, c, d",
        "  gives: logits (classes, linear, a guess by its shape: `task` (--task))",
    ):
        assert told in lines
    classifier = export_tflite(kv.build("vit_test"), tmp_path / "m.tflite")
    assert classifier.guessed == () and "  class names: none: `labels` (--labels FILE or FOLDER) gives them" in str(
        classifier
    )


def test_images_are_spread_over_what_there_is():
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 2, 2, 1))
    taken = gather_images(images, Preprocessing((2, 2), 1), "images", 5)
    assert taken[:, 0, 0, 0].tolist() == [0, 25, 50, 74, 99]
    stream = gather_images((image for image in images), Preprocessing((2, 2), 1), "images", 5)
    assert stream[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_inspect_prints_what_is_promised(tmp_path):
    model = kv.build("vit_test")
    for mode in ("float32", "int8-full"):
        export_tflite(
            model,
            tmp_path / f"{mode}.tflite",
            quantize=mode,
            calibration=pixels((16, 16, 3), 8),
            tolerance=Tolerance(0, 0),
        )
    report = inspect(tmp_path / "float32.tflite").to_dict()
    promised = "size_bytes ops op_versions min_runtime inputs outputs float_tensors flex_ops delegate_partitions"
    assert set(promised.split()) | {"nodes_outside_delegate"} <= set(report)
    assert report["size_bytes"] == (tmp_path / "float32.tflite").stat().st_size
    assert report["ops"]["FULLY_CONNECTED"] == 12  # patches, a block of 6, the last of 4, and the head
    assert report["ops"]["GELU"] == 2
    assert report["min_runtime"] == "2.9"  # GELU
    assert report["delegate_partitions"] == 1 and report["nodes_outside_delegate"] == {}
    integer = inspect((tmp_path / "int8-full.tflite").read_bytes())
    assert integer.float_tensors == 0
    assert integer.delegate_partitions > 1
    assert {"EXP", "GELU", "RSQRT"} <= set(integer.nodes_outside_delegate)  # XNNPACK runs these in float only


def test_float_tensors_are_those_of_both_widths_between_the_ends():
    tensor, operator, types = hostile_tflite.tensor, hostile_tflite.operator, hostile_tflite.schema.TensorType
    tensors = [tensor("images", (1, 2, 2, 1)), tensor("sides", (2,), types.INT32, 1), tensor("flat", (1, 4))]
    tensors += [tensor("halves", (1, 4), types.FLOAT16, 2), tensor("floats", (1, 4)), tensor("sum", (1, 4))]
    operators = [operator(0, (0, 1), (2,)), operator(1, (3,), (4,)), operator(2, (2, 4), (5,))]
    graph = hostile_tflite.schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[5], operators=operators)
    constants = [np.array([1, 4], np.int32), np.ones((1, 4), np.float16)]
    report = inspect(write(hostile_tflite.model(("RESHAPE", "DEQUANTIZE", "ADD"), [graph], constants)))
    assert report.load_error is None and report.float_tensors == 3  # flat, halves and floats
    assert report.inputs[0]["dtype"] == report.outputs[0]["dtype"] == "float32"


def test_files_that_are_no_model(tmp_path):
    export_tflite(kv.build("vit_test"), tmp_path / "m.tflite")
    content = (tmp_path / "m.tflite").read_bytes()
    for broken in (b"", b"text " * 10, content[: len(content) // 2], content[:20]):
        with pytest.raises(InvalidModelFile):
            inspect(broken)
    with pytest.raises(FileNotFoundError, match="nowhere.tflite"):
        inspect(tmp_path / "nowhere.tflite")


def test_inspect_counts_flex_ops_of_files_it_cannot_load():
    import tensorflow as tf

    inverse = tf.function(lambda x: tf.linalg.inv(x), input_signature=[tf.TensorSpec((1, 4, 4))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([inverse.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    report = inspect(converter.convert())
    assert report.flex_ops == sum(report.ops.values()) > 0
    assert report.delegate_partitions is None
    assert "Flex" in report.load_error
