// --- space ----------------------------------------------------------------------------------------------------------

async function makeSpace(THREE, OrbitControls) {
  const canvas = get("view");
  const renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
  renderer.localClippingEnabled = true;
  const scene = new THREE.Scene(), centre = new THREE.Vector3(...report.centre), size = report.size;
  const camera = new THREE.PerspectiveCamera(35, 1, size / 500, size * 50);
  // From the front, where the patient's right is on the left; or from the left or below, if more is seen from there.
  const flat = report.half.indexOf(Math.min(...report.half)), side = report.half[1] <= 1.25 * report.half[flat] ? 1 : flat;
  const front = new THREE.Vector3(...[[-1, 0, 0.08], [0, 1, 0.08], [0, 0.08, -1]][side]);
  camera.up.set(0, side === 2 ? 1 : 0, side === 2 ? 0 : 1);
  const controls = new OrbitControls(camera, canvas);
  controls.listenToKeyEvents(canvas);
  scene.add(new THREE.HemisphereLight(0xffffff, 0x8890a0, 1.6));
  const lamp = new THREE.DirectionalLight(0xffffff, 1.8);
  camera.add(lamp);
  scene.add(camera);
  const plane = new THREE.Plane(new THREE.Vector3(-1, 0, 0), 1e9);
  // What is seen side by side, from one camera: each pane has walls, lines and markers of its own.
  const state = { colour: report.colours[0], walls: [], lines: [], panes: [], columns: 1, rows: 1 };

  const draw = () => {
    if (draw.asked) return;
    draw.asked = true;
    requestAnimationFrame(() => { draw.asked = false; render(); });
  };
  const render = () => {
    const { clientWidth, clientHeight } = canvas, wide = clientWidth / state.columns, high = clientHeight / state.rows;
    renderer.setScissorTest(false);
    renderer.clear();
    renderer.setScissorTest(true);
    state.panes.forEach((pane, k) => {
      const box = [(k % state.columns) * wide, clientHeight - (Math.floor(k / state.columns) + 1) * high, wide, high];
      renderer.setViewport(...box);
      renderer.setScissor(...box);
      state.walls.forEach((one, n) => { one.mesh.visible = get("wall").checked && pane.walls.includes(n); });
      state.lines.forEach((one, n) => { one.object.visible = get("lines").checked && pane.lines === n; });
      state.panes.forEach((other) => { other.points.visible = other === pane && get("markers").checked; });
      renderer.render(scene, camera);
    });
  };
  controls.addEventListener("change", draw);

  // Walls and centrelines, coloured by values of their vertices, or of the branch that each vertex belongs to.
  const NONE = [0.6, 0.63, 0.67];
  const colourOf = (colour, value) => {
    if (value === null || value === undefined || (value < 0 && !colour.diverging)) return NONE;
    if (colour.names) return hex(STEPS[value % STEPS.length]);
    return ramp((value - colour.low) / (colour.high - colour.low || 1), colour.diverging ? DIVERGING : VIRIDIS);
  };
  const paint = (geometry, owner, channel) => {
    const colours = geometry.getAttribute("color"), { colour } = state, values = report.values[colour.key];
    for (let k = 0; k < colours.count; k++) {
      const value = channel ? colour.low + (channel[k] / 255) * (colour.high - colour.low) : values && owner ? values[owner[k]] : null;
      colours.setXYZ(k, ...colourOf(colour, value));
    }
    colours.needsUpdate = true;
  };
  const surface = { roughness: 0.55, metalness: 0, side: THREE.DoubleSide, clippingPlanes: [plane] };
  const coloured = new THREE.MeshStandardMaterial({ ...surface, vertexColors: true });
  for (const wall of report.surfaces) {
    const packed = running(new Int32Array(await part(wall.vertices))), points = new Float32Array(packed.length);
    for (let k = 0; k < packed.length; k += 3) for (let axis = 0; axis < 3; axis++) {
      // Differences run along each axis by itself: x, y, z lie one after the other.
      points[k + axis] = wall.low[axis] + wall.step * packed[(k / 3) + axis * (packed.length / 3)];
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(points.length), 3));
    geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(running(new Int32Array(await part(wall.faces))).buffer), 1));
    geometry.computeVertexNormals();
    const plain = wall.plain && new THREE.MeshStandardMaterial({ ...surface, color: wall.plain, transparent: true, opacity: 0.45, depthWrite: false });
    const mesh = new THREE.Mesh(geometry, plain || coloured), channels = {};
    for (const [name, key] of Object.entries(wall.channels)) channels[name] = new Uint8Array(await part(key));
    scene.add(mesh);
    state.walls.push({ mesh, plain, channels, owner: wall.owner && new Uint16Array(await part(wall.owner)) });
  }
  for (const one of report.lines) {
    const line = new Float32Array(await part(one.points)), geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(line, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(line.length), 3));
    const object = new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ vertexColors: true, clippingPlanes: [plane], depthTest: false }));
    object.renderOrder = 1;
    scene.add(object);
    state.lines.push({ object, owner: new Uint16Array(await part(one.owner)) });
  }

  // Markers of features and letters at the sides of the box.
  const disc = document.createElement("canvas");
  disc.width = disc.height = 64;
  const pen = disc.getContext("2d");
  pen.fillStyle = "#fff"; pen.strokeStyle = "#000"; pen.lineWidth = 6;
  pen.beginPath(); pen.arc(32, 32, 26, 0, 7); pen.fill(); pen.stroke();
  const round = new THREE.CanvasTexture(disc);
  const dots = new THREE.PointsMaterial({ size: 9, sizeAttenuation: false, vertexColors: true, map: round, alphaTest: 0.5, depthTest: false, clippingPlanes: [plane] });
  const marked = (features) => {
    const geometry = new THREE.BufferGeometry(), points = new THREE.Points(geometry, dots);
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(features.flatMap((one) => one.place)), 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(features.flatMap((one) => hex(KIND(one.what)))), 3));
    points.renderOrder = 2;
    points.frustumCulled = false;
    scene.add(points);
    return points;
  };
  const cross = new THREE.Points(new THREE.BufferGeometry(), new THREE.PointsMaterial({ size: 18, sizeAttenuation: false, color: 0x0b63b5, map: round, alphaTest: 0.5, depthTest: false }));
  cross.renderOrder = 3;
  cross.visible = false;
  scene.add(cross);
  for (const [letter, x, y, z] of [["R", 1, 0, 0], ["L", -1, 0, 0], ["A", 0, 1, 0], ["P", 0, -1, 0], ["S", 0, 0, 1], ["I", 0, 0, -1]]) {
    const sign = document.createElement("canvas");
    sign.width = sign.height = 64;
    const ink = sign.getContext("2d");
    ink.font = "bold 46px sans-serif"; ink.textAlign = "center"; ink.textBaseline = "middle"; ink.fillStyle = "#8a9199";
    ink.fillText(letter, 32, 34);
    const sprite = new THREE.Sprite(new THREE.SpriteMaterial({ map: new THREE.CanvasTexture(sign), depthTest: false, sizeAttenuation: false }));
    sprite.scale.setScalar(0.035);
    sprite.position.set(centre.x + x * report.half[0] * 1.12, centre.y + y * report.half[1] * 1.12, centre.z + z * report.half[2] * 1.12);
    scene.add(sprite);
  }

  const [across, up] = [[1, 2], [0, 2], [0, 1]][side].map((axis) => report.half[axis]);
  const arrange = () => {
    // As many columns as show the vessels largest.
    const { clientWidth, clientHeight } = canvas, count = Math.max(state.panes.length, 1);
    let best = 0;
    for (let columns = 1; columns <= count; columns++) {
      const rows = Math.ceil(count / columns), scale = Math.min(clientWidth / columns / across, clientHeight / rows / up);
      if (scale > best * 1.02) { best = scale; state.columns = columns; state.rows = rows; }
    }
    camera.aspect = clientWidth / state.columns / (clientHeight / state.rows);
    camera.updateProjectionMatrix();
    controls.zoomToCursor = count === 1; // it takes the whole canvas for the picture
    get("names").replaceChildren(...state.panes.filter((pane) => pane.name).map((pane, k) => {
      const name = document.createElement("span");
      name.textContent = pane.name;
      name.style.left = `${((k % state.columns) + 0.5) * clientWidth / state.columns}px`;
      name.style.top = `${(Math.floor(k / state.columns) + 1) * clientHeight / state.rows}px`;
      return name;
    }));
  };
  const space = {
    state, camera, controls,
    home() {
      controls.target.copy(centre);
      const tangent = Math.tan((camera.fov * Math.PI) / 360);
      const away = 1.15 * Math.max(up / tangent, across / (tangent * camera.aspect)) + report.half[side];
      camera.position.copy(centre).addScaledVector(front, away);
      controls.update(); draw();
    },
    look(place, near) {
      const target = new THREE.Vector3(...place), way = camera.position.clone().sub(controls.target).normalize();
      const distance = Math.max(near * 25, size * 0.25);
      controls.target.copy(target);
      camera.position.copy(target).addScaledVector(way, distance);
      cross.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(place), 3));
      cross.visible = true;
      controls.update(); draw();
    },
    show(panes) {
      for (const pane of state.panes) { scene.remove(pane.points); pane.points.geometry.dispose(); }
      const before = state.panes.length;
      state.panes = panes.map((pane) => ({ ...pane, points: marked(pane.features) }));
      arrange();
      if (before !== panes.length) space.home();
      space.paint();
    },
    paint() {
      const walls = new Set(state.panes.flatMap((pane) => pane.walls)), lines = new Set(state.panes.map((pane) => pane.lines));
      for (const k of walls) if (!state.walls[k].plain) paint(state.walls[k].mesh.geometry, state.walls[k].owner, state.walls[k].channels[state.colour.key]);
      for (const k of lines) if (state.lines[k]) paint(state.lines[k].object.geometry, state.lines[k].owner, null);
      draw();
    },
    cut(axis, share) {
      const low = centre.getComponent(axis) - report.half[axis], wide = 2 * report.half[axis];
      plane.normal.set(axis === 0 ? -1 : 0, axis === 1 ? -1 : 0, axis === 2 ? -1 : 0);
      plane.constant = share >= 1 ? 1e9 : low + share * wide;
      draw();
    },
    draw,
    picked(event) {
      const box = canvas.getBoundingClientRect(), ray = new THREE.Raycaster();
      const wide = box.width / state.columns, high = box.height / state.rows;
      const column = Math.floor((event.clientX - box.left) / wide), row = Math.floor((event.clientY - box.top) / high);
      const pane = state.panes[row * state.columns + column];
      if (!pane) return {};
      const [left, top] = [box.left + column * wide, box.top + row * high];
      ray.setFromCamera(new THREE.Vector2(((event.clientX - left) / wide) * 2 - 1, 1 - ((event.clientY - top) / high) * 2), camera);
      let best = null, nearest = 14;
      for (const one of pane.features) {
        const p = new THREE.Vector3(...one.place).project(camera);
        const apart = Math.hypot(((p.x + 1) / 2) * wide + left - event.clientX, ((1 - p.y) / 2) * high + top - event.clientY);
        if (p.z < 1 && apart < nearest) { nearest = apart; best = one; }
      }
      if (best !== null && get("markers").checked) return { feature: best };
      const meshes = pane.walls.map((k) => state.walls[k].mesh);
      meshes.forEach((mesh) => { mesh.visible = true; });
      const hit = ray.intersectObjects(meshes).find((one) => plane.distanceToPoint(one.point) >= 0);
      const wall = hit && state.walls[pane.walls[meshes.indexOf(hit.object)]];
      return hit ? { point: hit.point.toArray(), branch: wall.owner && wall.owner[hit.face.a] } : {};
    },
  };
  let placed = false;
  const resize = () => {
    const { clientWidth, clientHeight } = canvas;
    renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    renderer.setSize(clientWidth, clientHeight, false);
    arrange();
    if (!placed) space.home();
    placed = true;
    draw();
  };
  new ResizeObserver(resize).observe(canvas);
  resize();
  return space;
}
