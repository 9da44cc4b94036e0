"""Whether a model's patches lie on the photo as its maps are drawn: over the whole of it, evenly."""

import keras

# Layers and operations that leave every pixel where it is, by the names of their classes; sizes may change evenly.
IN_PLACE = {
    *("InputLayer", "Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
    *("Rescaling", "Normalization", "BatchNormalization", "LayerNormalization", "GroupNormalization"),
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Cast", "Clip", "Stack"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Relu", "Gelu", "Silu", "Sigmoid", "Tanh"),
    *("Resizing", "Resize", "UpSampling2D"),
}


def places_note(model, embedding, photo_size, cut_size):
    """What is to be said of where the maps lie.

    Args:
        model: a Keras model.
        embedding: its `PatchEmbedding`.
        photo_size: `(height, width)` of the model's input.
        cut_size: the same of what is cut into patches.

    Returns:
        A sentence where something in front of the patches may crop, pad or move the photo; else an empty text.
    """
    names = [type(each).__name__ for each in _in_front(model, embedding) if not _keeps_places(each, photo_size)]
    if not getattr(model, "inputs", None) and photo_size != cut_size:
        names.append("what it does itself")  # a subclassed model, whose own code no layer tells of
    if not names:
        return ""
    return (
        f"The maps are drawn over the whole photo, but may lie over the wrong part of it: in front of its patches the "
        f"model has {', '.join(dict.fromkeys(names))}, which may crop, pad or move the photo."
    )


def _in_front(model, embedding):
    """The layers and operations of a model in front of its patch embedding, those of models in it too."""
    found = []
    for each in getattr(model, "operations", None) or model.layers:
        if each is embedding:
            break
        inside = each._flatten_layers(include_self=False) if isinstance(each, keras.Model) else ()
        if any(layer is embedding for layer in inside):
            return [*found, *_in_front(each, embedding)]
        found += _in_front(each, embedding) if isinstance(each, keras.Model) else [each]
    return found


def _keeps_places(operation, photo_size):
    name = type(operation).__name__
    if any(getattr(operation, option, False) for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio")):
        return False
    if name == "GetItem":  # as of channels
        return tuple(operation.output.shape[1:3]) == photo_size
    strides = getattr(operation, "strides", None)
    window = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if strides is not None and (getattr(operation, "padding", None) == "same" or window == strides):
        return True
    return name in IN_PLACE or name.startswith("Random") and name != "RandomCrop"  # augmentation, when training alone
