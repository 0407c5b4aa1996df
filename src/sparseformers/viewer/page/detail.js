// The card of one token: what is inside its region, where it reads, and how much it counts.

import { dotRadius, onPhotograph, percent, pointOnPhotograph, shortName } from "./geometry.js";

const [WIDEST, TALLEST] = [300, 220];

/** Fills the card for a token of a picture; for null with how to choose one. */
export function showToken(card, picture, token, several, pinned) {
  if (token === null) {
    card.innerHTML = `<h2>A token</h2><p class="quiet">Hover the picture or a bar below it, or Tab to the bars and use the arrow keys.
      A click keeps a token, Escape lets it go.</p>`;
    if (picture?.look.influence) card.append(mostInfluential(picture, several));
    return;
  }
  card.innerHTML = `<h2><span class="swatch"></span><span class="title"></span></h2><canvas class="content" role="img"></canvas><dl></dl>`;
  card.querySelector(".swatch").style.background = picture.model.colours[token];
  card.querySelector(".title").textContent =
    `Token ${token + 1}${several ? ` of ${shortName(picture.model.name)}` : ""}${pinned ? ", kept" : ""}`;
  const canvas = card.querySelector("canvas");
  canvas.setAttribute("aria-label", `What is inside the region of token ${token + 1}`);
  drawContent(canvas, picture, token, WIDEST, TALLEST);
  for (const [term, said] of facts(picture, token)) {
    const [name, value] = [document.createElement("dt"), document.createElement("dd")];
    [name.textContent, value.textContent] = [term, said];
    card.querySelector("dl").append(name, value);
  }
}

/** What lies inside the tokens that count most, beside each other. */
function mostInfluential(picture, several) {
  const { influence } = picture.look;
  const order = influence.map((share, token) => [share, token]).sort((one, other) => other[0] - one[0]);
  const group = document.createElement("div");
  group.className = "most";
  group.innerHTML = "<h3></h3><ol></ol>";
  group.querySelector("h3").textContent = `The most influential${several ? ` of ${shortName(picture.model.name)}` : ""}`;
  for (const [share, token] of order.slice(0, 6)) {
    const [item, canvas, said] = ["li", "canvas", "span"].map((kind) => document.createElement(kind));
    item.style.setProperty("--colour", picture.model.colours[token]);
    said.textContent = `${token + 1}: ${percent(share)}`;
    drawContent(canvas, picture, token, 88, 72);
    item.append(canvas, said);
    group.querySelector("ol").append(item);
  }
  return group;
}

function facts(picture, token) {
  const { look } = picture;
  const roi = picture.rois[token];
  const read = picture.points?.[token].length;
  return [
    ["Influence", influence(look, token)],
    ["Region", `${percent(roi[2] - roi[0], 0)} wide, ${percent(roi[3] - roi[1], 0)} high, of what the model is given`],
    ["Sampling points", read ? `${read} at this stage` : "none: nothing is read at this stage"],
  ];
}

function influence(look, token) {
  if (!look.influence) return look.influence_problem ?? "unknown";
  const share = look.influence[token];
  const rank = look.influence.filter((other) => other > share).length + 1;
  return `${percent(share)}, rank ${rank} of ${look.influence.length} (an even share is ${percent(1 / look.influence.length)})`;
}

/** Cuts the region out of the photograph, with its sampling points; what lies outside of the photograph stays hatched. */
function drawContent(canvas, picture, token, widest, tallest) {
  const { image, photograph, look } = picture;
  const region = onPhotograph(picture.rois[token], look.seen);
  const [width, height] = [region.width * photograph.width, region.height * photograph.height];
  const scale = Math.min(widest / Math.max(width, 1e-6), tallest / Math.max(height, 1e-6));
  const sharp = window.devicePixelRatio || 1;
  const [shownWidth, shownHeight] = [Math.max(8, width * scale), Math.max(8, height * scale)];
  [canvas.width, canvas.height] = [shownWidth * sharp, shownHeight * sharp];
  canvas.style.width = `${shownWidth}px`;
  canvas.style.aspectRatio = `${shownWidth} / ${shownHeight}`;
  const context = canvas.getContext("2d");
  context.scale(sharp, sharp);
  context.imageSmoothingQuality = "high";
  hatch(context, shownWidth, shownHeight);
  const across = (x) => ((x - region.x) / region.width) * shownWidth;
  const down = (y) => ((y - region.y) / region.height) * shownHeight;
  context.drawImage(image, across(0), down(0), shownWidth / region.width, shownHeight / region.height);
  context.fillStyle = picture.model.colours[token];
  context.strokeStyle = "#101014";
  const points = (widest === WIDEST && picture.points?.[token]) || []; // where it is shown small they would cover it
  const radius = dotRadius(shownWidth * shownHeight, points.length);
  for (const point of points) {
    const [x, y] = pointOnPhotograph(point, look.seen);
    context.beginPath();
    context.arc(across(x), down(y), radius, 0, 2 * Math.PI);
    context.stroke();
    context.fill();
  }
}

function hatch(context, width, height) {
  context.fillStyle = "#22252c";
  context.fillRect(0, 0, width, height);
  context.strokeStyle = "#343943";
  context.beginPath();
  for (let start = -height; start < width; start += 9) {
    context.moveTo(start, height);
    context.lineTo(start + height, 0);
  }
  context.stroke();
}
