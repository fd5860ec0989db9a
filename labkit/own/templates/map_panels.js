// Everything around the map: legend, search, selection, review.

const $ = id => document.getElementById(id);
const selection = new Set();
const cssColors = {};
const AT_ONCE = 120; // selected images listed before "more"
let listed = AT_ONCE;

function make(tag, properties = {}, ...children) { // an element; text stays text
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
const plural = (count, what = "image") => `${count.toLocaleString()} ${what}${count === 1 ? "" : "s"}`;
const clusterText = c => c === REJECTED ? "rejected" : names.get(c) ? `${names.get(c)} (cluster ${c})` : `cluster ${c}`;

// ------------------------------------------------------------------------------------------------------------- legend

function symbolCanvas(c) {
  const canvas = make("canvas", { width: 28, height: 28, ariaHidden: "true" }), brush = canvas.getContext("2d");
  const { color, symbol } = styleOf(c), { size, part } = coverage(inside[symbol], 11.5), picture = brush.createImageData(size, size);
  const value = parseInt(color.slice(1), 16);
  part.forEach((a, k) => picture.data.set([value >> 16, value >> 8 & 255, value & 255, a], 4 * k));
  brush.putImageData(picture, (28 - size) / 2, (28 - size) / 2);
  return canvas;
}

function showLegend() {
  const counts = new Map([...names.keys()].map(c => [c, 0]));
  cluster.forEach(c => counts.set(c, (counts.get(c) ?? 0) + 1));
  const rows = [...counts].filter(([, count]) => count).sort(([a, x], [b, y]) => (a === REJECTED) - (b === REJECTED) || y - x || a - b);
  $("clusters").replaceChildren(...rows.map(([c, count]) => {
    const box = make("input", { type: "checkbox", checked: !shown.hidden.has(c) });
    box.addEventListener("change", () => { box.checked ? shown.hidden.delete(c) : shown.hidden.add(c); redraw(); });
    const label = make("label", { title: clusterText(c) }, box, symbolCanvas(c), make("span", { className: "name" }, title(c), ...(names.get(c) ? [make("small", {}, String(c))] : [])), make("span", { className: "count" }, count.toLocaleString()));
    const button = make("button", { type: "button", ariaLabel: `Select ${clusterText(c)}` }, "Select");
    button.addEventListener("click", event => select(members(c), event.ctrlKey || event.metaKey || event.shiftKey));
    const row = make("li", {}, label, button);
    row.addEventListener("pointerenter", () => { shown.lit = c; redraw(); });
    row.addEventListener("pointerleave", () => { shown.lit = null; redraw(); });
    return row;
  }));
  const targets = rows.map(([c]) => c).filter(c => c !== REJECTED).sort((a, b) => a - b), before = $("target").value;
  $("target").replaceChildren(...targets.map(c => make("option", { value: String(c) }, clusterText(c))));
  if (targets.includes(Number(before)) && before) $("target").value = before;
}
const members = c => [...cluster.keys()].filter(i => cluster[i] === c);

function showAll(on) {
  shown.hidden = new Set(on ? [] : cluster);
  $("clusters").querySelectorAll("input").forEach(box => { box.checked = on; });
  redraw();
}
$("show-all").addEventListener("click", () => showAll(true));
$("show-none").addEventListener("click", () => showAll(false));

// ------------------------------------------------------------------------------------------------------------- search

const lower = data.files.map(file => file.toLowerCase());
let waiting = 0;

function search() {
  const words = $("query").value.toLowerCase().split(/\s+/).filter(Boolean);
  const titles = new Map([...names.keys(), REJECTED].map(c => [c, clusterText(c).toLowerCase()]));
  shown.matches = words.length ? Uint8Array.from(lower, (file, i) => words.every(word => file.includes(word) || titles.get(cluster[i])?.includes(word))) : null;
  const count = shown.matches ? shown.matches.reduce((a, b) => a + b, 0) : 0;
  $("found").textContent = words.length ? `${count.toLocaleString()} of ${n.toLocaleString()}` : "";
  $("select-matches").hidden = !count;
  redraw();
}
$("query").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 100); });
$("search").addEventListener("submit", event => {
  event.preventDefault();
  search();
  const found = shown.matches ? [...ORDER].filter(i => shown.matches[i]).sort((a, b) => a - b) : [];
  if (found.length) { select(found); fitImages(found); }
});

// ---------------------------------------------------------------------------------------------------------- selection

function select(ids, add = false) {
  if (!add) { selection.clear(); shown.selected.fill(0); }
  ids.forEach(i => { selection.add(i); shown.selected[i] = 1; });
  listed = AT_ONCE;
  showSelection();
}

function toggle(i) {
  if (selection.delete(i)) shown.selected[i] = 0;
  else { selection.add(i); shown.selected[i] = 1; }
  showSelection();
}

function about(i) {
  const confidence = data.confidence[i], flags = data.flags[i];
  return [clusterText(cluster[i]), confidence === null ? "" : `confidence ${confidence} %`, flags].filter(Boolean).join(" · ");
}

function showSelection() {
  const ids = [...selection], single = ids.length === 1;
  $("selected").textContent = ids.length ? `${plural(ids.length)} selected` : "Nothing selected";
  $("hint").hidden = ids.length > 0;
  $("clear").hidden = $("actions").hidden = !ids.length;
  $("chosen").classList.toggle("single", single);
  $("chosen").replaceChildren(...ids.slice(0, listed).map(i => entry(i, single)));
  $("more").hidden = ids.length <= listed;
  $("more").textContent = `${(ids.length - listed).toLocaleString()} more`;
  redraw();
}

function entry(i, single) {
  const file = data.files[i], frame = make("span", { className: "frame" }, thumbnail(i, single ? 128 : 80));
  const link = make("a", { href: data.links[i], target: "_blank", rel: "noopener", title: `${file} (opens the image)` }, frame, single ? file : file.split("/").pop());
  if (single) {
    const original = make("img", { alt: "", decoding: "async" }); // the thumbnail stays where a browser cannot show the file
    original.addEventListener("load", () => frame.replaceChildren(original));
    original.src = data.links[i];
    return make("li", {}, link, make("p", { className: "quiet" }, about(i)));
  }
  const drop = make("button", { type: "button", ariaLabel: `Take ${file} out of the selection`, title: "Take out" }, "×");
  drop.addEventListener("click", () => {
    const place = [...$("chosen").children].indexOf(drop.parentElement);
    toggle(i);
    ($("chosen").children[Math.min(place, $("chosen").children.length - 1)]?.querySelector("button") ?? $("selected")).focus();
  });
  return make("li", {}, link, drop);
}
$("more").addEventListener("click", () => { listed += 4 * AT_ONCE; showSelection(); });
$("clear").addEventListener("click", () => select([]));

// ------------------------------------------------------------------------------------------------------- hovering, notes

const card = $("card");
let hovered = -1;
const hideCard = () => { card.hidden = true; hovered = -1; };

function hover(x, y) {
  const i = at(x, y);
  images.classList.toggle("over", i >= 0 && !lasso.on);
  if (i < 0) return hideCard();
  if (i !== hovered) card.replaceChildren(thumbnail(i, 128), make("p", {}, data.files[i]), make("p", { className: "about" }, about(i)));
  hovered = i;
  card.hidden = false;
  const left = x + 18 + card.offsetWidth > view.width ? x - 18 - card.offsetWidth : x + 18;
  const top = Math.max(4, Math.min(y + 14, view.height - card.offsetHeight - 6));
  Object.assign(card.style, { left: `${Math.max(4, left)}px`, top: `${top}px` });
}
images.addEventListener("pointerleave", hideCard);

let fading = 0;
function note(text, seconds = 4) {
  $("note").textContent = text;
  clearTimeout(fading);
  if (seconds) fading = setTimeout(() => { $("note").textContent = ""; }, 1000 * seconds);
}

// ------------------------------------------------------------------------------------------------------------- review

function changed() { // after every change of the review
  makeLabels();
  showLegend();
  if (shown.matches) search();
  showSelection();
  $("changes").textContent = operations.length ? `Review: ${plural(operations.length, "change")}` : "Review";
  $("operations").replaceChildren(...operations.map(step => make("li", {}, inWords(step))));
  $("operations").scrollTop = 1e6;
  $("undo").disabled = $("save").disabled = !operations.length;
}

const filesOf = ids => [...ids].sort((a, b) => a - b).map(i => data.files[i]);

function decide(step) {
  const why = problem(state, step);
  if (why) return note(why, 8);
  operations.push(step);
  derived();
  keepReview();
  select([]);
  changed();
  note(inWords(step));
  images.focus();
}
$("reject").addEventListener("click", () => decide({ do: "reject", files: filesOf(selection) }));
$("move").addEventListener("click", () => decide({ do: "move", files: filesOf(selection), cluster: Number($("target").value) }));
$("undo").addEventListener("click", () => {
  const last = operations.pop();
  derived();
  keepReview();
  changed();
  note(`Undone: ${inWords(last)}`);
  if ($("undo").disabled) images.focus();
});

$("copy").addEventListener("click", async () => {
  const text = filesOf(selection).join("\n");
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages from disk may not have a clipboard
    const area = make("textarea", { value: text, className: "hidden", ariaLabel: "File names" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  note(`Copied ${plural(selection.size, "file name")}`);
});

$("save").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([reviewText()], { type: "application/json" }));
  make("a", { href: url, download: "review.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  note("Saved review.json");
});
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  if (!file) return;
  try {
    openReview(await file.text());
    keepReview();
    changed();
    note(`Opened ${plural(operations.length, "change")}`);
  } catch (error) {
    note(`This file cannot be opened: ${error.message}.`, 10);
  }
  $("file").value = "";
});
// -------------------------------------------------------------------------------------------------------------- start

$("lasso").addEventListener("click", () => {
  lasso.on = !lasso.on;
  $("lasso").ariaPressed = String(lasso.on);
  images.classList.toggle("lasso", lasso.on);
});
$("zoom-in").addEventListener("click", () => zoomBy(1.5));
$("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
$("fit").addEventListener("click", fitAll);
addEventListener("keydown", event => { if (event.key === "Escape" && event.target !== $("query")) select([]); });

function dress() { // colors of the scheme
  for (const name of ["back", "ink", "faint", "accent"]) cssColors[name] = cssColor(`--${name}`);
  chooseStyles();
  makeLabels();
  showLegend();
  redraw();
}
darkScheme.addEventListener("change", dress);
restoreReview();
resize();
dress();
Object.assign(view, { x: view.center[0], y: view.center[1], scale: view.fit });
changed();
new ResizeObserver(resize).observe(map);
decodeSheets((k, all) => {
  if (all > 3) note(k < all ? `Thumbnails: ${k} of ${all}` : "", 0);
  redraw();
}).then(() => { document.body.dataset.ready = "yes"; showSelection(); });
