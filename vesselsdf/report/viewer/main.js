// --- the page -------------------------------------------------------------------------------------------------------

const MARKERS = 150;

function legend(colour) {
  const box = get("legend");
  box.replaceChildren(document.createTextNode(colour.name));
  if (colour.names) {
    colour.names.forEach((name, k) => {
      if (!name) return;
      const row = document.createElement("div"), patch = document.createElement("i");
      patch.style.background = STEPS[k % STEPS.length];
      row.append(patch, name);
      box.append(row);
    });
    return;
  }
  const bar = document.createElement("div"), ends = document.createElement("div");
  bar.className = "bar"; ends.className = "ends";
  bar.style.background = `linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c})`).join(",")})`;
  for (const value of [colour.low, colour.high]) { const end = document.createElement("span"); end.textContent = shown(Number(value.toPrecision(2))); ends.append(end); }
  box.append(bar, ends);
}

async function main() {
  get("title").textContent = report.title;
  get("sentence").textContent = report.sentence;
  get("made").textContent = report.made;
  for (const fact of report.facts) { const item = document.createElement("li"); item.textContent = fact; get("facts").append(item); }
  report.plots.forEach((figure) => get("plots").append(plot(figure)));

  const [THREE, OrbitControls] = await loadThree();
  const space = await makeSpace(THREE, OrbitControls);
  window.report = { space, THREE }; // for whoever looks at it from the console
  const say = (what) => { get("said").textContent = what; };

  let toVoxel = () => {};
  if (report.grid) {
    const image = new Uint8Array(await part(report.grid.image)), field = new Int8Array(await part(report.grid.field));
    const world = new THREE.Matrix4().set(...report.grid.affine.flat()), inverse = world.clone().invert();
    const follow = makeSlices(report.grid, image, field, (voxel) => {
      const place = new THREE.Vector3(...voxel).applyMatrix4(world).toArray();
      space.look(place, 0);
      say(`(${place.map((value) => value.toFixed(1)).join(", ")}) mm`);
    });
    toVoxel = (place) => follow(new THREE.Vector3(...place).applyMatrix4(inverse).toArray());
  } else get("slices").remove();

  const choose = (feature) => {
    say(feature.text);
    get("space").scrollIntoView({ block: "nearest" });
    space.look(feature.place, feature.margin || 0);
    toVoxel(feature.place);
    for (const row of featureRows) row.element.classList.toggle("chosen", row.feature === feature);
  };
  const featureRows = report.features.map((feature) => ({ feature, cells: [feature.level, feature.what, feature.text, feature.margin, feature.passport, ...feature.place.map((x) => Number(x.toFixed(1)))] }));
  fillTable(get("feature-table"), [{ name: "level" }, { name: "what", text: true }, { name: "", text: true }, { name: "margin, mm" }, { name: "passport, mm" }, { name: "x" }, { name: "y" }, { name: "z" }], featureRows, (row) => choose(row.feature));

  const branchRows = report.branches.rows.map((cells, k) => ({ cells, branch: k }));
  fillTable(get("branch-table"), report.branches.columns.map((name) => ({ name })), branchRows, (row) => {
    get("space").scrollIntoView({ block: "nearest" });
    space.look(report.branches.places[row.branch], 0);
    toVoxel(report.branches.places[row.branch]);
    say(`branch ${row.cells[0]}`);
  });
  get("csv").onclick = () => {
    const lines = [report.branches.columns, ...report.branches.rows].map((cells) => cells.map((value) => (value === null ? "" : value)).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "branches.csv";
    link.click();
  };
  fillTable(get("level-table"), report.decisions.columns.map((name, k) => ({ name, text: k === report.decisions.columns.length - 1 })), report.decisions.rows.map((cells) => ({ cells })));

  const slider = get("level");
  slider.max = report.levels.length - 1;
  const setLevel = () => {
    const number = Number(slider.value), list = report.features.filter((one) => number === 0 || one.level === number);
    get("level-name").textContent = report.levels[number].name;
    get("about-level").textContent = report.levels[number].sentence;
    space.level(number);
    space.features(number === 0 ? [] : list.slice(0, MARKERS));
    if (number > 0 && list.length > MARKERS) get("about-level").textContent += ` The ${MARKERS} largest of ${list.length} features are marked.`;
    for (const row of featureRows) row.element.hidden = !(number === 0 || row.feature.level === number);
  };
  slider.oninput = setLevel;
  for (const colour of report.colours) get("colour").append(new Option(colour.name, colour.key));
  get("colour").onchange = () => { space.state.colour = report.colours.find((one) => one.key === get("colour").value); legend(space.state.colour); space.paint(); };
  legend(space.state.colour);
  const cut = () => space.cut(Number(get("axis").value), Number(get("cut").value));
  get("cut").oninput = cut;
  get("axis").onchange = cut;
  for (const name of ["wall", "lines", "markers"]) get(name).onchange = space.show;
  get("home").onclick = space.home;
  get("controls").onsubmit = (event) => event.preventDefault();
  get("view").addEventListener("click", (event) => {
    const found = space.picked(event);
    if (found.feature) choose(found.feature);
    else if (found.point) { toVoxel(found.point); say(`branch ${report.branches.rows[found.branch]?.[0] ?? ""} at (${found.point.map((x) => x.toFixed(1)).join(", ")}) mm`); }
  });
  setLevel();
  space.show();
  document.body.dataset.ready = "yes";
}

main().catch((error) => {
  get("said").textContent = `The view cannot be shown here (${error.message}); the tables below are complete.`;
  console.error(error);
});
