// Attention as a heat map: dark and clear where there is none, light where there is most.

const STOPS = [
  [0.0, [20, 11, 52]],
  [0.3, [106, 23, 110]],
  [0.55, [196, 60, 78]],
  [0.8, [246, 138, 36]],
  [1.0, [252, 245, 160]],
];

function colour(share) {
  const upper = Math.max(1, STOPS.findIndex(([place]) => place >= share));
  const [[low, from], [high, to]] = [STOPS[upper - 1], STOPS[upper]];
  const part = (share - low) / (high - low);
  return from.map((value, channel) => value + (to[channel] - value) * part);
}

function paint(context, values, columns, rows, alpha) {
  const pixels = context.createImageData(columns, rows);
  values.forEach((share, place) => {
    const [red, green, blue] = colour(share);
    pixels.data.set([red, green, blue, 255 * alpha(share)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
}

/** Draws a map (rows of shares that sum to one) over the part of a picture that the teacher saw; null clears it. */
export function drawHeat(canvas, map, seen) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!map) return;
  const [rows, columns] = [map.length, map[0].length];
  const flat = map.flat();
  const most = Math.max(...flat) || 1;
  const small = new OffscreenCanvas(columns, rows);
  paint(small.getContext("2d"), flat.map((share) => share / most), columns, rows, (share) => 0.08 + 0.77 * share ** 0.6);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const [width, height] = [canvas.width, canvas.height];
  context.drawImage(small, seen[0] * width, seen[1] * height, (seen[2] - seen[0]) * width, (seen[3] - seen[1]) * height);
}

/** The colours from none to most. */
export function drawScale(canvas) {
  const shares = Array.from({ length: canvas.width }, (_, place) => place / (canvas.width - 1));
  paint(canvas.getContext("2d"), shares, canvas.width, 1, () => 1);
}
