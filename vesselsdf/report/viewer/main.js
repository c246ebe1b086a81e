// --- the page -------------------------------------------------------------------------------------------------------

const MARKERS = 150;

function legend(colour) {
  const box = get("legend");
  box.replaceChildren(document.createTextNode(colour.legend || colour.name));
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
  bar.style.background = `linear-gradient(to right, ${(colour.diverging ? DIVERGING : VIRIDIS).map((c) => `rgb(${c})`).join(",")})`;
  for (const value of [colour.low, colour.high]) { const end = document.createElement("span"); end.textContent = shown(Number(value.toPrecision(2))); ends.append(end); }
  box.append(bar, ends);
}

async function main() {
  report = JSON.parse(await text("report"));
  get("title").textContent = report.title;
  get("sentence").textContent = report.sentence;
  get("made").textContent = report.made;
  for (const fact of report.facts) { const item = document.createElement("li"); item.textContent = fact; get("facts").append(item); }
  get("feature-title").textContent = report.feature_title;
  for (const figure of report.plots) get("plots").append(plot(figure));
  if (!report.plots.length) get("charts").remove();

  let choose = () => {};
  for (const table of report.tables) tableSection(table, (place, text) => choose({ place, text, near: 0 }));
  if (report.surfaces.length) choose = await views();
  else for (const name of ["space", "slices", "features"]) get(name).remove();
  document.body.dataset.ready = "yes";
}

async function views() {
  const [THREE, OrbitControls] = await loadThree();
  const space = await makeSpace(THREE, OrbitControls);
  window.report = { space, THREE }; // for whoever looks at it from the console
  const say = (what) => { get("said").textContent = what; };

  let toVoxel = () => {};
  if (report.grid) {
    const image = report.grid.image && new Uint8Array(await part(report.grid.image)), fields = [];
    for (const one of report.grid.fields) fields.push(new Int8Array(await part(one.part)));
    const world = new THREE.Matrix4().set(...report.grid.affine.flat()), inverse = world.clone().invert();
    const follow = makeSlices(report.grid, image, fields, (voxel) => {
      const place = new THREE.Vector3(...voxel).applyMatrix4(world).toArray();
      space.look(place, 0);
      say(`(${place.map((value) => value.toFixed(1)).join(", ")}) mm`);
    });
    toVoxel = (place) => follow(new THREE.Vector3(...place).applyMatrix4(inverse).toArray());
  } else get("slices").remove();

  const rows = report.features.map((feature) => ({ feature, cells: feature.cells }));
  const choose = (feature) => {
    say(feature.text);
    get("space").scrollIntoView({ block: "nearest" });
    space.look(feature.place, feature.near);
    toVoxel(feature.place);
    for (const row of rows) row.element.classList.toggle("chosen", row.feature === feature);
  };
  fillTable(get("feature-table"), report.feature_columns, rows, (row) => choose(row.feature));

  // Features that belong to what is shown: listed, and the largest of them marked.
  const features = (groups, about) => {
    const lists = groups.map((group) => report.features.filter((one) => one.group === group));
    const most = Math.ceil(MARKERS / Math.max(1, lists.filter((list) => list.length).length));
    const crowded = lists.some((list) => list.length > most);
    get("about").textContent = about + (crowded ? ` Of ${lists.map((list) => list.length).filter(Boolean).join(", ")} features the ${most} largest are marked.` : "");
    return lists.map((list) => list.slice(0, most));
  };
  const listed = (wanted) => { for (const row of rows) row.element.hidden = !wanted(row.feature); };
  const setLevel = () => {
    const number = Number(get("level").value), level = report.surfaces[number];
    get("level-name").textContent = level.name;
    space.show([{ walls: [number], lines: 0, features: features([number], level.sentence)[0] }]);
    listed((feature) => number === 0 || feature.group === number);
  };
  const setPanes = () => {
    const chosen = get("show").value, panes = report.panes.filter((pane, k) => chosen === "all" || chosen === String(k));
    const marked = features(panes.map((pane) => pane.group), report.about);
    space.show(panes.map((pane, k) => ({ ...pane, features: marked[k] })));
    listed((feature) => chosen === "all" || feature.group === panes[0].group);
  };
  if (report.panes) {
    get("level-control").remove();
    get("show").append(new Option("side by side", "all"), ...report.panes.map((pane, k) => new Option(pane.name, k)));
    get("show").onchange = setPanes;
    setPanes();
  } else {
    get("show-control").remove();
    get("level").max = report.surfaces.length - 1;
    get("level").oninput = setLevel;
    setLevel();
  }
  for (const colour of report.colours) get("colour").append(new Option(colour.name, colour.key));
  get("colour").onchange = () => { space.state.colour = report.colours.find((one) => one.key === get("colour").value); legend(space.state.colour); space.paint(); };
  legend(space.state.colour);
  const cut = () => space.cut(Number(get("axis").value), Number(get("cut").value));
  get("cut").oninput = cut;
  get("axis").onchange = cut;
  for (const name of ["wall", "lines", "markers"]) get(name).onchange = space.draw;
  get("home").onclick = space.home;
  get("controls").onsubmit = (event) => event.preventDefault();
  get("view").addEventListener("click", (event) => {
    const found = space.picked(event);
    if (found.feature) choose(found.feature);
    else if (found.point) {
      const said = report.tables.find((table) => table.key === "branch")?.said[found.branch];
      toVoxel(found.point);
      say(`${said ? said + " at " : ""}(${found.point.map((x) => x.toFixed(1)).join(", ")}) mm`);
    }
  });
  return choose;
}

main().catch((error) => {
  const where = get("said") || get("sentence");
  where.textContent = report ? `The view cannot be shown here (${error.message}); the tables below are complete.` : `This page cannot be shown here (${error.message}): a browser of 2023 or newer can.`;
  console.error(error);
});
