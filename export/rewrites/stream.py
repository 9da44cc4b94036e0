"""What writes to the residual stream and what reads it: shared by the passes that change its basis."""

from dataclasses import replace

from ..spec import Dense


def every_reader_is_normed(spec):
    """Whether each block reads the stream through norms only (pre-norm) and nothing norms the stream itself."""
    return spec.norm is not None and all(
        block.attention_norm is not None and block.mlp_norm is not None and block.post_attention_norm is None
        for block in spec.blocks
    )


def layer_scale_is_folded(spec):
    return all(block.attention_scale is None and block.mlp_scale is None for block in spec.blocks)


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
