// The exported networks in onnxruntime's WebAssembly build.
import * as ort from "onnxruntime-web/wasm";
import module_ from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import binary from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

const MOST_THREADS = 4;
const isApple = /iPhone|iPad/.test(navigator.userAgent) || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1); // there threads crash

export class Networks {
  // base: the URL of the folder with networks.json; onLoaded(done, all) is told of each network that is ready.
  static async load(base, onLoaded) {
    ort.env.wasm.wasmPaths = { mjs: new URL(module_, import.meta.url).href, wasm: new URL(binary, import.meta.url).href };
    ort.env.wasm.numThreads = self.crossOriginIsolated && !isApple ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
    const networks = new Networks();
    networks.settings = await (await fetch(new URL("networks.json", base))).json();
    networks.sessions = {};
    const { steps } = networks.settings;
    for (const [index, name] of steps.entries()) {
      const content = await fetch(new URL(`${name}.onnx`, base));
      if (!content.ok) throw new Error(`${name}.onnx: ${content.status}`);
      // Without an arena, what a large photo needed is given back.
      networks.sessions[name] = await ort.InferenceSession.create(await content.arrayBuffer(), { enableCpuMemArena: false, enableMemPattern: false });
      onLoaded(index + 1, steps.length);
    }
    return networks;
  }

  // Run a step; its inputs by name, as tensors.
  async run(name, inputs) {
    const { output } = await this.sessions[name].run(inputs);
    return output;
  }
}
