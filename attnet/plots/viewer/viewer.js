// Third part: the controls, and what they do. An image, every module's map beside it, channels, values under the pointer,
// two states held against each other. The explorer (fed by a kernel) and the theatre (one file) both show it.

export class Viewer extends Drawing {
  /** `source.film` says what there is; `source.ask(selection)` answers through `show(frame)`. */
  constructor(root, source) {
    super();
    Object.assign(this, { root, source, film: source.film, frame: null, pinned: null, hover: null, busy: 0 });
    this.colours = { both: bytesOf(this.film.colours.both), one: bytesOf(this.film.colours.one) };
    this.s = { channel: null, overlay: 0.8, effects: false, ...this.film.start };
    this.build();
    this.ask();
  }

  /** Something changed that needs another frame. */
  ask() {
    this.begun = performance.now();
    this.root.classList.add("waiting");
    this.source.ask({ ...this.s });
  }

  /** Something changed that the frame at hand already holds. */
  set(change) {
    Object.assign(this.s, change);
    this.draw();
  }

  show(frame) {
    this.frame = frame;
    this.root.classList.remove("waiting");
    this.picture = new Image();
    this.picture.onload = () => {
      this.draw();
      Object.assign(this.root.dataset, { answers: ++this.busy, ms: Math.round(performance.now() - this.begun) });
    };
    this.picture.src = frame.picture.src;
    this.say("");
  }

  say(text, alarm = false, code = "") {
    this.note.replaceChildren(text, ...(code ? [h("pre", {}, code)] : []));
    this.note.className = alarm ? "note alarm" : "note";
    this.note.setAttribute("role", alarm ? "alert" : "status");
    this.root.classList.remove("waiting");
  }

  /** The picture in words, as a screen reader says it. */
  sentence() {
    const { frame, s, film } = this, { p, before, picture } = frame, top = (q) => q.indexOf(Math.max(...q));
    const says = (q) => `${film.classes[top(q)]}, ${(100 * Math.max(...q)).toFixed(1)} per cent`;
    const words = [`${picture.name}: the network says ${says(p)}` + (s.replaced === "none" ? "" : ` (untouched: ${says(before)})`)];
    if (picture.label) words.push(`it is labelled ${picture.label}`);
    const map = frame.map(s.module, s);
    if (map) {
      const { smallest, largest } = map.scale, at = map.values.indexOf(Math.max(...map.values)), third = (x, n) => Math.min(2, Math.floor((3 * x) / n));
      const where = `${["top", "middle", "bottom"][third(Math.floor(at / map.w), map.h)]} ${["left", "centre", "right"][third(at % map.w, map.w)]}`;
      const how = map.words || film.reductions.find(([name]) => name === s.reduction)?.[1];
      words.push(`${s.module}, ${how}: from ${digits(smallest)} to ${digits(largest)}` + (largest > smallest ? `, highest at the ${where}` : ", the same everywhere"));
    }
    return `${words.join("; ")}.`;
  }

  // -- controls ---------------------------------------------------------------------------------------------------

  build() {
    const { film, s } = this;
    const labelled = (words, control, tip) => {
      control.ariaLabel ??= words;  // the text of a label around a menu would hold all its choices
      return h("label", { title: tip }, h("span", {}, words), control);
    };
    const choice = (name, options, tip, change) => {
      const control = h("select", { onchange: () => change(control.value) }, ...options.map((o) => option(o, s[name])));
      this[`${name}Control`] = control;
      return control;
    };
    this.strip = h("div", { className: "strip", role: "listbox", "aria-label": "images" });
    this.fillStrip();
    const controls = [];
    if (film.live && film.total) {
      this.number = h("input", { type: "number", min: 0, max: film.total - 1, value: s.image.set === "test" ? s.image.n : 0,
        onchange: () => this.look({ set: "test", n: Math.min(film.total - 1, Math.max(0, Math.round(+this.number.value) || 0)) }) });
      controls.push(labelled("test image", this.number, `which test image, 0 to ${film.total - 1}`));
    }
    if (film.live) {
      const file = h("input", { type: "file", accept: "image/*", onchange: () => this.upload(file) });
      controls.push(labelled("your picture", file, "look at a picture of your own: any format, any size"));
    }
    if (film.networks?.length > 1)
      controls.push(labelled("weights", choice("network", film.networks.map((name, i) => [i, name]), "which of the weights given",
        (value) => { this.s.network = +value; this.ask(); }), "which of the weights given"));
    const tipPart = "what to show of every module";
    if (film.parts.length > 1)
      controls.push(labelled("show", choice("part", film.parts, tipPart, (part) => { this.s.part = part; this.s.channel = null; this.ask(); }), tipPart));
    const tip = "how many channels become one map; a click on a channel below shows that one alone";
    controls.push(labelled("channels", choice("reduction", film.reductions, tip, (reduction) => this.reduce(reduction)), tip));
    this.channelWords = h("output", {}, "all");
    this.channel = h("input", { type: "range", min: -1, max: 0, step: 1, value: -1,
      oninput: () => this.set({ channel: +this.channel.value < 0 ? null : this.nearest(+this.channel.value) }) });
    controls.push(labelled("channel", this.channel, "one channel of the chosen module alone; at the left end all, reduced to one map"), this.channelWords);
    if (film.replaced.length > 1) {
      const what = "replace the chosen module's mask and see what becomes of the prediction";
      controls.push(labelled("its mask is", choice("replaced", film.replaced, what, (replaced) => { this.s.replaced = replaced; this.ask(); }), what));
      if (film.live) {
        const every = h("input", { type: "checkbox", checked: s.everywhere, onchange: () => { this.s.everywhere = every.checked; this.ask(); } });
        controls.push(labelled("in every module", every, "replace the masks of all modules at once"));
      }
    }
    this.overlay = h("input", { type: "range", min: 0, max: 100, step: 5, value: 100 * s.overlay, "aria-label": "overlay, per cent",
      oninput: () => this.set({ overlay: this.overlay.value / 100 }) });
    controls.push(labelled("overlay", this.overlay, "how strongly the map lies over the image"));
    this.pin = h("button", { type: "button", title: "hold what is shown now as A; whatever you choose next is B, and B − A stands below",
      onclick: () => this.pinIt() }, "Pin as A");
    controls.push(this.pin);
    if (film.live) {
      const effects = h("input", { type: "checkbox", checked: s.effects, onchange: () => { this.s.effects = effects.checked; this.ask(); } });
      controls.push(labelled("effects", effects, "what becomes of the prediction when each module's mask is 0: a pass a module"));
      controls.push(h("button", { type: "button", title: "write this view as PNG, and the code that draws it",
        onclick: () => this.source.tell({ kind: "save", ...this.s }) }, "Save view"));
      controls.push(h("button", { type: "button", title: "write one HTML file with these images and their masks, to send or to keep",
        onclick: () => { this.say("writing the HTML file …"); this.source.tell({ kind: "html", ...this.s }); } }, "Save as HTML"));
    }
    this.time = h("div", { className: "time" });
    this.fillTime();
    this.stage = h("canvas", { className: "stage", tabIndex: 0, role: "img" });
    this.inset = h("canvas", { className: "inset", role: "img", "aria-label": "what the network sees", title: "what the network sees" });
    this.regions = h("div", { className: "regions" });
    this.bars = h("div", { className: "bars", role: "group", "aria-label": "probabilities" });
    this.row = h("div", { className: "row" });
    this.grid = h("canvas", { className: "grid", role: "img", tabIndex: 0, onclick: (event) => this.chooseChannel(event) });
    this.gridTitle = h("div", { className: "title" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => { this.all = !this.all; this.draw(); } });
    this.readout = h("div", { className: "readout" });
    this.status = h("p", { className: "status", role: "status", "aria-live": "polite" });
    this.note = h("div", { className: "note", role: "status" });
    this.watchStage();
    this.root.classList.add("attnet-viewer");
    this.root.dataset.lmSuppressShortcuts = "true";  // JupyterLab's keys are not meant for what has the focus here
    this.root.replaceChildren(
      h("div", { className: "head" }, h("b", {}, film.title), this.strip),
      h("div", { className: "controls" }, ...controls), this.time,
      h("div", { className: "body" },
        h("div", { className: "left" }, h("div", { className: "frame" }, this.stage), h("div", { className: "below" }, this.inset, this.regions), this.bars),
        h("div", { className: "right" }, this.row, this.readout, h("div", { className: "under" }, this.gridTitle, this.more), this.grid)),
      this.status, this.note);
    this.root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.root.clientWidth !== this.wide && this.draw()).observe(this.root);
  }

  /** Sides of the image and of a map, by the room there is. */
  measure() {
    this.wide = this.root.clientWidth;
    this.side = Math.max(240, Math.floor(this.stage.parentElement.clientWidth || 420));
    const room = (this.row.clientWidth || 700) / Math.min(this.film.modules.length, 6) - 24;
    this.tile = Math.round(Math.min(this.pinned ? 190 : 250, Math.max(110, room)));
  }

  fillStrip() {
    this.strip.replaceChildren(...this.film.images.map((image) => h("button", {
      type: "button", role: "option", title: image.label ? `${image.name}: ${image.label}` : image.name, "aria-label": `${image.name} ${image.label ?? ""}`,
      onclick: () => this.look({ set: image.set, n: image.n }) }, h("img", { src: image.src, alt: "" }))));
  }

  fillTime() {
    const { epochs } = this.film;
    if (!epochs || epochs.length < 2) return;
    const slider = h("input", { type: "range", min: 0, max: epochs.length - 1, value: this.s.epoch, "aria-label": "epoch",
      oninput: () => { this.s.epoch = +slider.value; this.ask(); } });
    const play = h("button", { type: "button", title: "play the training", onclick: () => this.play(slider, play) }, "▶ Play");
    this.epochWords = h("span", {});
    this.curve = h("canvas", { className: "curve", role: "img", "aria-label": "Top-1 by epoch" });
    this.time.replaceChildren(play, h("label", {}, h("span", {}, "epoch"), slider), this.epochWords, this.curve);
    this.slider = slider;
  }

  play(slider, button) {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
      button.textContent = "▶ Play";
      return;
    }
    if (+slider.value === +slider.max) slider.value = -1;
    button.textContent = "❚❚ Stop";
    const step = () => {
      if (this.root.classList.contains("waiting")) return;  // a frame at a time, however slow
      if (!this.root.isConnected || +slider.value >= +slider.max) return this.playing && this.play(slider, button);
      slider.value = +slider.value + 1;
      this.s.epoch = +slider.value;
      this.ask();
    };
    this.playing = setInterval(step, 700);
    step();
  }

  /** What is at hand is shown at once; a reduction that costs something is asked for. */
  reduce(reduction) {
    Object.assign(this.s, { reduction, channel: null });
    const panel = this.frame?.panels[this.s.module];
    if (this.film.live && panel && this.s.part !== "Grad-CAM" && !(reduction in panel.maps) && panel.c > 1) this.ask();
    else this.draw();
  }

  look(image) {
    this.s.image = image;
    if (this.number && image.set === "test") this.number.value = image.n;
    this.s.regions = null;
    this.ask();
  }

  key(event) {
    if (event.target.tagName === "INPUT" && event.key === "Enter") {
      event.preventDefault();
      event.target.dispatchEvent(new Event("change"));
    }
    if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!steps) return;
    event.preventDefault();
    event.stopPropagation();  // JupyterLab would go to another cell
    if (event.target === this.stage || event.target.className === "tile") {  // move the point looked at by a cell
      const panel = this.frame.panels[this.s.module] ?? Object.values(this.frame.panels)[0];
      const { u, v } = this.hover ?? { u: 0.5, v: 0.5 };
      const inside = (x) => Math.min(0.999, Math.max(0, x));
      this.point(inside(u + steps[0] / panel.w), inside(v + steps[1] / panel.h), this.s.module, true);
    } else if (event.target === this.grid) {
      const numbers = this.shownNumbers(), at = numbers.indexOf(this.s.channel) + steps[0] + steps[1] * this.gridColumns;
      this.pickChannel(numbers[Math.min(numbers.length - 1, Math.max(0, at))]);
    } else {
      const { images } = this.film, here = images.findIndex((i) => i.set === this.s.image.set && i.n === this.s.image.n);
      const next = images[(here + steps[0] + steps[1] + images.length) % images.length];
      this.look({ set: next.set, n: next.n });
    }
  }

  upload(file) {
    const [chosen] = file.files;
    if (!chosen) return;
    this.say(`reading ${chosen.name} …`);
    chosen.arrayBuffer().then((content) => { this.source.tell({ kind: "upload", name: chosen.name }, [content]); file.value = ""; });
  }

  pinIt() {
    this.pinned = this.pinned ? null : { frame: this.frame, s: { ...this.s }, picture: this.picture };
    this.pin.textContent = this.pinned ? "Unpin A" : "Pin as A";
    this.draw();
  }

  nearest(number) {
    const numbers = this.frame.panels[this.s.module]?.numbers ?? [];
    return numbers.includes(number) ? number : numbers.reduce((best, n) => (Math.abs(n - number) < Math.abs(best - number) ? n : best), numbers[0] ?? 0);
  }
}
