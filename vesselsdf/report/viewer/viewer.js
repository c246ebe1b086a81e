"use strict";
// The page of a report: a view in space, slices, tables and figures, from the data that lie in the page itself.

const report = JSON.parse(document.getElementById("report").textContent);
const get = (id) => document.getElementById(id);

// --- data -----------------------------------------------------------------------------------------------------------

async function part(name) {
  const packed = Uint8Array.from(atob(get("part-" + name).textContent.trim()), (c) => c.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

const text = async (name) => new TextDecoder().decode(await part(name));
const moduleUrl = (code) => URL.createObjectURL(new Blob([code], { type: "text/javascript" }));

async function loadThree() {
  const core = moduleUrl(await text("three.core.min.js"));
  const three = moduleUrl((await text("three.module.min.js")).replaceAll("./three.core.min.js", core));
  const orbit = moduleUrl((await text("OrbitControls.js")).replaceAll("'three'", `'${three}'`));
  return [await import(three), (await import(orbit)).OrbitControls];
}

function running(values) {
  // Neighbouring vertices have near numbers: differences compress well.
  for (let k = 1; k < values.length; k++) values[k] += values[k - 1];
  return values;
}

// --- colours --------------------------------------------------------------------------------------------------------

const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
const STEPS = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#8a9199"];
const KINDS = { absent: "#e15759", cut: "#e15759", merged: "#f28e2b", filled: "#b07aa1", opened: "#b07aa1", end: "#4e79a7", new: "#59a14f" };
const KIND = (what) => KINDS[what] || "#59a14f";

function ramp(share) {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, k) => (value + (VIRIDIS[low + 1][k] - value) * (at - low)) / 255);
}

function hex(colour) {
  return [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16) / 255);
}

// --- tables ---------------------------------------------------------------------------------------------------------

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : Number(value.toPrecision(4)).toString();
}

function fillTable(table, columns, rows, choose) {
  const head = table.createTHead().insertRow(), body = table.createTBody();
  let order = null, turned = false;
  const draw = () => {
    const sorted = order === null ? rows : [...rows].sort((a, b) => {
      const [x, y] = [a.cells[order], b.cells[order]];
      const less = typeof x === "number" && typeof y === "number" ? x - y : shown(x).localeCompare(shown(y));
      return turned ? -less : less;
    });
    body.replaceChildren(...sorted.map((row) => row.element));
  };
  columns.forEach((column, k) => {
    const cell = document.createElement("th");
    cell.textContent = column.name;
    cell.tabIndex = 0;
    if (column.text) cell.className = "text";
    const sort = () => { turned = order === k && !turned; order = k; draw(); };
    cell.onclick = sort;
    cell.onkeydown = (event) => { if (event.key === "Enter") sort(); };
    head.append(cell);
  });
  for (const row of rows) {
    row.element = document.createElement("tr");
    row.cells.forEach((value, k) => {
      const cell = row.element.insertCell();
      cell.textContent = shown(value);
      if (columns[k].text) cell.className = "text";
    });
    if (choose) {
      row.element.tabIndex = 0;
      row.element.onclick = () => choose(row);
      row.element.onkeydown = (event) => { if (event.key === "Enter") choose(row); };
    }
  }
  draw();
}

// --- figures --------------------------------------------------------------------------------------------------------

function svg(tag, attributes, content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content !== undefined) element.textContent = content;
  return element;
}

function plot(figure) {
  const [width, height, left, bottom, top] = [360, 240, 44, 36, 24];
  const xs = figure.series.flatMap((one) => one.x), ys = figure.series.flatMap((one) => one.y);
  const span = (values, zero) => {
    const low = zero ? 0 : Math.min(...values), high = Math.max(...values);
    return high > low ? [low, high] : [low - 0.5, low + 0.5];
  };
  const [x0, x1] = span(xs, figure.bars), [y0, y1] = span(ys, figure.kind !== "points");
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - 12);
  const py = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - bottom - top);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": figure.title });
  drawing.append(svg("text", { x: left, y: 14 }, figure.title));
  drawing.append(svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - 12}` }));
  for (const share of [0, 0.5, 1]) {
    const x = x0 + share * (x1 - x0), y = y0 + share * (y1 - y0);
    drawing.append(svg("text", { x: px(x), y: height - bottom + 14, "text-anchor": "middle" }, shown(Number(x.toPrecision(2)))));
    drawing.append(svg("text", { x: left - 5, y: py(y) + 4, "text-anchor": "end" }, shown(Number(y.toPrecision(2)))));
  }
  drawing.append(svg("text", { x: (left + width) / 2, y: height - 5, "text-anchor": "middle" }, figure.x));
  if (figure.diagonal) {
    const [a, b] = [Math.max(x0, y0), Math.min(x1, y1)];
    drawing.append(svg("path", { class: "axis", d: `M${px(a)} ${py(a)}L${px(b)} ${py(b)}`, "stroke-dasharray": "3 3" }));
  }
  figure.series.forEach((one, k) => {
    const colour = STEPS[k];
    one.x.forEach((x, n) => {
      const y = one.y[n];
      if (figure.kind === "bars") {
        const wide = (width - left - 12) / one.x.length;
        drawing.append(svg("rect", { x: left + n * wide, y: py(y), width: Math.max(wide - 1, 1), height: height - bottom - py(y), fill: colour }));
      } else drawing.append(svg("circle", { cx: px(x), cy: py(y), r: 3, fill: colour }));
    });
    if (figure.kind === "lines") drawing.append(svg("polyline", { points: one.x.map((x, n) => `${px(x)},${py(one.y[n])}`).join(" "), fill: "none", stroke: colour }));
    if (one.name) drawing.append(svg("text", { x: width - 14, y: top + 12 * (k + 1), "text-anchor": "end", style: `fill:${colour}` }, one.name));
  });
  return drawing;
}

// --- slices ---------------------------------------------------------------------------------------------------------

const AXES = [["from the left", 1, 2], ["from the front", 0, 2], ["from below", 0, 1]];

function contour(field, width, height, draw) {
  // Marching squares of the wall, for cells whose corners are not all on one side.
  for (let v = 0; v + 1 < height; v++) {
    for (let u = 0; u + 1 < width; u++) {
      const corner = [field(u, v), field(u + 1, v), field(u + 1, v + 1), field(u, v + 1)];
      const crossed = [];
      for (let k = 0; k < 4; k++) {
        const [a, b] = [corner[k], corner[(k + 1) % 4]];
        if (a <= 0 !== b <= 0) {
          const t = a / (a - b);
          crossed.push([[u + t, v], [u + 1, v + t], [u + 1 - t, v + 1], [u, v + 1 - t]][k]);
        }
      }
      for (let k = 0; k + 1 < crossed.length; k += 2) draw(crossed[k], crossed[k + 1]);
    }
  }
}

function makeSlices(grid, image, field, moved) {
  const [nx, ny, nz] = grid.shape, size = grid.shape;
  const at = (x, y, z) => (x * ny + y) * nz + z;
  const place = size.map((n) => Math.floor(n / 2));
  const draws = [0, 1, 2].map((axis) => {
    const [name, across, up] = AXES[axis];
    const box = document.createElement("div"), canvas = document.createElement("canvas"), slider = document.createElement("input"), label = document.createElement("label");
    box.className = "slice";
    label.textContent = name;
    slider.type = "range"; slider.min = 0; slider.max = size[axis] - 1;
    slider.setAttribute("aria-label", "slice, seen " + name);
    const zoom = Math.max(1, Math.round(420 / Math.max(size[across], size[up])));
    canvas.width = size[across] * zoom; canvas.height = size[up] * zoom;
    const small = document.createElement("canvas");
    small.width = size[across]; small.height = size[up];
    box.append(canvas, label, slider);
    get("slices").append(box);
    // The patient's right, or front, on the left side; top, or front, upwards: as radiologists look.
    const index = (u, v) => { const p = [0, 0, 0]; p[axis] = place[axis]; p[across] = size[across] - 1 - u; p[up] = size[up] - 1 - v; return p; };
    const draw = () => {
      slider.value = place[axis];
      const pixels = small.getContext("2d").createImageData(size[across], size[up]);
      for (let v = 0; v < size[up]; v++) for (let u = 0; u < size[across]; u++) {
        const value = image[at(...index(u, v))], k = 4 * (v * size[across] + u);
        pixels.data[k] = pixels.data[k + 1] = pixels.data[k + 2] = value;
        pixels.data[k + 3] = 255;
      }
      small.getContext("2d").putImageData(pixels, 0, 0);
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = true;
      pen.drawImage(small, 0, 0, canvas.width, canvas.height);
      pen.strokeStyle = "#ff9a3c"; pen.lineWidth = 1.5; pen.beginPath();
      contour((u, v) => field[at(...index(u, v))], size[across], size[up], (a, b) => {
        pen.moveTo((a[0] + 0.5) * zoom, (a[1] + 0.5) * zoom); pen.lineTo((b[0] + 0.5) * zoom, (b[1] + 0.5) * zoom);
      });
      pen.stroke();
      const u = size[across] - 1 - place[across], v = size[up] - 1 - place[up];
      pen.strokeStyle = "#6db3f280"; pen.lineWidth = 1; pen.beginPath();
      pen.moveTo((u + 0.5) * zoom, 0); pen.lineTo((u + 0.5) * zoom, canvas.height); pen.moveTo(0, (v + 0.5) * zoom); pen.lineTo(canvas.width, (v + 0.5) * zoom);
      pen.stroke();
    };
    slider.oninput = () => { place[axis] = Number(slider.value); all(); moved(place); };
    canvas.onclick = (event) => {
      const shown = canvas.getBoundingClientRect();
      const u = ((event.clientX - shown.left) / shown.width) * size[across], v = ((event.clientY - shown.top) / shown.height) * size[up];
      const p = index(Math.min(Math.floor(u), size[across] - 1), Math.min(Math.floor(v), size[up] - 1));
      place.splice(0, 3, ...p);
      all(); moved(place);
    };
    return draw;
  });
  const all = () => draws.forEach((draw) => draw());
  all();
  return (voxel) => { place.splice(0, 3, ...voxel.map((value, k) => Math.max(0, Math.min(size[k] - 1, Math.round(value))))); all(); };
}
