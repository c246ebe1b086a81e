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
  controls.zoomToCursor = true;
  scene.add(new THREE.HemisphereLight(0xffffff, 0x8890a0, 1.6));
  const lamp = new THREE.DirectionalLight(0xffffff, 1.8);
  camera.add(lamp);
  scene.add(camera);
  const plane = new THREE.Plane(new THREE.Vector3(-1, 0, 0), 1e9);
  const state = { level: 0, colour: report.colours[0], meshes: [], chosen: null };

  let asked = false;
  const draw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; renderer.render(scene, camera); });
  };
  controls.addEventListener("change", draw);

  // Walls and centreline, coloured by what is known of the branch that each vertex belongs to.
  const colourOf = (colour, value) => (value === null || value === undefined || value < 0 ? [0.6, 0.63, 0.67] : colour.names ? hex(STEPS[value % STEPS.length]) : ramp((value - colour.low) / (colour.high - colour.low || 1)));
  const paint = (geometry, owner, own) => {
    const colours = geometry.getAttribute("color"), { colour } = state;
    for (let k = 0; k < owner.length; k++) {
      const value = colour.key === "radius" && own ? colour.low + (own[k] / 255) * (colour.high - colour.low) : report.values[colour.key][owner[k]];
      colours.setXYZ(k, ...colourOf(colour, value));
    }
    colours.needsUpdate = true;
  };
  const material = new THREE.MeshStandardMaterial({ vertexColors: true, roughness: 0.55, metalness: 0, side: THREE.DoubleSide, clippingPlanes: [plane] });
  for (const level of report.levels) {
    const packed = running(new Int32Array(await part(level.vertices))), points = new Float32Array(packed.length);
    for (let k = 0; k < packed.length; k += 3) for (let axis = 0; axis < 3; axis++) {
      // Differences run along each axis by itself: x, y, z lie one after the other.
      points[k + axis] = level.low[axis] + level.step * packed[(k / 3) + axis * (packed.length / 3)];
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(points.length), 3));
    geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(running(new Int32Array(await part(level.faces))).buffer), 1));
    geometry.computeVertexNormals();
    const mesh = new THREE.Mesh(geometry, material);
    mesh.visible = false;
    scene.add(mesh);
    state.meshes.push({ mesh, owner: new Uint16Array(await part(level.owner)), own: new Uint8Array(await part(level.radius)) });
  }
  const line = new Float32Array(await part(report.lines.points)), lineOwner = new Uint16Array(await part(report.lines.owner));
  const lineGeometry = new THREE.BufferGeometry();
  lineGeometry.setAttribute("position", new THREE.BufferAttribute(line, 3));
  lineGeometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(line.length), 3));
  const lines = new THREE.LineSegments(lineGeometry, new THREE.LineBasicMaterial({ vertexColors: true, clippingPlanes: [plane], depthTest: false }));
  lines.renderOrder = 1;
  scene.add(lines);

  // Markers of features and letters at the sides of the box.
  const disc = document.createElement("canvas");
  disc.width = disc.height = 64;
  const pen = disc.getContext("2d");
  pen.fillStyle = "#fff"; pen.strokeStyle = "#000"; pen.lineWidth = 6;
  pen.beginPath(); pen.arc(32, 32, 26, 0, 7); pen.fill(); pen.stroke();
  const round = new THREE.CanvasTexture(disc);
  const markers = new THREE.Points(new THREE.BufferGeometry(), new THREE.PointsMaterial({ size: 9, sizeAttenuation: false, vertexColors: true, map: round, alphaTest: 0.5, depthTest: false, clippingPlanes: [plane] }));
  markers.renderOrder = 2;
  scene.add(markers);
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

  const space = {
    state, camera, controls,
    seen: [],
    home() {
      controls.target.copy(centre);
      const [across, up] = [[1, 2], [0, 2], [0, 1]][side].map((axis) => report.half[axis]), tangent = Math.tan((camera.fov * Math.PI) / 360);
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
    level(number) {
      state.level = number;
      state.meshes.forEach((one, k) => { one.mesh.visible = k === number && get("wall").checked; });
      space.paint();
    },
    paint() {
      const one = state.meshes[state.level];
      paint(one.mesh.geometry, one.owner, one.own);
      paint(lineGeometry, lineOwner, null);
      draw();
    },
    features(list) {
      space.seen = list;
      markers.geometry.dispose();
      markers.geometry = new THREE.BufferGeometry();
      markers.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(list.flatMap((one) => one.place)), 3));
      markers.geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(list.flatMap((one) => hex(KIND(one.what)))), 3));
      draw();
    },
    cut(axis, share) {
      const low = centre.getComponent(axis) - report.half[axis], wide = 2 * report.half[axis];
      plane.normal.set(axis === 0 ? -1 : 0, axis === 1 ? -1 : 0, axis === 2 ? -1 : 0);
      plane.constant = share >= 1 ? 1e9 : low + share * wide;
      draw();
    },
    show() {
      lines.visible = get("lines").checked;
      markers.visible = get("markers").checked;
      space.level(state.level);
    },
    picked(event) {
      const box = canvas.getBoundingClientRect(), ray = new THREE.Raycaster();
      ray.setFromCamera(new THREE.Vector2(((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2), camera);
      let best = null, nearest = 14;
      space.seen.forEach((one, k) => {
        const p = new THREE.Vector3(...one.place).project(camera);
        const apart = Math.hypot(((p.x + 1) / 2) * box.width + box.left - event.clientX, ((1 - p.y) / 2) * box.height + box.top - event.clientY);
        if (p.z < 1 && apart < nearest) { nearest = apart; best = k; }
      });
      if (best !== null && markers.visible) return { feature: space.seen[best] };
      const hit = ray.intersectObject(state.meshes[state.level].mesh).find((one) => plane.distanceToPoint(one.point) >= 0);
      return hit ? { point: hit.point.toArray(), branch: state.meshes[state.level].owner[hit.face.a] } : {};
    },
  };
  let placed = false;
  const resize = () => {
    const { clientWidth, clientHeight } = canvas;
    renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    renderer.setSize(clientWidth, clientHeight, false);
    camera.aspect = clientWidth / clientHeight;
    camera.updateProjectionMatrix();
    if (!placed) space.home();
    placed = true;
    draw();
  };
  new ResizeObserver(resize).observe(canvas);
  resize();
  return space;
}
