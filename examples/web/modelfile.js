// A .tflite that a person picked: whether it is one, whether it is whole, and what it says of itself.

import { metadataOf } from "./metadata.js";

const MARK = new TextEncoder().encode('{"keras_vit_plugin":');
const SEAL = new TextEncoder().encode('"content_sha256": "');
const NAME = "keras_vit_plugin"; // of the entry of metadata
const HASH_DIGITS = 64;
const LARGEST_FILE = 1 << 30;
const LONGEST_METADATA = 1 << 22; // bytes
const DEEPEST = 100; // levels of lists and objects in them

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
 * What the exporter says in the file, as `metadataOf` gives it; null for other files.
 *
 * @param graph as of `readGraph`.
 * @throws a sentence where the file is not what was exported, by the hash in it: a damaged file could answer wrong. Or
 *   where a newer version made it, or what it says is wrong.
 */
export async function readMetadata(bytes, graph, name) {
  await checkWhole(bytes, name);
  if (!graph.metadata.has(NAME)) return null;
  const text = graph.metadata.get(NAME);
  if (text.length > LONGEST_METADATA) throw new Error(`${name}: its metadata has ${text.length} bytes: too many.`);
  let stored;
  try {
    stored = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text));
    checkValues(stored, 0);
  } catch {
    throw new Error(`${name}: its metadata is no JSON.`);
  }
  return metadataOf(stored, graph, name);
}

/** Throws at what JSON can write and nothing can hold: half a character, a number beyond all, lists without end. */
function checkValues(value, depth) {
  const bad = typeof value === "string" ? !value.isWellFormed() : typeof value === "number" && !Number.isFinite(value);
  if (bad || depth > DEEPEST) throw new RangeError("no value");
  if (typeof value === "object" && value !== null) {
    for (const entry of Object.entries(value).flat()) checkValues(entry, depth + 1);
  }
}

/**
 * Throws a sentence unless SHA-256 of the file, with zeros for the digits of the hash, is the hash in its metadata. The
 * first hash of the file counts; a file with the metadata of this package has one.
 */
async function checkWhole(bytes, name) {
  const place = find(bytes, SEAL);
  if (place < 0 && find(bytes, MARK) < 0) return;
  if (!globalThis.crypto?.subtle) {
    throw new Error(`${name} has a hash, which a browser checks only on pages of https or localhost.`);
  }
  if (place < 0 || !(await isSealed(bytes, place + SEAL.length))) {
    throw new Error(`${name} is damaged: it is not what was exported, by the hash in its metadata.`);
  }
}

async function isSealed(bytes, first) {
  const digits = bytes.subarray(first, first + HASH_DIGITS);
  const stored = digits.slice();
  digits.fill("0".charCodeAt(0));
  const hashed = crypto.subtle.digest("SHA-256", bytes); // of a copy that is made at once
  digits.set(stored);
  const expected = Array.from(new Uint8Array(await hashed), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return latin1(stored) === expected;
}

/** Where bytes begin in others, -1 where they do not. */
function find(bytes, wanted) {
  let place = bytes.indexOf(wanted[0]);
  while (place >= 0 && !wanted.every((byte, i) => bytes[place + i] === byte)) {
    place = bytes.indexOf(wanted[0], place + 1);
  }
  return place;
}

const latin1 = (bytes) => new TextDecoder("latin1").decode(bytes);
