"""How an operator may be quantized in the `int8` mode, and what each way costs."""

FEW_ROWS = 16  # a dense layer on fewer rows gains nothing by fixed scales
FIXED, ON_THE_FLY, FLOAT = "fixed scales", "on the fly", "float"


def int8_levels(graph, operator, prefer, costs):
    """How an operator may run, fastest first, with its cost, `{level: multiply-accumulates on fixed scales}`."""
    work, rows = graph.multiplications(operator), graph.rows(operator.outputs[0])
    if _bounds_the_scores(graph, operator):
        return {FIXED: costs.fixed_matmul * work}
    if graph.kind(operator) == "BATCH_MATMUL":
        return _ascending({FIXED: costs.fixed_matmul * work, FLOAT: costs.float_matmul * work})
    entering, leaving = graph.source(int(operator.inputs[0])), int(operator.outputs[0])
    values_in, values_out = work / graph.width(leaving), rows * graph.width(leaving)
    moves = graph.moves_after(leaving)
    reader = graph.only_reader(int(moves[-1].outputs[0]) if moves else leaving)
    times = {FIXED: work, ON_THE_FLY: costs.on_the_fly * work, FLOAT: costs.floating * work}
    times[ON_THE_FLY] += costs.quantized * values_in
    times[ON_THE_FLY if reader in ("BATCH_MATMUL", "GELU") else FIXED] += costs.converted * values_out
    if reader == "GELU":
        times[ON_THE_FLY] += costs.float_gelu * values_out
    if entering is not None and graph.kind(entering) == "GELU":
        times[ON_THE_FLY] += costs.float_gelu * values_in
    else:
        times[FIXED] += costs.converted * values_in
    if rows < FEW_ROWS:
        del times[FIXED]
    if prefer == "speed":
        del times[FLOAT]
    return _ascending(times)


def _ascending(times):
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _bounds_the_scores(graph, matmul):
    """Whether `exp` takes its output as it is: only fixed scales keep it from overflowing on images never seen."""
    return any(graph.kind(reader) == "EXP" for reader in graph.consumers.get(int(matmul.outputs[0]), ()))
