// Which way a file is run: measured, not guessed. One thread is the reference; threads and WebGPU are used only where
// they give its answers.

import { agreementDb, namesOf, probabilitiesOf, RANGES, scoresOf } from "./answers.js";
import { readGraph } from "./flatbuffer.js";
import { readMetadata } from "./modelfile.js";

const MOST_THREADS = 4;
const CHECK_ROUNDS = 3;
const MOST_PIXELS = 64e6; // of all photos that a file takes at once
// Threads do the same arithmetic in other slices. WebGPU computes in float what an integer file computes in int8.
const LEAST_AGREEMENT_DB = { wasm: 60, webgpu: 20 };

export const BACKENDS = {
  single: { accelerator: "wasm", threads: 1, name: "CPU, 1 thread" },
  threads: {
    accelerator: "wasm",
    threads: Math.min(navigator.hardwareConcurrency ?? 1, MOST_THREADS),
    get name() {
      return `CPU, ${this.threads} threads`;
    },
  },
  webgpu: { accelerator: "webgpu", threads: 1, name: "WebGPU" },
};

/** Why this browser cannot use a backend, or null. */
export function missing(backend) {
  if (backend === "threads" && BACKENDS.threads.threads < 2) return "this device has one core";
  if (backend === "threads" && !crossOriginIsolated) return "the page is not cross-origin isolated";
  if (backend === "webgpu" && !navigator.gpu) return "this browser has no WebGPU";
  return null;
}

/** One file on one backend, in a frame of its own. */
export class Session {
  static async open(bytes, { accelerator, threads }) {
    const frame = document.createElement("iframe");
    frame.src = "runtime.html";
    frame.hidden = true;
    frame.title = "LiteRT.js";
    document.body.append(frame);
    try {
      await new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
      if (!frame.contentWindow.ready) throw new Error("LiteRT.js could not be loaded: run `make web` once.");
      const session = new Session(frame, await frame.contentWindow.compile(bytes.buffer, accelerator, threads));
      if (session.accelerator !== accelerator) throw new Error(`${accelerator} does not run all of this file`);
      return session;
    } catch (error) {
      frame.remove();
      throw error;
    }
  }

  constructor(frame, compiled) {
    this.frame = frame;
    Object.assign(this, compiled);
  }

  close() {
    this.frame.remove();
  }
}

/** A `.tflite` that is open on the backend that suits it best. */
export class Model {
  /**
   * Opens a file on one thread, and on more where they give the same answers faster.
   *
   * @throws a sentence where the file is damaged or of a kind that this page does not take.
   */
  static async open(bytes, name) {
    const graph = readGraph(bytes, name);
    const metadata = await readMetadata(bytes, graph, name);
    let session;
    try {
      session = await Session.open(bytes, BACKENDS.single);
    } catch (error) {
      throw sentence(error, name);
    }
    try {
      const model = new Model(bytes, name, graph, metadata, session);
      model.reference = await model.answers(session);
      model.notes = {};
      if (!missing("threads")) await model.use("threads", { onlyIfFaster: true });
      return model;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  constructor(bytes, name, graph, metadata, session) {
    const { shape, dtype } = session.input;
    if (shape[0] === -1) {
      throw new Error(`${name} leaves its batch size open, which LiteRT.js does not take: export it for one photo.`);
    }
    if (shape.length !== 4 || ![1, 3].includes(shape[3]) || shape.some((side) => side < 1)) {
      throw new Error(`${name} takes ${dtype} [${shape}]; this page runs models of photos: [1, height, width, 1 or 3].`);
    }
    if (shape[0] * shape[1] * shape[2] > MOST_PIXELS) {
      throw new Error(`${name} takes [${shape}]: more than ${MOST_PIXELS / 1e6} million pixels.`);
    }
    const { answer, output: scores } = scoresOf(metadata, graph, session.outputs, name);
    if (scores.dtype !== "float32" || scores.shape.length === 0) {
      throw new Error(`${name} gives ${scores.dtype} [${scores.shape}]; this page expects float32 scores of each photo.`);
    }
    if (["embedding", "features"].includes(answer.task)) {
      throw new Error(`${name} gives a photo's ${answer.task} [${scores.shape}], not what it shows: there is no answer.`);
    }
    this.bytes = bytes;
    this.name = name;
    this.metadata = metadata;
    this.session = session;
    this.backend = "single";
    this.answer = answer;
    this.scores = scores;
    this.asksForPixels = !metadata && dtype === "float32"; // it may take them as 0..255, or scaled
    this.range = null;
    this.attention = session.outputs.find((output) => output.name === "attention" && output.shape.length === 3);
    const [, height, width, channels] = shape;
    const fallback = { resize: null, interpolation: "bilinear", rule: "stretch" };
    this.preprocessing = { ...fallback, ...metadata?.preprocessing, size: [height, width], channels };
    this.columns = scores.shape.slice(1).reduce((a, b) => a * b, 1);
    this.labels = namesOf(answer, metadata?.labels ?? null, this.columns);
  }

  /** The range of pixels of a file that does not say it, a key of `RANGES`. */
  takes(range) {
    this.range = range;
  }

  /**
   * What one photo's pixels are: `{logits, probabilities, attention, ms}`. `logits` are the scores as they come;
   * probabilities, one per label, are null of a regression; attention is `{rows, columns, values}` or null.
   *
   * @throws a sentence where a score is NaN or infinite.
   */
  async classify(pixels) {
    const [scale, offset] = RANGES[this.range ?? "0..255"];
    const given = this.range ? Float32Array.from(pixels, (value) => value * scale + offset) : pixels;
    const { outputs, ms } = await this.session.run(repeat(given, this.session.input.shape[0]));
    const logits = outputs[this.scores.name].slice(0, this.columns);
    if (!logits.every(Number.isFinite)) throw new Error(`${this.name} answers with NaN or infinity: it has no answer.`);
    let attention = null;
    if (this.attention) {
      const [, rows, columns] = this.attention.shape;
      const values = outputs.attention.slice(0, rows * columns);
      if (values.every(Number.isFinite)) attention = { rows, columns, values };
    }
    return { logits, probabilities: probabilitiesOf(this.answer, logits), attention, ms };
  }

  /**
   * Moves to another backend where its answers are those of one thread, else stays and keeps why in `notes`.
   *
   * @returns whether it is used now.
   */
  async use(backend, { onlyIfFaster = false } = {}) {
    if (backend === this.backend) return true;
    let session;
    try {
      session = await Session.open(this.bytes, BACKENDS[backend]);
      const found = await this.answers(session);
      const agreement = agreementDb(this.reference.outputs, found.outputs, this.answer, this.scores.name);
      if (!(agreement >= LEAST_AGREEMENT_DB[session.accelerator])) {
        throw new Error(`its answers differ from those of one thread (${agreement.toFixed(1)} dB)`);
      }
      this.notes[backend] = null;
      if (onlyIfFaster && found.ms >= this.reference.ms) {
        session.close();
        return false;
      }
    } catch (error) {
      console.warn(error);
      session?.close();
      this.notes[backend] = error.message.split("\n")[0];
      return false;
    }
    this.session.close();
    this.session = session;
    this.backend = backend;
    return true;
  }

  /** The outputs of two check images, one after the other, and the shortest time. */
  async answers(session) {
    const [batch, ...sides] = session.input.shape;
    const outputs = [];
    let ms = Infinity;
    for (let round = 0; round < CHECK_ROUNDS; round++) {
      for (const seed of [1, 2]) {
        const result = await session.run(repeat(checkImage(sides, seed), batch));
        if (round > 0) ms = Math.min(ms, result.ms);
        outputs.push(result.outputs);
      }
    }
    return { outputs, ms };
  }

  close() {
    this.session.close();
  }
}

/** Waves and noise in every channel; the same for the same seed. */
function checkImage([height, width, channels], seed) {
  const pixels = new Uint8Array(height * width * channels);
  let state = seed;
  for (let i = 0; i < pixels.length; i++) {
    const x = Math.floor(i / channels) % width;
    const y = Math.floor(i / (channels * width));
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const wave = Math.sin(((seed * x) / width) * 9 + (i % channels)) * Math.cos((y / height) * 7);
    pixels[i] = 127.5 + 90 * wave + 30 * (state / 2 ** 32 - 0.5);
  }
  return pixels;
}

function repeat(pixels, count) {
  const all = new pixels.constructor(pixels.length * count);
  for (let i = 0; i < count; i++) all.set(pixels, i * pixels.length);
  return all;
}

/** What LiteRT.js said, as a sentence for a person. */
function sentence(error, name) {
  console.warn(error);
  const type = /Element type (\w+) is not supported/.exec(error.message)?.[1];
  if (type) {
    return new Error(
      `${name} has ${type} inputs or outputs; LiteRT.js takes uint8 or float32 photos and gives float32 scores. ` +
        'Export it with input_dtype="uint8" and output_dtype="float32".',
    );
  }
  if (/one input|make web/.test(error.message)) return new Error(`${name}: ${error.message}`);
  return new Error(`${name} cannot be run: it is damaged, or has an op that LiteRT.js lacks.`);
}
