// Runs in a frame of its own: removing the frame frees the memory and the threads of a file, even after a crash.

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";

/**
 * Compiles a `.tflite`.
 *
 * @param content ArrayBuffer of the file.
 * @param accelerator "wasm" or "webgpu".
 * @param threads of wasm.
 * @returns `{input: {dtype, shape}, outputs: [{name, dtype, shape}], accelerator, complete, run}`; complete says whether
 *   the accelerator runs every op.
 */
window.compile = async (content, accelerator, threads) => {
  const jspi = accelerator === "webgpu" && (await supportsFeature("jspi")); // there wasm runs the ops that a GPU lacks
  await loadLiteRt("./node_modules/@litertjs/core/wasm/", { threads: threads > 1, jspi });
  const model = await loadAndCompile(new Uint8Array(content), {
    accelerator,
    cpuOptions: { numThreads: threads },
    gpuOptions: { precision: "fp32" },
  });
  const inputs = model.getInputDetails();
  if (inputs.length !== 1) throw new Error(`one input of images is expected, this file has ${inputs.length}`);
  const [input] = inputs;

  /** Pixels of as many images as the input holds, to `{outputs: {name: values}, ms}`. */
  async function run(pixels) {
    const data = input.dtype === "float32" ? Float32Array.from(pixels) : new Uint8Array(pixels);
    const tensor = new Tensor(data, input.shape);
    let results = {};
    try {
      const started = performance.now();
      results = await model.run({ [input.name]: tensor });
      const outputs = {};
      for (const [name, result] of Object.entries(results)) outputs[name] = (await result.data()).slice();
      return { outputs, ms: performance.now() - started };
    } finally {
      tensor.delete();
      for (const result of Object.values(results)) result.delete();
    }
  }

  const details = ({ name, dtype, shape }) => ({ name, dtype, shape: [...shape] });
  return {
    input: details(input),
    outputs: model.getOutputDetails().map(details),
    accelerator: model.options.accelerator,
    complete: model.isFullyAccelerated,
    run,
  };
};
window.ready = true;
