// The page of a depth server: an image is sent, float32 metres come back, and all views are computed from them here.
// Camera frame as in the downloads: x right, y down, z forward; WebGL's y and z point the other way.

import { colourEnds, colourMap, measured, paintBar } from "./colours.js";
import { Stream } from "./stream.js";

const $ = (id) => document.getElementById(id);
const LARGEST = 2048; // pixels a side; a larger image is downscaled before it is sent
const TRIES = 4;
const MAX_POINTS = 1_500_000;
const FILES = { png: ".depth.png", npy: ".depth.npy", colour: ".colour", ply: ".ply", glb: ".glb" };
const INPUTS = { image: "an image", sparse: "sparse measured depth", background: "an image of the background" };

// The current view: the bytes sent, the upright image, (height, width) metres, and the user's marks and cross.
const now = { blob: null, name: "", bitmap: null, depth: null, width: 0, height: 0, marks: [], cross: null };
let opened = null; // the image last opened: {blob, name, bitmap}; shown once its depth has arrived
let cards = []; // models of the server
let pending = null; // AbortController of the ongoing request

// ---- Talking to the server -------------------------------------------------------------------------------------------

/** A request with the API key, if known. Without access it asks for a key; while the queue is full it retries. */
async function request(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const key = sessionStorage.getItem("key");
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer;
    const full = answer.status === 429 || answer.status === 503;
    if (full && attempt < TRIES) {
      showStatus(`The server is busy; retrying (${attempt + 1} of ${TRIES}) ...`);
      await pause(Math.max(Number(answer.headers.get("Retry-After")) || 0, 0.5 * 2 ** attempt), options.signal);
    } else if ((answer.status === 401 || answer.status === 403) && attempt < TRIES && (await askKey())) {
      continue;
    } else {
      throw new Error(await problem(answer));
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, Math.min(seconds, 30) * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

/** The detail of a problem document; Ray's own errors are plain text. */
async function problem(answer) {
  const text = (await answer.text()).slice(0, 2000);
  try {
    const { title, detail } = JSON.parse(text);
    return String(detail || title || `error ${answer.status}`);
  } catch {
    return `error ${answer.status}${text && !text.startsWith("<") ? `: ${text.slice(0, 200)}` : ""}`;
  }
}

function askKey() {
  return new Promise((resolve) => {
    const accept = () => {
      if ($("key").value) sessionStorage.setItem("key", $("key").value);
      resolve(Boolean($("key").value) && $("key-dialog").returnValue !== "cancel");
      $("key").value = "";
    };
    $("key-dialog").addEventListener("close", accept, { once: true });
    $("key-dialog").showModal();
  });
}

async function listModels() {
  try {
    const tree = await (await request("v1/models")).json();
    cards = (Array.isArray(tree) ? tree : tree.models).map((card) => (typeof card === "string" ? { name: card } : card));
  } catch (error) {
    return showError(`The models cannot be listed: ${error.message}`);
  }
  const options = cards.map((card) => new Option(card.name, card.name, Boolean(card.default), Boolean(card.default)));
  for (const [index, card] of cards.entries()) options[index].disabled = Boolean(card.targets && !card.targets.includes("depth"));
  $("model").replaceChildren(...options);
  $("model").disabled = cards.length < 2;
  showOthers();
  showAbout();
  turnFov();
}

/** The chosen model in words: what it is, what its recipe says of it, and how far it was off on frames it had not seen. */
function showAbout() {
  const { architecture, about, inputs, metrics = {}, limits = [] } = card();
  const scores = [
    metrics.abs_rel >= 0 && `its depth was ${percent(metrics.abs_rel)} off on average`,
    metrics.delta1 >= 0 && `${percent(metrics.delta1)} of the pixels were within 25 %`,
    metrics.rmse >= 0 && `the root mean square error was ${metrics.rmse.toFixed(2)} m`,
  ].filter(Boolean);
  const taken = (inputs ?? []).map((name) => INPUTS[name] ?? name).join(" and ");
  const network = architecture && `A network of the architecture ${architecture}${taken && ` that reads ${taken}`}`;
  const trained = limits.filter((line) => line.startsWith("Trained")); // the rest is said by warnings where it matters
  $("about").textContent = [network, about, scores.length && `On its validation frames ${scores.join(", ")}`, ...trained]
    .filter(Boolean)
    .map((text) => `${text.replace(/\.$/, "")}.`)
    .join(" ");
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

const card = () => cards.find((one) => one.name === $("model").value) ?? {};
const endpoint = () => (card().name ? `v1/models/${encodeURIComponent(card().name)}/depth` : "v1/depth");

/** An image, with the model's further inputs if it has any -> its depth, or another plane, in a format. */
function estimate({ blob, name }, format, { signal, plane } = {}) {
  const query = new URLSearchParams({ format });
  if (plane) query.set("plane", plane);
  if (format === "ply" || format === "glb" || needsCamera()) query.set("fov", $("fov").value);
  if ((format === "ply" || format === "glb") && now.sure && least() > 0) query.set("min_confidence", least());
  const files = [...$("others").querySelectorAll("input")];
  let [body, headers] = [blob, { "Content-Type": blob.type }];
  if (files.length) {
    [body, headers] = [new FormData(), {}];
    body.append("image", blob, name);
    for (const input of files) body.append(input.name, input.files[0]);
  }
  return request(`${endpoint()}?${query}`, { method: "POST", body, headers, signal });
}

async function readDepth(answer) {
  if (answer.headers.get("X-Plane") === "mask") throw new Error("This model predicts a mask and no depth; choose another.");
  return readNpy(await answer.arrayBuffer());
}

/** Bytes of a NumPy file of (H,W) float32 -> {width, height, depth}. */
function readNpy(buffer) {
  const view = new DataView(buffer);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, start, length));
  const shape = /'shape': *\((\d+), *(\d+)\)/.exec(header);
  if (!shape || !header.includes("'<f4'") || header.includes("'fortran_order': True")) throw new Error("the answer is no depth map");
  const [height, width] = [Number(shape[1]), Number(shape[2])];
  return { width, height, depth: new Float32Array(buffer.slice(start + length), 0, width * height) };
}

// ---- From a file to a result -----------------------------------------------------------------------------------------

/** An image or a video. */
function openFile(file) {
  if (!file.type.startsWith("video/")) return openImage(file);
  openStream(() => stream.openFile(file));
}

async function openImage(file, name = file.name || "image") {
  stream.close();
  showError("");
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    opened = { name, bitmap, blob: await prepareUpload(file, bitmap) };
  } catch {
    opened = null;
    return fail(`${name} is not an image this browser can read.`);
  }
  await run();
}

/** The file itself if the server accepts it, else the image downscaled or converted as a JPEG file. */
async function prepareUpload(file, bitmap) {
  const side = Math.max(bitmap.width, bitmap.height);
  const known = ["image/jpeg", "image/png", "image/webp"].includes(file.type);
  const alone = inputsBeyondImage().length === 0; // further inputs have the size of the original image
  if (known && (side <= LARGEST || !alone)) return file;
  const scale = alone ? Math.min(1, LARGEST / side) : 1;
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function run() {
  const missing = [...$("others").querySelectorAll("input")].filter((input) => !input.files.length);
  if (!opened || missing.length) return showStatus(opened ? `Still missing: ${missing.map((input) => input.name).join(", ")}` : "");
  pending?.abort();
  const mine = (pending = new AbortController());
  document.body.classList.add("busy");
  showStatus("Estimating depth ...");
  showError("");
  try {
    const started = performance.now();
    const image = opened;
    const signal = mine.signal;
    const [answer, sure] = await Promise.all([
      estimate(image, "npy", { signal }),
      card().confidence ? estimate(image, "npy", { signal, plane: "confidence" }) : null,
    ]);
    Object.assign(now, image, await readDepth(answer), { marks: [], cross: null });
    Object.assign(now, { metres: now.depth, sure: sure && readNpy(await sure.arrayBuffer()).depth });
    hideUnsure();
    show(answer, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(explained(error));
  } finally {
    if (mine === pending) document.body.classList.remove("busy");
  }
}

const explained = (error) => (error instanceof TypeError ? "The server does not answer." : error.message);

/** An error in place of a result: that of the image before would be taken for this one's. */
function fail(text) {
  clear();
  $("empty").hidden = false;
  showError(text);
}

/** Neither image nor stream. */
function clear() {
  pending?.abort();
  stream.close();
  Object.assign(now, { blob: null, bitmap: null, depth: null, metres: null, sure: null, marks: [], cross: null });
  colours = null;
  $("result").hidden = true;
  showStatus("");
  showError("");
}

function openStream(begin) {
  clear();
  opened = null;
  $("empty").hidden = true;
  showStatus("Waiting for the first frame ...");
  begin();
}

/** A frame of a stream -> its depth. */
async function estimateFrame(blob, signal) {
  const others = inputsBeyondImage();
  if (others.length) throw new Error(`This model needs ${others.join(" and ")} with each image, which a video has not; choose another.`);
  const map = await readDepth(await estimate({ blob, name: "frame.jpg" }, "npy", { signal }));
  showStatus(stream.name);
  return map;
}

/** The frame that a stream shows, as an image: with distances, points and downloads. */
async function keepFrame() {
  const { image, seconds } = stream.shown;
  const name = `${stream.name.replace(/\.\w+$/, "")}-${seconds.toFixed(2)}s.jpg`;
  await openImage(await image.convertToBlob({ type: "image/jpeg", quality: 0.95 }), name);
}

const least = () => Number($("least").value) / 100;

/** Pixels of less confidence than is wanted become pixels without depth. */
function hideUnsure() {
  $("sureness").hidden = !now.sure;
  $("least-value").textContent = `${$("least").value} %`;
  if (now.sure) now.depth = now.metres.map((metres, index) => (now.sure[index] < least() ? 0 : metres));
}

function show(answer, took) {
  $("empty").hidden = true;
  $("result").hidden = false;
  const model = answer.headers.get("X-Model");
  const seen = answer.headers.get("X-Model-Input-Size");
  showStatus(`${now.name}: ${now.width} \u00d7 ${now.height}, ${(took / 1000).toFixed(2)} s`);
  $("facts").textContent = [
    model && `Model ${model}`,
    seen && `input resized to ${seen}`,
    now.bitmap.width !== now.width && `image of ${now.bitmap.width} \u00d7 ${now.bitmap.height} downscaled before upload`,
  ].filter(Boolean).join(", ");
  const warning = answer.headers.get("X-Depth-Warning");
  $("warning").textContent = warning ? `Not as in training, so metres may be off: ${warning}.` : "";
  paint();
  measure();
  cloud.fill();
}

// ---- Image next to colours ------------------------------------------------------------------------------------------

let colours = null; // the painted depth, a canvas of the depth's size

function paint() {
  const [near, far] = colourEnds(now.depth);
  colours = colourMap(now, [near, far]);
  $("near").textContent = `${near.toFixed(2)} m`;
  $("far").textContent = `${far.toFixed(2)} m`;
  $("flat").width = now.width;
  $("flat").height = now.height;
  $("result").style.setProperty("--ratio", now.width / now.height);
  $("marks").setAttribute("viewBox", `0 0 ${now.width} ${now.height}`);
  slide();
}

const split = () => Math.round(($("divider").value / 1000) * now.width);

function slide() {
  if (!colours) return;
  const context = $("flat").getContext("2d");
  const at = split();
  context.drawImage(now.bitmap, 0, 0, now.width, now.height);
  if (at < now.width) context.drawImage(colours, at, 0, now.width - at, now.height, at, 0, now.width - at, now.height);
  drawMarks();
}

// ---- Metres under the pointer, distances -----------------------------------------------------------------------------

const metresAt = ({ u, v }) => now.depth[v * now.width + u];
const focal = () => now.width / 2 / Math.tan((Number($("fov").value) * Math.PI) / 360);

/** A pixel -> its point in metres: x right, y down, z forward. */
function point({ u, v }) {
  const z = metresAt({ u, v });
  return [((u - (now.width - 1) / 2) / focal()) * z, ((v - (now.height - 1) / 2) / focal()) * z, z];
}

function pixel(event) {
  const box = $("flat").getBoundingClientRect();
  const clamp = (value, most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
  return {
    u: clamp(((event.clientX - box.left) / box.width) * now.width, now.width),
    v: clamp(((event.clientY - box.top) / box.height) * now.height, now.height),
  };
}

function read(spot) {
  const metres = metresAt(spot);
  const sure = now.sure && `, right within 10 % with ${percent(now.sure[spot.v * now.width + spot.u])}`;
  $("reading").textContent = `${measured(metres) ? `${metres.toFixed(3)} m` : "not measured"} at ${spot.u}, ${spot.v}${sure || ""}`;
}

function mark(spot) {
  if (!measured(metresAt(spot))) return;
  now.marks = [...(now.marks.length === 2 ? [] : now.marks), { ...spot }];
  measure();
}

function measure() {
  const [one, two] = now.marks;
  $("distance").textContent = !one
    ? "Click two points for the distance between them."
    : !two
      ? `First point: ${metresAt(one).toFixed(3)} m away. Click the second.`
      : `${Math.hypot(...point(one).map((value, axis) => value - point(two)[axis])).toFixed(3)} m apart ` +
        `(${metresAt(one).toFixed(3)} m and ${metresAt(two).toFixed(3)} m away, field of view ${$("fov").value}\u00b0)`;
  drawMarks();
}

function drawMarks() {
  const shape = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const line = (x1, y1, x2, y2, kind) => ["halo", kind].map((name) => shape("line", { x1, y1, x2, y2, class: name }));
  const spot = (x, y, kind) => [`halo ${kind}`, kind].map((name) => shape("path", { d: `M${x} ${y}h0`, class: name }));
  const [one, two] = now.marks;
  const arm = now.width / 40;
  $("marks").replaceChildren(
    ...line(split(), 0, split(), now.height, "edge"),
    ...spot(split(), now.height / 2, "grip"),
    ...(two ? line(one.u + 0.5, one.v + 0.5, two.u + 0.5, two.v + 0.5, "span") : []),
    ...now.marks.flatMap(({ u, v }) => spot(u + 0.5, v + 0.5, "dot")),
    ...(now.cross ? line(now.cross.u - arm, now.cross.v + 0.5, now.cross.u + arm, now.cross.v + 0.5, "span") : []),
    ...(now.cross ? line(now.cross.u + 0.5, now.cross.v - arm, now.cross.u + 0.5, now.cross.v + arm, "span") : []),
  );
}

function watchFlat() {
  const canvas = $("flat");
  let dragging = false;
  const nearDivider = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.abs(event.clientX - box.left - (split() / now.width) * box.width) < (event.pointerType === "mouse" ? 6 : 16);
  };
  canvas.addEventListener("pointerdown", (event) => {
    dragging = nearDivider(event);
    if (dragging) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = nearDivider(event) ? "ew-resize" : "crosshair";
    if (dragging) {
      $("divider").value = (1000 * (pixel(event).u + 0.5)) / now.width;
      slide();
    } else read(pixel(event));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragging) dragging = false;
    else if (event.button === 0) [read, mark].forEach((act) => act(pixel(event)));
  });
  canvas.addEventListener("pointercancel", () => (dragging = false));
  canvas.addEventListener("keydown", flatKey);
  canvas.addEventListener("blur", () => {
    now.cross = null;
    drawMarks();
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function flatKey(event) {
  now.cross ??= ARROWS[event.key] || event.key === "Enter" ? { u: now.width >> 1, v: now.height >> 1 } : null;
  if (ARROWS[event.key]) {
    const stride = event.shiftKey ? 20 : 2;
    const [u, v] = ARROWS[event.key].map((way) => way * stride);
    now.cross.u = Math.min(Math.max(now.cross.u + u, 0), now.width - 1);
    now.cross.v = Math.min(Math.max(now.cross.v + v, 0), now.height - 1);
  } else if (event.key === "Enter" || (event.key === " " && now.cross)) mark(now.cross);
  else if (event.key === "Escape") {
    now.marks = [];
    measure();
  } else return;
  event.preventDefault();
  if (now.cross) read(now.cross);
  drawMarks();
}

// ---- Point cloud -----------------------------------------------------------------------------------------------------

const VERTEX = `
attribute vec2 at; attribute float metres; attribute vec3 rgb;
uniform mat3 turn; uniform vec3 centre; uniform vec2 lens; uniform float away, focal, dot;
varying vec3 colour;
void main() {
  vec3 here = vec3(at / focal, -1.0) * metres;
  vec3 seen = turn * (here - centre) - vec3(0.0, 0.0, away);
  float near = 0.02, far = 1000.0;
  gl_Position = vec4(seen.xy * lens, ((far + near) * -seen.z - 2.0 * far * near) / (far - near), -seen.z);
  gl_PointSize = clamp(dot * metres / max(-seen.z, near), 1.0, 24.0);
  colour = rgb;
}`;
const FRAGMENT = `
precision mediump float;
varying vec3 colour;
void main() { gl_FragColor = vec4(colour, 1.0); }`;

class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.count = 0;
    this.front();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => (this.prepare(), this.fill()));
    this.prepare();
    this.watch();
  }

  prepare() {
    const gl = (this.gl = this.canvas.getContext("webgl", { antialias: false }));
    if (!gl) return;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "no shader");
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    this.slot = (name) => gl.getUniformLocation(program, name);
    this.feeds = { at: [2, gl.FLOAT], metres: [1, gl.FLOAT], rgb: [3, gl.UNSIGNED_BYTE] };
    for (const [name, feed] of Object.entries(this.feeds)) {
      const attribute = gl.getAttribLocation(program, name);
      feed.push(gl.createBuffer());
      gl.enableVertexAttribArray(attribute);
      gl.bindBuffer(gl.ARRAY_BUFFER, feed[2]);
      gl.vertexAttribPointer(attribute, feed[0], feed[1], feed[1] === gl.UNSIGNED_BYTE, feed[0] === 3 ? 4 : 0, 0);
    }
  }

  /** One coloured point for each measured pixel; of very large maps every second or third row and column. */
  fill() {
    const { gl } = this;
    if (!now.depth) return;
    if (!gl) return ($("camera").textContent = "This browser has no WebGL, so the points cannot be shown; they can be downloaded.");
    this.step = Math.ceil(Math.sqrt((now.width * now.height) / MAX_POINTS));
    const size = Math.ceil(now.width / this.step) * Math.ceil(now.height / this.step);
    const [at, metres, rgb] = [new Float32Array(2 * size), new Float32Array(size), new Uint32Array(size)];
    const seen = new Uint32Array(pixelsOfImage().buffer);
    let count = 0;
    for (let v = 0; v < now.height; v += this.step) {
      for (let u = 0; u < now.width; u += this.step) {
        const index = v * now.width + u;
        if (!measured(now.depth[index])) continue;
        at[2 * count] = u - (now.width - 1) / 2;
        at[2 * count + 1] = (now.height - 1) / 2 - v;
        metres[count] = now.depth[index];
        rgb[count++] = seen[index];
      }
    }
    for (const [name, values] of Object.entries({ at, metres, rgb })) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.feeds[name][2]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    }
    this.count = count;
    this.median = count ? metres.slice(0, count).sort()[count >> 1] : 1;
    this.front();
  }

  front() {
    Object.assign(this, { yaw: 0, pitch: 0, zoom: 1 });
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.paint();
    });
  }

  paint() {
    const { gl, canvas, count, median, zoom, yaw, pitch } = this;
    if (!gl || !count || gl.isContextLost()) return;
    const dense = Math.min(devicePixelRatio, 2);
    [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [wide, tall] = [canvas.width / now.width, canvas.height / now.height];
    const fit = Math.min(wide, tall); // screen pixels for each image pixel, seen from the camera
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    gl.uniformMatrix3fv(this.slot("turn"), false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]);
    gl.uniform3f(this.slot("centre"), 0, 0, -median);
    gl.uniform2f(this.slot("lens"), (2 * focal() * fit) / canvas.width, (2 * focal() * fit) / canvas.height);
    gl.uniform1f(this.slot("away"), median / zoom);
    gl.uniform1f(this.slot("focal"), focal());
    gl.uniform1f(this.slot("dot"), 2 * fit * this.step);
    gl.drawArrays(gl.POINTS, 0, count);
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(Math.max(this.pitch + pitch, -1.55), 1.55);
    this.draw();
  }

  near(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.1), 20);
    this.draw();
  }

  watch() {
    const { canvas } = this;
    const fingers = new Map();
    const span = () => {
      const [one, two] = [...fingers.values()];
      return Math.hypot(one.x - two.x, one.y - two.y);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const apart = fingers.size === 2 ? span() : 0;
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (apart) this.near(span() / apart);
      else this.turn((event.clientX - before.x) / 150, (event.clientY - before.y) / 150);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => (event.preventDefault(), this.near(Math.exp(-event.deltaY / 600))), { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (ARROWS[event.key]) this.turn(...ARROWS[event.key].map((way) => way * 0.1));
      else if (event.key === "+" || event.key === "=") this.near(1.2);
      else if (event.key === "-") this.near(1 / 1.2);
      else if (event.key === "0") this.front();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }
}

function pixelsOfImage() {
  const canvas = new OffscreenCanvas(now.width, now.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(now.bitmap, 0, 0, now.width, now.height);
  return context.getImageData(0, 0, now.width, now.height).data;
}

// ---- Downloads, further inputs, camera -------------------------------------------------------------------------------

async function download(button) {
  button.disabled = true;
  showError("");
  try {
    const answer = await estimate(now, button.dataset.format);
    const kind = (answer.headers.get("Content-Type") ?? "").replace(/^image\/(\w+).*/, ".$1").replace("jpeg", "jpg");
    const blob = await answer.blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = now.name.replace(/\.\w+$/, "") + FILES[button.dataset.format] + (button.dataset.format === "colour" ? kind : "");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    showStatus(`Saved ${link.download}`);
  } catch (error) {
    showError(explained(error));
  } finally {
    button.disabled = false;
  }
}

const needsCamera = () => card().canonical_focal > 0; // its depths follow the focal length
const inputsBeyondImage = () => (card().inputs ?? []).filter((name) => name !== "image");

function showOthers() {
  const rows = inputsBeyondImage().map((name) => {
    const [label, input] = [document.createElement("label"), document.createElement("input")];
    Object.assign(input, { type: "file", name, accept: name === "background" ? "image/*" : "image/png,.npy" });
    input.addEventListener("change", run);
    label.append(name, input);
    return label;
  });
  $("others").hidden = !rows.length;
  $("others").replaceChildren($("others").firstElementChild, ...rows);
}

async function takePhoto() {
  if (!navigator.mediaDevices?.getUserMedia || matchMedia("(pointer: coarse)").matches) return $("snap").click();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
    $("video").srcObject = stream;
    $("camera-dialog").showModal();
    $("camera-dialog").addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
  } catch {
    showError("No camera is available here; open an image instead.");
  }
}

async function openExample(event) {
  event.stopPropagation(); // the frame around it opens a file
  try {
    const answer = await fetch("page/example.jpg");
    if (!answer.ok) throw new Error(await problem(answer));
    await openImage(await answer.blob(), "example.jpg");
  } catch (error) {
    fail(explained(error));
  }
}

async function shoot() {
  const video = $("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  $("camera-dialog").close();
  await openImage(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 }), "camera.jpg");
}

function turnFov() {
  $("degrees").textContent = `${$("fov").value}\u00b0`;
  $("camera").textContent = needsCamera()
    ? "Horizontal; assumed unless you set it. This model's depths depend on it."
    : "Horizontal; assumed unless you set it. Depths do not depend on it; widths, heights and distances do.";
  if (!now.depth) return;
  measure();
  cloud.draw();
}

function showStatus(text) {
  $("status").textContent = text;
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function watchFiles() {
  for (const id of ["file", "snap"]) {
    $(id).addEventListener("change", () => {
      if ($(id).files.length) openFile($(id).files[0]);
      $(id).value = ""; // so that the same file can be opened again
    });
  }
  for (const id of ["open", "empty"]) $(id).addEventListener("click", () => $("file").click());
  $("example").addEventListener("click", openExample);
  $("take").addEventListener("click", takePhoto);
  $("live").addEventListener("click", () => openStream(() => stream.openCamera()));
  $("keep").addEventListener("click", keepFrame);
  $("shoot").addEventListener("click", shoot);
  $("leave").addEventListener("click", () => $("camera-dialog").close());
  addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("over")));
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
    else fail("Drop a file, not a link: this server downloads nothing.");
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && openFile(event.clipboardData.files[0]));
}

const cloud = new Cloud($("cloud"));
const stream = new Stream({ estimate: estimateFrame, fail: (error) => fail(explained(error)) });
paintBar($("bar"));
watchFiles();
watchFlat();
turnFov();
$("divider").addEventListener("input", slide);
$("fov").addEventListener("input", turnFov);
$("fov").addEventListener("change", () => needsCamera() && !stream.active && run());
$("least").addEventListener("input", () => now.sure && (hideUnsure(), paint(), measure(), cloud.fill()));
$("front").addEventListener("click", () => cloud.front());
$("model").addEventListener("change", () => (showOthers(), showAbout(), turnFov(), stream.active ? stream.changeModel() : run()));
for (const button of $("downloads").children) button.addEventListener("click", () => download(button));
listModels();
