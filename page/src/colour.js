// Wide colour spaces to sRGB. The browser's own colour management converts, of a PNG that states the space.
import { encode, withChunks } from "./png.js";

const SAME = 3; // of 255: profiles that call themselves sRGB differ by so much
const STRIP = 2 ** 20; // px that are converted at once

async function shown(photo, chunks) {
  const bitmap = await createImageBitmap(new Blob([withChunks(await encode(photo), chunks)], { type: "image/png" }));
  const canvas = new OffscreenCanvas(photo.width, photo.height), context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, photo.width, photo.height).data;
}

async function isSrgb(chunks) {
  const levels = Array.from({ length: 9 }, (_, index) => Math.floor((index * 255) / 8)), data = new Uint8ClampedArray(4 * 729);
  levels.forEach((red, i) => levels.forEach((green, j) => levels.forEach((blue, k) => data.set([red, green, blue, 255], 4 * (81 * i + 9 * j + k)))));
  const seen = await shown({ data, width: 27, height: 27 }, chunks);
  return seen.every((value, index) => Math.abs(value - data[index]) <= SAME);
}

// Convert a photo's pixels in place where the chunks state another space than sRGB; whether they were converted. Alpha stays.
export async function toSrgb(photo, chunks) {
  if (await isSrgb(chunks)) return false;
  const { data, width, height } = photo, rows = Math.max(1, Math.floor(STRIP / width));
  for (let top = 0; top < height; top += rows) {
    const strip = data.subarray(4 * width * top, 4 * width * Math.min(top + rows, height));
    const converted = await shown({ data: strip, width, height: strip.length / 4 / width }, chunks);
    for (let at = 0; at < strip.length; at += 4) strip.set(converted.subarray(at, at + 3), at);
  }
  return true;
}
