"""What is wrong with a file, or with a runtime for it."""


class UnsupportedByTarget(ValueError):
    """The graph holds an op that the target cannot run."""


class InvalidModelFile(ValueError):
    """The bytes are no TFLite model, not those that were exported, do not run, or take something else than images."""
