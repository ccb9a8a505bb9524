// The viewer of attention masks, first part: numbers, their colours, and what the page is made of.
//
// The files of the viewer are one module, joined in the order numbers, drawing, viewer, sources (film.py): a notebook's
// widget and a file in a mail both take a single one. What is drawn is drawn from numbers that film.py describes, and
// words are set as text, never as markup.

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** A frame's header with the numbers that it points to. */
export class Frame {
  constructor(header, numbers, steps) {
    Object.assign(this, header);
    this.numbers = numbers;
    this.steps = steps;
    this.kept = new Map();
  }
  values(entry) {
    if (!this.kept.has(entry.at)) {
      const { at, n, lo, hi } = entry;
      this.kept.set(at, Float32Array.from(this.numbers.subarray(at, at + n), (q) => lo + (q * (hi - lo)) / this.steps));
    }
    return this.kept.get(entry.at);
  }
  /** What is shown of a module: {values, h, w, scale, words}, or null when it has nothing of the kind. */
  map(name, s, panels = this.panels) {
    const panel = panels[name];
    if (!panel) return null;
    const { h, w } = panel;
    if (s.channel !== null && name === s.module && panel.channels) {
      const place = panel.numbers.indexOf(s.channel);
      if (place < 0) return null;
      const values = this.values(panel.channels).subarray(place * h * w, (place + 1) * h * w);
      return { values, h, w, scale: panel.channels.scale, words: `channel ${s.channel} of ${panel.c}` };
    }
    const entry = panel.maps[s.reduction] ?? panel.maps[s.part] ?? Object.values(panel.maps)[0];
    return entry ? { values: this.values(entry), h, w, scale: entry.scale, words: "" } : null;
  }
}

/** One scale for two maps: the wider of both. */
export function joint(a, b) {
  if (!a || !b) return a ?? b;
  const [low, high] = [Math.min(a.low, b.low), Math.max(a.high, b.high)];
  const ends = { smallest: Math.min(a.smallest, b.smallest), largest: Math.max(a.largest, b.largest) };
  return { low, high, ...ends, centre: a.centre === b.centre ? a.centre : null };
}

/** B - A place by place, the smaller enlarged to the larger; null when there is nothing to subtract. */
export function difference(a, b) {
  if (!a || !b) return null;
  const [h, w] = [Math.max(a.h, b.h), Math.max(a.w, b.w)];
  const [old, now] = [enlarge(a, h, w), enlarge(b, h, w)];
  const values = now.map((value, i) => value - old[i]);
  const sizes = values.map(Math.abs).sort();
  const half = Math.max(sizes[Math.floor(0.98 * (sizes.length - 1))], 0.01);
  const [smallest, largest] = [values.reduce((x, y) => Math.min(x, y)), values.reduce((x, y) => Math.max(x, y))];
  return { values, h, w, scale: { low: -half, high: half, smallest, largest, centre: 0 }, words: "B − A" };
}

/** Bilinear, corners on corners, as the mask branch enlarges. */
export function enlarge({ values, h, w }, tall, wide) {
  if (h === tall && w === wide) return Float32Array.from(values);
  const out = new Float32Array(tall * wide);
  for (let y = 0; y < tall; y++) {
    const v = tall > 1 ? (y * (h - 1)) / (tall - 1) : 0, y0 = Math.floor(v), y1 = Math.min(y0 + 1, h - 1), fy = v - y0;
    for (let x = 0; x < wide; x++) {
      const u = wide > 1 ? (x * (w - 1)) / (wide - 1) : 0, x0 = Math.floor(u), x1 = Math.min(x0 + 1, w - 1), fx = u - x0;
      const above = values[y0 * w + x0] * (1 - fx) + values[y0 * w + x1] * fx;
      const below = values[y1 * w + x0] * (1 - fx) + values[y1 * w + x1] * fx;
      out[y * wide + x] = above * (1 - fy) + below * fy;
    }
  }
  return out;
}

/** A map as a canvas of its own size. `strength` below 1: to be laid over an image; neutral places let it through. */
function painted(map, scale, colours, strength = 1) {
  const canvas = Object.assign(document.createElement("canvas"), { width: map.w, height: map.h });
  const context = canvas.getContext("2d"), picture = context.createImageData(map.w, map.h);
  const table = scale.centre === null ? colours.one : colours.both, over = strength < 1;
  for (let i = 0; i < map.values.length; i++) {
    const t = Math.min(1, Math.max(0, (map.values[i] - scale.low) / (scale.high - scale.low || 1)));
    const k = 3 * Math.round(255 * t), told = scale.centre === null ? 1 : Math.abs(2 * t - 1);
    picture.data.set([table[k], table[k + 1], table[k + 2], over ? 255 * strength * told : 255], 4 * i);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

const digits = (value) => value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2).replace("-", "−");

function h(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const option = ([value, words], chosen) => h("option", { value, selected: value === chosen }, words);

const inside = ([x, y, side], { w, h: tall }) => [Math.round(Math.min(Math.max(0, x), w - side)), Math.round(Math.min(Math.max(0, y), tall - side)), Math.round(side)];

/** A canvas of so many CSS pixels, sharp on every screen. */
function sized(canvas, wide, tall, dense = window.devicePixelRatio || 1) {
  Object.assign(canvas, { width: Math.round(wide * dense), height: Math.round(tall * dense) });
  canvas.style.aspectRatio = `${wide} / ${tall}`;
  canvas.style.width = `${wide}px`;
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  return context;
}

function outline(context, [x, y, side], colour, width) {
  for (const [style, line] of [["#000", width + 1.5], [colour, width]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: line });
    context.strokeRect(x, y, side, side);
  }
}

function cross(context, { u, v }, map, side) {
  const [w, tall] = [side / map.w, side / map.h];
  Object.assign(context, { strokeStyle: "#000", lineWidth: 1.5 });
  context.strokeRect(Math.floor(u * map.w) * w, Math.floor(v * map.h) * tall, w, tall);
}
