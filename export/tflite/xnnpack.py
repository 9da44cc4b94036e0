"""What operators cost on each class of CPU, in multiply-accumulates of an int8 dense layer on fixed scales.

Written by `benchmarks/measure_costs.py`, which says how, not by hand.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class OpCosts:
    """Costs on one class of CPU.

    Attributes:
        on_the_fly, floating: of a multiply-accumulate of a dense layer that quantizes each token, and of one in float.
        fixed_matmul, float_matmul: of one of a product of two activations, in int8 with the conversions around it.
        quantized: of a value that is quantized on the fly.
        converted: of a value that goes from int8 to float, or back.
        float_gelu: of a GELU that is no table look-up.
    """

    on_the_fly: float
    floating: float
    fixed_matmul: float
    float_matmul: float
    quantized: float
    converted: float
    float_gelu: float


DEFAULT_CPU = "x86-vnni"  # the one that was timed
COSTS = {
    # times of whole graphs of DeiT-tiny on AVX-512 VNNI
    "x86-vnni": OpCosts(
        on_the_fly=0.85,
        floating=3.6,
        fixed_matmul=1,
        float_matmul=2.3,
        quantized=45,
        converted=18,
        float_gelu=45,
    ),
    # instructions of qemu's Haswell
    "x86-avx2": OpCosts(
        on_the_fly=1.3,
        floating=1.3,
        fixed_matmul=1.1,
        float_matmul=1.2,
        quantized=22,
        converted=6.4,
        float_gelu=15,
    ),
    # instructions of qemu's Cortex-A72
    "arm": OpCosts(
        on_the_fly=1.2,
        floating=1.3,
        fixed_matmul=1.4,
        float_matmul=1.2,
        quantized=9.5,
        converted=6.7,
        float_gelu=28,
    ),
    # instructions of qemu's Cortex-A76
    "arm-dotprod": OpCosts(
        on_the_fly=1.3,
        floating=4,
        fixed_matmul=1.4,
        float_matmul=3.6,
        quantized=58,
        converted=15,
        float_gelu=88,
    ),
}
