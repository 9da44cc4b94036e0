"""Exports of tiny models in seconds."""

import pytest


@pytest.fixture(autouse=True)
def few_tuning_steps(request, monkeypatch):
    """`int4` tunes the gains of tiny models in 10 steps instead of 100; the tests of that step itself keep all."""
    if "tune_gains" not in request.module.__name__:
        from keras_vit_plugin.export import tune_gains

        monkeypatch.setattr(tune_gains, "STEPS", (2, 10))
