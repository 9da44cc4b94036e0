// What the page reads in the tables of a .tflite. Nothing is read outside of its bytes, and nothing without end.

const SPARE = 1 << 20; // entries that vectors may hold beside as many as the file has bytes: some are stored once
const SERVING = "serving_default";
// Fields by their places in the TFLite schema.
const MODEL = { codes: 1, subgraphs: 2, buffers: 4, metadata: 6, signatures: 7 };
const GRAPH = { tensors: 0, inputs: 1, outputs: 2, operators: 3 };
const TENSOR = { shape: 0, name: 3 };
const OPERATOR = { code: 0, inputs: 1, outputs: 2 };
const CODE = { oldKind: 0, kind: 3 };
const BUFFER = { data: 0, offset: 1, size: 2 };
const ENTRY = { name: 0, buffer: 1 };
const SIGNATURE = { outputs: 1, key: 2, subgraph: 4 };
const NAMED = { name: 0, tensor: 1 };
// Operators by their numbers: those that tell what a score is, and those that only convert it.
const TELLING = { 9: "FULLY_CONNECTED", 14: "LOGISTIC", 25: "SOFTMAX" };
const CONVERTING = [6, 22, 43, 53, 114]; // DEQUANTIZE, RESHAPE, SQUEEZE, CAST, QUANTIZE

/**
 * The first graph of a .tflite.
 *
 * @returns `{inputs: shapes, outputs: [{name, shape}], first, lastOperator, metadata: Map}`: names as the signature has
 *   them; `first` is the first output's shape, and `lastOperator` computes it: a value of `TELLING`, or "other". The
 *   bytes of metadata by their names.
 * @throws a sentence where its tables lead out of its bytes.
 */
export function readGraph(bytes, file) {
  try {
    return graphOf(new Table(new Bytes(bytes), null));
  } catch (error) {
    console.warn(error);
    throw new Error(`${file} is damaged: what its tables refer to is not there.`);
  }
}

class Bytes {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.left = bytes.length + SPARE;
  }

  follow(place) {
    return place + this.view.getUint32(place, true);
  }

  /** The start of a vector and how many entries it has. */
  vector(place, bytesEach) {
    const start = this.follow(place);
    const length = this.view.getUint32(start, true);
    this.left -= length;
    if (this.left < 0 || start + 4 + length * bytesEach > this.bytes.length) throw new RangeError("a long vector");
    return [start + 4, length];
  }
}

/** A table of a flatbuffer; `place` null is the root. What a file leaves out is 0, "" or empty. */
class Table {
  constructor(file, place) {
    this.file = file;
    this.place = place ?? file.follow(0);
    this.fields = this.place - file.view.getInt32(this.place, true);
  }

  at(field) {
    const { view } = this.file;
    if (4 + 2 * field >= view.getUint16(this.fields, true)) return 0;
    const offset = view.getUint16(this.fields + 4 + 2 * field, true);
    return offset && this.place + offset;
  }

  number(field, read = "getInt32") {
    const place = this.at(field);
    return place && Number(this.file.view[read](place, true));
  }

  bytes(field) {
    const place = this.at(field);
    if (!place) return new Uint8Array(0);
    const [start, length] = this.file.vector(place, 1);
    return this.file.bytes.subarray(start, start + length);
  }

  text(field) {
    return new TextDecoder("utf-8", { fatal: true }).decode(this.bytes(field));
  }

  places(field) {
    const place = this.at(field);
    if (!place) return [];
    const [start, length] = this.file.vector(place, 4);
    return Array.from({ length }, (_, i) => start + 4 * i);
  }

  numbers(field) {
    return this.places(field).map((place) => this.file.view.getInt32(place, true));
  }

  tables(field) {
    return this.places(field).map((place) => new Table(this.file, this.file.follow(place)));
  }
}

/** An entry of a list; throws where it has none at the index. */
function item(list, index) {
  if (!(index in list)) throw new RangeError(`there is no ${index} of ${list.length}`);
  return list[index];
}

function graphOf(model) {
  const graph = item(model.tables(MODEL.subgraphs), 0);
  const tensors = graph.tables(GRAPH.tensors);
  const outputs = graph.numbers(GRAPH.outputs);
  const shape = (index) => item(tensors, index).numbers(TENSOR.shape);
  const signature = model
    .tables(MODEL.signatures)
    .find((each) => each.text(SIGNATURE.key) === SERVING && each.number(SIGNATURE.subgraph) === 0);
  const named = signature
    ? signature.tables(SIGNATURE.outputs).map((each) => [each.text(NAMED.name), each.number(NAMED.tensor)])
    : outputs.map((index) => [item(tensors, index).text(TENSOR.name), index]);
  return {
    inputs: graph.numbers(GRAPH.inputs).map(shape),
    outputs: named.map(([name, index]) => ({ name, shape: shape(index) })),
    first: shape(outputs[0]),
    lastOperator: lastOperator(model, graph, outputs[0]),
    metadata: entriesOf(model),
  };
}

/** The metadata by name; of several with one name the first. */
function entriesOf(model) {
  const buffers = model.tables(MODEL.buffers);
  const found = new Map();
  for (const entry of model.tables(MODEL.metadata)) {
    const name = entry.text(ENTRY.name);
    const buffer = item(buffers, entry.number(ENTRY.buffer, "getUint32"));
    if (!found.has(name)) found.set(name, contentOf(buffer));
  }
  return found;
}

/** The bytes of a buffer, which may lie behind the tables. */
function contentOf(buffer) {
  const [offset, size] = [BUFFER.offset, BUFFER.size].map((field) => buffer.number(field, "getBigUint64"));
  if (offset <= 1) return buffer.bytes(BUFFER.data);
  if (offset + size > buffer.file.bytes.length) throw new RangeError("a buffer ends behind the file");
  return buffer.file.bytes.subarray(offset, offset + size);
}

function lastOperator(model, graph, output) {
  const kinds = model
    .tables(MODEL.codes)
    .map((code) => Math.max(code.number(CODE.oldKind, "getInt8"), code.number(CODE.kind)));
  const producers = new Map();
  for (const operator of graph.tables(GRAPH.operators)) {
    const kind = item(kinds, operator.number(OPERATOR.code, "getUint32"));
    const entry = { kind, input: operator.numbers(OPERATOR.inputs)[0] };
    for (const tensor of operator.numbers(OPERATOR.outputs)) producers.set(tensor, entry);
  }
  let last = producers.get(output);
  for (let left = producers.size; CONVERTING.includes(last?.kind); left--) {
    if (left < 0) throw new RangeError("its operators go round in circles");
    last = producers.get(last.input);
  }
  return TELLING[last?.kind] ?? "other";
}
