"use strict";
// The page of a report: a view in space, slices, tables and figures, from the data that lie in the page itself.

let report = null; // see report/packing.py
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
const KINDS = { absent: "#e15759", cut: "#e15759", lost: "#e15759", merged: "#f28e2b", joined: "#f28e2b", wall: "#edc948", filled: "#b07aa1", opened: "#b07aa1", end: "#4e79a7", new: "#59a14f" };
const KIND = (what) => KINDS[what] || "#59a14f";

function ramp(share, stops = VIRIDIS) {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((value, k) => (value + (stops[low + 1][k] - value) * (at - low)) / 255);
}

const DIVERGING = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [235, 235, 235], [253, 219, 199], [239, 138, 98], [178, 24, 43]];

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
      if (row.best && row.best.includes(k)) cell.classList.add("best");
    });
    if (choose) {
      row.element.tabIndex = 0;
      row.element.onclick = () => choose(row);
      row.element.onkeydown = (event) => { if (event.key === "Enter") choose(row); };
    }
  }
  draw();
}

function saveCsv(columns, rows, name) {
  const quoted = (value) => (typeof value === "string" && /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value ?? "");
  const lines = [columns.map((one) => one.name), ...rows].map((cells) => cells.map(quoted).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = name;
  link.click();
}

function tableSection(table, choose) {
  const section = document.createElement("section"), head = document.createElement("h2"), scroll = document.createElement("div"), element = document.createElement("table");
  section.id = table.key + "-section"; element.id = table.key + "-table"; scroll.className = "scroll tall";
  head.textContent = table.title;
  section.append(head);
  if (table.file) {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = "save as CSV";
    button.onclick = () => saveCsv(table.columns, table.rows, table.file);
    section.append(button);
  }
  scroll.append(element);
  section.append(scroll);
  get("tables").append(section);
  const rows = table.rows.map((cells, k) => ({ cells, number: k, best: table.best && table.best[k] }));
  const wanted = table.places ? (row) => choose(table.places[row.number], table.said[row.number]) : table.links ? (row) => { if (table.links[row.number]) location.href = encodeURI(table.links[row.number]); } : null;
  fillTable(element, table.columns, rows, wanted);
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
