// EXIF (CIPA DC-008), changed in place as camo.photos.exif does: no value moves, so that makers' notes stay readable.
import { joined, latin, startsWith, view } from "./bytes.js";

const PREFIX = latin("Exif\0\0");
const SIZES = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1 };
const SHORT = 3, LONG = 4, RATIONAL = 5;
const EXIF_IFD = 34665, GPS_IFD = 34853, INTEROP_IFD = 40965, SUB_IFDS = 330;
const ORIENTATION = 274, COLOUR_SPACE = 0xa001;
const WIDTHS = [256, 0xa002, 0x1001], HEIGHTS = [257, 0xa003, 0x1002];
const PICTURE_OFFSETS = [[273, 279], [324, 325], [513, 514]];
const PLACES = [GPS_IFD, 33550, 33922, 34264, 34735, 34736, 34737, 42112], TEXTS = [700, 33723, 34377]; // GeoTIFF's too; XMP, IPTC, Photoshop

// Where a point of the stored picture comes to lie when the picture, of this width and height, is turned upright.
export function turnedPoint(orientation, across, down, width, height) {
  const mirrored = width - across, below = height - down;
  return { 2: [mirrored, down], 3: [mirrored, below], 4: [across, below], 5: [down, across], 6: [below, across], 7: [below, mirrored], 8: [down, mirrored] }[
    orientation
  ] ?? [across, down];
}

export class Exif {
  constructor(block) {
    while (startsWith(block, PREFIX)) block = block.subarray(PREFIX.length);
    this.data = block.slice();
    this.view = view(this.data);
    const order = String.fromCharCode(...this.data.subarray(0, 2));
    this.little = order === "II";
    if (!(this.little || order === "MM") || this.data.length < 8 || this.short(2) !== 42) throw new RangeError("no TIFF header of EXIF");
  }

  bytes() {
    return joined(PREFIX, this.data);
  }

  short(at) {
    return at >= 0 && at + 2 <= this.data.length ? this.view.getUint16(at, this.little) : 0;
  }

  long(at) {
    return at >= 0 && at + 4 <= this.data.length ? this.view.getUint32(at, this.little) : 0;
  }

  directory(at) {
    const fits = at > 0 ? Math.max(0, Math.floor((this.data.length - at - 2) / 12)) : 0, count = at > 0 ? Math.min(this.short(at), fits) : 0;
    const entries = Array.from({ length: count }, (_, index) => this.entryAt(at + 2 + 12 * index)), nextAt = at + 2 + 12 * count;
    return { at, entries, nextAt, next: at > 0 ? this.long(nextAt) : 0, entry: (tag) => entries.find((entry) => entry.tag === tag) };
  }

  entryAt(at) {
    const kind = this.short(at + 2), count = this.long(at + 4), size = count * (SIZES[kind] ?? 0), start = size > 4 ? this.long(at + 8) : at + 8;
    return { tag: this.short(at), kind, count, at, start, size: kind in SIZES && start + size <= this.data.length ? size : null };
  }

  numbers(entry) {
    if (!entry?.size || ![1, SHORT, LONG, 13].includes(entry.kind)) return [];
    const read = { 1: (at) => this.data[at], 3: (at) => this.short(at), 4: (at) => this.long(at), 13: (at) => this.long(at) }[entry.kind];
    return Array.from({ length: entry.count }, (_, index) => read(entry.start + index * SIZES[entry.kind]));
  }

  directories() {
    const found = { main: this.directory(this.long(4)) };
    for (const [name, parent, tag] of [["exif", "main", EXIF_IFD], ["gps", "main", GPS_IFD], ["interop", "exif", INTEROP_IFD]]) {
      const [offset] = parent in found ? this.numbers(found[parent].entry(tag)) : [];
      if (offset !== undefined && !Object.values(found).some((directory) => directory.at === offset)) found[name] = this.directory(offset);
    }
    return Object.fromEntries(Object.entries(found).filter(([, directory]) => directory.entries.length));
  }

  get orientation() {
    const [number] = this.numbers(this.directories().main?.entry(ORIENTATION));
    return number >= 1 && number <= 8 ? number : 1;
  }

  // The block as it is true of an upright picture of this size, without other pictures in it; null where nothing is left.
  mended({ turned, width, height, srgb }) {
    this.removePictures();
    if (turned > 1) {
      this.turn(turned, width, height);
      this.sayUpright();
    }
    this.agree(width, height, srgb);
    return Object.keys(this.directories()).length ? this : null;
  }

  sayUpright() {
    for (const directory of Object.values(this.directories())) {
      for (const entry of directory.entries) {
        if (entry.tag === ORIENTATION && entry.size) {
          this.view.setUint16(entry.at + 2, SHORT, this.little);
          this.view.setUint32(entry.at + 4, 1, this.little);
          this.view.setUint16(entry.at + 8, 1, this.little);
          this.view.setUint16(entry.at + 10, 0, this.little);
        }
      }
    }
  }

  turn(orientation, width, height) {
    const directories = this.directories();
    if (orientation >= 5) {
      for (const [name, first, second] of [["main", 282, 283], ["exif", 0xa20e, 0xa20f]]) {
        const pair = [first, second].map((tag) => directories[name]?.entry(tag)).filter((entry) => entry?.kind === RATIONAL && entry.size === 8);
        if (pair.length === 2) {
          const [one, other] = pair.map((entry) => this.data.slice(entry.start, entry.start + 8));
          this.data.set(other, pair[0].start);
          this.data.set(one, pair[1].start);
        }
      }
    }
    for (const tag of [0x9214, 0xa214]) {
      const place = directories.exif?.entry(tag), numbers = this.numbers(place);
      if (place?.kind === SHORT && numbers.length >= 2) {
        const stored = orientation >= 5 ? [height, width] : [width, height];
        const extent = orientation >= 5 && numbers.length === 4 ? [numbers[3], numbers[2]] : numbers.slice(2);
        [...turnedPoint(orientation, numbers[0], numbers[1], ...stored), ...extent].forEach((value, index) =>
          this.view.setUint16(place.start + 2 * index, Math.min(Math.max(Math.round(value), 0), 65535), this.little),
        );
      }
    }
  }

  agree(width, height, srgb) {
    for (const [name, directory] of Object.entries(this.directories())) {
      for (const entry of directory.entries) {
        if (name !== "gps" && entry.count === 1 && [SHORT, LONG].includes(entry.kind)) {
          if (WIDTHS.includes(entry.tag)) this.set(entry, width);
          else if (HEIGHTS.includes(entry.tag)) this.set(entry, height);
          else if (srgb && entry.tag === COLOUR_SPACE) this.set(entry, 1);
        }
        if (srgb && name === "interop" && entry.tag === 1 && startsWith(this.data.subarray(entry.start), latin("R03"))) this.data.set(latin("R98"), entry.start);
      }
    }
  }

  set(entry, number) {
    if (entry.kind === SHORT && number > 65535) {
      this.view.setUint16(entry.at + 2, LONG, this.little);
      this.view.setUint32(entry.at + 8, number, this.little);
    } else if (entry.kind === SHORT) this.view.setUint16(entry.start, number, this.little);
    else this.view.setUint32(entry.start, number, this.little);
  }

  removePictures() {
    const main = this.directory(this.long(4)), known = new Set(Object.values(this.directories()).map((directory) => directory.at));
    for (const start of [main.next, ...this.numbers(main.entry(SUB_IFDS))]) {
      const seen = new Set();
      for (let at = start; at > 0 && at < this.data.length && !seen.has(at); ) {
        seen.add(at);
        const directory = this.directory(at);
        at = directory.next;
        const plausible = directory.entries.length > 0 && directory.entries.length < 200 && directory.entries.every((entry) => entry.kind in SIZES);
        if (!known.has(directory.at) && plausible) {
          this.wipePicture(directory);
          this.data.fill(0, directory.at, directory.nextAt + 4);
        }
      }
    }
    this.data.fill(0, main.nextAt, main.nextAt + 4);
    this.wipePicture(main);
    this.remove(SUB_IFDS, ...PICTURE_OFFSETS.flat());
    wipeStreams(this.data);
    this.trim();
  }

  wipePicture(directory) {
    const tables = Object.values(this.directories()).map((table) => [table.at, table.nextAt + 4]);
    for (const [offsetTag, lengthTag] of PICTURE_OFFSETS) {
      const lengths = this.numbers(directory.entry(lengthTag));
      this.numbers(directory.entry(offsetTag)).forEach((offset, index) => {
        const end = offset + (lengths[index] ?? 0);
        if (offset >= 8 && !tables.some(([start, stop]) => offset < stop && start < end)) this.data.fill(0, offset, end);
      });
    }
  }

  wipe(entry) {
    if (entry.start !== entry.at + 8) this.data.fill(0, Math.max(entry.start, 8), entry.start + entry.count * (SIZES[entry.kind] ?? 0));
  }

  // Remove tags of the main directory and overwrite what they lead to, directories too.
  remove(...tags) {
    for (const tag of tags) {
      for (;;) {
        const main = this.directory(this.long(4)), entry = main.entry(tag);
        if (!entry) break;
        if ([EXIF_IFD, GPS_IFD].includes(tag)) {
          for (const offset of this.numbers(entry).slice(0, 1)) {
            const directory = this.directory(offset);
            directory.entries.forEach((inner) => this.wipe(inner));
            this.data.fill(0, directory.at, directory.nextAt + 4);
          }
        }
        this.wipe(entry);
        const end = Math.min(main.nextAt + 4, this.data.length);
        this.data.copyWithin(entry.at, entry.at + 12, end);
        this.data.fill(0, end - 12, end);
        this.view.setUint16(main.at, main.entries.length - 1, this.little);
      }
    }
  }

  trim() {
    let used = 8, length = this.data.length;
    for (const directory of Object.values(this.directories())) {
      used = Math.max(used, directory.nextAt + 4, ...directory.entries.map((entry) => entry.start + (entry.size ?? 0)));
    }
    while (length > used && !this.data[length - 1]) length -= 1;
    this.data = this.data.slice(0, length);
    this.view = view(this.data);
  }

  // The block without the place, and without the texts that may name it. Throws RangeError where it cannot be known to be clean.
  withoutLocation() {
    const directories = [this.directory(this.long(4))], entry = directories[0].entry(GPS_IFD), [offset] = this.numbers(entry);
    if (offset) directories.push(this.directory(offset));
    else if (entry) throw new RangeError("no place to look for the location");
    for (const directory of directories) {
      if (!directory.entries.length || this.short(directory.at) !== directory.entries.length) throw new RangeError("a directory is cut off");
    }
    if (directories.length > 1 && directories[1].entries.some((inner) => inner.size === null)) throw new RangeError("a value of the location lies elsewhere");
    this.remove(...PLACES, ...TEXTS);
    return this;
  }
}

// Overwrite each JPEG stream in data: thumbnails in makers' notes.
export function wipeStreams(data) {
  for (let at = 0; at + 3 <= data.length; at += 1) {
    if (data[at] === 0xff && data[at + 1] === 0xd8 && data[at + 2] === 0xff) {
      const end = streamEnd(data, at);
      if (end) data.fill(0, at, end);
    }
  }
}

function streamEnd(data, at) {
  const after = (from) => {
    for (let place = from; place + 2 <= data.length; place += 1) if (data[place] === 0xff && data[place + 1] === 0xd9) return place + 2;
    return data.length;
  };
  let known = false, position = at + 2;
  while (position + 4 <= data.length && data[position] === 0xff) {
    const marker = data[position + 1];
    if (marker === 0xd9) return position + 2;
    if (marker === 0xff) {
      position += 1;
      continue;
    }
    if (marker < 0xc0 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd8)) break;
    known ||= (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc8 && marker !== 0xcc) || [0xdb, 0xdd, 0xfe].includes(marker) || (marker >= 0xe0 && marker <= 0xef);
    if (marker === 0xda) return after(position);
    const length = (data[position + 2] << 8) | data[position + 3];
    if (length < 2) break;
    position += 2 + length;
  }
  return known ? after(Math.min(position, data.length)) : 0;
}
