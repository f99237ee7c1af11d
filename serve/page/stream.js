// A video file or a camera: each frame is sent once the depth of the one before has arrived, and shown beside its own
// depth, in colours whose ends are the same for all frames.

import { colourEnds, colourMap, paintBar } from "./colours.js";

const $ = (id) => document.getElementById(id);
const LARGEST = 640; // pixels a side of a frame; larger ones would only travel longer
const RECENT = 10; // frames over which the frame rate is measured

export class Stream {
  /** `estimate` gives the depth of a JPEG blob, {width, height, depth}; `fail` is called with an error. */
  constructor({ estimate, fail }) {
    Object.assign(this, { estimate, fail, video: $("source"), ends: null, shown: null, running: null, open: null });
    paintBar($("stream-bar"));
    $("toggle").addEventListener("click", () => (this.running ? this.stop() : this.start()));
    $("refit").addEventListener("click", () => this.refit());
    for (const id of ["stream-near", "stream-far"]) $(id).addEventListener("change", () => this.readEnds());
    $("position").addEventListener("input", () => this.seek());
  }

  get active() {
    return this.open !== null;
  }

  /** A file: it is played at its own speed, and frames that the server is too slow for are left out. */
  async openFile(file) {
    const address = URL.createObjectURL(file);
    await this.begin(file.name || "video", async () => {
      if (this.video.src !== address) this.video.src = address;
    });
  }

  /** A camera, whose light is off while the stream is stopped. */
  async openCamera() {
    await this.begin("camera", async () => {
      this.video.srcObject = null;
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: LARGEST }, facingMode: { ideal: "environment" } },
      });
    });
  }

  async begin(name, open) {
    this.close();
    Object.assign(this, { name, open });
    await this.start();
  }

  async start() {
    const mine = (this.running = new AbortController());
    $("toggle").textContent = "Stop";
    try {
      await this.open();
      await this.video.play();
      $("seeking").hidden = !Number.isFinite(this.video.duration);
      $("position").max = this.video.duration || 0;
      await this.run(mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) this.fail(this.explained(error));
    }
  }

  /** Errors of the browser say nothing to a reader; those of a server do. */
  explained(error) {
    const camera = "No camera is available here: browsers allow one on https:// and localhost alone, and ask you first.";
    const unreadable = `${this.name} is not a video this browser can play; convert it, as with ffmpeg -i IN OUT.webm.`;
    const isOfBrowser = error instanceof DOMException || error instanceof TypeError;
    if (this.video.error || error.name === "NotSupportedError") return new Error(unreadable);
    return isOfBrowser && this.name === "camera" && !this.video.srcObject ? new Error(camera) : error;
  }

  async run(signal) {
    const answered = [];
    for (let sent = -1; !signal.aborted; ) {
      await new Promise(requestAnimationFrame); // none come while nobody sees the page
      const { currentTime, ended, error, seeking, videoWidth } = this.video;
      if (error) throw error;
      if (signal.aborted || !videoWidth || seeking || currentTime === sent) {
        if (ended) this.stop();
        continue;
      }
      sent = currentTime;
      const began = performance.now();
      await this.ask(this.draw(), sent, signal);
      if (signal.aborted) return;
      const now = performance.now();
      answered.push(now);
      if (answered.length > RECENT) answered.shift();
      const rate = answered.length > 1 ? (1000 * (answered.length - 1)) / (now - answered[0]) : 0;
      $("latency").textContent = `${Math.round(now - began)} ms${rate ? `, ${rate.toFixed(1)} frames/s` : ""}`;
    }
  }

  /** Send a frame, and show it with its depth. */
  async ask(image, seconds, signal) {
    const blob = await image.convertToBlob({ type: "image/jpeg", quality: 0.9 });
    const map = await this.estimate(blob, signal);
    if (!signal?.aborted) this.show({ image, map, seconds });
  }

  /** Depth of another model from now on, in colours of its own; also of the frame that a stopped stream shows. */
  async changeModel() {
    this.ends = null;
    if (this.running || !this.shown) return;
    try {
      await this.ask(this.shown.image, this.shown.seconds);
    } catch (error) {
      this.fail(error);
    }
  }

  /** The frame that is played now, downscaled. */
  draw() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, LARGEST / Math.max(videoWidth, videoHeight));
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(videoWidth * scale)), Math.max(1, Math.round(videoHeight * scale)));
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas;
  }

  show(shown) {
    this.shown = shown;
    if (!this.ends) this.showEnds(colourEnds(shown.map.depth));
    $("stream").style.setProperty("--ratio", shown.map.width / shown.map.height);
    if (!$("position").matches(":active")) $("position").value = shown.seconds;
    $("time").textContent = `${shown.seconds.toFixed(1)} s`;
    this.paint();
    $("stream").hidden = false;
  }

  paint() {
    if (!this.shown) return;
    const { image, map } = this.shown;
    for (const [id, picture] of [["stream-image", image], ["stream-depth", colourMap(map, this.ends)]]) {
      [$(id).width, $(id).height] = [map.width, map.height];
      $(id).getContext("2d").drawImage(picture, 0, 0, map.width, map.height);
    }
  }

  showEnds(ends) {
    this.ends = ends;
    [$("stream-near").value, $("stream-far").value] = ends.map((metres) => metres.toFixed(2));
  }

  readEnds() {
    const ends = ["stream-near", "stream-far"].map((id) => $(id).valueAsNumber);
    const fault = ends[0] >= 0 && ends[1] > ends[0] ? "" : "The second number must be larger, and none below 0.";
    $("stream-far").setCustomValidity(fault);
    if (fault) return $("stream-far").reportValidity();
    this.ends = ends;
    this.paint();
  }

  /** Ends of the colours by the frame that is shown, or by the next one where there is none. */
  refit() {
    $("stream-far").setCustomValidity("");
    this.ends = null;
    if (this.shown) this.showEnds(colourEnds(this.shown.map.depth));
    this.paint();
  }

  seek() {
    this.video.currentTime = $("position").valueAsNumber;
    if (!this.running) this.start();
  }

  /** What is shown stays: the last frame with its depth. */
  stop() {
    this.running?.abort();
    this.running = null;
    this.video.pause();
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
    $("toggle").textContent = "Start";
  }

  close() {
    this.stop();
    if (this.video.src.startsWith("blob:")) URL.revokeObjectURL(this.video.src);
    this.video.srcObject = null;
    this.video.removeAttribute("src");
    this.video.load(); // which lets go of the file
    Object.assign(this, { ends: null, shown: null, open: null });
    $("stream").hidden = true;
    $("latency").textContent = "";
  }
}
