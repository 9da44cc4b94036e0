"""LayerScale into the output projections of attention and MLP.

`g * (x W + b) = x (W diag(g)) + g * b`. Applies wherever there is LayerScale (arXiv:2103.17239).
"""

from dataclasses import replace


def refuse(spec):
    scales = [scale for block in spec.blocks for scale in (block.attention_scale, block.mlp_scale)]
    return "" if any(scale is not None for scale in scales) else "there is no LayerScale"


def fold_layer_scale(spec):
    def fold(block):
        attention, mlp_output = block.attention, block.mlp_output
        if block.attention_scale is not None:
            attention = replace(attention, output=attention.output.scaled(block.attention_scale))
        if block.mlp_scale is not None:
            mlp_output = mlp_output.scaled(block.mlp_scale)
        return replace(block, attention=attention, mlp_output=mlp_output, attention_scale=None, mlp_scale=None)

    return replace(spec, blocks=tuple(map(fold, spec.blocks)))
