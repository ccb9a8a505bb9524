// Second part: how a frame is drawn. `this` is the Viewer of the third part.

const CELL = 58;  // CSS pixels of a channel's thumbnail

class Drawing {
  draw() {
    if (!this.frame || !this.picture?.complete) return;
    this.measure();
    const panel = this.frame.panels[this.s.module];
    if (this.s.channel !== null && panel && !panel.numbers?.includes(this.s.channel)) this.s.channel = null;
    this.channel.max = panel ? panel.c - 1 : 0;  // before the value, which it bounds
    this.channel.value = this.s.channel ?? -1;
    this.channel.disabled = !panel?.numbers?.length || panel.c === 1;
    this.channelWords.textContent = this.s.channel ?? "all";
    this.reductionControl.disabled = this.s.part === "Grad-CAM";
    [...this.strip.children].forEach((button, i) => {
      const { set, n } = this.film.images[i];
      button.setAttribute("aria-selected", set === this.s.image.set && n === this.s.image.n);
    });
    this.drawTime();
    this.drawRow();
    this.drawStage();
    this.drawBars();
    this.drawGrid();
    this.drawReadout();
    const words = this.sentence();
    if (this.status.textContent !== words) this.status.textContent = words;
  }

  drawTime() {
    const { epochs } = this.film;
    if (!this.curve) return;
    const now = epochs[this.s.epoch];
    this.epochWords.textContent = now.name + (now.top1 == null ? "" : ` · Top-1 ${now.top1.toFixed(1)} %`);
    const [wide, tall] = [220, 34], context = sized(this.curve, wide, tall);
    const known = epochs.map((e, i) => [i, e.top1]).filter(([, y]) => y != null);
    if (known.length < 2) return;
    const place = ([i, y]) => [4 + (i * (wide - 8)) / (epochs.length - 1), tall - 4 - (y / 100) * (tall - 8)];
    context.strokeStyle = "#0072B2";
    context.beginPath();
    known.forEach((point) => context.lineTo(...place(point)));
    context.stroke();
    context.fillStyle = "#D55E00";
    const [x] = place([this.s.epoch, 0]);
    context.fillRect(x - 1, 0, 2, tall);
  }

  /** A and B of a module with the scale that both share. */
  pair(name) {
    const now = this.frame.map(name, this.s);
    const A = this.pinned, old = A ? A.frame.map(name === this.s.module ? A.s.module : name, A.s) : null;
    return { now, old, scale: joint(now?.scale, old?.scale) };
  }

  drawRow() {
    const tiles = this.film.modules.map(({ name }) => {
      const { now, old, scale } = this.pair(name), chosen = name === this.s.module;
      const tile = h("div", { className: "tile", tabIndex: 0, role: "button", "aria-pressed": chosen, "aria-label": `module ${name}`,
        title: "choose this module", onclick: () => this.chooseModule(name), onkeydown: (e) => (e.key === "Enter" || e.key === " ") && (e.preventDefault(), this.chooseModule(name)) });
      const panel = this.frame.panels[name];
      tile.append(h("div", { className: "title" }, name, panel ? ` · ${panel.h}×${panel.w}` : ""));
      const maps = this.pinned ? [["A", old, scale], ["B", now, scale], ["B − A", ...((d) => [d, d?.scale])(difference(old, now))]] : [["", now, scale]];
      for (const [words, map, span] of maps) tile.append(this.tileMap(name, words, map, span));
      const effect = this.frame.effects?.[name];
      if (effect !== undefined) tile.append(h("div", { className: "caption", title: "what becomes of the predicted class's probability when this mask is 0" }, `mask 0: ${effect >= 0 ? "+" : "−"}${Math.abs(100 * effect).toFixed(1)} points`));
      return tile;
    });
    this.row.replaceChildren(...tiles);
    this.row.classList.toggle("three", Boolean(this.pinned));
  }

  tileMap(name, words, map, scale) {
    const canvas = h("canvas", { className: "map", role: "img", "aria-label": `${words || "map"} of ${name}` });
    const context = sized(canvas, this.tile, this.tile);
    if (!map) {
      context.fillStyle = "#888";
      context.fillText("nothing of the kind here", 8, this.tile / 2);
      return h("div", {}, canvas);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(painted(map, scale, this.colours), 0, 0, this.tile, this.tile);
    canvas.addEventListener("pointermove", (e) => this.point(e.offsetX / canvas.clientWidth, e.offsetY / canvas.clientHeight, name));
    canvas.addEventListener("pointerleave", () => this.point(null));
    if (this.hover) cross(context, this.hover, map, this.tile);
    const bar = h("span", { className: scale.centre === null ? "bar one" : "bar both", style: `background:${this.gradient(scale)}` });
    const range = `of ${digits(map.scale.smallest)} … ${digits(map.scale.largest)}`;
    return h("div", {}, canvas, h("div", { className: "scale", title: "the colours' ends; what lies beyond has the colour of the end" }, digits(scale.low), bar, digits(scale.high)),
      h("div", { className: "caption", title: "all values there are" }, words ? `${words}, ${range}` : range));
  }

  gradient(scale) {
    const table = scale.centre === null ? this.colours.one : this.colours.both;
    const stops = [...Array(9).keys()].map((i) => { const k = 3 * Math.round((255 * i) / 8); return `rgb(${table[k]},${table[k + 1]},${table[k + 2]})`; });
    return `linear-gradient(90deg,${stops.join(",")})`;
  }

  chooseModule(module) {
    const same = module === this.s.module;
    this.s.module = module;
    this.s.channel = null;
    if (!same && (this.s.part === "Grad-CAM" || (this.s.replaced !== "none" && !this.s.everywhere))) this.ask();
    else this.draw();
    this.row.querySelector('[aria-pressed="true"]')?.focus({ preventScroll: true });
  }

  drawStage() {
    const { picture, frame, s } = this, photo = frame.picture.photo;
    const wide = this.side, tall = photo ? Math.round((wide * photo.h) / photo.w) : wide, ratio = wide / (photo ? photo.w : 1);
    const context = sized(this.stage, wide, tall, photo ? Math.max(1, Math.min(2, photo.w / wide)) : 2);
    context.imageSmoothingEnabled = Boolean(photo);
    context.drawImage(picture, 0, 0, wide, tall);
    this.boxes = photo ? photo.regions.map(([x, y, side]) => [x * ratio, y * ratio, side * ratio]) : [[0, 0, wide]];
    const active = photo?.active ?? 0;
    this.boxes.forEach((box, i) => {
      const map = frame.map(s.module, s, i === active || !frame.regions ? frame.panels : frame.regions[i].panels);
      if (map && s.overlay > 0) {
        const { scale } = i === active ? this.pair(s.module) : map;
        const smooth = { values: enlarge(map, 128, 128), h: 128, w: 128 };
        context.imageSmoothingEnabled = true;
        context.drawImage(painted(smooth, scale, this.colours, Math.min(s.overlay, 0.999)), box[0], box[1], box[2], box[2]);
      }
      if (photo) outline(context, box, i === active ? "#fff" : "#ddd", i === active ? 2.5 : 1.5);
    });
    if (this.hover) {
      const [left, top, side] = this.boxes[active], { u, v, module } = this.hover;
      const field = this.film.modules.find((m) => m.name === module)?.field, unit = side / this.film.size, map = frame.panels[module];
      if (map) {
        const [x, y] = [left + ((Math.floor(u * map.w) + 0.5) / map.w) * side, top + ((Math.floor(v * map.h) + 0.5) / map.h) * side];
        const reach = (field ?? 2 * this.film.size) * unit;
        const [x0, y0] = [Math.max(left, x - reach / 2), Math.max(top, y - reach / 2)];
        context.setLineDash([5, 4]);
        context.lineWidth = 1.5;
        context.strokeStyle = "#111";
        context.strokeRect(x0, y0, Math.min(left + side, x + reach / 2) - x0, Math.min(top + side, y + reach / 2) - y0);
        context.setLineDash([]);
        outline(context, [x - side / map.w / 2, y - side / map.h / 2, side / map.w], "#fff", 2);
      }
    }
    this.inset.hidden = !photo;
    if (photo) {
      const small = sized(this.inset, 88, 88), [x, y, side] = photo.regions[active];
      const eye = this.eye?.src === frame.picture.eye ? this.eye : (this.eye = Object.assign(new Image(), { src: frame.picture.eye, onload: () => this.draw() }));
      small.imageSmoothingEnabled = false;
      if (eye.complete && eye.naturalWidth) small.drawImage(eye, 0, 0, 88, 88);
      else small.drawImage(picture, x, y, side, side, 0, 0, 88, 88);
    }
    this.fillRegions(photo);
    this.stage.setAttribute("aria-label", `${frame.picture.name} with the map of ${s.module} over it; arrow keys move the point looked at`);
  }

  fillRegions(photo) {
    if (!photo || !this.film.live) return this.regions.replaceChildren();
    const again = (regions, active) => { this.s.regions = regions; this.s.active = active; this.ask(); };
    const { regions, active } = photo, [x, y, side] = regions[active], most = Math.min(photo.w, photo.h);
    const size = h("input", { type: "range", min: Math.min(24, most), max: most, value: side, "aria-label": "side of the region, pixels",
      onchange: () => { const to = +size.value; again(regions.map((r, i) => (i === active ? inside([x + (side - to) / 2, y + (side - to) / 2, to], photo) : r)), active); } });
    this.regions.replaceChildren(
      h("span", {}, "drag the square; "), h("label", {}, h("span", {}, "side"), size),
      h("button", { type: "button", title: "keep this region and look at another one as well; all go through the network as one batch",
        onclick: () => again([...regions, inside([x + side / 3, y + side / 3, side], photo)], regions.length) }, "Add a region"),
      ...(regions.length > 1 ? [h("button", { type: "button", onclick: () => again(regions.filter((_, i) => i !== active), 0) }, "Remove it")] : []));
  }

  drawBars() {
    const { frame, film } = this, old = this.pinned?.frame, shown = this.barOrder();
    const touched = this.s.replaced !== "none";
    this.bars.replaceChildren(
      h("div", { className: "caption" }, this.pinned ? "probability: B, and A as a stroke" : touched ? "probability; untouched as a stroke" : "probability"),
      ...shown.map((k) => {
        const now = 100 * frame.p[k], then = 100 * (old ? old.p[k] ?? 0 : touched ? frame.before[k] : frame.p[k]);
        const stroke = old || touched ? h("i", { style: `left:${then}%` }) : null, label = frame.picture.label;
        const change = old || touched ? ` (${now - then >= 0 ? "+" : "−"}${Math.abs(now - then).toFixed(0)})` : "";
        return h("div", { className: film.classes[k] === label ? "bar-row true" : "bar-row", title: film.classes[k] === label ? "the true class" : "" },
          h("span", { className: "name" }, film.classes[k]), h("span", { className: "track" }, h("b", { style: `width:${now}%` }), ...(stroke ? [stroke] : [])),
          h("span", { className: "value" }, `${now.toFixed(now < 10 ? 1 : 0)} %${change}`));
      }));
  }

  /** Bars keep their order as long as the image stays: that of the untouched network when the image was first seen. */
  barOrder() {
    const { frame, film } = this, key = JSON.stringify([this.s.image, frame.picture.photo?.regions, frame.picture.photo?.active]);
    if (this.orderOf !== key) {
      this.orderOf = key;
      this.order = frame.before.map((p, k) => [p, k]).sort((a, b) => b[0] - a[0]).map(([, k]) => k).slice(0, film.classes.length <= 12 ? 12 : 6);
    }
    const top = frame.p.indexOf(Math.max(...frame.p));
    return this.order.includes(top) ? this.order : [...this.order, top];
  }

  // -- channels ---------------------------------------------------------------------------------------------------

  shownNumbers() {
    const numbers = this.frame.panels[this.s.module]?.numbers ?? [];
    return this.all ? numbers : numbers.slice(0, 40);
  }

  drawGrid() {
    const panel = this.frame.panels[this.s.module], numbers = this.shownNumbers();
    this.grid.hidden = !numbers.length || panel.c === 1;
    this.more.hidden = this.grid.hidden || panel.numbers.length <= 40;
    this.gridTitle.textContent = this.grid.hidden ? "" : `${this.s.module}: ${numbers.length} of ${panel.c} channels, those that vary most over places first; click one`;
    if (this.grid.hidden) return;
    this.more.textContent = this.all ? "fewer" : `all ${panel.numbers.length}`;
    const room = this.grid.parentElement.clientWidth || 720;
    this.gridColumns = Math.max(4, Math.floor(room / (CELL + 6)));
    const rows = Math.ceil(numbers.length / this.gridColumns), context = sized(this.grid, this.gridColumns * (CELL + 6), rows * (CELL + 18));
    context.font = "11px sans-serif";
    context.imageSmoothingEnabled = false;
    const values = this.frame.values(panel.channels), size = panel.h * panel.w;
    numbers.forEach((number, i) => {
      const place = panel.numbers.indexOf(number), map = { values: values.subarray(place * size, (place + 1) * size), h: panel.h, w: panel.w };
      const [x, y] = [(i % this.gridColumns) * (CELL + 6) + 2, Math.floor(i / this.gridColumns) * (CELL + 18) + 2];
      context.drawImage(painted(map, panel.channels.scale, this.colours), x, y, CELL, CELL);
      if (number === this.s.channel) outline(context, [x, y, CELL], "#E69F00", 3);
      context.fillStyle = getComputedStyle(this.root).color;
      context.fillText(number, x, y + CELL + 12);
    });
    this.grid.setAttribute("aria-label", `channels of ${this.s.module}; arrow keys choose one`);
  }

  chooseChannel(event) {
    const scale = this.grid.clientWidth / (this.gridColumns * (CELL + 6));
    const i = Math.floor(event.offsetX / scale / (CELL + 6)) + this.gridColumns * Math.floor(event.offsetY / scale / (CELL + 18));
    this.pickChannel(this.shownNumbers()[i]);
  }

  pickChannel(number) {
    if (number !== undefined) this.set({ channel: this.s.channel === number ? null : number });
  }

  // -- the point looked at ----------------------------------------------------------------------------------------

  watchStage() {
    const place = (event) => {
      const scale = this.side / this.stage.clientWidth, [x, y] = [event.offsetX * scale, event.offsetY * scale];
      const hit = ([left, top, side]) => x >= left && x < left + side && y >= top && y < top + side;
      const active = this.frame?.picture.photo?.active ?? 0;
      const boxes = this.boxes ?? [];
      return [x, y, boxes[active] && hit(boxes[active]) ? active : boxes.findIndex(hit)];
    };
    this.stage.addEventListener("pointerdown", (event) => {
      const photo = this.frame?.picture.photo, [x, y, at] = place(event);
      if (!photo || !this.film.live || at < 0) return;
      this.drag = { x, y, at, from: photo.regions[at], unit: photo.w / this.side };
      this.stage.setPointerCapture(event.pointerId);
    });
    this.stage.addEventListener("pointermove", (event) => {
      const [x, y, at] = place(event), photo = this.frame?.picture.photo;
      if (this.drag) {
        const { from, unit } = this.drag;
        photo.regions[this.drag.at] = inside([from[0] + (x - this.drag.x) * unit, from[1] + (y - this.drag.y) * unit, from[2]], photo);
        return this.drawStage();
      }
      const box = this.boxes?.[photo?.active ?? 0];
      if (!box || at !== (photo?.active ?? 0)) return this.point(null);
      this.point((x - box[0]) / box[2], (y - box[1]) / box[2], this.s.module);
    });
    this.stage.addEventListener("pointerup", () => {
      if (!this.drag) return;
      this.s.regions = this.frame.picture.photo.regions;
      this.s.active = this.drag.at;
      this.drag = null;
      this.ask();
    });
    this.stage.addEventListener("pointerleave", () => this.drag || this.point(null));
  }

  point(u, v, module, spoken = false) {
    this.hover = u === null ? null : { u, v, module };
    this.readout.setAttribute("aria-live", spoken ? "polite" : "off");
    cancelAnimationFrame(this.later);
    this.later = requestAnimationFrame(() => { this.drawStage(); this.drawReadout(); this.drawCrosses(); });
  }

  drawCrosses() {
    this.row.querySelectorAll(".tile").forEach((tile, i) => {
      const { name } = this.film.modules[i], { now, scale } = this.pair(name), canvases = tile.querySelectorAll("canvas");
      const canvas = canvases[this.pinned ? 1 : 0];
      if (!now || !canvas) return;
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(painted(now, scale, this.colours), 0, 0, this.tile, this.tile);
      if (this.hover) cross(context, this.hover, now, this.tile);
    });
  }

  drawReadout() {
    if (!this.hover) return this.readout.replaceChildren(h("span", { className: "caption" }, "Point anywhere: the value there in every module, all its channels, and what it can see of the image (dashed)."));
    const { u, v, module } = this.hover, at = (map) => map.values[Math.floor(v * map.h) * map.w + Math.floor(u * map.w)];
    const size = this.film.size, rows = this.film.modules.map(({ name }) => {
      const { now, old } = this.pair(name);
      return now ? h("span", { className: name === module ? "told chosen" : "told" }, `${name} `, h("b", {}, digits(at(now))), old ? ` (A ${digits(at(old))})` : "") : null;
    });
    const field = this.film.modules.find((m) => m.name === module)?.field;
    const sees = field == null ? "" : field >= 2 * size ? " · sees the whole image" : ` · sees ${field}×${field} of ${size}×${size} pixels`;
    const canvas = h("canvas", { className: "vector", role: "img", "aria-label": `all channels of ${module} at this place` });
    this.readout.replaceChildren(h("div", {}, `x ${Math.floor(u * size)}, y ${Math.floor(v * size)}${sees}: `, ...rows.filter(Boolean)), canvas);
    this.drawVector(canvas, module, u, v);
  }

  /** The values of all channels at the point, in the channels' order, from the centre of their scale. */
  drawVector(canvas, module, u, v) {
    const panel = this.frame.panels[module], wide = Math.max(300, (this.readout.clientWidth || 600) - 8), tall = 46;
    if (!panel?.channels) return;
    const context = sized(canvas, wide, tall), values = this.frame.values(panel.channels), { scale } = panel.channels;
    const [low, high] = [Math.min(scale.smallest, scale.centre ?? 0), scale.largest], y = (value) => 2 + (tall - 4) * (1 - (value - low) / (high - low || 1));
    const base = y(scale.centre ?? Math.max(low, 0)), cell = Math.floor(v * panel.h) * panel.w + Math.floor(u * panel.w), step = wide / panel.c;
    panel.numbers.forEach((number, place) => {
      const value = values[place * panel.h * panel.w + cell], end = y(value);
      context.fillStyle = number === this.s.channel ? "#E69F00" : value >= (scale.centre ?? 0) ? "#B2182B" : "#2166AC";
      context.fillRect(number * step, Math.min(end, base), Math.max(1, step - 0.5), Math.max(1, Math.abs(end - base)));
    });
  }
}
