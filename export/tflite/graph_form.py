"""How a Vision Transformer is written as a graph of TFLite ops: what modes and targets may ask of `lowering`."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class GraphForm:
    """The ways in which the same function can be written; None leaves it to others.

    Attributes:
        gelu: `"op"`, or a key of `lowering.gelu_forms.GELU_FORMS`: of ops that all delegates run.
        attention: `"softmax"`; `"unit"`, whose weights suit int8 better, for scores within +-`LARGEST_UNIT_SCORE`; or
            `"integer_unit"`, the same of ops that have integer kernels.
        norm_epsilon: whether norms add their epsilon.
        batch_axis: whether tokens keep their batch axis and patches are a convolution, as GPUs want it; a CPU is
            faster with dense layers on all tokens of all images.
    """

    gelu: str | None = None
    attention: str | None = None
    norm_epsilon: bool | None = None
    batch_axis: bool | None = None

    def filled(self, other):
        """The same, with what another `GraphForm` says where this one says nothing."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return GraphForm(**{name: getattr(other, name) if value is None else value for name, value in values.items()})


USUAL_FORM = GraphForm(gelu="op", attention="softmax", norm_epsilon=True, batch_axis=False)
# Of the scores under `attention="unit"`: the sum of the squares of their exponentials overflows float32 at 44.
LARGEST_UNIT_SCORE = 30.0
NEGLIGIBLE = 1e-5  # of what an epsilon is added to: about float32's own rounding


@dataclass(frozen=True)
class Extremes:
    """What a model computes on a few images, as far as a `GraphForm` depends on it.

    Attributes:
        score: the largest magnitude of an attention score.
        mean_square: the least that a norm adds its epsilon to.
        epsilon: the largest of the norms'.
    """

    score: float
    mean_square: float
    epsilon: float

    @property
    def epsilon_counts(self):
        """Whether the norms' epsilon changes more than float32's own rounding does."""
        return self.epsilon > NEGLIGIBLE * self.mean_square
