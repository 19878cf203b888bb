"use strict";

// The weights of a footprint: pure functions, without a document.

const LEVELS = 127;

/** The signed bytes of a base64 text. */
function decode(text) {
  const bytes = atob(text);
  return Int8Array.from(bytes, (character) => character.charCodeAt(0));
}

/** Row and column of the footprint whose centre is nearest to a pixel (x, y) of the image, on the map of weights. */
function footprintAt(layer, x, y) {
  return [y, x].map((position, axis) => {
    const onMap = Math.min(Math.floor(position / layer.pixels), layer.map[axis] - 1);
    return Math.floor(onMap / layer.stride[axis]);
  });
}

/** The weights (taps, row by row) of a footprint. Channel 0 is the mean absolute weight. */
function weightsAt(layer, channel, row, column) {
  const taps = layer.kernel[0] * layer.kernel[1];
  const start = ((channel * layer.out[0] + row) * layer.out[1] + column) * taps;
  const scale = layer.scales[channel] / LEVELS;
  return Array.from(layer.decoded.subarray(start, start + taps), (level) => level * scale);
}

/** The position that a tap reads along an axis: reflected at the border, or null beyond it with zero padding. */
function tapPosition(layer, axis, output, tap) {
  const size = layer.map[axis];
  const centre = output * layer.stride[axis];
  const position = centre + layer.dilation[axis] * (tap - (layer.kernel[axis] - 1) / 2);
  if (position >= 0 && position < size) return position;
  if (layer.padding === "zeros") return null;
  const period = Math.max(2 * (size - 1), 1);
  const phase = ((position % period) + period) % period;
  return Math.min(phase, period - phase);
}

/** The cells of the map that a footprint reads, with the sum of the weights that read each: {row, column, weight}. */
function cellsOf(layer, row, column, weights) {
  const cells = new Map();
  for (let i = 0; i < layer.kernel[0]; i++) {
    for (let j = 0; j < layer.kernel[1]; j++) {
      const at = [tapPosition(layer, 0, row, i), tapPosition(layer, 1, column, j)];
      if (at.includes(null)) continue;
      const key = at.join();
      const cell = cells.get(key) || { row: at[0], column: at[1], weight: 0 };
      cell.weight += weights[i * layer.kernel[1] + j];
      cells.set(key, cell);
    }
  }
  return [...cells.values()];
}

/** A colour of the scale from black over orange to yellow, for a value from 0 to 1. */
function warm(value) {
  const stops = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
  return between(stops, value);
}

/** A colour of the scale from blue over white to red, for a value from -1 to 1. */
function diverging(value) {
  const stops = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
  return between(stops, (value + 1) / 2);
}

function between(stops, value) {
  const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  const mixed = stops[first].map((low, index) => Math.round(low + (stops[first + 1][index] - low) * (place - first)));
  return `rgb(${mixed.join()})`;
}

// The page.

const SIDE = 420; // of the photograph on the page, in CSS pixels

function start(document, photographs) {
  const select = document.getElementById("photograph");
  const image = document.getElementById("image");
  const panels = document.getElementById("panels");
  const readout = document.getElementById("readout");
  const pictures = photographs.map((photograph) => {
    const picture = new Image();
    picture.onload = draw;
    picture.src = "data:image/png;base64," + photograph.png;
    for (const layer of photograph.layers) layer.decoded = decode(layer.levels);
    select.add(new Option(photograph.name));
    return picture;
  });
  const shown = { photograph: 0, x: 0, y: 0 };
  select.hidden = photographs.length < 2;

  function choose(index) {
    const photograph = photographs[index];
    shown.photograph = select.selectedIndex = index;
    const zoom = Math.max(SIDE / Math.max(photograph.width, photograph.height), 1);
    image.width = Math.round(photograph.width * zoom);
    image.height = Math.round(photograph.height * zoom);
    panels.replaceChildren(...photograph.layers.map((layer) => {
      const panel = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = `${layer.stage}: ${layer.kernel.join("×")} taps, stride ${layer.pixels}`;
      const over = Object.assign(document.createElement("canvas"), { width: 168, height: 168, className: "over" });
      const kernels = Object.assign(document.createElement("canvas"), { width: 168, height: 112, className: "kernels" });
      const range = document.createElement("small");
      panel.append(caption, over, kernels, range);
      return panel;
    }));
    point(photograph.width >> 1, photograph.height >> 1);
  }

  function point(x, y) {
    const photograph = photographs[shown.photograph];
    shown.x = Math.min(Math.max(Math.floor(x), 0), photograph.width - 1);
    shown.y = Math.min(Math.max(Math.floor(y), 0), photograph.height - 1);
    draw();
  }

  function draw() {
    const photograph = photographs[shown.photograph];
    const picture = pictures[shown.photograph];
    if (!picture.complete || !picture.naturalWidth) return;
    const context = image.getContext("2d");
    const zoom = image.width / photograph.width;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, image.width, image.height);
    const lines = [];
    photograph.layers.forEach((layer, index) => {
      const [row, column] = footprintAt(layer, shown.x, shown.y);
      const cells = cellsOf(layer, row, column, weightsAt(layer, 0, row, column));
      outline(context, layer, row, column, zoom, index);
      drawOver(panels.children[index].querySelector(".over"), picture, photograph, layer, row, column, cells);
      drawKernels(panels.children[index].querySelector(".kernels"), layer, row, column);
      const strongest = cells.reduce((best, cell) => (cell.weight > best.weight ? cell : best));
      panels.children[index].querySelector("small").textContent =
        `strongest cell: ${strongest.weight.toPrecision(3)} of ` +
        `${cells.reduce((sum, cell) => sum + cell.weight, 0).toPrecision(3)}`;
      lines.push(`${layer.stage} ${strongest.row} ${strongest.column} ${strongest.weight.toPrecision(4)}`);
    });
    cross(context, shown.x, shown.y, zoom);
    readout.textContent = `x ${shown.x}, y ${shown.y}`;
    readout.dataset.strongest = lines.join("; ");
  }

  function outline(context, layer, row, column, zoom, index) {
    const half = [0, 1].map((axis) => (layer.dilation[axis] * (layer.kernel[axis] - 1)) / 2);
    const [top, left] = [row, column].map((output, axis) => (output * layer.stride[axis] - half[axis]) * layer.pixels);
    context.strokeStyle = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00"][index % 6];
    context.lineWidth = 2;
    context.strokeRect(
      left * zoom, top * zoom, (2 * half[1] + 1) * layer.pixels * zoom, (2 * half[0] + 1) * layer.pixels * zoom,
    );
  }

  function cross(context, x, y, zoom) {
    context.strokeStyle = "#0ff";
    context.beginPath();
    const [centreX, centreY] = [(x + 0.5) * zoom, (y + 0.5) * zoom];
    context.moveTo(centreX - 6, centreY);
    context.lineTo(centreX + 6, centreY);
    context.moveTo(centreX, centreY - 6);
    context.lineTo(centreX, centreY + 6);
    context.stroke();
  }

  function drawOver(canvas, picture, photograph, layer, row, column, cells) {
    const context = canvas.getContext("2d");
    const reach = Math.max(...[0, 1].map((axis) => layer.dilation[axis] * (layer.kernel[axis] - 1) + 3)) * layer.pixels;
    const centreX = (column * layer.stride[1] + 0.5) * layer.pixels;
    const centreY = (row * layer.stride[0] + 0.5) * layer.pixels;
    const zoom = canvas.width / reach;
    const [left, top] = [centreX - reach / 2, centreY - reach / 2];
    context.fillStyle = "#8884";
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    context.filter = "grayscale(1)";
    context.drawImage(picture, -left * zoom, -top * zoom, photograph.width * zoom, photograph.height * zoom);
    context.filter = "none";
    const largest = Math.max(...cells.map((cell) => cell.weight), Number.MIN_VALUE);
    context.globalAlpha = 0.7;
    for (const cell of cells) {
      context.fillStyle = warm(cell.weight / largest);
      const side = layer.pixels * zoom;
      context.fillRect((cell.column * layer.pixels - left) * zoom, (cell.row * layer.pixels - top) * zoom, side, side);
    }
    context.globalAlpha = 1;
    cross(context, shown.x - left, shown.y - top, zoom);
  }

  function drawKernels(canvas, layer, row, column) {
    const context = canvas.getContext("2d");
    const places = Math.max(layer.channels.length, 1);
    const across = Math.min(places, 3);
    const side = Math.floor(canvas.width / across) - 4;
    const cell = side / Math.max(...layer.kernel);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const kernels = layer.channels.map((_, index) => weightsAt(layer, index + 1, row, column));
    const largest = Math.max(...kernels.flat().map(Math.abs), Number.MIN_VALUE);
    kernels.forEach((kernel, index) => {
      const [left, top] = [(index % across) * (side + 4), Math.floor(index / across) * (side + 4)];
      kernel.forEach((weight, tap) => {
        context.fillStyle = layer.softmax ? warm(weight / largest) : diverging(weight / largest);
        const [tapRow, tapColumn] = [Math.floor(tap / layer.kernel[1]), tap % layer.kernel[1]];
        context.fillRect(left + tapColumn * cell, top + tapRow * cell, Math.ceil(cell), Math.ceil(cell));
      });
    });
  }

  function pointer(event) {
    const photograph = photographs[shown.photograph];
    const box = image.getBoundingClientRect();
    point(
      ((event.clientX - box.left) / box.width) * photograph.width,
      ((event.clientY - box.top) / box.height) * photograph.height,
    );
  }

  image.addEventListener("pointermove", pointer);
  image.addEventListener("pointerdown", pointer);
  image.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    point(shown.x + step[0], shown.y + step[1]);
  });
  select.addEventListener("change", () => choose(select.selectedIndex));

  choose(0);
  // The address can name a pixel: page.html#photograph=0&x=10&y=20
  const wanted = new URLSearchParams(document.location.hash.slice(1));
  if (wanted.has("photograph")) choose(Math.min(Number(wanted.get("photograph")), photographs.length - 1));
  if (wanted.has("x") && wanted.has("y")) point(Number(wanted.get("x")), Number(wanted.get("y")));
}
