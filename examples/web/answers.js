// What the scores of a model mean, and how that is said.

export const TASKS = ["classes", "binary", "multi-label", "regression", "embedding", "features"];

const MOST_LINES = 100; // that are listed of labels that hold, and of numbers
const LEAST_POWER = 1e-6; // of the mean square of the outputs: below it lies the rounding of float32

/** What turns raw pixels into what a file takes: scale and offset. */
export const RANGES = { "0..255": [1, 0], "0..1": [1 / 255, 0], "-1..1": [1 / 127.5, -1] };

/** What the share of same answers is called, or what stands in its place. */
export const AGREEMENT = {
  binary: "Same yes or no as the model",
  "multi-label": "Same yes or no, worst label",
  regression: "Error, as it decides nothing",
};

/**
 * The output that is shown, the first of the model's: `{answer: {task, activation}, output}`.
 *
 * @param metadata as of `metadataOf`, or null.
 * @param graph as of `readGraph`.
 * @throws a sentence where nothing says which output it is.
 */
export function scoresOf(metadata, graph, outputs, file) {
  const stored = metadata?.answers[0];
  const output = outputs.length === 1 ? outputs[0] : outputs.find((each) => each.name === stored?.name);
  if (!output) throw new Error(`${file} has ${outputs.length} outputs and does not say which of them is the answer.`);
  return { answer: stored ?? meaningByGraph(graph.lastOperator, output.shape, false), output };
}

/** What scores mean whose file does not say it; one of this package's older versions knew classes only. */
export function meaningByGraph(operator, shape, madeHere) {
  if (shape.length === 1 && operator === "LOGISTIC") return { task: "binary", activation: "sigmoid" };
  if (shape.length === 1) return { task: "regression", activation: "linear" };
  if (shape.length !== 2) return { task: "features", activation: "linear" };
  if (operator === "SOFTMAX") return { task: "classes", activation: "softmax" };
  if (operator === "LOGISTIC") return { task: shape[1] === 1 ? "binary" : "multi-label", activation: "sigmoid" };
  if (shape[1] === 1) return { task: "regression", activation: "linear" };
  const known = madeHere || operator === "FULLY_CONNECTED";
  return { task: known ? "classes" : "embedding", activation: "linear" };
}

/** What the classes, labels or numbers are called, in index order; of a binary answer its no and its yes. */
export function namesOf({ task }, labels, columns) {
  if (task === "binary") {
    const given = labels ?? ["no", "yes"];
    return given.length === 2 ? given : [`not ${given[0]}`, given[0]];
  }
  if (labels?.length === columns) return labels;
  return Array.from({ length: columns }, (_, i) => `${task === "regression" ? "number" : "class"} ${i}`);
}

/** Of every name, 0..1; null where scores are numbers of their own. */
export function probabilitiesOf({ task, activation }, scores) {
  if (task === "regression") return null;
  let probabilities = [...scores];
  if (activation === "linear" && task === "classes") probabilities = softmax(probabilities);
  else if (activation === "linear") probabilities = probabilities.map((score) => 1 / (1 + Math.exp(-score)));
  return task === "binary" ? [1 - probabilities[0], probabilities[0]] : probabilities;
}

function softmax(scores) {
  const highest = scores.reduce((a, b) => Math.max(a, b));
  const exponentials = scores.map((score) => Math.exp(score - highest));
  const total = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / total);
}

/** For people: `{title, lines: [{label, text, share}]}`; share, 0..1, is null of numbers. */
export function inWords({ task }, labels, scores, probabilities, top) {
  if (task === "regression") {
    const lines = labels.map((label, i) => ({ label, text: `${Number(scores[i].toPrecision(5))}`, share: null }));
    const title = lines.length === 1 ? lines[0].text : lines.slice(0, top).map((line) => `${line.label} ${line.text}`);
    return { title: [title].flat().join(" · "), lines: atMost(MOST_LINES, lines) };
  }
  const all = probabilities
    .map((share, i) => ({ label: labels[i], text: `${(100 * share).toFixed(1)} %`, share }))
    .sort((a, b) => b.share - a.share);
  if (task !== "multi-label") return { title: all[0].label, lines: all.slice(0, top) };
  const holds = all.filter(({ share }) => share >= 0.5);
  const title = atMost(MOST_LINES, holds).map(({ label }) => label).join(", ") || "None of its labels";
  return { title, lines: atMost(MOST_LINES, all.slice(0, Math.max(top, holds.length))) };
}

/** The first lines, and how many others there are. */
function atMost(count, lines) {
  if (lines.length <= count) return lines;
  return [...lines.slice(0, count), { label: `and ${lines.length - count} more`, text: "", share: null }];
}

/**
 * The lowest signal-to-noise ratio of any output over all runs, in dB, as the exporter counts it: scores of classes less
 * their mean, all else less its mean over the runs.
 */
export function agreementDb(expected, found, { task, activation }, scores) {
  let lowest = Infinity;
  for (const name of Object.keys(expected[0])) {
    const runs = expected.map((outputs) => [...outputs[name]]);
    const errors = runs.map((values, run) => values.map((value, i) => found[run][name][i] - value));
    const classes = name === scores && task === "classes";
    const signal = classes ? runs.map(centred) : lessMeanRun(runs);
    const noise = power(classes && activation === "linear" ? errors.map(centred) : errors);
    const least = Math.max(power(signal), LEAST_POWER * power(runs));
    if (noise !== 0) lowest = Math.min(lowest, 10 * Math.log10(least / noise)); // NaN stays NaN
  }
  return lowest;
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const power = (runs) => mean(runs.map((values) => mean(values.map((value) => value ** 2))));

function centred(values) {
  const middle = mean(values);
  return values.map((value) => value - middle);
}

function lessMeanRun(runs) {
  const middle = runs[0].map((_, i) => mean(runs.map((values) => values[i])));
  return runs.map((values) => values.map((value, i) => value - middle[i]));
}
