// The map itself: a canvas of dots, whose pixels are written one by one, below a canvas of thumbnails and names.

const map = document.getElementById("map");
const dots = document.getElementById("dots"), images = document.getElementById("images");
const dotPen = dots.getContext("2d", { alpha: false, willReadFrequently: true }), pen = images.getContext("2d");
const view = { x: 0, y: 0, scale: 1, fit: 1, width: 1, height: 1 }; // center, pixels per unit
const shown = { selected: new Uint8Array(n), matches: null, hidden: new Set(), lit: null }; // lit: a cluster of the legend
const SMALLEST = 32, LARGEST = 120, GAP = 3; // pixels: of thumbnails, between them
const HALF = REACH[ORDER[Math.floor((n - 1) / 2)]] || 1; // where this is t pixels long, half of all fit with side t
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let pixels, image, stamps = new Map(), labels = [], queued = false, moving = 0;
let drawn = []; // images whose thumbnail is on the map now
const WHOLE = { thumbnails: 1500, dots: 1 }; // how many thumbnails at most, and the share of the dots
const speed = { ...WHOLE, last: 0, mean: 16, drawing: 0, slow: "" };

function resize() {
  const ratio = Math.min(devicePixelRatio || 1, 2), { width, height } = map.getBoundingClientRect();
  Object.assign(view, { width: Math.max(width, 1), height: Math.max(height, 1), ratio });
  for (const canvas of [dots, images]) {
    canvas.width = Math.round(view.width * ratio);
    canvas.height = Math.round(view.height * ratio);
  }
  image = dotPen.createImageData(dots.width, dots.height);
  pixels = new Uint32Array(image.data.buffer);
  stamps.clear();
  const before = view.fit, [low, high] = [extent(Math.min), extent(Math.max)];
  view.fit = 0.92 * Math.min(view.width / Math.max(high[0] - low[0], 0.1), view.height / Math.max(high[1] - low[1], 0.1));
  view.scale *= view.fit / before;
  view.center = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
  redraw();
}
const extent = pick => [X, Y].map(axis => n ? axis.reduce((a, b) => pick(a, b)) : 0);

function redraw() {
  if (!queued) requestAnimationFrame(frame);
  queued = true;
}

function frame(now) {
  queued = false;
  const busy = moving && now - moving < 160;
  speed.start = performance.now();
  if (busy && now - speed.last < 250) adapt(now - speed.last);
  speed.last = now;
  draw(busy ? speed : WHOLE);
  speed.drawing = 0.8 * speed.drawing + 0.2 * (performance.now() - speed.start);
  if (busy) setTimeout(() => performance.now() - moving >= 160 && redraw(), 170);
  else if (speed.slow === "unsaid") {
    speed.slow = "said";
    note("Drawing is slow here, below 30 frames a second (no graphics card, or a busy machine): while it moves, the map shows fewer images.", 9);
  }
}

function adapt(gap) { // on a slow machine a map that moves shows fewer thumbnails, then fewer dots; one that stands, all
  speed.mean = 0.7 * speed.mean + 0.3 * gap;
  if (speed.mean > 33) speed.slow ||= "unsaid";
  if (speed.mean > 22 && drawn.length) speed.thumbnails = Math.floor(0.6 * Math.min(speed.thumbnails, drawn.length));
  else if (speed.mean > 22 && speed.drawing > 4) speed.dots = Math.max(0.12, 0.7 * speed.dots);
  else if (speed.mean < 18 && speed.dots < 1) speed.dots = Math.min(1, 1.03 * speed.dots);
  else if (speed.mean < 18) speed.thumbnails = Math.min(WHOLE.thumbnails, speed.thumbnails + 8);
}

// ------------------------------------------------------------------------------------------------------------- drawing

const thumbnailSide = () => Math.min(LARGEST, Math.max(SMALLEST, 1.6 * HALF * view.scale - GAP));
const showsThumbnails = () => HALF * view.scale >= 9;
const isHidden = i => shown.hidden.has(cluster[i]);
const isFaint = i => (shown.matches && !shown.matches[i]) || (shown.lit !== null && cluster[i] !== shown.lit);
const screenX = i => (X[i] - view.x) * view.scale + view.width / 2;
const screenY = i => (Y[i] - view.y) * view.scale + view.height / 2;

function draw({ thumbnails, dots: share }) {
  const { width, height, ratio } = view;
  drawn = [];
  const isDrawn = new Uint8Array(n);
  if (showsThumbnails()) {
    const apart = (thumbnailSide() + GAP) / view.scale, edge = LARGEST;
    for (const i of ORDER) {
      if (REACH[i] < apart || drawn.length >= thumbnails) break;
      const x = screenX(i), y = screenY(i);
      if (x < -edge || y < -edge || x > width + edge || y > height + edge) continue;
      if (isHidden(i) || !sheets[Math.floor(i / perSheet)]) continue;
      drawn.push(i);
      isDrawn[i] = 1;
    }
  }
  drawDots(isDrawn, Math.ceil(share * n));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  drawThumbnails();
  if (!drawn.length || thumbnailSide() < 46) drawLabels(); // further in, the images say it
  if (lasso.points) drawLasso();
}

function drawDots(skip, most) { // the first of ORDER, which lie everywhere on the map
  const ratio = view.ratio, plain = !shown.matches && shown.lit === null, faint = rgba(cssColors.faint);
  const radius = ratio * Math.min(5.5, Math.max(n > 5000 ? 1.9 : 2.6, 2.1 * Math.sqrt(view.scale / view.fit)));
  const masks = inside.map((_, symbol) => mask(symbol, radius)), halo = [mask(0, radius + 3.2 * ratio), mask(0, radius + 1.7 * ratio)];
  const looks = new Map([...style].map(([c, { color, symbol }]) => [c, { color: rgba(color), mask: masks[symbol], hidden: shown.hidden.has(c) }]));
  const rings = [rgba(cssColors.ink), rgba(cssColors.back)];
  const zoom = view.scale * ratio, left = dots.width / 2 - view.x * zoom, top = dots.height / 2 - view.y * zoom;
  pixels.fill(rings[1]);
  for (let state = plain ? 1 : 0; state <= (selection.size ? 2 : 1); state++) { // faint ones first, selected ones last
    for (let k = 0; k < most; k++) {
      const i = ORDER[k];
      if (skip[i] || (shown.selected[i] ? 2 : plain || !isFaint(i) ? 1 : 0) !== state) continue;
      const x = X[i] * zoom + left, y = Y[i] * zoom + top;
      if (x < -20 || y < -20 || x > dots.width + 20 || y > dots.height + 20) continue;
      const look = looks.get(cluster[i]);
      if (look.hidden) continue;
      if (state === 2) halo.forEach((ring, r) => stamp(x, y, ring, rings[r]));
      stamp(x, y, look.mask, state ? look.color : faint);
    }
  }
  dotPen.putImageData(image, 0, 0);
}

const numbers = new Map(); // of colors
function rgba(hex) {
  if (!numbers.has(hex)) {
    const full = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex, value = parseInt(full.slice(1), 16);
    numbers.set(hex, 0xff000000 | (value & 255) << 16 | value & 0xff00 | value >> 16); // as the bytes lie in memory
  }
  return numbers.get(hex);
}

function mask(symbol, radius) {
  const key = symbol * 1000 + Math.round(radius * 8);
  if (!stamps.has(key)) stamps.set(key, coverage(inside[symbol], Math.round(radius * 8) / 8));
  return stamps.get(key);
}

function stamp(x, y, { size, part }, color) { // write a symbol into the pixels, smooth at its edge
  const width = dots.width, left = Math.round(x - size / 2), top = Math.round(y - size / 2);
  const r = color & 255, g = color >> 8 & 255, b = color >> 16 & 255;
  const from = Math.max(0, -left), to = Math.min(size, width - left), end = Math.min(size, dots.height - top);
  for (let v = Math.max(0, -top); v < end; v++) {
    const at = (top + v) * width + left;
    for (let u = from; u < to; u++) {
      const a = part[v * size + u];
      if (a === 255) pixels[at + u] = color;
      else if (a) {
        const old = pixels[at + u], c = 255 - a;
        pixels[at + u] = 0xff000000 | ((old >> 16 & 255) * c + b * a) / 255 << 16 | ((old >> 8 & 255) * c + g * a) / 255 << 8 | ((old & 255) * c + r * a) / 255;
      }
    }
  }
}

function coverage(isInside, radius) { // of each pixel, 0 to 255, from 4 × 4 points in it
  const size = 2 * Math.ceil(radius * 1.1 + 0.5), part = new Uint8Array(size * size);
  for (let v = 0; v < size; v++) for (let u = 0; u < size; u++) {
    let hits = 0;
    for (let k = 0; k < 16; k++) hits += isInside((u + (k % 4 + 0.5) / 4 - size / 2) / radius, (v + (Math.floor(k / 4) + 0.5) / 4 - size / 2) / radius);
    part[v * size + u] = Math.round(hits * 255 / 16);
  }
  return { size, part };
}

function drawThumbnails() {
  const side = thumbnailSide(), scale = side / data.side, border = side < 50 ? 1.5 : 2;
  for (let k = drawn.length - 1; k >= 0; k--) {
    const i = drawn[k], { x, y, w, h } = box(i), W = w * scale, H = h * scale;
    const left = Math.round(screenX(i) - W / 2), top = Math.round(screenY(i) - H / 2), isSelected = shown.selected[i];
    const faint = isFaint(i), line = isSelected ? border + 2.5 : border;
    if (faint) pen.globalAlpha = 0.16;
    pen.fillStyle = isSelected ? cssColors.ink : styleOf(cluster[i]).color;
    pen.fillRect(left - line, top - line, W + 2 * line, H + 2 * line);
    pen.drawImage(sheets[Math.floor(i / perSheet)].bitmap, x + 0.5, y + 0.5, w - 1, h - 1, left, top, W, H);
    if (faint) pen.globalAlpha = 1;
  }
}

function makeLabels() { // the names of the clusters, each drawn once and then copied
  const members = new Map();
  for (let i = 0; i < n; i++) if (cluster[i] !== REJECTED) (members.get(cluster[i]) ?? members.set(cluster[i], []).get(cluster[i])).push(i);
  const middle = (ids, axis) => Float32Array.from(ids, i => axis[i]).sort()[ids.length >> 1];
  labels = [...members].sort((a, b) => b[1].length - a[1].length).map(([c, ids]) => {
    const mx = middle(ids, X), my = middle(ids, Y); // at the member closest to the median
    const at = ids.reduce((best, i) => (X[i] - mx) ** 2 + (Y[i] - my) ** 2 < (X[best] - mx) ** 2 + (Y[best] - my) ** 2 ? i : best, ids[0]);
    const canvas = document.createElement("canvas"), brush = canvas.getContext("2d"), font = "600 13px system-ui, sans-serif";
    const text = title(c).length > 28 ? `${title(c).slice(0, 27)}…` : title(c);
    brush.font = font;
    const width = Math.ceil(brush.measureText(text).width) + 10, height = 22, ratio = view.ratio;
    canvas.width = width * ratio; canvas.height = height * ratio;
    brush.scale(ratio, ratio);
    Object.assign(brush, { font, lineJoin: "round", lineWidth: 4, strokeStyle: cssColors.back, fillStyle: cssColors.ink, textBaseline: "middle" });
    brush.strokeText(text, 5, height / 2); brush.fillText(text, 5, height / 2);
    return { c, at, canvas, width, height };
  });
}

function drawLabels() { // larger clusters first; a name that would lie on another is left out
  const taken = [];
  for (const { c, at, canvas, width, height } of labels) {
    if (shown.hidden.has(c) || (shown.lit !== null && shown.lit !== c)) continue;
    const left = Math.round(screenX(at) - width / 2), top = Math.round(screenY(at) - height / 2);
    if (left > view.width || top > view.height || left + width < 0 || top + height < 0) continue;
    if (taken.some(o => left < o.left + o.width && o.left < left + width && top < o.top + height && o.top < top + height)) continue;
    taken.push({ left, top, width });
    pen.drawImage(canvas, left, top, width, height);
  }
}

function drawLasso() {
  pen.beginPath();
  lasso.points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.closePath();
  Object.assign(pen, { strokeStyle: cssColors.accent, lineWidth: 1.5, fillStyle: `${cssColors.accent}22` });
  pen.fill(); pen.stroke();
}

// -------------------------------------------------------------------------------------------------------------- moving

const clamp = scale => Math.min(Math.max(scale, view.fit * 0.6), Math.max(view.fit * 8, 1.3 * LARGEST / Math.max(REACH[ORDER[Math.floor(n * 0.97)]] || 0, 2e-4)));

function zoom(factor, x = view.width / 2, y = view.height / 2) { // what is at (x, y) stays there
  const scale = clamp(view.scale * factor), [wx, wy] = world(x, y);
  moveTo(wx - (x - view.width / 2) / scale, wy - (y - view.height / 2) / scale, scale);
}
const world = (x, y) => [view.x + (x - view.width / 2) / view.scale, view.y + (y - view.height / 2) / view.scale];

function moveTo(x, y, scale) {
  Object.assign(view, { x: Math.min(1.2, Math.max(-1.2, x)), y: Math.min(1.2, Math.max(-1.2, y)), scale });
  moving = performance.now();
  redraw();
}

let glide = 0;
function glideTo(x, y, scale) {
  const from = { ...view }, start = performance.now(), mine = ++glide;
  const step = now => {
    if (mine !== glide) return;
    const t = calm.matches ? 1 : Math.min(1, Math.max(0, now - start) / 220), e = 1 - (1 - t) ** 3;
    moveTo(from.x + (x - from.x) * e, from.y + (y - from.y) * e, from.scale * (scale / from.scale) ** e);
    if (t < 1) requestAnimationFrame(step);
  };
  step(start);
}
const fitAll = () => glideTo(...view.center, view.fit);
const zoomBy = factor => glideTo(view.x, view.y, clamp(view.scale * factor));

function fitImages(ids) {
  if (!ids.length) return;
  const range = axis => ids.reduce(([a, b], i) => [Math.min(a, axis[i]), Math.max(b, axis[i])], [Infinity, -Infinity]);
  const [[left, right], [top, bottom]] = [range(X), range(Y)];
  const scale = 0.8 * Math.min(view.width / Math.max(right - left, 1e-4), view.height / Math.max(bottom - top, 1e-4));
  glideTo((left + right) / 2, (top + bottom) / 2, Math.min(clamp(scale), view.fit * 12));
}

// ------------------------------------------------------------------------------------------------------------- pointer

const pointers = new Map(), lasso = { on: false, points: null, add: false };
let press = null;

function at(x, y) { // the image under a point, or -1
  const side = thumbnailSide() / 2;
  for (const i of drawn) if (Math.abs(screenX(i) - x) <= side && Math.abs(screenY(i) - y) <= side) return i;
  let best = -1, closest = 9 ** 2;
  for (let i = 0; i < n; i++) {
    const d = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
    if (d < closest && !isHidden(i)) [best, closest] = [i, d];
  }
  return best;
}

function within(points) { // the images inside a lasso
  const found = [];
  for (let i = 0; i < n; i++) {
    if (isHidden(i) || (shown.matches && !shown.matches[i])) continue;
    const x = screenX(i), y = screenY(i);
    let odd = false;
    for (let k = 0, j = points.length - 1; k < points.length; j = k++) {
      const [ax, ay] = points[k], [bx, by] = points[j];
      if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
    }
    if (odd) found.push(i);
  }
  return found;
}

images.addEventListener("pointerdown", event => {
  if (event.button > 0) return;
  glide++;
  images.setPointerCapture?.(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  press = pointers.size === 1 ? { x: event.offsetX, y: event.offsetY, moved: false } : null;
  lasso.points = pointers.size === 1 && (event.shiftKey || lasso.on) ? [[event.offsetX, event.offsetY]] : null;
  lasso.add = event.ctrlKey || event.metaKey;
});

images.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
  if (!before) return hover(...now);
  if (press && Math.hypot(now[0] - press.x, now[1] - press.y) > 4) press.moved = true;
  if (press && !press.moved) return;
  hideCard();
  if (pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    const gap = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    moveTo(view.x - (now[0] - before[0]) / 2 / view.scale, view.y - (now[1] - before[1]) / 2 / view.scale, view.scale);
    zoom(gap(now) / Math.max(gap(before), 1), ...middle);
  } else if (lasso.points) {
    lasso.points.push(now);
    redraw();
  } else {
    images.classList.add("moving");
    moveTo(view.x - (now[0] - before[0]) / view.scale, view.y - (now[1] - before[1]) / view.scale, view.scale);
  }
  pointers.set(event.pointerId, now);
});

for (const kind of ["pointerup", "pointercancel"]) images.addEventListener(kind, event => {
  if (!pointers.delete(event.pointerId)) return;
  images.classList.remove("moving");
  if (lasso.points && press?.moved && kind === "pointerup") select(within(lasso.points), lasso.add);
  else if (press && !press.moved && kind === "pointerup") {
    const i = at(event.offsetX, event.offsetY), add = event.ctrlKey || event.metaKey || event.shiftKey;
    if (i >= 0) add ? toggle(i) : select([i]);
    else if (!add) select([]);
  }
  lasso.points = press = null;
  redraw();
});

images.addEventListener("wheel", event => {
  event.preventDefault();
  glide++;
  hideCard();
  const pixelsTurned = event.deltaY * [1, 16, 400][event.deltaMode];
  zoom(Math.exp(-Math.max(-240, Math.min(240, pixelsTurned)) * (event.ctrlKey ? 0.01 : 0.0022)), event.offsetX, event.offsetY);
}, { passive: false });

images.addEventListener("keydown", event => {
  const step = 90 / view.scale, to = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (to) glideTo(view.x + to[0] * step, view.y + to[1] * step, view.scale);
  else if (event.key === "+" || event.key === "=") zoomBy(1.5);
  else if (event.key === "-") zoomBy(1 / 1.5);
  else if (event.key === "0") fitAll();
  else return;
  event.preventDefault();
});
