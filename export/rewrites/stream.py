"""What writes to the residual stream and what reads it: shared by the passes that change its basis."""

from dataclasses import replace

from ..spec.model import Dense

NO_BLOCKS = "there are no blocks"
ABSORBED = "the attention of a block has absorbed its key and value"


def refuse_stream(spec):
    """Why the basis of the stream cannot be changed, in words; empty where it can.

    Each block must read the stream through norms only (pre-norm), nothing may norm the stream itself, and what is
    written to it must be a dense layer's output as it is.
    """
    if spec.norm is None:
        return "no norm is in front of the head"
    if any(block.attention_norm is None or block.mlp_norm is None for block in spec.blocks):
        return "a block reads the stream without a norm"
    if any(block.post_attention_norm is not None for block in spec.blocks):
        return "a norm is on the stream itself"
    if any(block.attention_scale is not None or block.mlp_scale is not None for block in spec.blocks):
        return "LayerScale is not folded"
    return ""


def has_absorbed(block):
    """Whether the attention reads the tokens themselves in place of keys and values."""
    return block.attention.key is None


def stream_norms(spec):
    """All norms that read the stream."""
    return [norm for block in spec.blocks for norm in (block.attention_norm, block.mlp_norm)] + [spec.norm]


def map_writers(spec, matrix):
    """Every writer to the stream, `w -> w @ matrix`: patches, prefix, positions, attention and MLP outputs."""

    def after(dense):
        return Dense(dense.kernel @ matrix, dense.bias @ matrix)

    def write_block(block):
        attention = replace(block.attention, output=after(block.attention.output))
        return replace(block, attention=attention, mlp_output=after(block.mlp_output))

    return replace(
        spec,
        patch=after(spec.patch),
        prefix=spec.prefix @ matrix,
        positions=spec.positions @ matrix,
        blocks=tuple(map(write_block, spec.blocks)),
    )


def map_readers(spec, matrix):
    """Every dense layer that reads the stream, `kernel -> matrix @ kernel`: query, key, value, MLP hidden, heads."""

    def before(dense):
        return Dense(matrix @ dense.kernel, dense.bias)

    def read_block(block):
        attention = block.attention
        attention = replace(
            attention, query=before(attention.query), key=before(attention.key), value=before(attention.value)
        )
        return replace(block, attention=attention, mlp_hidden=before(block.mlp_hidden))

    heads = tuple(replace(head, dense=before(head.dense)) for head in spec.heads)
    return replace(spec, blocks=tuple(map(read_block, spec.blocks)), heads=heads)
