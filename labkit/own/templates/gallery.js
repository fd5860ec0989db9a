// The gallery: draws the clusters, takes operations, keeps and saves them. Texts only ever become text nodes.

const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const KEY = `labkit-review:${page.run}`;
const elsewhere = page.elsewhere.files.map((file, i) => ({ file, cluster: page.elsewhere.clusters[i] })); // not shown here
const base = { clusters: page.clusters, images: [...page.images, ...elsewhere], rejected: page.rejected };
let operations = restored(); // new ones, after those that are applied
let state = derive(base, operations);
let current = null; // the number of the cluster that the keys act on
const marked = new Set(); // numbers of clusters
const selected = new Set(); // rows of page.images
const articles = new Map(); // by the cluster's number
const tiles = []; // {element, row, part, strip} of every tile, as drawn first

// ---------------------------------------------------------------------------------------------------------- small helps

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

let messageTimer = 0;
function say(text) {
  clearTimeout(messageTimer);
  $("message").textContent = text;
  messageTimer = setTimeout(() => { $("message").textContent = ""; }, 6000);
}

const plural = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
const percent = (value) => `${Math.round(100 * value)} %`;
const called = (number) => {
  const cluster = state.clusters.get(number);
  return cluster && cluster.name ? `cluster ${number}, ${cluster.name}` : `cluster ${number}`;
};

// --------------------------------------------------------------------------------------------------------- what is kept

function restored() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY)) || [];
    // after an apply, the page knows the first of them
    if (!page.applied.every((operation, i) => JSON.stringify(operation) === JSON.stringify(kept[i]))) return [];
    const fresh = [];
    for (const operation of kept.slice(page.applied.length)) {
      if (problem(derive(base, fresh), operation)) break;
      fresh.push(operation);
    }
    return fresh;
  } catch {
    return []; // no storage, or something else in it
  }
}

function keep(all) {
  try {
    localStorage.setItem(KEY, JSON.stringify(all));
  } catch {
    // a private window: the review lives as long as the page
  }
}

const review = (all) => JSON.stringify({ labkit: "review", version: 1, run: page.run, operations: all }, null, 1) + "\n";
const allOperations = () => [...page.applied, ...operations];

function download(all) {
  const link = make("a", { href: URL.createObjectURL(new Blob([review(all)], { type: "application/json" })), download: "review.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function save() {
  download(allOperations());
  say("Saved as review.json. Now run the command that is shown.");
}

// ----------------------------------------------------------------------------------------------------------- operations

function act(operation, message) {
  const why = problem(state, operation);
  if (why) { say(why); return false; }
  operations.push(operation);
  changed();
  say(`${message || inWords(operation)}. Press u to undo.`);
  return true;
}

function changed() {
  keep(allOperations());
  state = derive(base, operations);
  for (const number of marked) if (!state.clusters.has(number)) marked.delete(number);
  refresh();
}

function undo() {
  const last = operations.pop();
  if (!last) { say("There is nothing to undo."); return; }
  changed();
  say(`Undone: ${inWords(last)}.`);
  if (!document.activeElement || document.activeElement === document.body) focusCluster(current);
}

function mergeMarked() {
  if (marked.size < 2) { say("Mark two clusters to merge them: m on each."); return; }
  const clusters = [...marked].sort((a, b) => a - b);
  if (act({ do: "merge", clusters })) {
    marked.clear();
    refresh();
    focusCluster(clusters[0]);
  }
}

function rejectCluster(number) {
  const next = neighbor(number, 1) ?? neighbor(number, -1);
  if (act({ do: "reject", cluster: number })) focusCluster(next);
}

function onSelected(operation) {
  const files = [...new Set([...selected].sort((a, b) => a - b).map((row) => page.images[row].file))];
  if (!files.length) { say("No image is selected: Space selects one."); return; }
  const home = state.clusterOf[[...selected][0]];
  if (act({ ...operation, files })) {
    selected.clear();
    refresh();
    focusCluster(home === REJECTED ? operation.cluster : home);
  }
}

const rejectSelected = () => onSelected({ do: "reject" });
const moveSelected = () => onSelected({ do: "move", cluster: Number($("move-to").value) });

function rename(number, text) {
  const name = cleanName(text);
  if (name !== state.clusters.get(number).name) act({ do: "rename", cluster: number, name });
  refresh();
}

function mark(number) {
  if (state.clusters.get(number)?.split) { say(`Cluster ${number} will be split: apply the review first, or undo.`); return; }
  if (!marked.delete(number)) marked.add(number);
  describe(articles.get(number), state.clusters.get(number));
  refreshTray();
  const n = marked.size;
  say(n > 1 ? `${plural(n, "cluster")} marked. Shift+M merges them.` : n ? `Marked ${called(number)}. Mark another to merge.` : "No cluster is marked.");
}

function askSplit(number) {
  const why = problem(state, { do: "split", cluster: number, into: 2 });
  if (why) { say(why); return; }
  focusCluster(number); // it has the focus again when the dialog closes
  $("split-title").textContent = `Split ${called(number)}`;
  $("split-into").value = 2;
  $("split-into").max = Math.min(20, state.clusters.get(number).size);
  $("split-form").onsubmit = () => act({ do: "split", cluster: number, into: Number($("split-into").value) });
  $("split").showModal();
  $("split-into").select();
}

function select(row, announce = true) {
  if (!selected.delete(row)) selected.add(row);
  for (const tile of tiles) if (tile.row === row) tile.element.setAttribute("aria-selected", selected.has(row));
  refreshTray();
  if (announce) say(selected.size ? `${plural(selected.size, "image")} selected. x rejects, v moves.` : "No image is selected.");
}

// -------------------------------------------------------------------------------------------------------------- drawing

const STRIPS = { all: "All images", confident: "Most confident", random: "Random", odd: "Odd ones" };

function draw() {
  for (const cluster of [...base.clusters, { cluster: REJECTED, rows: page.rejectedRows, suggestions: [] }]) {
    const article = makeArticle(cluster.cluster, cluster.suggestions);
    articles.set(cluster.cluster, article);
    for (const [strip, rows] of Object.entries(cluster.rows)) {
      for (const row of rows) tiles.push({ element: makeTile(row), row, part: cluster.cluster, strip });
    }
    $("clusters").append(article.element);
  }
}

function makeArticle(number, suggestions) {
  const id = `cluster-${number === REJECTED ? "rejected" : number}`;
  const title = make("h2", { id: `${id}-title`, textContent: number === REJECTED ? "Rejected images" : `Cluster ${number}` });
  const facts = make("p", { className: "facts" });
  const element = make("article", { id, className: "cluster", tabIndex: -1, "aria-labelledby": `${id}-title ${id}-name` });
  element.dataset.number = number;
  const words = make("div", {}, title);
  const head = make("div", { className: "head" }, words);
  const article = { element, facts, number, strips: {} };
  if (number === REJECTED) {
    words.append(make("span", { id: `${id}-name` }));
  } else {
    const name = make("input", {
      id: `${id}-name`, className: "name", placeholder: "no name", autocomplete: "off", spellcheck: false, maxLength: LONGEST_NAME,
      "aria-label": `Name of cluster ${number}`,
    });
    name.addEventListener("change", () => rename(number, name.value));
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      if (event.key === "Escape") name.value = state.clusters.get(number).name;
      event.preventDefault();
      event.stopPropagation();
      focusCluster(number); // which leaves the field, and so takes the name
    });
    words.append(name);
    article.name = name;
    const button = (text, key, work) => {
      const made = make("button", { type: "button", onclick: work, "aria-label": `${text} cluster ${number}` }, `${text} `, make("kbd", { ariaHidden: "true" }, key));
      return made;
    };
    article.mark = button("Mark to merge", "m", () => mark(number));
    const buttons = [article.mark, button("Rename", "r", () => name.select()), button("Split", "s", () => askSplit(number)), button("Reject", "x", () => rejectCluster(number))];
    head.append(make("div", { className: "buttons" }, ...buttons));
  }
  head.append(facts);
  if (suggestions.length) {
    const offer = (word) => make("button", { type: "button", textContent: word, "aria-label": `Name cluster ${number} ${word}`, onclick: () => rename(number, word) });
    head.append(make("div", { className: "suggestions" }, make("span", { textContent: "Perhaps" }), ...suggestions.map(offer)));
  }
  element.append(head);
  for (const [strip, title] of Object.entries(STRIPS)) {
    const label = make("h3", { id: `${id}-${strip}`, textContent: title });
    const list = make("div", { className: "tiles", role: "listbox", "aria-multiselectable": "true", "aria-labelledby": `${id}-title ${id}-${strip}` });
    const box = make("div", { className: "strip", hidden: true }, label, list);
    article.strips[strip] = { box, list };
    element.append(box);
  }
  element.addEventListener("focusin", () => setCurrent(number));
  near.observe(element);
  return article;
}

function makeTile(row) {
  const image = page.images[row];
  const label = image.flags ? `${image.file}, ${image.flags}` : image.file;
  const picture = make("img", { alt: "", decoding: "async", draggable: false });
  const tile = make("div", { className: "tile", role: "option", tabIndex: -1, "aria-selected": "false", "aria-label": label, title: `${label} · ${image.confidence.toFixed(2)}` }, picture, make("span", { className: "corner", ariaHidden: "true" }));
  if (image.flags) tile.append(make("span", { className: "flag", ariaHidden: "true", textContent: "⚑" }));
  tile.dataset.row = row;
  return tile;
}

// Thumbnails are decoded when their cluster comes near: a thousand at once would stall a phone.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) fill(entry.target);
}, { rootMargin: "1200px" });

function fill(element) {
  element.dataset.near = "";
  for (const tile of element.querySelectorAll(".tile")) {
    const picture = tile.firstChild;
    const data = page.images[tile.dataset.row].thumbnail;
    if (!picture.src && data) picture.src = `data:image/jpeg;base64,${data}`;
  }
}

/** Bring everything on the page up to the state. */
function refresh() {
  const wanted = new Map(); // cluster -> strip -> tiles; its own first, then those that came
  for (const tile of tiles) {
    const home = state.clusterOf[tile.row];
    const strips = wanted.get(home) || wanted.set(home, {}).get(home);
    const [own, others] = (strips[tile.strip] ||= [[], []]);
    (tile.part === home ? own : others).push(tile);
    tile.element.setAttribute("aria-selected", selected.has(tile.row));
  }
  for (const [number, article] of articles) {
    const cluster = state.clusters.get(number);
    for (const [strip, { list }] of Object.entries(article.strips)) {
      const [own, others] = wanted.get(number)?.[strip] || [[], []];
      const elements = [...own, ...others].map((tile) => tile.element);
      if (elements.length !== list.children.length || elements.some((element, i) => element !== list.children[i])) {
        const focused = document.activeElement;
        list.replaceChildren(...elements);
        if (elements.includes(focused)) focused.focus({ preventScroll: true });
      }
    }
    if ("near" in article.element.dataset) fill(article.element);
    if (number === REJECTED) article.facts.textContent = `${plural(state.rejected, "image")} in no cluster. Select some and move them to take them back.`;
    else if (cluster) describe(article, cluster);
  }
  filter();
  refreshReview();
  refreshTargets();
  refreshTray();
}

function describe(article, cluster) {
  if (article.name.value !== cluster.name && document.activeElement !== article.name) article.name.value = cluster.name;
  const parts = [make("b", { textContent: plural(cluster.size, "image") })];
  if (cluster.nameConfidence !== null) parts.push(` · name ${percent(cluster.nameConfidence)} confident`);
  else if (cluster.given) parts.push(" · named by you");
  parts.push(` · mean confidence ${cluster.confidence.toFixed(2)}`);
  if (cluster.parts.length > 1) parts.push(` · merged from ${cluster.parts.join(", ")}`);
  if (cluster.split) parts.push(" · ", make("span", { className: "pending", textContent: `will be split into ${cluster.split} when the review is applied` }));
  article.facts.replaceChildren(...parts);
  article.mark.setAttribute("aria-pressed", marked.has(cluster.number));
  article.element.classList.toggle("marked", marked.has(cluster.number));
}

function filter() {
  const text = $("filter").value.trim().toLowerCase();
  const flag = $("flags").value;
  let nClusters = 0;
  const images = new Set();
  for (const [number, article] of articles) {
    const cluster = state.clusters.get(number);
    const gone = number === REJECTED ? state.rejected === 0 : !cluster;
    const whole = !text || (cluster && (cluster.name.toLowerCase().includes(text) || String(number) === text.replace("#", "")));
    let any = !text && !flag;
    for (const { box, list } of Object.values(article.strips)) {
      let shown = 0;
      for (const tile of list.children) {
        const image = page.images[tile.dataset.row];
        const fits = (whole || image.file.toLowerCase().includes(text)) && (!flag || (flag === "*" ? image.flags : image.kinds.includes(flag)));
        tile.hidden = !fits;
        if (!fits || gone) continue;
        shown += 1;
        images.add(tile.dataset.row);
      }
      box.hidden = shown === 0;
      any ||= shown > 0;
    }
    any ||= Boolean(whole && !flag);
    article.element.hidden = gone || !any;
    if (!article.element.hidden && number !== REJECTED) nClusters += 1;
    rove(article);
  }
  $("n-clusters").textContent = state.clusters.size.toLocaleString("en");
  $("shown").textContent = text || flag ? `${nClusters} of ${plural(state.clusters.size, "cluster")} and ${plural(images.size, "image")} of those on this page` : `${page.images.length.toLocaleString("en")} of ${plural(page.total, "image")} are on this page.`;
  if (current === null || articles.get(current).element.hidden) setCurrent(shownNumbers()[0] ?? null);
}

function sort() {
  const size = (number) => state.clusters.get(number)?.size ?? -1;
  const confidence = (number) => articles.get(number) && base.clusters.find((cluster) => cluster.cluster === number).confidence;
  const by = {
    largest: (a, b) => size(b) - size(a), smallest: (a, b) => size(a) - size(b),
    doubtful: (a, b) => confidence(a) - confidence(b), confident: (a, b) => confidence(b) - confidence(a), number: () => 0,
  }[$("sort").value];
  const order = base.clusters.map((cluster) => cluster.cluster).sort((a, b) => by(a, b) || a - b);
  $("clusters").append(...[...order, REJECTED].map((number) => articles.get(number).element));
}

function refreshReview() {
  const all = [...page.applied.map((operation) => [operation, true]), ...operations.map((operation) => [operation, false])];
  $("operations").replaceChildren(...all.map(([operation, applied]) => make("li", { className: applied ? "applied" : "", textContent: inWords(operation) })));
  $("operations").hidden = !all.length;
  $("no-operations").hidden = all.length > 0;
  $("start-over").hidden = !page.applied.length;
  $("undo").disabled = !operations.length;
  $("n-badge").textContent = operations.length;
  $("operations").scrollTop = $("operations").scrollHeight;
}

function refreshTray() {
  $("marked").hidden = !marked.size;
  $("selected").hidden = !selected.size;
  $("tray").hidden = !marked.size && !selected.size;
  $("marked-text").textContent = `${plural(marked.size, "cluster")} marked`;
  $("merge").disabled = marked.size < 2;
  $("selected-text").textContent = `${plural(selected.size, "image")} selected`;
}

function refreshTargets() {
  const chosen = $("move-to").value;
  const option = (cluster) => make("option", { value: cluster.number, textContent: cluster.name ? `${cluster.number} · ${cluster.name}` : `cluster ${cluster.number}` });
  $("move-to").replaceChildren(...[...state.clusters.values()].map(option));
  if (chosen && state.clusters.has(Number(chosen))) $("move-to").value = chosen;
}

// ---------------------------------------------------------------------------------------------------------------- focus

const shownNumbers = () => Array.from($("clusters").querySelectorAll("article:not([hidden])"), (element) => numberOf(element));
const numberOf = (element) => Number(element.dataset.number);
const shownTiles = (article) => Array.from(article.element.querySelectorAll(".strip:not([hidden]) .tile:not([hidden])"));

function neighbor(number, step) {
  const order = shownNumbers();
  return order[order.indexOf(number) + step];
}

function setCurrent(number) {
  if (number === current) return;
  for (const [other, article] of articles) {
    article.element.tabIndex = other === number ? 0 : -1;
    if (other === number) article.element.setAttribute("aria-current", "true"); else article.element.removeAttribute("aria-current");
  }
  current = number;
}

function focusCluster(number) {
  const article = articles.get(number);
  if (!article || article.element.hidden) return;
  setCurrent(number);
  article.element.focus({ preventScroll: true });
  article.element.scrollIntoView({ block: "start" });
}

/** One tile of each strip can be reached with Tab, the others with arrow keys. */
function rove(article, tile) {
  for (const { list } of Object.values(article.strips)) {
    if (tile && !list.contains(tile)) continue;
    const options = Array.from(list.children).filter((option) => !option.hidden);
    const stop = tile || options.find((option) => option.tabIndex === 0) || options[0];
    for (const option of list.children) option.tabIndex = option === stop ? 0 : -1;
  }
}

function stepTile(article, from, step) {
  const all = shownTiles(article);
  const next = all[from ? all.indexOf(from) + step : 0];
  if (!next) { if (step < 0) focusCluster(article.number); return null; }
  rove(article, next);
  next.focus();
  return next;
}

// ------------------------------------------------------------------------------------------------------------ originals

let opened = null; // the tile whose original is shown
let openedFrom = null; // the tile that had the focus; a browser gives it back

function open(tile) {
  opened = tile;
  const row = Number(tile.dataset.row);
  const image = page.images[row];
  const number = state.clusterOf[row];
  $("original-name").textContent = image.file;
  const place = number === REJECTED ? "rejected" : called(number);
  $("original-facts").textContent = [place, `confidence ${image.confidence.toFixed(2)}`, image.flags].filter(Boolean).join(" · ");
  $("original-link").href = image.href;
  $("original-note").hidden = true;
  const picture = $("original-image");
  picture.alt = image.file;
  picture.onerror = () => {
    picture.onerror = null;
    $("original-note").textContent = "The browser cannot show the original (it moved, or has a format that browsers do not know): this is its thumbnail.";
    $("original-note").hidden = false;
    if (image.thumbnail) picture.src = `data:image/jpeg;base64,${image.thumbnail}`;
  };
  picture.src = image.href;
  showSelect(row);
  if (!$("original").open) {
    openedFrom = tile;
    $("original").showModal();
  }
}

function showSelect(row) {
  $("select").textContent = selected.has(row) ? "Selected" : "Select";
  $("select").setAttribute("aria-pressed", selected.has(row));
}

function stepOriginal(step) {
  const article = articles.get(numberOf(opened.closest("article")));
  const all = shownTiles(article);
  const next = all[all.indexOf(opened) + step];
  if (next) { rove(article, next); open(next); } else say("There is no other image on the page here.");
}

function selectOpened() {
  const row = Number(opened.dataset.row);
  select(row, false);
  showSelect(row);
}

// ------------------------------------------------------------------------------------------------------------- listening

$("clusters").addEventListener("click", (event) => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const article = articles.get(numberOf(tile.closest("article")));
  rove(article, tile);
  tile.focus({ preventScroll: true });
  if (event.target.closest(".corner") || event.ctrlKey || event.metaKey || event.shiftKey) select(Number(tile.dataset.row)); else open(tile);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) {
    if ($("original").open && event.key === "ArrowRight") stepOriginal(1);
    else if ($("original").open && event.key === "ArrowLeft") stepOriginal(-1);
    return;
  }
  const target = event.target;
  if (target.closest("input, select, textarea")) {
    if (event.key === "Escape" && target.id === "filter") focusCluster(current);
    return;
  }
  const tile = target.closest(".tile");
  const onPage = tile || target.closest("article") === target || target === document.body;
  const article = articles.get(current);
  const cluster = current !== null && current !== REJECTED && state.clusters.has(current);
  const keys = {
    j: () => focusCluster(document.activeElement === document.body ? current : neighbor(current, 1)),
    k: () => focusCluster(neighbor(current, -1)),
    m: () => cluster && mark(current),
    M: mergeMarked,
    r: () => cluster && article.name.select(),
    s: () => cluster && askSplit(current),
    x: () => (selected.size ? rejectSelected() : cluster && rejectCluster(current)),
    v: () => (selected.size ? $("move-to").focus() : say("No image is selected: Space selects one.")),
    u: undo,
    S: save,
    "/": () => $("filter").select(),
    "?": () => $("help").showModal(),
    Escape: () => { marked.clear(); selected.clear(); refresh(); say("Nothing is marked or selected."); },
  };
  const moves = {
    ArrowDown: keys.j,
    ArrowUp: keys.k,
    ArrowRight: () => article && stepTile(article, tile, 1),
    ArrowLeft: () => article && tile && stepTile(article, tile, -1),
    Home: () => tile && stepTile(article, null, 0),
    " ": () => (tile ? select(Number(tile.dataset.row)) : undefined),
    Enter: () => (tile ? open(tile) : marked.size > 1 ? mergeMarked() : undefined),
  };
  const work = keys[event.key] || (onPage && moves[event.key]);
  if (!work || (event.key === " " && !tile)) return;
  event.preventDefault();
  work();
});

for (const [id, work] of Object.entries({
  undo, merge: mergeMarked, move: moveSelected, "reject-selected": rejectSelected, select: selectOpened,
  unmark: () => { marked.clear(); refresh(); focusCluster(current); },
  unselect: () => { selected.clear(); refresh(); focusCluster(current); },
  previous: () => stepOriginal(-1), next: () => stepOriginal(1),
  close: () => $("original").close(),
  "split-cancel": () => $("split").close(),
  "help-button": () => $("help").showModal(),
  save,
  empty: () => { keep([]); download([]); say("Saved an empty review as review.json. Apply it to go back to the clusters as they were found."); },
  copy: () => copy(review(allOperations())),
})) $(id).addEventListener("click", work);

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  say("Copied: paste it into a file review.json.");
}

$("original").addEventListener("close", () => {
  if ($("original").open) return; // the next one was opened meanwhile
  if (document.activeElement === openedFrom || document.activeElement === document.body) opened.focus();
  $("original-image").removeAttribute("src");
});
$("filter").addEventListener("input", filter);
$("flags").addEventListener("change", filter);
$("sort").addEventListener("change", sort);

draw();
sort();
refresh();
