// The chunks of a WebP file (RFC 9649).
import { FileError, joined, latin, text, u32le, view } from "./bytes.js";

const ICC = 0x20, ALPHA = 0x10, EXIF = 0x08, XMP = 0x04, ANIMATION = 0x02;

// { lossless, exif, xmp, iccProfile, leftOut }
export function takeApart(bytes) {
  const webp = { lossless: false, exif: null, xmp: null, iccProfile: null, leftOut: [] };
  if (bytes.length < 20 || view(bytes).getUint32(4, true) + 8 > bytes.length) throw new FileError("the file is truncated");
  for (let at = 12; at + 8 <= bytes.length; ) {
    const kind = text(bytes.subarray(at, at + 4)), length = view(bytes).getUint32(at + 4, true), content = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "VP8X" && content[0] & ANIMATION) throw new FileError("animated; only single pictures are supported");
    if (kind === "VP8L") webp.lossless = true;
    else if (kind === "EXIF") webp.exif = content;
    else if (kind === "XMP ") webp.xmp = content;
    else if (kind === "ICCP") webp.iccProfile = content;
    else if (kind === "C2PA") webp.leftOut.push("content credentials (C2PA)");
    at += 8 + length + (length % 2);
  }
  return webp;
}

const chunk = (kind, content) => joined(latin(kind), u32le(content.length), content, new Uint8Array(content.length % 2));

// The encoder's file with what the photo says besides.
export function withMetadata(encoded, said, width, height, alpha) {
  const additions = [said.iccProfile, said.exif, said.xmp];
  if (!additions.some(Boolean)) return encoded;
  const pictures = [];
  for (let at = 12; at + 8 <= encoded.length; ) {
    const kind = text(encoded.subarray(at, at + 4)), length = view(encoded).getUint32(at + 4, true), end = at + 8 + length + (length % 2);
    if (kind !== "VP8X") pictures.push(encoded.subarray(at, end));
    at = end;
  }
  const flags = (said.iccProfile ? ICC : 0) | (alpha ? ALPHA : 0) | (said.exif ? EXIF : 0) | (said.xmp ? XMP : 0);
  const size = (side) => u32le(side - 1).subarray(0, 3);
  const body = joined(
    latin("WEBP"),
    chunk("VP8X", joined(Uint8Array.of(flags, 0, 0, 0), size(width), size(height))),
    ...(said.iccProfile ? [chunk("ICCP", said.iccProfile)] : []),
    ...pictures,
    ...(said.exif ? [chunk("EXIF", said.exif)] : []),
    ...(said.xmp ? [chunk("XMP ", said.xmp)] : []),
  );
  return joined(latin("RIFF"), u32le(body.length), body);
}
