"""A `ViTSpec` as a float32 `.tflite` with static shapes."""

from ..spec.attention import Attention
from ..spec.mlp import Mlp
from ..tflite.graph_form import USUAL_FORM
from ..tflite.surgery import outputs_in_order
from ..tflite.tensor_names import stream_name
from .attention import lower_attention
from .context import Context
from .convert import convert
from .embedding import lower_embedding
from .head import lower_attention_map, lower_head
from .mlp import lower_mlp
from .norm import lower_norm


def lower(spec, batch_size=1, input_dtype="uint8", form=USUAL_FORM, attention_map=False):
    """Lowers a spec to a float32 TFLite file.

    The signature `serving_default` takes `images`, raw pixels `(batch_size, H, W, C)`, and gives `logits`
    `(batch_size, classes)` float32; an `embedding` too, where the spec has one. All shapes are static and no tensor has
    more than rank 4.

    Args:
        spec: a `ViTSpec` whose pixel normalization, score scale and LayerScale are folded.
        batch_size: images per call; 1 where the form keeps the batch axis.
        input_dtype: `"uint8"` or `"float32"`, both for pixels of 0..255.
        form: a `GraphForm`; what it leaves open is as in `USUAL_FORM`.
        attention_map: whether the signature also gives `attention`, `(batch_size, rows, columns)`, as
            `ViTSpec.attention_map`.

    Returns:
        The file as bytes.
    """
    import tensorflow as tf

    context = Context(spec, batch_size, form.filled(USUAL_FORM))

    def outputs(images):
        x = lower_embedding(images, context)
        for i, block in enumerate(spec.blocks):
            x = lower_block(x, block, stream_name(i), context)
        x = lower_norm(x, spec.norm, context)
        found = {}
        for head in spec.heads:
            given = lower_head(x, head, context)
            found[head.output] = found[head.output] + given if head.output in found else given
        return found | ({"attention": lower_attention_map(context.scores[-1], context)} if attention_map else {})

    content = convert(outputs, tf.TensorSpec((batch_size, *spec.image_shape), input_dtype, name="images"))
    names = [*dict.fromkeys(head.output for head in spec.heads), *(["attention"] if attention_map else [])]
    return content if len(names) == 1 else outputs_in_order(content, sorted(names, key=lambda name: name != "logits"))


def lower_block(x, block, name, context):
    """A `Block` over the tokens x; what leaves it has this name in the file."""
    for residual in block.residuals[:-1]:
        x = lower_residual(x, residual, None, context)
    return lower_residual(x, block.residuals[-1], name, context)


def lower_residual(x, residual, name, context):
    """A `Residual` over the tokens x; what it gives has this name in the file, or any."""
    import tensorflow as tf

    entering = lower_norm(x, residual.norm, context)
    y = lower_component(entering, residual.body, residual.kept_tokens, context)
    x = context.first_rows(x, residual.kept_tokens)
    x = x + y if name is None else tf.add(x, y, name=name)
    return lower_norm(x, residual.post_norm, context)


def lower_component(x, component, queries, context):
    """What a `Component` gives of the tokens x for the first `queries` of each image; None is all.

    Raises:
        NotImplementedError: there is no lowering for its class.
    """
    if type(component) not in COMPONENTS:
        raise NotImplementedError(f"export/lowering has nothing for {type(component).__name__}")
    return COMPONENTS[type(component)](x, component, queries, context)


# Class of a component -> function(tokens, component, queries or None, context).
COMPONENTS = {Attention: lower_attention, Mlp: lower_mlp}
