// Pixels turned upright (EXIF orientation, 2 to 8).
import { turnedPoint } from "./exif.js";

export function upright({ data, width, height }, orientation) {
  const from = new Uint32Array(data.buffer, data.byteOffset, width * height), to = new Uint32Array(width * height);
  const across = orientation >= 5 ? height : width;
  const place = (x, y) => {
    const [column, row] = turnedPoint(orientation, x, y, width - 1, height - 1);
    return row * across + column;
  };
  const right = width > 1 ? place(1, 0) - place(0, 0) : 0;
  for (let y = 0; y < height; y += 1) for (let x = 0, at = place(0, y); x < width; x += 1, at += right) to[at] = from[y * width + x];
  return { data: new Uint8ClampedArray(to.buffer), width: across, height: orientation >= 5 ? width : height };
}
