"""A random model of a seed."""

import keras
import numpy as np
import random_networks
import random_vits
from random_model import make_ordinary

MAKERS = {
    random_vits.vit: 6,
    random_vits.simple_vit: 2,
    random_networks.functional: 14,
    random_networks.sequential: 2,
    random_networks.subclassed: 2,
}


def random_model(seed, policy="float32"):
    """The `RandomModel` of a seed; with another dtype policy it has the same weights."""
    made = _built(seed, "float32")
    make_ordinary(made, np.random.default_rng([seed, 1]))
    if policy == "float32":
        return made
    other = _built(seed, policy)
    other.model.set_weights(made.model.get_weights())
    return other


def _built(seed, policy):
    generator = np.random.default_rng([seed, 0])
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    shares = np.array(list(MAKERS.values()), float)
    maker = list(MAKERS)[generator.choice(len(MAKERS), p=shares / shares.sum())]
    keras.config.set_dtype_policy(policy)
    try:
        return maker(generator, policy)
    finally:
        keras.config.set_dtype_policy("float32")
