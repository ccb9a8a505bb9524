// Fourth part: where frames come from.

/** A notebook's widget: a kernel answers. */
function render({ model, el }) {
  const numbersOf = (view) => new Uint16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  let asked = 0;
  const source = {
    film: model.get("film"),
    ask: (selection) => { model.set("asked", { ...selection, id: ++asked }); model.save_changes(); },
    tell: (message, buffers = []) => model.send(message, undefined, buffers),
  };
  const root = document.createElement("div");
  el.append(root);
  const viewer = new Viewer(root, source);
  const shown = () => {
    const answer = model.get("answer");
    if (answer.id === asked) viewer.show(new Frame(answer, numbersOf(model.get("numbers")), 65535));
  };
  const told = (message) => {
    if (message.kind === "images") {
      viewer.film.images = model.get("film").images;
      viewer.fillStrip();
      viewer.look(message.look);
    } else if (message.id === undefined || message.id === asked) viewer.say(message.text, message.alarm, message.code);
  };
  model.on("change:answer", shown);
  model.on("msg:custom", told);
  return () => { model.off("change:answer", shown); model.off("msg:custom", told); clearInterval(viewer.playing); };
}

/** A file: everything is there, the film's description (its length first) and then the numbers, deflated. */
export async function play(root, packed) {
  const stream = new Blob([bytesOf(packed)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer()), length = new DataView(bytes.buffer).getUint32(0, true);
  const film = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))), numbers = bytes.subarray(4 + length);
  let viewer = null, waiting = null;
  const source = {
    film,
    ask: (s) => {
      const place = film.images.findIndex((image) => image.set === s.image.set && image.n === s.image.n);
      const header = film.frames[`${place}/${s.epoch}/${s.replaced}`];
      const answer = () => {
        if (header) viewer.show(new Frame({ ...header, picture: film.images[place] }, numbers, 255));
        else viewer.say(`Replaced masks are kept of ${film.epochs[film.start.epoch].name} alone: move the slider there.`, true);
      };
      if (viewer) answer();
      else waiting = answer;
    },
  };
  viewer = new Viewer(root, source);
  waiting?.();
  return viewer;
}

export default { render };
