"""Why a model is no `ViTSpec`."""


class UnsupportedTopology(ValueError):
    """The model cannot be written as a `ViTSpec`; it exports through the generic converter instead."""
