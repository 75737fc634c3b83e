// The page: photos in, a list with scores, files out. All work is done by the worker.
import { downloadZip } from "client-zip";
import { cancel, run, start } from "./jobs.js";
import { compare, lookWords } from "./viewer.js";

const element = (id) => document.getElementById(id);
const [status, progress, list, strength, look, amount, keep, platform] = ["status", "progress", "photos", "strength", "look", "amount", "location", "platform"].map(element);
const items = [];
let running, round = 0, threshold = 50;

// Photos

function add(files) {
  for (const file of files) {
    const entry = element("photo").content.cloneNode(true).firstElementChild, item = { file, name: file.name, entry, state: "waiting" };
    item.originalUrl = URL.createObjectURL(file);
    item.part = (name) => entry.querySelector(`.${name}`);
    entry.querySelector("h3").textContent = file.name;
    item.part("thumbnail").addEventListener("error", () => item.part("thumbnail").removeAttribute("src"));
    item.part("thumbnail").src = item.originalUrl;
    item.part("compare").addEventListener("click", () => compare(item));
    item.part("remove").addEventListener("click", () => remove(item));
    for (const [name, words] of [["compare", "Compare"], ["remove", "Remove"], ["save", "Save"]]) item.part(name).setAttribute("aria-label", `${words} ${file.name}`);
    items.push(item);
    list.append(entry);
    show(item, "waiting", "Waiting");
  }
  work();
}

function remove(item) {
  if (item === running?.item) stop();
  const next = item.entry.nextElementSibling ?? item.entry.previousElementSibling;
  item.entry.remove();
  items.splice(items.indexOf(item), 1);
  forget(item);
  URL.revokeObjectURL(item.originalUrl);
  (next?.querySelector(".remove") ?? element("files")).focus();
  overview();
}

function forget(item) {
  for (const url of [item.resultUrl, item.changeUrl]) if (url) URL.revokeObjectURL(url);
  Object.assign(item, { blob: null, resultUrl: null, changeUrl: null, checks: null });
  item.part("compare").hidden = item.part("save").hidden = item.part("note").hidden = true;
  item.part("scores").replaceChildren();
}

function show(item, state, words) {
  item.state = state;
  item.entry.classList.toggle("fault", state === "fault");
  item.part("state").textContent = words;
}

function bar(words, value) {
  const row = document.createElement("div"), label = document.createElement("span"), meter = document.createElement("meter"), number = document.createElement("span");
  row.className = "score";
  label.textContent = words;
  Object.assign(meter, { min: 0, max: 100, low: threshold, high: threshold, optimum: 0, value: Math.min(100, Math.max(0, value)) });
  meter.setAttribute("aria-label", `Score, ${words}: ${value.toFixed(0)} of 100`);
  number.className = "value";
  number.textContent = value.toFixed(0);
  row.append(label, meter, number);
  return row;
}

function showResult(item) {
  const { before, inLook, after, leftOut, notice } = item, save = item.part("save"), note = item.part("note");
  const notes = [notice, leftOut.length ? `Left out: ${leftOut.join("; ")}.` : ""].filter(Boolean);
  const facts = [`${item.width}x${item.height} px`, item.look && lookWords(item.look)].filter(Boolean).join(", ");
  const hidden = after < threshold ? "hidden from this model" : "not hidden from this model; a higher strength may help";
  show(item, "done", `${facts}; ${(inLook ?? before) < threshold ? "scored low before, too" : hidden}`);
  const control = item.look ? "in this look" : "before"; // what the camouflage is measured against
  const checks = (item.checks ?? []).flatMap(({ name, before: one, after: other }) => [bar(`${name}, ${control}`, one), bar(`${name}, after`, other)]);
  item.part("scores").replaceChildren(bar("before", before), ...(item.look ? [bar(control, inLook)] : []), bar("after", after), ...checks);
  note.textContent = notes.join(" ");
  note.hidden = !notes.length;
  save.href = item.resultUrl;
  save.download = item.name;
  save.hidden = item.part("compare").hidden = false;
}

// Work

const settings = () => ({
  strength: Number(strength.value),
  look: look.value ? { name: look.value, amount: Number(amount.value) } : null,
  keepLocation: !keep.checked,
});

async function work() {
  overview();
  if (running) return;
  for (;;) {
    const item = items.find(({ state }) => state === "waiting"), unchecked = platform.checked && items.find(({ state, checks }) => state === "done" && !checks);
    if (!item && !unchecked) break;
    await (item ? camouflage(item) : check(unchecked));
  }
  running = null;
  overview();
}

// A job may have to wait for another one before it has an id.
const watch = () => ({
  onStart: (id) => {
    running.id = id;
    if (running.stopped) cancel(id);
  },
  onProgress: (part) => {
    progress.value = part;
  },
});

function stop() {
  if (!running) return;
  running.stopped = true;
  if (running.id) cancel(running.id);
}

async function camouflage(item) {
  const asked = round;
  running = { item };
  show(item, "running", "Working");
  overview();
  try {
    const result = await run("camouflage", { file: item.file, ...settings() }, watch());
    if (!items.includes(item) || asked !== round) return;
    Object.assign(item, result, { resultUrl: URL.createObjectURL(result.blob), name: named(item.file.name, result.format) });
    showResult(item);
  } catch (error) {
    if (items.includes(item) && asked === round) show(item, error.message === "cancelled" ? "cancelled" : "fault", error.message === "cancelled" ? "Cancelled" : `Not done: ${error.message}`);
  }
}

async function check(item) {
  running = { item };
  overview();
  const { blob } = item;
  let checks = null;
  try {
    checks = await run("check", { file: item.file, look: item.look, result: blob }, watch());
  } catch (error) {
    if (error.message !== "cancelled") checks = []; // it would fail again
  }
  if (items.includes(item) && item.blob === blob && checks) {
    item.checks = checks;
    showResult(item);
  }
}

// A HEIC photo is written as a JPEG, and named so.
const named = (name, format) => (format === "JPEG" && /\.(heic|heif|avif)$/i.test(name) ? name.replace(/\.\w+$/, ".jpg") : name);

function again() {
  round += 1;
  stop();
  for (const item of items) {
    forget(item);
    show(item, "waiting", "Waiting");
  }
  work();
}

function overview() {
  const count = (state) => items.filter((item) => item.state === state).length, done = count("done"), faults = count("fault");
  const ended = done + faults + count("cancelled"), name = running?.item.name;
  if (running) status.textContent = `${Math.min(ended + 1, items.length)} of ${items.length}: ${name}`;
  else if (items.length) status.textContent = [`${done} done`, faults && `${faults} not done`, count("cancelled") && `${count("cancelled")} cancelled`].filter(Boolean).join(", ");
  else status.textContent = "Ready";
  progress.hidden = !running;
  if (running) progress.value = 0;
  element("cancel").disabled = !running;
  element("zip").disabled = !done || Boolean(running);
  element("clear").disabled = !items.length;
}

// Controls

function listen() {
  element("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
  element("cancel").addEventListener("click", () => {
    for (const item of items) if (item.state === "waiting") show(item, "cancelled", "Cancelled");
    platform.checked = false;
    stop();
  });
  element("clear").addEventListener("click", () => [...items].forEach(remove));
  element("zip").addEventListener("click", saveAll);
  strength.addEventListener("input", () => (element("strength-value").value = Number(strength.value).toFixed(1)));
  strength.addEventListener("change", again);
  look.addEventListener("change", () => {
    amount.disabled = !look.value;
    again();
  });
  amount.addEventListener("input", () => (element("amount-value").value = Number(amount.value).toFixed(1)));
  amount.addEventListener("change", again);
  keep.addEventListener("change", again);
  platform.addEventListener("change", () => work());
  document.querySelector(".settings").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => element("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
    add(event.dataTransfer.files);
  });
}

async function saveAll() {
  const taken = new Set(), unique = (name) => {
    const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/s);
    let candidate = name;
    for (let number = 2; taken.has(candidate.toLowerCase()); number += 1) candidate = `${stem} (${number})${suffix ?? ""}`;
    taken.add(candidate.toLowerCase());
    return candidate;
  };
  const files = items.filter(({ state }) => state === "done").map(({ name, blob, file }) => ({ name: unique(name), input: blob, lastModified: new Date(file.lastModified) }));
  const url = URL.createObjectURL(await downloadZip(files).blob()), link = document.createElement("a");
  Object.assign(link, { href: url, download: "camouflaged.zip" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

start();
listen();
try {
  const loaded = await run("load", { base: new URL("./networks/", document.baseURI).href }, { onProgress: (part) => (progress.value = part) });
  ({ threshold } = loaded);
  amount.max = loaded.mostLook;
  look.append(...loaded.looks.map((name) => new Option(name, name)));
  overview();
  document.body.dataset.ready = "true";
} catch (error) {
  status.textContent = `The page cannot work in this browser: ${error.message}`;
}
