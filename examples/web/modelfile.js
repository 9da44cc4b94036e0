// What the page reads out of a .tflite without an interpreter.

const MARK = new TextEncoder().encode('{"keras_vit_plugin":');
const SEAL = '"content_sha256": "';
const HASH_DIGITS = 64;
const LARGEST_FILE = 1 << 30;
const [QUOTE, BACKSLASH, OPEN, CLOSE] = [...'"\\{}'].map((character) => character.charCodeAt(0));

/** The bytes of a .tflite that a person picked; throws a sentence where it is none. */
export async function readModelFile(blob, name) {
  if (blob.size === 0) throw new Error(`${name} is empty.`);
  if (blob.size > LARGEST_FILE) throw new Error(`${name} is larger than 1 GB: too much for a browser tab.`);
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (latin1(bytes.subarray(4, 8)) !== "TFL3") {
    throw new Error(`${name} is no TFLite model: it lacks the mark TFL3 that such files begin with.`);
  }
  return bytes;
}

/**
 * The object that the exporter stored in the file; null for other files.
 *
 * @throws a sentence where the file is not what was exported, by the hash in it: a damaged file could answer wrong.
 */
export async function readMetadata(bytes, name) {
  for (let start = bytes.length - MARK.length; start >= 0; start--) {
    if (bytes[start] === MARK[0] && MARK.every((byte, i) => bytes[start + i] === byte)) {
      const end = endOfObject(bytes, start);
      if (!(await isWhole(bytes, start, end))) {
        throw new Error(`${name} is damaged: it is not what was exported, by the hash in its metadata.`);
      }
      return JSON.parse(new TextDecoder().decode(bytes.subarray(start, end)));
    }
  }
  return null;
}

/** Whether SHA-256 of the file, with zeros for the digits of the hash, is the hash in its metadata. */
async function isWhole(bytes, start, end) {
  if (!window.isSecureContext) return true; // there is no SHA-256 then
  const place = latin1(bytes.subarray(start, end)).indexOf(SEAL);
  if (place < 0) return false;
  const first = start + place + SEAL.length;
  const blanked = bytes.slice().fill("0".charCodeAt(0), first, first + HASH_DIGITS);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", blanked));
  const expected = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return latin1(bytes.subarray(first, first + HASH_DIGITS)) === expected;
}

// Operators by their numbers in the TFLite schema: those that tell what a score is, and those that only convert it.
const TELLING = { 9: "FULLY_CONNECTED", 14: "LOGISTIC", 25: "SOFTMAX" };
const CONVERTING = [6, 22, 43, 53, 114]; // DEQUANTIZE, RESHAPE, SQUEEZE, CAST, QUANTIZE

/** What computes the first output of a .tflite, a value of `TELLING`; "other" for all else. */
export function lastOperator(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const follow = (place) => place + view.getUint32(place, true);
  const field = (table, number) => {
    const fields = table - view.getInt32(table, true);
    const known = 4 + 2 * number < view.getUint16(fields, true);
    const offset = known ? view.getUint16(fields + 4 + 2 * number, true) : 0;
    return offset && table + offset; // 0: it has its default
  };
  const items = (table, number) => {
    const place = field(table, number);
    if (!place) return [];
    const start = follow(place);
    return Array.from({ length: view.getUint32(start, true) }, (_, i) => start + 4 + 4 * i);
  };
  const indices = (table, number) => items(table, number).map((place) => view.getInt32(place, true));
  const [CODES, SUBGRAPHS, OUTPUTS, OPERATORS, CODE, INPUTS, OF_OPERATOR, OLD_KIND, KIND] = [1, 2, 2, 3, 0, 1, 2, 0, 3];

  const model = follow(0);
  const kinds = items(model, CODES).map(follow).map((code) => {
    const [old, kind] = [field(code, OLD_KIND), field(code, KIND)];
    return Math.max(old && view.getInt8(old), kind && view.getInt32(kind, true));
  });
  const graph = follow(items(model, SUBGRAPHS)[0]);
  const producers = new Map();
  for (const operator of items(graph, OPERATORS).map(follow)) {
    const code = field(operator, CODE);
    const entry = { kind: kinds[code && view.getUint32(code, true)], inputs: indices(operator, INPUTS) };
    for (const tensor of indices(operator, OF_OPERATOR)) producers.set(tensor, entry);
  }
  let last = producers.get(indices(graph, OUTPUTS)[0]);
  while (CONVERTING.includes(last?.kind)) last = producers.get(last.inputs[0]);
  return TELLING[last?.kind] ?? "other";
}

const latin1 = (bytes) => new TextDecoder("latin1").decode(bytes);

function endOfObject(bytes, start) {
  let depth = 0;
  let inString = false;
  for (let i = start; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === BACKSLASH && inString) i++;
    else if (byte === QUOTE) inString = !inString;
    else if (!inString && byte === OPEN) depth++;
    else if (!inString && byte === CLOSE && --depth === 0) return i + 1;
  }
  return bytes.length;
}
