// What a file says besides its pixels, as it is true of the pixels that are written.
import { joined, latin, startsWith, text, view } from "./bytes.js";
import { Exif, wipeStreams } from "./exif.js";

const EXIF_COPIES = new Set([1033, 1036, 1039, 1058, 1059, 1060]); // thumbnails, profile, EXIF, XMP: of these the file has its own
const PICTURES = /hdrgm|GContainer|Container:|GImage|GDepth|MotionPhoto|MicroVideo|xmpGImg|\/9j\/|iVBORw0KGgo|UklGR/; // in XMP
const COMPANIONS = /hdr-gain-map|HDRGainMap|photos\/1\.0\/(container|depthmap|image|camera)|photos\/dd\/|pixeldatainfo|xap\/1\.0\/g\/img/; // namespaces of these
const NAMESPACE = /xmlns:([\w-]+)\s*=\s*["']([^"']*)["']/g;

function speaksOfPictures(packet) {
  const words = packet.replaceAll("\0", ""), body = words.replace(NAMESPACE, "");
  return PICTURES.test(body) || [...words.matchAll(NAMESPACE)].some(([, prefix, uri]) => COMPANIONS.test(uri) && body.includes(`${prefix}:`));
}

// The orientation that EXIF states, 1 to 8.
export function orientationOf(block) {
  try {
    return block ? new Exif(block).orientation : 1;
  } catch {
    return 1;
  }
}

// said: { exif, xmp, iccProfile, resources, comments, chunks, density, leftOut }; facts: { turned, width, height, srgb }.
// The same mended, without the location where keepLocation is false.
export function mended(said, facts, keepLocation) {
  const result = { ...said, leftOut: [...said.leftOut], iccProfile: facts.srgb ? null : said.iccProfile };
  result.exif = mendedExif(said.exif, facts, keepLocation, result.leftOut);
  if (facts.turned >= 5 && said.density) result.density = joined(said.density.subarray(0, 1), said.density.subarray(3, 5), said.density.subarray(1, 3));
  if (facts.turned >= 5) result.chunks = said.chunks.map((chunk) => (chunk.kind === "pHYs" ? { ...chunk, content: turnedSize(chunk.content) } : chunk));
  if (!keepLocation) return { ...result, xmp: null, resources: null, comments: [], chunks: result.chunks.filter(({ kind }) => !kind.endsWith("Xt") && kind !== "tIME") };
  result.xmp = mendedXmp(said.xmp, facts, result.leftOut);
  result.resources = said.resources && mendedResources(said.resources, facts.turned, result.leftOut);
  return result;
}

const turnedSize = (content) => joined(content.subarray(4, 8), content.subarray(0, 4), content.subarray(8)); // pixels a unit, across and down

function mendedExif(block, facts, keepLocation, leftOut) {
  if (!block) return null;
  try {
    const exif = new Exif(block).mended(facts);
    return exif && (keepLocation ? exif : exif.withoutLocation()).bytes();
  } catch {
    leftOut.push("damaged EXIF");
    return null;
  }
}

function mendedXmp(packet, facts, leftOut) {
  if (!packet) return null;
  let words = text(packet);
  if (speaksOfPictures(words) || (facts.turned > 1 && /:Regions|ImageRegion|MPReg:Rect/.test(words))) {
    leftOut.push("XMP that speaks of further pictures, or of regions in a turned one");
    return null;
  }
  const numbers = { "tiff:ImageWidth": facts.width, "tiff:ImageLength": facts.height, "exif:PixelXDimension": facts.width, "exif:PixelYDimension": facts.height };
  if (facts.turned > 1) numbers["tiff:Orientation"] = 1;
  if (facts.srgb) numbers["exif:ColorSpace"] = 1;
  for (const [name, number] of Object.entries(numbers)) words = words.replace(new RegExp(`(${name}\\s*(?:=\\s*["']|>\\s*))\\d+`, "g"), `$1${number}`);
  if (facts.srgb) words = words.replace(/\sphotoshop:ICCProfile\s*=\s*("[^"]*"|'[^']*')|<photoshop:ICCProfile>[^<]*<\/photoshop:ICCProfile>/g, "");
  return latin(words);
}

function mendedResources(content, turned, leftOut) {
  const kept = [];
  let at = 0;
  while (at + 12 <= content.length && startsWith(content.subarray(at), latin("8BIM"))) {
    const number = view(content).getUint16(at + 4), head = at;
    at += 6 + Math.floor((content[at + 6] + 2) / 2) * 2;
    const size = at + 4 <= content.length ? view(content).getUint32(at) : content.length;
    if (at + 4 + size > content.length) break;
    const end = at + 4 + size, resource = content.slice(head, end);
    if (number >= 2000 && number < 2999 && turned > 1) leftOut.push("Photoshop paths");
    else if (!EXIF_COPIES.has(number)) {
      if (number === 1005 && turned >= 5 && size === 16) resource.set(joined(content.subarray(end - 8, end), content.subarray(end - 16, end - 8)), resource.length - 16);
      wipeStreams(resource);
      kept.push(resource, new Uint8Array(size % 2));
    }
    at = end + (size % 2);
  }
  return kept.length ? joined(...kept) : null;
}

