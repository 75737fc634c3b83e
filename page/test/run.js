// Runs the networks in Node as the page runs them: node page/test/run.js NETWORKS FOLDER
//
// FOLDER/cases.json lists what to run, FOLDER/NAME.bin holds the arrays that it names, as raw bytes. Each case is one of
//   { step, inputs: { name: { file, type, dims } }, output }                             one network
//   { photo: { file, width, height, greyscale }, strength, look: { name, amount }, output }   all of them, as for a photo on the page
// Outputs are written to FOLDER/OUTPUT.bin. Prints a JSON list with { dims } of each step and { before, after }, the scores, of each photo.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import { camouflage, dressed, score } from "../src/camouflage.js";

const ARRAYS = { uint8: Uint8Array, float32: Float32Array, float16: Uint16Array, int64: BigInt64Array };
const [networksFolder, folder] = process.argv.slice(2);
const raw = (name) => new Uint8Array(readFileSync(join(folder, `${name}.bin`)));
const tensor = ({ file, type, dims }) => new Tensor(type, new ARRAYS[type](raw(file).buffer), dims);
const pause = async () => {};

env.wasm.numThreads = 1;
const settings = JSON.parse(readFileSync(join(networksFolder, "networks.json"), "utf8")), sessions = {};
for (const name of settings.steps) sessions[name] = await InferenceSession.create(new Uint8Array(readFileSync(join(networksFolder, `${name}.onnx`))));
const networks = { settings, run: async (name, inputs) => (await sessions[name].run(inputs)).output };

const write = (name, { buffer, byteOffset, byteLength }) => writeFileSync(join(folder, `${name}.bin`), new Uint8Array(buffer, byteOffset, byteLength));

async function step({ step: name, inputs, output }) {
  const given = await networks.run(name, Object.fromEntries(Object.entries(inputs).map(([input, value]) => [input, tensor(value)])));
  write(output, given.data);
  return { dims: given.dims };
}

async function photo({ photo: { file, ...facts }, strength, look, output }) {
  const original = { ...facts, data: new Uint8ClampedArray(raw(file).buffer) }, before = await score(networks, original, pause);
  const data = await camouflage(networks, await dressed(networks, original, look, pause), strength, pause, () => {});
  write(output, data);
  return { before, after: await score(networks, { ...facts, data }, pause) };
}

const results = [];
for (const item of JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"))) results.push(await ("step" in item ? step : photo)(item));
console.log(JSON.stringify(results));
