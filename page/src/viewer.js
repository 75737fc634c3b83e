// The large view: before and after, with a divider, at several sizes, and the change magnified.
import "img-comparison-slider";
import "img-comparison-slider/dist/styles.css";
import { run } from "./jobs.js";

const element = (id) => document.getElementById(id);
const [dialog, slider, divider, stage, before, after, change, status] = ["viewer", "slider", "divider", "stage", "before", "after", "change", "viewer-status"].map(element);
let item;

export const lookWords = ({ name, amount }) => (amount === 1 ? name : `${name} at ${amount.toFixed(1)}`);

export function compare(photo) {
  item = photo;
  element("viewer-title").textContent = `${photo.name}, before and after`;
  change.checked = false;
  status.textContent = "";
  element("viewer-look").hidden = !photo.look;
  element("viewer-look").textContent = photo.look
    ? `Before is your photo as it was. After is the photo in the look ${lookWords(photo.look)}, camouflaged. The change shown is that of the camouflage alone, not that of the look.`
    : "";
  before.src = photo.originalUrl;
  after.src = photo.resultUrl;
  divide(50);
  zoom(0);
  document.querySelector('#zoom input[value="0"]').checked = true;
  dialog.showModal();
}

function divide(value) {
  divider.value = value;
  slider.value = value;
}

// 0: fitted to the window; 1: one pixel of the photo for one of the screen; 2: for two by two.
function zoom(factor) {
  stage.dataset.zoom = factor;
  const width = factor ? `${(item.width * factor) / devicePixelRatio}px` : "";
  for (const picture of [before, after]) picture.style.width = width;
  stage.scrollTop = (slider.clientHeight - stage.clientHeight) / 2;
  showDivider();
}

function showDivider() {
  stage.scrollLeft = (slider.clientWidth * divider.value) / 100 - stage.clientWidth / 2;
}

divider.addEventListener("input", () => {
  divide(Number(divider.value));
  showDivider();
});
slider.addEventListener("slide", () => (divider.value = slider.value));
element("zoom").addEventListener("change", (event) => zoom(Number(event.target.value)));
element("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  before.removeAttribute("src");
  after.removeAttribute("src");
});
change.addEventListener("change", async () => {
  const photo = item, { file, look, blob } = photo;
  if (change.checked && !photo.changeUrl) {
    status.textContent = "Computing the change";
    let picture, words = "";
    try {
      picture = await run("change", { file, look, result: blob });
    } catch (error) {
      words = `The change cannot be shown: ${error.message}`;
    }
    if (photo.blob !== blob) return; // done again meanwhile, or removed
    if (picture) photo.changeUrl ??= URL.createObjectURL(picture);
    if (photo !== item) return;
    status.textContent = words;
    if (!picture) change.checked = false;
  }
  if (photo === item) after.src = change.checked ? photo.changeUrl : photo.resultUrl;
});
