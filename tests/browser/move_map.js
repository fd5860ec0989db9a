// Every frame sends what a hand would: the map is dragged to and fro, zoomed in, dragged, and zoomed out again.
seconds => new Promise(resolve => {
  const canvas = document.getElementById("images"), { width, height } = canvas.getBoundingClientRect(), parts = {};
  const send = (event, x, y) => canvas.dispatchEvent(Object.defineProperties(event, { offsetX: { value: x }, offsetY: { value: y } }));
  const point = (type, x, y) => send(new PointerEvent(type, { pointerId: 1, bubbles: true }), x, y);
  const wheel = turn => send(new WheelEvent("wheel", { deltaY: turn, cancelable: true }), width / 2, height / 2);
  canvas.setPointerCapture = () => {};
  const start = performance.now();
  let k = 0, held = false;
  const step = now => {
    const t = (performance.now() - start) / 1000 / seconds;
    const part = t < 0.3 ? "pan" : t < 0.5 ? "zoom in" : t < 0.8 ? "pan near" : "zoom out";
    (parts[part] ??= []).push(now);
    const dragged = part.startsWith("pan");
    const x = width / 2 + 200 * Math.sin(k / 15), y = height / 2 + 100 * Math.cos(k / 23);
    if (dragged && !held) point("pointerdown", x, y);
    if (!dragged && held) point("pointerup", x, y);
    held = dragged;
    if (dragged) point("pointermove", x, y);
    else wheel(part === "zoom in" ? -24 : 24);
    k++;
    if (t < 1) requestAnimationFrame(step);
    else {
      if (held) point("pointerup", x, y);
      const rate = times => times.length > 1 ? 1000 * (times.length - 1) / (times.at(-1) - times[0]) : 0;
      resolve(Object.fromEntries(Object.entries({ ...parts, all: Object.values(parts).flat() }).map(([name, times]) => [name, rate(times)])));
    }
  };
  requestAnimationFrame(step);
})
