// The segments of a JPEG file (ITU-T T.81, annex B), as camo.photos.jpeg_segments has them.
import { FileError, joined, latin, startsWith, u16 } from "./bytes.js";

export const APP0 = 0xe0, APP1 = 0xe1, APP2 = 0xe2, APP13 = 0xed, COM = 0xfe;
export const EXIF = latin("Exif\0\0"), XMP = latin("http://ns.adobe.com/xap/1.0/\0"), EXTENDED_XMP = latin("http://ns.adobe.com/xmp/extension/\0");
export const ICC = latin("ICC_PROFILE\0"), PHOTOSHOP = latin("Photoshop 3.0\0"), MPF = latin("MPF\0"), JFIF = latin("JFIF\0");
const EOI = 0xd9, SOS = 0xda, LONGEST = 65533;

const isBare = (marker) => marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
const isFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);

// { segments: [{marker, content}], precision, components, after }; throws FileError where there is no whole picture.
export function takeApart(bytes) {
  const jpeg = { segments: [], precision: 8, components: 0, after: 0 };
  let at = 2, scans = 0;
  for (;;) {
    at = bytes.indexOf(0xff, at);
    if (at < 0 || at + 2 > bytes.length) break;
    const marker = bytes[at + 1];
    if (marker === EOI) {
      if (!jpeg.components || !scans) break;
      jpeg.after = bytes.length - at - 2;
      return jpeg;
    }
    if (marker === 0xff || marker === 0 || isBare(marker)) {
      at += marker === 0xff ? 1 : 2;
      continue;
    }
    if (at + 4 > bytes.length) break;
    const end = at + 2 + Math.max(2, (bytes[at + 2] << 8) | bytes[at + 3]);
    const content = bytes.subarray(at + 4, end);
    if (marker === COM || (marker >= APP0 && marker <= 0xef)) jpeg.segments.push({ marker, content });
    if (isFrame(marker)) [jpeg.precision, jpeg.components] = [content[0], content[5]];
    at = end;
    if (marker === SOS) {
      scans += 1;
      while (at < bytes.length && !(bytes[at] === 0xff && bytes[at + 1] !== 0 && bytes[at + 1] !== 0xff && !isBare(bytes[at + 1]))) {
        at = bytes.indexOf(0xff, at + 1);
        if (at < 0) at = bytes.length;
      }
    }
  }
  throw new FileError(jpeg.components && scans ? "the file is truncated" : "no picture in it");
}

export const contents = (jpeg, marker, prefix) =>
  jpeg.segments.filter((segment) => segment.marker === marker && startsWith(segment.content, prefix)).map((segment) => segment.content.subarray(prefix.length));

export function iccProfile(jpeg) {
  const parts = contents(jpeg, APP2, ICC).filter((chunk) => chunk.length > 2).sort((one, other) => one[0] - other[0]);
  if (!parts.length || parts.some((chunk, index) => chunk[0] !== index + 1 || chunk[1] !== parts.length)) return null;
  return joined(...parts.map((chunk) => chunk.subarray(2)));
}

const segment = (marker, content) => joined(Uint8Array.of(0xff, marker), u16(content.length + 2), content);

function* segments(marker, prefix, content) {
  const room = LONGEST - prefix.length;
  for (let at = 0; at < content.length; at += room) yield segment(marker, joined(prefix, content.subarray(at, at + room)));
}

function* iccSegments(profile) {
  const room = LONGEST - ICC.length - 2, count = Math.ceil(profile.length / room);
  for (let index = 0; index < count; index += 1) {
    yield segment(APP2, joined(ICC, Uint8Array.of(index + 1, count), profile.subarray(index * room, (index + 1) * room)));
  }
}

// The encoder's file with what the photo says besides; parts too long for a segment are named in said.leftOut.
export function withMetadata(encoded, said) {
  const end = 4 + ((encoded[4] << 8) | encoded[5]), additions = [], head = encoded.slice(0, end);
  if (said.density) head.set(said.density, 13);
  for (const [name, prefix, value] of [["EXIF", new Uint8Array(), said.exif], ["XMP", XMP, said.xmp]]) {
    if (value && value.length + prefix.length <= LONGEST) additions.push(segment(APP1, joined(prefix, value)));
    else if (value) said.leftOut.push(`${name} of ${value.length} bytes`);
  }
  if (said.resources) additions.push(...segments(APP13, PHOTOSHOP, said.resources));
  if (said.iccProfile) additions.push(...iccSegments(said.iccProfile));
  additions.push(...said.comments.map((comment) => segment(COM, comment)));
  return joined(head, ...additions, encoded.subarray(end));
}
