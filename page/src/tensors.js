// What goes into the networks, as tensors.
import { Tensor } from "onnxruntime-web/wasm";

export const bytes = (data, ...dims) => new Tensor("uint8", new Uint8Array(data.buffer, data.byteOffset, data.length), dims);
export const floats = (data, ...dims) => new Tensor("float32", Float32Array.from(data), dims);
export const planes = (data, ...dims) => new Tensor("float32", data, dims);
export const whole = (...values) => new Tensor("int64", BigInt64Array.from(values, BigInt), values.length > 1 ? [values.length] : []);
export const length = (size) => bytes(new Uint8Array(size), size); // a size, as the networks take it
