"""What `import keras_vit_plugin` costs, and what it registers."""

import json

import pytest
from conftest import run_python

HEAVY = ("tensorflow_text", "ai_edge", "keras_hub")
LOADED = "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def loaded(code):
    return set(json.loads(run_python(f"import json, sys\n{code}\n{LOADED}").splitlines()[-1]))


def test_import_is_light():
    modules = loaded("import keras_vit_plugin")
    assert not [
        name
        for name in modules
        if name.startswith((*HEAVY, "matplotlib", "keras", "tensorflow")) and name != "keras_vit_plugin"
    ]


@pytest.mark.long
def test_import_adds_nothing_heavy_to_keras():
    # Keras itself imports matplotlib where that is installed.
    added = loaded("import keras, keras_vit_plugin, keras_vit_plugin.layers") - loaded("import keras")
    assert not [name for name in added if name.startswith((*HEAVY, "matplotlib"))]


def test_export_tools_load_without_keras():
    assert not {"keras", "tensorflow"} & loaded("import keras_vit_plugin as kv; kv.export.inspect")


@pytest.mark.long
def test_layers_are_registered_whichever_is_imported_first():
    check = "print(keras.saving.get_registered_object('keras_vit_plugin>EncoderBlock').__module__)"
    for order in ("import keras, keras_vit_plugin", "import keras_vit_plugin, keras"):
        assert "keras_vit_plugin.layers" in run_python(f"{order}\n{check}")


@pytest.mark.long
def test_models_are_registered_with_kerashub_whichever_is_imported_first():
    check = "print(keras.saving.get_registered_object('keras_vit_plugin>ViTBackbone').__module__)"
    for order in ("import keras_hub, keras_vit_plugin, keras", "import keras_vit_plugin, keras_hub, keras"):
        assert "keras_vit_plugin.models" in run_python(f"{order}\n{check}")
