// What the page knows: images, clusters, thumbnails, and the review. Nothing here draws. After review.js.

const data = JSON.parse(document.getElementById("data").textContent);
const n = data.files.length;
const X = Float32Array.from(data.x, v => v / data.fine * 2 - 1); // -1 to 1, as in `layout`
const Y = Float32Array.from(data.y, v => v / data.fine * 2 - 1);
const REACH = Float32Array.from(data.reach, v => v / data.fine * 2); // how far from all images that come before it
const ORDER = Uint32Array.from(data.files.keys()).sort((i, j) => REACH[j] - REACH[i]);

// ------------------------------------------------------------------------------------------------------------- review

// The rules are those of review.js, as in the gallery, with which this page shares what is not saved yet.
const KEY = `labkit-review:${data.run}`;
const base = { clusters: data.clusters, images: data.files.map((file, i) => ({ file, cluster: data.cluster[i] })), rejected: data.cluster.filter(c => c === REJECTED).length };
let operations = []; // new ones, after those that are applied
let state, cluster, names; // cluster of every image, names by cluster

function derived() {
  state = derive(base, operations);
  cluster = Int32Array.from(state.clusterOf);
  names = new Map([...state.clusters].map(([c, known]) => [c, known.name]));
}

const allOperations = () => [...data.applied, ...operations];
const reviewText = () => JSON.stringify({ labkit: "review", version: 1, run: data.run, operations: allOperations() }, null, 1) + "\n";
const goesOn = all => data.applied.every((step, i) => JSON.stringify(step) === JSON.stringify(all[i]));

function takeReview(all) { // as far as its operations can be done
  operations = [];
  derived();
  for (const step of all.slice(data.applied.length)) {
    if (problem(state, step)) break;
    operations.push(step);
    derived();
  }
}

function restoreReview() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    takeReview(Array.isArray(kept) && goesOn(kept) ? kept : data.applied);
  } catch { // no storage, or something else in it
    takeReview(data.applied);
  }
}

function keepReview() {
  try {
    localStorage.setItem(KEY, JSON.stringify(allOperations()));
  } catch { /* a private window: the review lives as long as the page */ }
}

function openReview(text) { // throws what is wrong with it
  const given = JSON.parse(text);
  if (given.labkit !== "review" || given.version !== 1 || !Array.isArray(given.operations)) throw new Error("it is no review of labkit");
  if (given.run !== data.run) throw new Error("it is the review of another run");
  if (!goesOn(given.operations)) throw new Error("it does not go on from what was applied");
  takeReview(given.operations);
}

const title = c => c === REJECTED ? "rejected" : names.get(c) || `cluster ${c}`;

// ------------------------------------------------------------------------------------------------------- colors, symbols

// After Okabe and Ito; with five symbols, so that 40 clusters differ to everybody.
const PALETTES = {
  light: ["#0072b2", "#d98200", "#00875f", "#c0649b", "#b8430a", "#3e9fd6", "#75590f", "#5b4b9e"],
  dark: ["#4fa3e0", "#f0ae3c", "#2bbf91", "#e39ac6", "#f07f43", "#9ad4f5", "#c9a64b", "#a79ae6"],
};
const inside = [ // of a symbol of radius 1
  (x, y) => x * x + y * y <= 1,
  (x, y) => Math.max(Math.abs(x), Math.abs(y)) <= 0.86,
  (x, y) => y <= 0.78 && Math.abs(x) * 1.7 <= y + 1.05,
  (x, y) => { const d = x * x + y * y; return d <= 1.1 && d >= 0.3; },
  (x, y) => Math.abs(x) + Math.abs(y) <= 1.22,
];
const style = new Map(); // cluster -> { color, symbol }
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const cssColor = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function chooseStyles() {
  const palette = PALETTES[darkScheme.matches ? "dark" : "light"];
  [...new Set([...data.clusters.map(c => c.cluster), ...data.cluster])].filter(c => c !== REJECTED).sort((a, b) => a - b)
    .forEach((c, i) => style.set(c, { color: palette[i % 8], symbol: Math.floor(i / 8) % 5 }));
  style.set(REJECTED, { color: darkScheme.matches ? "#7d828a" : "#8b8d92", symbol: 3 });
}
const styleOf = c => style.get(c) ?? style.get(REJECTED);

// ---------------------------------------------------------------------------------------------------------- thumbnails

const sheets = []; // { url, bitmap, width, height }, while they are decoded one after another
const perSheet = data.perSheet ** 2;
const box = i => ({ x: i % data.perSheet * data.side, y: Math.floor(i % perSheet / data.perSheet) * data.side, w: data.boxes[i][0], h: data.boxes[i][1] });

async function decodeSheets(progress) {
  const elements = [...document.querySelectorAll("script.sheet")];
  for (const [k, element] of elements.entries()) {
    const bytes = Uint8Array.from(atob(element.textContent), c => c.charCodeAt(0));
    element.remove();
    const blob = new Blob([bytes], { type: "image/jpeg" });
    const bitmap = await createImageBitmap(blob);
    sheets.push({ url: URL.createObjectURL(blob), bitmap });
    progress(k + 1, elements.length);
    await new Promise(resolve => setTimeout(resolve));
  }
}

function thumbnail(i, size) { // an element that shows one thumbnail, its longer side `size` pixels
  const element = document.createElement("span"), sheet = sheets[Math.floor(i / perSheet)], { x, y, w, h } = box(i);
  const scale = size / data.side;
  element.className = "thumb";
  Object.assign(element.style, { width: `${w * scale}px`, height: `${h * scale}px` });
  if (sheet) Object.assign(element.style, {
    backgroundImage: `url(${sheet.url})`,
    backgroundPosition: `${-x * scale}px ${-y * scale}px`,
    backgroundSize: `${sheet.bitmap.width * scale}px ${sheet.bitmap.height * scale}px`,
  });
  return element;
}
