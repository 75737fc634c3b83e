// Small helpers for files as bytes.

export const latin = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

export const text = (bytes) => {
  let result = "";
  for (let at = 0; at < bytes.length; at += 8192) result += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return result;
};

export const startsWith = (bytes, prefix) => bytes.length >= prefix.length && prefix.every((value, index) => bytes[index] === value);

export const joined = (...parts) => {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
};

export const u16 = (value) => Uint8Array.of(value >> 8, value & 255);
export const u32 = (value) => Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
export const u32le = (value) => u32(value).reverse();
export const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// What a person did not do wrong in vain: a file that cannot be read, in words for its owner.
export class FileError extends Error {}
