// Depth as colours: near is red, far is blue, and what was not measured is grey, as in all colour maps of depthray.

const UNMEASURED = [112, 112, 112];
const TURBO =
  "30123b 3f3e9c 4666dd 458cfd 2fb2f4 1ad4d0 22ebaa 52fa7a 8bff4b b7f735 dbe236 f5c53a fea130 f9751d e84b0c ce2d04 a91601 7a0403";

export const measured = (metres) => Number.isFinite(metres) && metres > 0;

/** 256 colours, near red to far blue. */
const LUT = (() => {
  const stops = TURBO.split(" ").reverse().map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, index) => {
    const spot = (index / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(spot), stops.length - 2);
    return stops[low].map((value, channel) => Math.round(value + (stops[low + 1][channel] - value) * (spot - low)));
  });
})();

// A pixel at a time: millions of small writes take seconds.
const PACKED = new Uint32Array(Uint8Array.from([...LUT, UNMEASURED].flatMap((rgb) => [...rgb, 255])).buffer);

/** Metres of a map -> the ends of its colours: all but the nearest and farthest 1 %. */
export function colourEnds(depth) {
  const step = Math.max(1, Math.floor(depth.length / 100_000));
  const some = Float32Array.from({ length: Math.ceil(depth.length / step) }, (_, index) => depth[index * step]).filter(measured).sort();
  if (!some.length) return [0, 1];
  const [near, far] = [some[Math.floor(some.length * 0.01)], some[Math.ceil(some.length * 0.99) - 1]];
  return far > near ? [near, far] : [near, near + 0.001];
}

/** {width, height, depth} in metres -> a canvas of that size, in the colours between two ends. */
export function colourMap({ width, height, depth }, [near, far]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const packed = new Uint32Array(pixels.data.buffer);
  const steps = 255 / (far - near);
  for (let index = 0; index < packed.length; index++) {
    const metres = depth[index];
    packed[index] = PACKED[measured(metres) ? Math.min(Math.max(Math.round((metres - near) * steps), 0), 255) : 256];
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** All colours from near to far, in a canvas of 256 x 1 pixels. */
export function paintBar(canvas) {
  const context = canvas.getContext("2d");
  LUT.forEach((rgb, index) => {
    context.fillStyle = `rgb(${rgb})`;
    context.fillRect(index, 0, 1, 1);
  });
}
