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

function makeSlices(grid, image, fields, moved) {
  const [nx, ny, nz] = grid.shape, size = grid.shape;
  const at = (x, y, z) => (x * ny + y) * nz + z;
  const place = size.map((n) => Math.floor(n / 2));
  // The wall of the first field alone is drawn in orange; of several, each in its own colour.
  const pens = fields.length > 1 ? fields.map((_, k) => STEPS[k % STEPS.length]) : ["#ff9a3c"];
  if (fields.length > 1) {
    const names = document.createElement("p");
    names.className = "names";
    grid.fields.forEach((one, k) => { const patch = document.createElement("i"); patch.style.background = pens[k]; names.append(patch, one.name + " "); });
    get("slices").append(names);
  }
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
        const value = image ? image[at(...index(u, v))] : fields[0][at(...index(u, v))] <= 0 ? 70 : 0, k = 4 * (v * size[across] + u);
        pixels.data[k] = pixels.data[k + 1] = pixels.data[k + 2] = value;
        pixels.data[k + 3] = 255;
      }
      small.getContext("2d").putImageData(pixels, 0, 0);
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = true;
      pen.drawImage(small, 0, 0, canvas.width, canvas.height);
      fields.forEach((field, n) => {
        pen.strokeStyle = pens[n]; pen.lineWidth = 1.5; pen.beginPath();
        contour((u, v) => field[at(...index(u, v))], size[across], size[up], (a, b) => {
          pen.moveTo((a[0] + 0.5) * zoom, (a[1] + 0.5) * zoom); pen.lineTo((b[0] + 0.5) * zoom, (b[1] + 0.5) * zoom);
        });
        pen.stroke();
      });
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
