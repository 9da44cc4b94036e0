// The page: what a person picks, drops, films or draws goes to the model; what it answers is shown.

import { AGREEMENT, inWords, RANGES, scoresOf } from "./answers.js";
import { BACKENDS, missing, Model, Session } from "./engine.js";
import { readGraph } from "./flatbuffer.js";
import { readMetadata, readModelFile } from "./modelfile.js";
import { Photo } from "./photo.js";
import { layout, toPixels } from "./resize.js";
import { plain } from "./text.js";

const TOP = 5;
const VIEW_SIDE = 560; // pixels of the drawn photo's longer side
const SMALL_PHOTO = 64; // pixels; such a photo is shown as squares
const ATTENTION_COLOUR = [255, 0, 140];
const PEN_WIDTH = 0.14; // of the drawing's side

const element = (id) => document.getElementById(id);
const view = element("view").getContext("2d");

let model = null;
let photo = null;
let answer = null;
let camera = null;
let drawing = false;
const entries = []; // of the list of model files: {name, blob(), bytes, ms}

// One thing at a time, in the order it was asked for; what fails is said and the next goes on.
let turn = Promise.resolve();
function next(task) {
  turn = turn.then(task).catch((error) => {
    console.warn(error);
    element("error").textContent = plain(error.message);
    element("error").hidden = false;
  });
  return turn;
}

function asked(task) {
  return next(async () => {
    element("error").hidden = true;
    document.body.setAttribute("aria-busy", "true");
    try {
      await task();
    } finally {
      document.body.removeAttribute("aria-busy");
    }
  });
}

// Models

function addEntry(entry) {
  const label = document.createElement("label");
  label.className = "choice";
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "model", className: "hidden" });
  entry.radio = radio;
  entry.line = document.createElement("small");
  label.append(radio, entry.name, entry.line);
  radio.addEventListener("change", () => asked(() => openEntry(entry)));
  element("models").append(label);
  entries.push(entry);
  describe(entry);
}

function describe(entry) {
  const size = entry.bytes ? sizeText(entry.bytes) : "";
  entry.line.textContent = [size, entry.ms && timeText(entry.ms)].filter(Boolean).join(" · ");
}

async function openEntry(entry) {
  element("status").textContent = `Opening ${entry.name}…`;
  try {
    const blob = await entry.blob();
    const opened = await Model.open(await readModelFile(blob, entry.name), entry.name);
    model?.close();
    model = opened;
    model.entry = entry;
  } catch (error) {
    element("status").textContent = model ? `Still using ${model.name}` : "Open a .tflite to begin";
    throw error;
  } finally {
    entries.forEach((other) => (other.radio.checked = other === model?.entry));
  }
  entry.bytes = model.bytes.length;
  element("size").textContent = sizeText(entry.bytes);
  element("agreement").textContent = AGREEMENT[model.answer.task] ?? "Same answer as the model";
  element("parity").textContent = parityText(model);
  element("attention").hidden = !model.attention;
  element("draw").hidden = model.preprocessing.channels !== 1;
  showRanges();
  showBackends();
  describe(entry);
  await classify();
}

/** How near the file is to its Keras model, as the exporter measured it. */
function parityText({ metadata, answer: { task } }) {
  const parity = metadata?.parity ?? {};
  const agreement = parity.agreement ?? parity.top1_agreement ?? null;
  if (task !== "regression") return agreement === null ? "not known" : `${(100 * agreement).toFixed(1)} %`;
  const error = parity.relative_error ?? null; // of the spread of the numbers
  if (error === null) return "not known";
  return error < 1e-4 ? "< 0.01 %" : `${(100 * error).toPrecision(2)} %`;
}

/** Lets a person say what a file takes that does not say it. */
function showRanges() {
  element("pixels").hidden = !model.asksForPixels;
  element("ranges").replaceChildren(
    ...Object.keys(RANGES).map((range) => {
      const label = document.createElement("label");
      label.className = "choice";
      const options = { type: "radio", name: "range", className: "hidden", value: range };
      const radio = Object.assign(document.createElement("input"), options);
      radio.addEventListener("change", () =>
        asked(async () => {
          model.takes(range);
          await classify();
        }),
      );
      label.append(radio, range);
      return label;
    }),
  );
}

function showBackends() {
  element("backends").replaceChildren(
    ...Object.entries(BACKENDS).map(([backend, { name }]) => {
      const label = document.createElement("label");
      label.className = "choice";
      const radio = Object.assign(document.createElement("input"), {
        type: "radio",
        name: "backend",
        className: "hidden",
        value: backend,
        checked: model.backend === backend,
        disabled: Boolean(missing(backend) ?? model.notes[backend]),
      });
      radio.addEventListener("change", () => asked(() => useBackend(backend)));
      label.append(radio, name);
      return label;
    }),
  );
  const notes = Object.keys(BACKENDS).map((backend) => [backend, missing(backend) ?? model.notes[backend]]);
  element("note").textContent = notes
    .filter(([, why]) => why)
    .map(([backend, why]) => `${BACKENDS[backend].name} is not used: ${plain(why)}.`)
    .join(" ");
}

async function useBackend(backend) {
  element("status").textContent = `Checking ${BACKENDS[backend].name}…`;
  await model.use(backend);
  showBackends();
  await classify();
}

// Photos

async function takePhoto(blob, name) {
  stopCamera();
  stopDrawing();
  const opened = await Photo.open(blob, name);
  photo?.close();
  photo = opened;
  photo.name = name;
  await classify();
}

async function classify() {
  if (!model || !photo) {
    element("status").textContent = model ? "Pick a photo" : "Open a .tflite to begin";
    return;
  }
  if (model.asksForPixels && !model.range) {
    forgetAnswer("Say which pixels this file takes");
    return;
  }
  let result;
  try {
    result = await model.classify(toPixels(photo, model.preprocessing));
  } catch (error) {
    forgetAnswer("No answer");
    showPhoto();
    throw error;
  }
  answer = { ...result, labels: model.labels, backend: model.backend, model: model.name, photo: photo.name };
  model.entry.ms = result.ms;
  describe(model.entry);
  showPhoto();
  showAnswer();
}

/** Takes away what was said of another photo. */
function forgetAnswer(status) {
  answer = null;
  element("top").replaceChildren();
  element("time").textContent = "–";
  element("status").textContent = status;
  view.canvas.setAttribute("aria-label", status);
}

function showPhoto() {
  const [height, width] = model.preprocessing.size;
  const scale = VIEW_SIDE / Math.max(height, width);
  Object.assign(view.canvas, { width: width * scale, height: height * scale });
  const place = layout(photo.width, photo.height, model.preprocessing);
  view.imageSmoothingEnabled = Math.max(photo.width, photo.height) > SMALL_PHOTO;
  view.imageSmoothingQuality = "high";
  view.drawImage(photo.bitmap, place.left * scale, place.top * scale, place.width * scale, place.height * scale);
  if (answer?.attention && element("show-attention").checked) showAttention(answer.attention);
  element("frame").classList.remove("empty");
  element("hint").hidden = true;
}

/** Colours the patches, the more the answer draws on them. */
function showAttention({ rows, columns, values }) {
  const highest = values.reduce((a, b) => Math.max(a, b));
  const shade = new ImageData(columns, rows);
  values.forEach((value, i) => shade.data.set([...ATTENTION_COLOUR, 190 * (value / highest)], 4 * i));
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(shade, 0, 0);
  view.imageSmoothingEnabled = true;
  view.drawImage(small, 0, 0, view.canvas.width, view.canvas.height);
}

function showAnswer() {
  const { title, lines } = inWords(model.answer, answer.labels, answer.logits, answer.probabilities, TOP);
  element("top").replaceChildren(
    ...lines.map(({ label: name, text, share }) => {
      const line = document.createElement("li");
      const part = (name, text) => Object.assign(document.createElement("span"), { className: name, textContent: text });
      const bar = part("bar", "");
      bar.style.width = `${100 * Math.min(Math.max(share ?? 0, 0), 1)}%`;
      const label = part("label", name);
      label.title = name;
      line.append(bar, label, part("share", text));
      return line;
    }),
  );
  element("status").textContent = title;
  element("time").textContent = timeText(answer.ms);
  view.canvas.setAttribute("aria-label", `${photo.name}: ${title}`);
}

// Camera and drawing

async function startCamera() {
  stopDrawing();
  const video = document.createElement("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(`The camera cannot be used: ${error.message}.`);
  }
  Object.assign(video, { muted: true, playsInline: true });
  await video.play();
  camera = video;
  element("camera").setAttribute("aria-pressed", "true");
  film(video);
}

async function film(video) {
  while (camera === video) {
    await next(async () => {
      if (camera !== video) return;
      const frame = new Photo(await createImageBitmap(video));
      photo?.close();
      photo = frame;
      photo.name = "Camera";
      await classify();
    });
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  camera?.srcObject.getTracks().forEach((track) => track.stop());
  camera = null;
  element("camera").setAttribute("aria-pressed", "false");
}

function startDrawing() {
  stopCamera();
  drawing = true;
  element("draw").setAttribute("aria-pressed", "true");
  element("frame").classList.add("drawing");
  element("frame").classList.remove("empty");
  element("hint").textContent = "Draw a digit with a finger or the mouse";
  element("hint").hidden = false;
  view.fillRect(0, 0, view.canvas.width, view.canvas.height);
}

function stopDrawing() {
  drawing = false;
  element("draw").setAttribute("aria-pressed", "false");
  element("frame").classList.remove("drawing");
}

view.canvas.addEventListener("pointerdown", (event) => {
  if (!drawing) return;
  if (element("hint").hidden) view.fillRect(0, 0, view.canvas.width, view.canvas.height); // the next digit
  element("hint").hidden = true;
  view.canvas.setPointerCapture(event.pointerId);
  Object.assign(view, { strokeStyle: "white", lineCap: "round", lineJoin: "round" });
  view.lineWidth = PEN_WIDTH * view.canvas.width;
  view.beginPath();
  drawTo(event);
});

view.canvas.addEventListener("pointermove", (event) => {
  if (drawing && view.canvas.hasPointerCapture(event.pointerId)) drawTo(event);
});

function drawTo(event) {
  const scale = view.canvas.width / view.canvas.clientWidth;
  view.lineTo(event.offsetX * scale, event.offsetY * scale);
  view.stroke();
}

view.canvas.addEventListener("pointerup", () => {
  if (!drawing) return;
  asked(async () => {
    const drawn = new OffscreenCanvas(view.canvas.width, view.canvas.height);
    drawn.getContext("2d").drawImage(view.canvas, 0, 0);
    photo?.close();
    photo = new Photo(drawn);
    photo.name = "Drawing";
    await classify();
  });
});

// What a person does

element("photo").addEventListener("change", ({ target }) => take(target));
element("model").addEventListener("change", ({ target }) => take(target));

function take(input) {
  takeFiles([...input.files]);
  input.value = ""; // the same file may be picked again
}

function takeFiles(files) {
  for (const file of files) {
    const name = plain(file.name);
    if (name.toLowerCase().endsWith(".tflite")) asked(() => takeModel(file, name));
    else asked(() => takePhoto(file, name));
  }
}

async function takeModel(file, name) {
  const entry = { name, blob: async () => file };
  await readModelFile(file, name);
  addEntry(entry);
  try {
    await openEntry(entry);
  } catch (error) {
    entries.splice(entries.indexOf(entry), 1);
    entry.radio.parentElement.remove();
    throw error;
  }
}

element("camera").addEventListener("click", () => (camera ? stopCamera() : asked(startCamera)));
element("draw").addEventListener("click", () => (drawing ? stopDrawing() : startDrawing()));
element("show-attention").addEventListener("change", () => answer && showPhoto());

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  takeFiles([...event.dataTransfer.files]);
});

function sizeText(bytes) {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function timeText(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

// What `prepare.py` made

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is missing: run \`make web\`.`);
  return response;
}

async function start() {
  element("frame").classList.add("empty");
  element("status").textContent = "Open a .tflite to begin";
  const { models, samples } = await siteContent();
  for (const { file, name, bytes } of models) {
    addEntry({ name, bytes, blob: async () => (await fetched(`site/${file}`)).blob() });
  }
  for (const { file, name } of samples) {
    const button = Object.assign(document.createElement("button"), { type: "button", title: name });
    const image = Object.assign(document.createElement("img"), { src: `site/${file}`, alt: name });
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < SMALL_PHOTO));
    button.append(image);
    button.addEventListener("click", () =>
      asked(async () => takePhoto(await (await fetched(`site/${file}`)).blob(), name)),
    );
    element("samples").append(button);
  }
  if (!entries.length) return; // `prepare.py` has not ended
  await openEntry(entries[0]);
  element("samples").querySelector("button")?.click();
}

async function siteContent() {
  const response = await fetch("site/site.json");
  if (!response.ok) return { models: [], samples: [] };
  try {
    const { models, samples } = await response.json();
    return { models: [...models], samples: [...samples] };
  } catch {
    throw new Error("site/site.json is damaged: run `make web` again.");
  }
}

// For tests and benchmarks

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

window.vit = {
  /** What was shown last: `{logits, probabilities, attention, ms, labels, backend, model, photo}`; logits are scores. */
  get answer() {
    return answer;
  },
  /** Resolves when nothing is left to do. */
  idle: () => turn,
  /** Pixels of one photo opened as a person's would be, under a file's preprocessing. */
  pixels: async (photoBase64, preprocessing) => {
    const opened = await Photo.open(new Blob([bytesOf(photoBase64)]), "photo");
    const pixels = toPixels(opened, preprocessing);
    opened.close();
    return [...pixels];
  },
  /**
   * Runs a file on given pixels as asked, right or wrong.
   *
   * @param fileBase64 the `.tflite`.
   * @param pixelsBase64 uint8 pixels of one or more photos, one after the other.
   * @returns `{logits: one list per photo, ms: the median of `rounds` runs of the first, complete}`
   */
  run: async (fileBase64, pixelsBase64, { accelerator = "wasm", threads = 1, rounds = 1 }) => {
    const file = bytesOf(fileBase64);
    const session = await Session.open(file, { accelerator, threads });
    try {
      const all = bytesOf(pixelsBase64);
      const size = session.input.shape.reduce((a, b) => a * b, 1);
      const graph = readGraph(file, "the file");
      const { name } = scoresOf(await readMetadata(file, graph, "the file"), graph, session.outputs, "the file").output;
      const logits = [];
      for (let start = 0; start < all.length; start += size) {
        const { outputs } = await session.run(all.subarray(start, start + size));
        logits.push([...outputs[name]]);
      }
      const times = [];
      for (let i = 0; i < rounds; i++) times.push((await session.run(all.subarray(0, size))).ms);
      return { logits, ms: times.sort((a, b) => a - b)[rounds >> 1], complete: session.complete };
    } finally {
      session.close();
    }
  },
};

next(start);
