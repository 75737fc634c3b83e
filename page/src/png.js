// The chunks of a PNG file (W3C Portable Network Graphics, third edition).
import { FileError, joined, latin, text, u32, view } from "./bytes.js";

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const COLOURS = ["cICP", "iCCP", "sRGB", "gAMA", "cHRM"];
const CARRIED = ["tEXt", "zTXt", "iTXt", "tIME", "pHYs"];
const SILENT = ["bKGD", "hIST", "sBIT", "sPLT", "iDOT", "vpAg", "orNT", "oFFs", "PLTE", "tRNS", "IDAT", "IEND", "IHDR", "eXIf"];
const RAW = "Raw profile type "; // EXIF and the like in a text, thumbnails and all
const XMP = "XML:com.adobe.xmp\0";

// { bits, grey, exif, xmp, colours: [{kind, content}], chunks: [{kind, content}], leftOut }; throws FileError for an animation or a damaged file.
export function takeApart(bytes) {
  const png = { bits: 8, grey: false, exif: null, xmp: null, colours: [], chunks: [], leftOut: [] };
  let at = 8, ended = false;
  while (at + 12 <= bytes.length && !ended) {
    const length = view(bytes).getUint32(at), kind = text(bytes.subarray(at + 4, at + 8)), content = bytes.subarray(at + 8, at + 8 + length);
    if (at + 12 + length > bytes.length) break;
    if (kind === "IHDR") [png.bits, png.grey] = [content[8], content[9] === 0 || content[9] === 4];
    else if (kind === "acTL" && view(content).getUint32(0) > 1) throw new FileError("animated; only single pictures are supported");
    else if (kind === "eXIf") png.exif = content;
    else if (kind === "iTXt" && text(content.subarray(0, XMP.length)) === XMP && content[XMP.length] === 0) png.xmp = { kind, content };
    else if (COLOURS.includes(kind)) png.colours.push({ kind, content });
    else if (kind.endsWith("Xt") && text(content.subarray(0, RAW.length)) === RAW) png.leftOut.push(`PNG text ${text(content.subarray(0, 79)).split("\0")[0]}`);
    else if (CARRIED.includes(kind)) png.chunks.push({ kind, content });
    else if (!SILENT.includes(kind) && !["acTL", "fcTL", "fdAT"].includes(kind)) png.leftOut.push(kind === "caBX" ? "content credentials (C2PA)" : `PNG chunk ${kind}`);
    ended = kind === "IEND";
    at += 12 + length;
  }
  if (!ended) throw new FileError("the file is truncated");
  return png;
}

export function chunk(kind, content) {
  const body = joined(latin(kind), content);
  return joined(u32(content.length), body, u32(crc(body)));
}

// The encoder's file with chunks behind its header.
export function withChunks(encoded, chunks) {
  return joined(encoded.subarray(0, 33), ...chunks.map(({ kind, content }) => chunk(kind, content)), encoded.subarray(33));
}

const deflated = (bytes) => new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"))).bytes();

export const profileChunk = async (profile) => ({ kind: "iCCP", content: joined(latin("ICC Profile\0\0"), await deflated(profile)) });

// A PNG of RGBA pixels with as many channels as the photo has: grey or RGB, with alpha or without.
export async function encode({ data, width, height, greyscale = false, alpha = false }) {
  const from = [...(greyscale ? [0] : [0, 1, 2]), ...(alpha ? [3] : [])], size = from.length, row = width * size;
  const lines = new Uint8Array((row + 1) * height), line = new Uint8Array(row), above = new Uint8Array(row);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) for (let index = 0; index < size; index += 1) line[x * size + index] = data[(y * width + x) * 4 + from[index]];
    const start = y * (row + 1);
    lines[start] = 4; // Paeth
    for (let at = 0; at < row; at += 1) {
      const left = at < size ? 0 : line[at - size], up = above[at], corner = at < size ? 0 : above[at - size];
      const byLeft = Math.abs(up - corner), byUp = Math.abs(left - corner), byCorner = Math.abs(left + up - 2 * corner);
      lines[start + 1 + at] = line[at] - (byLeft <= byUp && byLeft <= byCorner ? left : byUp <= byCorner ? up : corner);
    }
    above.set(line);
  }
  const header = joined(u32(width), u32(height), Uint8Array.of(8, (greyscale ? 0 : 2) + (alpha ? 4 : 0), 0, 0, 0));
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  return joined(signature, chunk("IHDR", header), chunk("IDAT", await deflated(lines)), chunk("IEND", new Uint8Array()));
}
