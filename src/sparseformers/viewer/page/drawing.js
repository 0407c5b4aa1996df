// Places on a photograph, and heat over it.
//
// Regions of interest are (x1, y1, x2, y2) in [0, 1] of what the network was given; `seen` is where that lies in the photograph.

/** A region of the view as a rectangle in [0, 1] of the photograph. */
export function onPhotograph(roi, seen) {
  const [width, height] = [seen[2] - seen[0], seen[3] - seen[1]];
  const x = seen[0] + Math.min(roi[0], roi[2]) * width;
  const y = seen[1] + Math.min(roi[1], roi[3]) * height;
  return { x, y, width: Math.abs(roi[2] - roi[0]) * width, height: Math.abs(roi[3] - roi[1]) * height };
}

/** A point of the view in [0, 1] of the photograph. */
export function pointOnPhotograph(point, seen) {
  return [seen[0] + point[0] * (seen[2] - seen[0]), seen[1] + point[1] * (seen[3] - seen[1])];
}

/** The region of a token at a place between two stages. */
export function between(rois, token, place) {
  const before = Math.min(Math.floor(place), rois.length - 1);
  const after = Math.min(before + 1, rois.length - 1);
  const share = place - before;
  return rois[before][token].map((edge, side) => edge * (1 - share) + rois[after][token][side] * share);
}

export const centre = (roi) => [(roi[0] + roi[2]) / 2, (roi[1] + roi[3]) / 2];
export const area = (roi) => Math.abs((roi[2] - roi[0]) * (roi[3] - roi[1]));

/**
 * The token that is meant by a point of the view: of the regions around it a small one rather than a large one, and one
 * whose middle is near. -1 where there is no region.
 */
export function tokenAt(rois, x, y) {
  let best = -1;
  let least = Infinity;
  rois.forEach((roi, token) => {
    const [halfWidth, halfHeight] = [Math.abs(roi[2] - roi[0]) / 2, Math.abs(roi[3] - roi[1]) / 2];
    const [middleX, middleY] = centre(roi);
    const [across, down] = [Math.abs(x - middleX) / halfWidth, Math.abs(y - middleY) / halfHeight];
    if (!(across <= 1 && down <= 1)) return;
    const cost = Math.log(halfWidth * halfHeight) + 2 * (across * across + down * down);
    if (cost < least) [least, best] = [cost, token];
  });
  return best;
}

/** How many regions lie over a point of the view, on average. */
export const crowding = (rois) => rois.reduce((sum, roi) => sum + area(roi), 0);

/** A model's or a teacher's name without the folders that its file lies in; the last one stays, for runs are often named alike. */
export function shortName(name) {
  const [before, file] = name.includes("@") ? name.split(/@(.*)/s) : [null, name];
  const parts = file.split(/[\\/]/).filter(Boolean);
  if (before !== null) return `${before}@${parts.at(-1)}`;
  return parts.length > 2 ? parts.slice(-2).join("/") : name;
}

/** Radius of the dots for that many points in a region of that many pixels of the screen: they are not to run into each other. */
export const dotRadius = (pixels, points) => Math.min(2.2, Math.max(0.6, 0.28 * Math.sqrt(pixels / points)));

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

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
