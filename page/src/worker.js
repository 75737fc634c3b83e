// Everything that takes time: decoding, networks, encoding. One message in, one job; it answers with progress and then the result or the fault.
import { FileError } from "./bytes.js";
import { camouflage, dressed, half, score } from "./camouflage.js";
import { decode, encode, jpegBytes, jpegPixels, load, TYPES } from "./codecs.js";
import { Networks } from "./networks.js";
import { encode as encodePng } from "./png.js";

const MOST_PIXELS = 180e6;
const MAGNIFIED = 10;
const CHECKS = {
  "JPEG 90": async (photo) => jpegPixels(await jpegBytes(photo, 90, 2)),
  "JPEG 75": async (photo) => jpegPixels(await jpegBytes(photo, 75, 2)),
  "Half size": (photo, networks, pause) => half(networks, photo, pause),
};
class Cancelled extends Error {}
let networks, cancelled;

// Let messages in, such as the one that cancels.
const pauseOf = (id) => async () => {
  await new Promise((resolve) => setTimeout(resolve));
  if (cancelled === id) throw new Cancelled();
};

const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());

async function read(blob) {
  const photo = await decode(await bytesOf(blob)), { width, height } = photo, { smallest } = networks.settings;
  if (Math.min(width, height) < smallest) throw new FileError(`${width}x${height} px; the filter needs ${smallest} px or more on each side`);
  if (width * height > MOST_PIXELS) throw new FileError(`${(width * height / 1e6).toFixed(0)} megapixels are more than ${MOST_PIXELS / 1e6}`);
  return photo;
}

const JOBS = {
  async camouflage({ file, strength, look, keepLocation }, pause, progress) {
    const original = await read(file);
    progress(0.1);
    const before = await score(networks, original, pause), photo = await dressed(networks, original, look, pause);
    const inLook = look ? await score(networks, photo, pause) : null;
    const data = await camouflage(networks, photo, strength, pause, progress);
    const { bytes, leftOut } = await encode(photo, data, keepLocation);
    progress(0.9);
    const after = await score(networks, await decode(bytes), pause); // of the file that is saved, not of what went into it
    const { format, width, height, notice } = photo;
    return { blob: new Blob([bytes], { type: TYPES[format] }), format, width, height, notice, look, before, inLook, after, leftOut };
  },

  async check({ file, look, result }, pause) {
    const original = await dressed(networks, await read(file), look, pause), written = await read(result), rows = [];
    for (const [name, operation] of Object.entries(CHECKS)) {
      const scores = [];
      for (const photo of [original, written]) scores.push(await score(networks, await operation(photo, networks, pause), pause));
      rows.push({ name, before: scores[0], after: scores[1] });
    }
    return rows;
  },

  // What the camouflage changed: against the photo in its look, where it has one.
  async change({ file, look, result }, pause) {
    const original = await dressed(networks, await read(file), look, pause), { data, width, height } = await read(result);
    for (let at = 0; at < data.length; at += 1) data[at] = at % 4 === 3 ? 255 : 128 + MAGNIFIED * (data[at] - original.data[at]);
    return new Blob([await encodePng({ data, width, height })], { type: "image/png" });
  },
};

self.onmessage = async ({ data: { id, kind, ...job } }) => {
  if (kind === "cancel") {
    cancelled = job.job;
    return;
  }
  try {
    if (kind === "load") {
      await load();
      networks = await Networks.load(job.base, (done, all) => self.postMessage({ id, progress: done / all }));
      const { threshold, looks, mostLook } = networks.settings;
      self.postMessage({ id, result: { threshold, looks, mostLook } });
      return;
    }
    const result = await JOBS[kind](job, pauseOf(id), (progress) => self.postMessage({ id, progress }));
    self.postMessage({ id, result });
  } catch (error) {
    if (!(error instanceof FileError || error instanceof Cancelled)) console.error(error);
    self.postMessage({ id, fault: error instanceof FileError ? error.message : error instanceof Cancelled ? "cancelled" : `failed (${error.message ?? error})` });
  }
};
