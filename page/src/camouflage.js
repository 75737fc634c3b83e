// The order of the exported steps; camo/export/parts.py says what each does. Only strips are cut here.
import { bytes, floats, length, planes, whole } from "./tensors.js";

function* strips({ width, height }, most) {
  const rows = Math.max(1, Math.floor(most / width));
  for (let top = 0; top < height; top += rows) yield { top, bottom: Math.min(top + rows, height) };
}

const rowsOf = ({ data, width }, top, bottom) => bytes(data.subarray(4 * width * top, 4 * width * bottom), bottom - top, width, 4);

function windowOf({ data, width, height }, [most, mostAcross]) {
  const rows = Math.min(most, height), columns = Math.min(mostAcross, width), top = (height - rows) >> 1, left = (width - columns) >> 1;
  const cut = new Uint8ClampedArray(4 * rows * columns);
  for (let y = 0; y < rows; y += 1) cut.set(data.subarray(4 * ((top + y) * width + left), 4 * ((top + y) * width + left + columns)), 4 * y * columns);
  return { data: cut, width: columns, height: rows, top, left };
}

// The photo in a look { name, amount }; the photo itself without one.
export async function dressed(networks, photo, look, pause) {
  if (!look) return photo;
  const { width, height } = photo, data = new Uint8ClampedArray(photo.data.length), rows = length(height);
  const amount = floats([look.amount]);
  let seed = whole(0);
  for (const { top, bottom } of strips(photo, networks.settings.strip)) seed = await networks.run("seed", { pixels: rowsOf(photo, top, bottom), seed });
  for (const { top, bottom } of strips(photo, networks.settings.strip)) {
    let pixels = await networks.run(`look_${look.name}`, { pixels: rowsOf(photo, top, bottom), rows, first: whole(top), seed, amount });
    if (photo.greyscale) pixels = await networks.run("grey", { pixels });
    data.set(pixels.data, 4 * width * top);
    await pause();
  }
  return { ...photo, data };
}

// The photo reduced to the width at which a network looks at it: (1, 3, H, w). pause() is awaited after each strip, and ends the work by throwing.
async function narrowed(networks, step, photo, pause) {
  const { width, height } = photo, rows = length(height);
  let result, narrow;
  for (const { top, bottom } of strips(photo, networks.settings.strip)) {
    const { data, dims } = await networks.run(step, { pixels: rowsOf(photo, top, bottom), rows });
    narrow = dims[3];
    result ??= new Float32Array(3 * height * narrow);
    for (let plane = 0; plane < 3; plane += 1) {
      result.set(data.subarray(plane * (bottom - top) * narrow, (plane + 1) * (bottom - top) * narrow), (plane * height + top) * narrow);
    }
    await pause();
  }
  return { narrow: planes(result, 1, 3, height, narrow), columns: length(width) };
}

async function residualsOf(networks, photo, pause) {
  const { width, height } = photo, { settings } = networks, rows = length(height), columns = length(width), residuals = [], powers = [];
  const plan = await networks.run("plan", await narrowed(networks, "narrow", photo, pause));
  for (const { top, bottom } of strips(photo, settings.strip)) {
    const pixels = rowsOf(photo, Math.max(0, top - settings.reach), Math.min(height, bottom + settings.reach));
    const residual = await networks.run("residual", { pixels, plan, rows, strip: length(bottom - top), first: whole(top) });
    residuals.push(residual);
    powers.push(await networks.run("power", { residual }));
    await pause();
  }
  let ceiling = floats([settings.limit], 1, 1, 1, 1);
  for (let round = 0; round < settings.rounds; round += 1) {
    let tally = floats([0, 0], 2, 1, 1, 1);
    for (const power of powers) tally = await networks.run("tally", { power, ceiling, tally });
    ceiling = await networks.run("ceiling", { ceiling, tally, rows, columns });
    await pause();
  }
  return { residuals, ceiling };
}

// The camouflaged pixels of a photo { data, width, height }; progress(part) gets numbers up to 1.
export async function camouflage(networks, photo, strength, pause, progress) {
  const { width, height } = photo, { settings } = networks, result = new Uint8ClampedArray(photo.data.length), scale = floats([strength]);
  const large = width * height >= settings.leastLargeArea;
  let second = floats([0, 0, 0], 1, 3, 1, 1), above = 0, left = 0;
  if (large) {
    const part = windowOf(photo, settings.window), { residuals, ceiling } = await residualsOf(networks, part, pause);
    second = await networks.run("second", { pixels: rowsOf(part, 0, part.height), residual: residuals[0], ceiling, strength: scale });
    [above, left] = [part.top, part.left];
  }
  progress(0.3);
  const { residuals, ceiling } = await residualsOf(networks, photo, pause);
  progress(0.8);
  for (const { top, bottom } of strips(photo, settings.strip)) {
    const inputs = { pixels: rowsOf(photo, top, bottom), residual: residuals.shift(), ceiling, second, strength: scale, place: whole(top - above, left), large: floats([large]) };
    result.set((await networks.run("finish", inputs)).data, 4 * width * top);
    await pause();
  }
  return result;
}

// The quality model's score of a photo, about 0 to 100.
export async function score(networks, photo, pause) {
  const { data } = await networks.run("score", await narrowed(networks, "view", photo, pause));
  return data[0];
}

// A photo at half its size.
export async function half(networks, photo, pause) {
  const { width, height } = photo, columns = (width + 1) >> 1, narrow = new Uint8ClampedArray(4 * columns * height);
  for (const { top, bottom } of strips(photo, networks.settings.strip)) {
    narrow.set((await networks.run("half_width", { pixels: rowsOf(photo, top, bottom) })).data, 4 * columns * top);
    await pause();
  }
  const { data } = await networks.run("half_height", { pixels: bytes(narrow, height, columns, 4) });
  return { data, width: columns, height: (height + 1) >> 1 };
}
