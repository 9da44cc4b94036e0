"""Quantized files that their runtime loads and runs: an operator whose kernel refuses its tensors stays in float."""

import re

from .graph import Graph
from .runner import load_error

MOST_TRIES = 12  # operators left in float, one a try
FAILING = re.compile(r"operator (\d+) \((\w+)\) failed to (?:prepare|invoke)")
SUFFIXES = re.compile(r"(_quantized|_dequant|_requant)+$")  # of tensors that the quantizer adds


def loadable(quantized, graph):
    """A file that the interpreter loads.

    Args:
        quantized: `function(operators left in float) -> bytes`.
        graph: the `Graph` of the float file.

    Returns:
        The file as bytes, with as few operators in float as were found to be needed.

    Raises:
        ValueError: the runtime refuses an operator all the same; says which, and why.
    """
    left = []
    for _ in range(MOST_TRIES):
        content = quantized(left)
        reason = refusal(content)
        if not reason:
            return content
        file = Graph(content)
        operator = _float_operator(refused_operator(reason, file), file, graph)
        if operator is None or any(operator is other for other in left):
            break
        left.append(operator)
    raise ValueError(f"The runtime does not run this model in this mode: {reason}. Take a mode that computes in float.")


def refusal(content):
    """Why the interpreter does not load or run a file, empty where it does."""
    return " ".join(load_error(content).split())


def refused_operator(reason, file):
    """The operator that a refusal names, or None.

    Args:
        reason: as of `refusal`.
        file: the `Graph` of the file.
    """
    found = FAILING.search(reason)
    if found is None or int(found[1]) >= len(file.operators):
        return None
    refused = file.operators[int(found[1])]
    return refused if file.kind(refused) == found[2] else None


def _float_operator(refused, file, graph):
    """The operator of the float file that became this one of the quantized file, or None."""
    if refused is None:
        return None
    names = {SUFFIXES.sub("", file.name(int(index))) for index in refused.outputs}
    return next((operator for operator in graph.operators if graph.output_name(operator) in names), None)
