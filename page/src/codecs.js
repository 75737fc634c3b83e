// From a file to pixels and back, with everything that the file says besides. Pixels are RGBA, 8 bits, upright, sRGB.
import decodeJpeg, { init as initJpegDecoder } from "@jsquash/jpeg/decode.js";
import encodeJpeg, { init as initJpegEncoder } from "@jsquash/jpeg/encode.js";
import decodePng, { init as initPngDecoder } from "@jsquash/png/decode.js";
import decodeWebp, { init as initWebpDecoder } from "@jsquash/webp/decode.js";
import encodeWebp, { init as initWebpEncoder } from "@jsquash/webp/encode.js";
import jpegDecoder from "@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm?url";
import jpegEncoder from "@jsquash/jpeg/codec/enc/mozjpeg_enc.wasm?url";
import pngCodec from "@jsquash/png/codec/pkg/squoosh_png_bg.wasm?url";
import webpDecoder from "@jsquash/webp/codec/dec/webp_dec.wasm?url";
import webpEncoder from "@jsquash/webp/codec/enc/webp_enc_simd.wasm?url";
import { FileError, joined, latin, startsWith, text } from "./bytes.js";
import { toSrgb } from "./colour.js";
import * as jpeg from "./jpeg.js";
import { mended, orientationOf } from "./metadata.js";
import * as png from "./png.js";
import { upright } from "./turn.js";
import * as webp from "./webp.js";

// The tables of libjpeg (quant_table 0), and quantisation by rounding alone: trellis quantisation, which 0 loops turn off, flattens fine detail, and the
// camouflage is just that. Such files hold the same values as Pillow's.
const LIKE_LIBJPEG = { quant_table: 0, progressive: true, trellis_loops: 0, auto_subsample: false };
const NOTHING = { exif: null, xmp: null, iccProfile: null, resources: null, comments: [], chunks: [], density: null, leftOut: [] };
const modules = {};

// Fetch and compile all decoders and encoders, so that the page works offline afterwards.
export async function load() {
  const urls = { jpegDecoder, jpegEncoder, pngCodec, webpDecoder, webpEncoder };
  await Promise.all(Object.entries(urls).map(async ([name, url]) => (modules[name] = await WebAssembly.compileStreaming(fetch(url)))));
  await initPngDecoder(modules.pngCodec);
  await initWebpEncoder(modules.webpEncoder); // which imports its own script
}

const READERS = { JPEG: readJpeg, PNG: readPng, WEBP: readWebp };
const WRITERS = { JPEG: writeJpeg, PNG: writePng, WEBP: writeWebp };
export const TYPES = { JPEG: "image/jpeg", PNG: "image/png", WEBP: "image/webp" };

function formatOf(bytes) {
  if (startsWith(bytes, [0xff, 0xd8, 0xff])) return "JPEG";
  if (startsWith(bytes, [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])) return "PNG";
  if (text(bytes.subarray(0, 4)) === "RIFF" && text(bytes.subarray(8, 12)) === "WEBP") return "WEBP";
  if (text(bytes.subarray(4, 8)) === "ftyp" && /heic|heix|heim|heis|mif1|avif/.test(text(bytes.subarray(8, 32)))) return "HEIF";
  throw new FileError("not a JPEG, PNG or WebP picture");
}

// { data, width, height, format, greyscale, alpha, lossless, said, facts, notice }. Throws FileError for what is no picture or not supported.
export async function decode(bytes) {
  const format = formatOf(bytes);
  let photo;
  try {
    photo = format === "HEIF" ? await readByBrowser(bytes) : await READERS[format](bytes);
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`damaged, or of an unsupported kind (${error.message ?? error})`);
  }
  const turned = orientationOf(photo.said.exif);
  if (turned > 1) Object.assign(photo, upright(photo, turned));
  const colours = photo.colours ?? (photo.said.iccProfile && !photo.greyscale ? [await png.profileChunk(photo.said.iccProfile)] : []);
  const srgb = photo.srgb || (colours.length > 0 && (await toSrgb(photo, colours)));
  return { format, greyscale: false, alpha: false, lossless: false, ...photo, facts: { turned, width: photo.width, height: photo.height, srgb } };
}

async function readJpeg(bytes) {
  const parts = jpeg.takeApart(bytes), { APP0, APP1, APP2, APP13, COM } = jpeg, first = (marker, prefix) => jpeg.contents(parts, marker, prefix)[0] ?? null;
  if (parts.precision !== 8) throw new FileError(`a JPEG of ${parts.precision} bits is not supported`);
  const all = (marker, prefix) => joined(...jpeg.contents(parts, marker, prefix)), exif = all(APP1, jpeg.EXIF), resources = all(APP13, jpeg.PHOTOSHOP);
  const said = {
    ...NOTHING,
    exif: exif.length ? exif : null,
    xmp: first(APP1, jpeg.XMP),
    iccProfile: jpeg.iccProfile(parts),
    resources: resources.length ? resources : null,
    comments: parts.segments.filter(({ marker, content }) => marker === COM && content.length).map(({ content }) => content.slice()),
    density: first(APP0, jpeg.JFIF)?.slice(2, 7) ?? null,
    leftOut: [],
  };
  if (first(APP2, jpeg.MPF) || parts.after > 1024) said.leftOut.push("what lies behind the picture: a second one, a gain map or a video");
  if (first(APP1, jpeg.EXTENDED_XMP)) said.leftOut.push("extended XMP");
  if (parts.segments.some(({ marker, content }) => marker === 0xeb && text(content.subarray(0, 32)).includes("jumb"))) said.leftOut.push("content credentials (C2PA)");
  if (parts.components === 4) return { ...(await pixelsByBrowser(bytes, "image/jpeg")), srgb: true, said };
  await initJpegDecoder(modules.jpegDecoder); // a new instance for each file: its memory is given back, and a fault in one file does not reach the next
  const { data, width, height } = await decodeJpeg(bytes);
  return { data, width, height, greyscale: parts.components === 1, said };
}

async function readPng(bytes) {
  const parts = png.takeApart(bytes), { data, width, height } = await eightBits(bytes, parts.bits), find = (kind) => parts.colours.find((chunk) => chunk.kind === kind);
  if ([16, 18].includes(find("cICP")?.content[1])) throw new FileError("high dynamic range is not supported");
  const stated = ["cICP", "iCCP", "sRGB"].map(find).find(Boolean);
  const colours = stated ? (stated.kind === "sRGB" || (stated.kind === "iCCP" && parts.grey) ? [] : [stated]) : parts.colours;
  const said = { ...NOTHING, exif: parts.exif, xmp: parts.xmp?.content.subarray(22) ?? null, chunks: parts.chunks, leftOut: parts.leftOut };
  if (stated && stated.kind !== "cICP") said.chunks.unshift(stated);
  let alpha = false;
  for (let at = 3; at < data.length && !alpha; at += 4) alpha = data[at] < 255;
  return { data, width, height, greyscale: parts.grey, alpha, said, colours };
}

async function eightBits(bytes, bits) {
  if (bits <= 8) return decodePng(bytes);
  const wide = await decodePng(bytes, { bitDepth: 16 });
  return { width: wide.width, height: wide.height, data: Uint8ClampedArray.from(wide.data, (value) => Math.floor((value + 128) / 257)) };
}

async function readWebp(bytes) {
  const parts = webp.takeApart(bytes);
  await initWebpDecoder(modules.webpDecoder);
  const { data, width, height } = await decodeWebp(bytes);
  let alpha = false;
  for (let at = 3; at < data.length && !alpha; at += 4) alpha = data[at] < 255;
  return { data, width, height, alpha, lossless: parts.lossless, said: { ...NOTHING, exif: parts.exif, xmp: parts.xmp, iccProfile: parts.iccProfile, leftOut: parts.leftOut } };
}

async function pixelsByBrowser(bytes, type) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type }), { imageOrientation: type === "image/jpeg" ? "none" : "from-image" });
  const { width, height } = bitmap, context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: context.getImageData(0, 0, width, height).data, width, height };
}

// HEIC and AVIF, where the browser has a decoder.
async function readByBrowser(bytes) {
  try {
    const photo = await pixelsByBrowser(bytes, "");
    return { ...photo, format: "JPEG", srgb: true, said: { ...NOTHING, leftOut: ["all metadata"] }, notice: "Written as JPEG, because browsers write neither HEIC nor AVIF." };
  } catch {
    throw new FileError("this browser cannot read HEIC or AVIF photos; camo infer on the command line can");
  }
}

// { bytes, leftOut } of the file to save: pixels that replace the photo's own, and what the photo said, mended.
export async function encode(photo, data, keepLocation) {
  const said = mended(photo.said, photo.facts, keepLocation);
  if (photo.greyscale) {
    for (let at = 0; at < data.length; at += 4) data.fill((data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 32768) >> 16, at, at + 3); // as Pillow
  }
  const bytes = await WRITERS[photo.format]({ ...photo, data }, said);
  return { bytes, leftOut: [...new Set(said.leftOut)] };
}

export async function jpegBytes({ data, width, height }, quality, subsampling, greyscale = false) {
  await initJpegEncoder(modules.jpegEncoder);
  const options = { ...LIKE_LIBJPEG, quality, chroma_subsample: subsampling, ...(greyscale ? { color_space: 1 } : {}) };
  return new Uint8Array(await encodeJpeg({ data, width, height }, options));
}

export async function jpegPixels(bytes) {
  await initJpegDecoder(modules.jpegDecoder);
  return decodeJpeg(bytes);
}

async function writeJpeg(photo, said) {
  return jpeg.withMetadata(await jpegBytes(photo, 95, 1, photo.greyscale), said);
}

async function writePng(photo, said) {
  const XMP = latin("XML:com.adobe.xmp\0\0\0\0\0"), chunks = photo.facts.srgb ? said.chunks.filter(({ kind }) => kind !== "iCCP") : said.chunks;
  const added = [said.exif && { kind: "eXIf", content: said.exif.subarray(6) }, said.xmp && { kind: "iTXt", content: joined(XMP, said.xmp) }];
  return png.withChunks(await png.encode(photo), [...chunks, ...added.filter(Boolean)]);
}

async function writeWebp(photo, said) {
  await initWebpEncoder(modules.webpEncoder);
  const encoded = await encodeWebp(photo, { quality: photo.lossless ? 80 : 95, exact: 1, lossless: photo.lossless ? 1 : 0 });
  return webp.withMetadata(new Uint8Array(encoded), said, photo.width, photo.height, photo.alpha);
}
