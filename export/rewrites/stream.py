"""What writes to the residual stream and what reads it: shared by the passes that change its basis."""

from dataclasses import replace

from ..spec.layers import Dense
from ..spec.promises import Promise

NO_BLOCKS = "there are no blocks"
ABSORBED = "the attention of a block has absorbed its key and value"


def refuse_stream(spec):
    """Why the basis of the stream cannot be changed, in words; empty where it can.

    Each residual must read the stream through a norm (pre-norm), nothing may norm the stream itself, and what is
    written to it must be a dense layer's output as it is.
    """
    residuals = spec.residuals()
    if spec.norm is None:
        return "no norm is in front of the head"
    if any(residual.norm is None for residual in residuals):
        return "a block reads the stream without a norm"
    if any(residual.post_norm is not None for residual in residuals):
        return "a norm is on the stream itself"
    if not all(Promise.WRITES_BY_LAYERS in residual.body.promises for residual in residuals):
        return "what is written to the stream is not a dense layer's output"
    return "LayerScale is not folded" if any(residual.scale is not None for residual in residuals) else ""


def reads_by_layers(residual):
    """Whether the body reads the stream through dense layers alone."""
    return Promise.READS_BY_LAYERS in residual.body.promises


def stream_norms(spec):
    """All norms that read the stream."""
    return [residual.norm for residual in spec.residuals()] + [spec.norm]


def map_writers(spec, matrix):
    """Every writer to the stream, `w -> w @ matrix`: patches, prefix, positions, what leaves each residual."""

    def after(dense):
        return Dense(dense.kernel @ matrix, dense.bias @ matrix)

    def write(residual):
        return with_layers(residual, {name: after(dense) for name, dense in residual.body.writers().items()})

    spec = spec.with_residuals(write)
    return replace(spec, patch=after(spec.patch), prefix=spec.prefix @ matrix, positions=spec.positions @ matrix)


def map_readers(spec, matrix):
    """Every dense layer that reads the stream, `kernel -> matrix @ kernel`: in each residual, and the heads."""

    def before(dense):
        return Dense(matrix @ dense.kernel, dense.bias)

    def read(residual):
        return with_layers(residual, {name: before(dense) for name, dense in residual.body.readers().items()})

    heads = tuple(replace(head, dense=before(head.dense)) for head in spec.heads)
    return replace(spec.with_residuals(read), heads=heads)


def with_layers(residual, layers):
    """A residual whose body has other dense layers, `{name: Dense}`."""
    return replace(residual, body=residual.body.with_layers(layers))
