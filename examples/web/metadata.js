// What a file says of itself, checked as Python checks it (export/tflite/metadata.py): anyone can write it.

import { meaningByGraph, TASKS } from "./answers.js";
import { plain } from "./text.js";

const SCHEMA = 3; // the newest that is known here
const LARGEST_SIDE = 8192; // pixels of what a file's metadata ask for
const LARGEST_NUMBER = 1e300;
const MOST_OPTIONS = 32; // of a mode
const ACTIVATIONS = ["linear", "softmax", "sigmoid"];
const INTERPOLATIONS = ["bicubic", "bilinear", "lanczos3", "nearest"];
const RULES = ["cover", "pad", "stretch"];
const UNSAID = { channels: 3, resize: null, interpolation: "bicubic", rule: "cover" }; // in a file that says the size

const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.length > 0 && value.every(isText);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 31;
const isSide = (value) => Number.isInteger(value) && value >= 1 && value <= LARGEST_SIDE;
const isSize = (value) => Array.isArray(value) && value.length === 2 && value.every(isSide);
const isNumber = (value) => typeof value === "number" && Math.abs(value) < LARGEST_NUMBER;
const holdsOnly = (value, keys) => isObject(value) && Object.keys(value).every((key) => keys.includes(key));
const optional = (fits) => (value) => value === undefined || fits(value);
const orNull = (fits) => (value) => value === null || fits(value);

const all = (keys, fits) => Object.fromEntries(keys.map((key) => [key, fits]));

const TYPES = {
  ...all(["keras_vit_plugin", "mode", "target", "verified_on", "weights_sha256"], isText),
  ...all(["verified_by", "calibrated_for", "rejected"], optional(isText)),
  calibration_sha256: optional(orNull(isText)),
  held_out: optional(isCount),
  outputs: isTexts,
  labels: orNull(isTexts),
  parity: isParity,
  preprocessing: isPreprocessing,
};
const TYPES_BEFORE_3 = { prefer: optional(isText) };
const TYPES_SINCE_3 = { config: isConfig };

/**
 * `{outputs, answers: [{name, task, activation}], labels, preprocessing, parity}` of what is stored in a file; null where
 * that is nothing. Labels are null or plain texts.
 *
 * @param graph as of `readGraph`.
 * @throws a sentence that says what is wrong.
 */
export function metadataOf(stored, graph, file) {
  if (!isObject(stored)) throw new Error(`${file}: its metadata is no object of JSON.`);
  if (!Object.keys(stored).length) return null;
  const schema = stored.schema === undefined ? 1 : stored.schema;
  if (!isCount(schema) || schema > SCHEMA) {
    const version = plain(String(stored.keras_vit_plugin)).slice(0, 20);
    throw new Error(`${file} was made by keras-vit-plugin ${version}, which is newer than this page.`);
  }
  const more = schema < 3 ? TYPES_BEFORE_3 : TYPES_SINCE_3;
  for (const [key, fits] of Object.entries({ ...TYPES, ...more })) {
    if (!fits(stored[key])) throw wrong(file, key);
  }
  if (schema >= 3 && stored.config.mode !== stored.mode) throw wrong(file, "config");
  const { outputs, labels, parity } = stored;
  const answers = schema === 1 ? answersByGraph(outputs[0], graph) : stored.answers;
  if (!(Array.isArray(answers) && answers.length > 0 && answers.every(isAnswer))) {
    throw wrong(file, "answers");
  }
  const preprocessing = { ...UNSAID, ...stored.preprocessing };
  const metadata = {
    outputs,
    answers: answers.map((answer) => ({ activation: "linear", ...answer })),
    labels: labels?.map(plain) ?? null,
    preprocessing,
    parity,
  };
  checkFits(metadata, graph, file);
  return metadata;
}

function wrong(file, key) {
  return new Error(`${file}: its metadata is wrong: \`${key}\` is missing or of a wrong kind.`);
}

/** Schema 1 had the names of outputs, and nothing of what they mean. */
function answersByGraph(name, { first, lastOperator }) {
  return [{ name, ...meaningByGraph(lastOperator, first, true) }];
}

/** Throws a sentence unless the graph takes and gives what the metadata say. */
function checkFits({ outputs, answers, labels, preprocessing }, graph, file) {
  const image = [...preprocessing.size, preprocessing.channels];
  if (graph.inputs.length !== 1 || String(graph.inputs[0].slice(1)) !== String(image)) {
    throw new Error(`${file}: its metadata say that it takes images of [${image}], its graph takes something else.`);
  }
  const shapes = new Map(graph.outputs.map(({ name, shape }) => [name, shape]));
  if (shapes.size < Math.max(outputs.length, answers.length)) {
    throw new Error(`${file}: its metadata name more outputs than it has.`);
  }
  if (new Set(answers.map(({ name }) => name)).size < answers.length) {
    throw new Error(`${file}: its metadata say twice what an output means.`);
  }
  const shape = shapes.get(answers[0].name) ?? graph.outputs[0].shape; // one by another name is the first
  const wanted = answers[0].task === "binary" ? [1, 2] : shape.length === 2 ? shape.slice(1) : [];
  if (labels !== null && !wanted.includes(labels.length)) {
    throw new Error(`${file}: its metadata hold ${labels.length} class names, its output is [${shape}].`);
  }
}

function isAnswer(value) {
  return (
    holdsOnly(value, ["name", "task", "activation"]) &&
    isText(value.name) &&
    TASKS.includes(value.task) &&
    optional((activation) => ACTIVATIONS.includes(activation))(value.activation)
  );
}

function isPreprocessing(value) {
  if (!holdsOnly(value, ["size", ...Object.keys(UNSAID)])) return false;
  const { size, channels, resize, interpolation, rule } = { ...UNSAID, ...value };
  const known = INTERPOLATIONS.includes(interpolation) && RULES.includes(rule);
  return isSize(size) && orNull(isSize)(resize) && Number.isInteger(channels) && channels >= 1 && known;
}

/** Whether it is the name of some mode and its options, each a text, a number, a yes or no, or null. */
function isConfig(values) {
  const isOption = (value) => value === null || ["string", "number", "boolean"].includes(typeof value);
  return (
    isObject(values) &&
    Object.keys(values).length <= MOST_OPTIONS &&
    isText(values.mode) &&
    Object.values(values).every(isOption)
  );
}

/** Whether all is a number that has to be one, of the further outputs too. */
function isParity(values) {
  if (!isObject(values) || !optional(isCount)(values.images)) return false;
  const { name: _name, task: _task, others = [], ...numbers } = values;
  const agreement = "agreement" in values ? values.agreement : values.top1_agreement;
  return (
    Object.values(numbers).every(orNull(isNumber)) &&
    values.snr_db !== null &&
    ("images" in values || (agreement ?? null) === null) &&
    Array.isArray(others) &&
    others.every((other) => isObject(other) && !other.others?.length && isParity(other))
  );
}
