// The tokens of a picture: a bar of influence for each, and the card of the one that is chosen.

import { dotRadius, onPhotograph, percent, pointOnPhotograph, shortName } from "./drawing.js";

// The influence of each token as a bar: also the way to the tokens for those who use the keyboard.
export class TokenBars {
  /** @param choose is told (token or null, whether it stays chosen) */
  constructor(model, choose) {
    this.model = model;
    this.choose = choose;
    this.root = document.createElement("div");
    this.root.className = "bars";
    this.caption = document.createElement("p");
    this.caption.className = "caption quiet";
    this.list = document.createElement("div");
    this.list.className = "list";
    this.root.append(this.caption, this.list);
    this.list.setAttribute("role", "toolbar");
    this.list.setAttribute("aria-label", `Tokens of ${shortName(model.name)}, the most influential first`);
    this.buttons = model.colours.map((colour, token) => {
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = -1;
      button.dataset.token = token;
      button.style.setProperty("--colour", colour);
      button.append(document.createElement("i"));
      return button;
    });
    this.order = this.buttons;
    this.#listen();
  }

  /** Orders the bars by influence, where it is known. */
  show(traced) {
    const influence = traced.influence ?? this.buttons.map(() => null);
    const most = Math.max(...influence, 1e-9);
    this.order = [...this.buttons].sort((one, other) => influence[other.dataset.token] - influence[one.dataset.token]);
    this.order.forEach((button, rank) => {
      const share = influence[button.dataset.token];
      button.style.setProperty("--height", share === null ? 0.5 : share / most);
      const said = share === null ? "" : `: influence ${percent(share)}, rank ${rank + 1} of ${this.buttons.length}`;
      button.setAttribute("aria-label", `Token ${Number(button.dataset.token) + 1}${said}`);
      button.tabIndex = rank === 0 ? 0 : -1;
    });
    this.list.replaceChildren(...this.order);
    this.list.style.setProperty("--even", 1 / this.buttons.length / most);
    this.list.classList.toggle("known", traced.influence !== null);
    this.caption.textContent = traced.influence_problem ?? "Influence on the embedding; dashed, an even share";
  }

  bringOut(token) {
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.token) === token));
  }

  #listen() {
    const tokenOf = (event) => {
      const button = event.target.closest("button");
      return button ? Number(button.dataset.token) : null;
    };
    this.list.addEventListener("pointerover", (event) => this.choose(tokenOf(event), false));
    this.list.addEventListener("pointerleave", () => this.choose(null, false));
    this.list.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && this.choose(tokenOf(event), false));
    this.list.addEventListener("focusout", () => this.choose(null, false));
    this.list.addEventListener("click", (event) => tokenOf(event) !== null && this.choose(tokenOf(event), true));
    this.list.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Arrow keys go from bar to bar, as in every toolbar; Tab goes on to what follows. */
  #walk(event) {
    const here = this.order.indexOf(document.activeElement);
    const last = this.order.length - 1;
    const next = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: last }[event.key];
    if (here < 0 || next === undefined) return;
    event.preventDefault();
    const target = this.order[(next + this.order.length) % this.order.length];
    this.order[here].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }
}

// The card of one token: what is inside its region, where it reads, and how much it counts.

const [WIDEST, TALLEST] = [300, 220];

/** Fills the card for a token of a picture; for null with how to choose one. */
export function showToken(card, picture, token, several, pinned) {
  if (token === null) {
    card.innerHTML = `<h2>A token</h2><p class="quiet">Hover the picture or a bar below it, or Tab to the bars and use the arrow keys.
      A click keeps a token, Escape lets it go.</p>`;
    if (picture?.traced.influence) card.append(mostInfluential(picture, several));
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
  const { influence } = picture.traced;
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
  const { traced } = picture;
  const roi = picture.rois[token];
  const read = picture.points?.[token].length;
  return [
    ["Influence", influence(traced, token)],
    ["Region", `${percent(roi[2] - roi[0], 0)} wide, ${percent(roi[3] - roi[1], 0)} high, of what the model is given`],
    ["Sampling points", read ? `${read} at this stage` : "none: nothing is read at this stage"],
  ];
}

function influence(traced, token) {
  if (!traced.influence) return traced.influence_problem ?? "unknown";
  const share = traced.influence[token];
  const rank = traced.influence.filter((other) => other > share).length + 1;
  return `${percent(share)}, rank ${rank} of ${traced.influence.length} (an even share is ${percent(1 / traced.influence.length)})`;
}

/** Cuts the region out of the photograph, with its sampling points; what lies outside of the photograph stays hatched. */
function drawContent(canvas, picture, token, widest, tallest) {
  const { image, photograph, traced } = picture;
  const region = onPhotograph(picture.rois[token], traced.seen);
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
    const [x, y] = pointOnPhotograph(point, traced.seen);
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
