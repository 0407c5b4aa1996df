// One model's panel: the photograph, the regions of its tokens at a stage, and the bars of their influence.

import { area, between, centre, crowding, dotRadius, drawHeat, onPhotograph, pointOnPhotograph, shortName, tokenAt } from "./drawing.js";
import { TokenBars } from "./tokens.js";

const SVG = "http://www.w3.org/2000/svg";
const UNITS = 1000; // of the drawing across the photograph

function element(name, attributes = {}, parent = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

export class Picture {
  /**
   * @param model its name, number of tokens and colours
   * @param number which of the models it is
   * @param choose is told (number, token or null, whether it stays chosen) when the user means a token
   */
  constructor(model, number, choose) {
    this.model = model;
    this.number = number;
    this.choose = choose;
    this.traced = null;
    this.place = 0; // between 0 and the last stage
    this.chosen = null;
    this.layers = { boxes: true, paths: false, points: false };
    this.root = document.createElement("article");
    this.root.className = "panel";
    this.root.innerHTML = `
      <header><h2></h2><p class="quiet facts"></p></header>
      <div class="frame"><div class="picture">
        <img alt=""><canvas class="heat"></canvas><canvas class="dots"></canvas>
        <svg class="drawing" preserveAspectRatio="none" aria-hidden="true"></svg>
      </div></div>`;
    this.find = (selector) => this.root.querySelector(selector);
    this.find("h2").textContent = shortName(model.name);
    this.find("h2").title = model.name;
    this.image = this.find("img");
    this.drawing = this.find("svg");
    this.bars = new TokenBars(model, (token, stays) => choose(number, token, stays));
    this.root.append(this.bars.root);
    this.#drawTokens();
    this.#listen();
    new ResizeObserver(() => this.redraw()).observe(this.find(".picture"));
  }

  /** The regions at the place between stages, N of them. */
  get rois() {
    return this.traced.rois[0].map((_, token) => between(this.traced.rois, token, this.place));
  }

  get lastStage() {
    return this.traced ? this.traced.rois.length - 1 : 0;
  }

  /** The stage nearest to the place, and the points that were read then (null if none were). */
  get stage() {
    return Math.round(this.place);
  }

  get points() {
    return this.traced.points[this.stage];
  }

  /** Shows a photograph with where the model looked; the picture element is decoded first, so that both change at once. */
  async show(photograph, source, traced) {
    const next = new Image();
    next.src = source;
    await next.decode();
    this.traced = traced;
    this.photograph = photograph;
    this.chosen = null;
    this.image.src = source;
    this.image.alt = `${photograph.name}, as ${shortName(this.model.name)} looks at it`;
    const ratio = photograph.width / photograph.height;
    this.root.style.setProperty("--ratio", ratio);
    this.height = UNITS / ratio;
    this.drawing.setAttribute("viewBox", `0 0 ${UNITS} ${this.height}`);
    const cosine = traced.cosine === null ? "" : ` · cosine with the teacher ${traced.cosine.toFixed(3)}`;
    this.find(".facts").textContent = `${this.model.tokens} tokens${cosine}`;
    this.bars.show(traced);
    this.place = Math.min(this.place, this.lastStage);
    this.redraw();
  }

  /** Moves all regions to a place between the stages. */
  moveTo(place) {
    this.place = Math.min(Math.max(place, 0), this.lastStage);
    this.redraw();
  }

  set(layers) {
    this.layers = { ...this.layers, ...layers };
    this.redraw();
  }

  /** Brings out a token, or none for null. */
  bringOut(token) {
    this.chosen = token;
    this.bars.bringOut(token);
    this.redraw();
  }

  /** Outlines a region of the photograph, {x, y, width, height} in [0, 1]; for what the other model's token looks at. */
  outline(region) {
    this.ghost.classList.toggle("gone", !region);
    if (region) this.#place(this.ghost, region);
  }

  /** Lays the teacher's attention, or the student's map of it, over the photograph; null takes it away. */
  attend(map, seen) {
    const canvas = this.find(".heat");
    [canvas.width, canvas.height] = [640, Math.max(1, Math.round((640 * this.height) / UNITS))];
    drawHeat(canvas, map, seen);
    this.root.classList.toggle("attended", Boolean(map));
  }

  redraw() {
    if (!this.traced) return;
    this.unit = UNITS / Math.max(1, this.image.clientWidth); // of the drawing in a pixel of the screen
    const rois = this.rois;
    const crowded = Math.min(1, Math.sqrt(crowding(rois) / 12));
    this.drawing.style.setProperty("--line", `${1.9 - 0.7 * crowded}px`);
    this.drawing.style.setProperty("--strength", 1 - 0.35 * crowded);
    this.drawing.classList.toggle("some", this.chosen !== null);
    this.drawing.classList.toggle("hide-boxes", !this.layers.boxes);
    this.drawing.classList.toggle("hide-paths", !this.layers.paths);
    this.#drawSeen();
    rois.forEach((roi, token) => this.#drawToken(token, roi));
    if (this.ordered !== this.stage) this.#orderBySize(rois);
    this.#drawChosen(rois);
    this.#drawDots();
  }

  #drawTokens() {
    this.outside = element("path", { class: "outside", "fill-rule": "evenodd" }, this.drawing);
    this.border = element("rect", { class: "seen" }, this.drawing);
    this.group = element("g", {}, this.drawing);
    this.tokens = this.model.colours.map((colour, token) => {
      const group = element("g", { class: "token", "data-token": token, color: colour }, this.group);
      return {
        group,
        halo: element("rect", { class: "halo" }, group),
        box: element("rect", { class: "box" }, group),
        path: element("polyline", { class: "path" }, group),
        middle: element("circle", { class: "middle" }, group),
      };
    });
    this.shade = element("path", { class: "shade", "fill-rule": "evenodd" }, this.drawing);
    this.ghost = element("rect", { class: "ghost gone" }, this.drawing);
    this.front = element("g", { class: "front" }, this.drawing); // what is brought out, over everything else
  }

  #drawSeen() {
    const [x1, y1, x2, y2] = this.traced.seen.map((edge, side) => edge * (side % 2 ? this.height : UNITS));
    const all = `M0 0H${UNITS}V${this.height}H0Z`;
    this.outside.setAttribute("d", `${all}M${x1} ${y1}H${x2}V${y2}H${x1}Z`);
    this.#place(this.border, { x: this.traced.seen[0], y: this.traced.seen[1], width: this.traced.seen[2] - this.traced.seen[0], height: this.traced.seen[3] - this.traced.seen[1] });
  }

  #drawToken(token, roi) {
    const parts = this.tokens[token];
    const region = onPhotograph(roi, this.traced.seen);
    this.#place(parts.halo, region);
    this.#place(parts.box, region);
    const [x, y] = pointOnPhotograph(centre(roi), this.traced.seen);
    parts.middle.setAttribute("cx", x * UNITS);
    parts.middle.setAttribute("cy", y * this.height);
    parts.middle.setAttribute("r", 2.6 * this.unit);
    parts.path.setAttribute("points", this.layers.paths || token === this.chosen ? this.#pathOf(token) : "");
  }

  /** Where the middle of a token's region has been until now. */
  #pathOf(token) {
    const stages = this.traced.rois.slice(0, Math.floor(this.place) + 1).map((stage) => stage[token]);
    const places = [...stages, between(this.traced.rois, token, this.place)].map((roi) => pointOnPhotograph(centre(roi), this.traced.seen));
    return places.map(([x, y]) => `${x * UNITS},${y * this.height}`).join(" ");
  }

  /** Small regions lie over large ones. */
  #orderBySize(rois) {
    this.ordered = this.stage;
    const order = rois.map((roi, token) => [area(roi), token]).sort((one, other) => other[0] - one[0]);
    for (const [, token] of order) this.group.append(this.tokens[token].group);
  }

  #drawChosen(rois) {
    this.front.replaceChildren();
    this.shade.setAttribute("d", "");
    for (const [token, parts] of this.tokens.entries()) parts.group.classList.toggle("chosen", token === this.chosen);
    if (this.chosen === null) return;
    const region = onPhotograph(rois[this.chosen], this.traced.seen);
    const [x, y, width, height] = [region.x * UNITS, region.y * this.height, region.width * UNITS, region.height * this.height];
    const around = 200; // regions may reach outside of the photograph
    this.shade.setAttribute(
      "d",
      `M${-around} ${-around}H${UNITS + around}V${this.height + around}H${-around}Z` + `M${x} ${y}H${x + width}V${y + height}H${x}Z`,
    );
    this.front.setAttribute("color", this.model.colours[this.chosen]);
    for (const kind of ["halo", "box"]) this.#place(element("rect", { class: kind }, this.front), region);
    element("polyline", { class: "path", points: this.#pathOf(this.chosen) }, this.front);
    const points = this.points?.[this.chosen] ?? [];
    const radius = this.unit * dotRadius((width / this.unit) * (height / this.unit), points.length);
    for (const point of points) {
      const [across, down] = pointOnPhotograph(point, this.traced.seen);
      element("circle", { class: "point", cx: across * UNITS, cy: down * this.height, r: radius }, this.front);
    }
  }

  /** All sampling points, too many for a drawing of elements. */
  #drawDots() {
    const canvas = this.find(".dots");
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.image.clientWidth, this.image.clientHeight];
    const shown = this.layers.points && this.chosen === null && this.points;
    if (!shown && canvas.width <= 1) return;
    [canvas.width, canvas.height] = shown ? [width * scale, height * scale] : [1, 1];
    if (!shown) return;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.lineWidth = 0.8;
    context.strokeStyle = "#101014";
    const rois = this.rois;
    this.points.forEach((points, token) => {
      const region = onPhotograph(rois[token], this.traced.seen);
      const radius = dotRadius(region.width * width * region.height * height, points.length);
      context.fillStyle = this.model.colours[token];
      for (const point of points) {
        const [x, y] = pointOnPhotograph(point, this.traced.seen);
        context.beginPath();
        context.arc(x * width, y * height, radius, 0, 2 * Math.PI);
        if (radius > 1) context.stroke();
        context.fill();
      }
    });
  }

  #place(shape, region) {
    shape.setAttribute("x", region.x * UNITS);
    shape.setAttribute("y", region.y * this.height);
    shape.setAttribute("width", region.width * UNITS);
    shape.setAttribute("height", region.height * this.height);
  }

  #listen() {
    const picture = this.find(".picture");
    const meant = (event) => {
      if (!this.traced) return null;
      const box = this.image.getBoundingClientRect();
      const [x1, y1, x2, y2] = this.traced.seen;
      const x = ((event.clientX - box.left) / box.width - x1) / (x2 - x1);
      const y = ((event.clientY - box.top) / box.height - y1) / (y2 - y1);
      const token = tokenAt(this.rois, x, y);
      return token < 0 ? null : token;
    };
    picture.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.choose(this.number, meant(event), false));
    picture.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.choose(this.number, null, false));
    picture.addEventListener("click", (event) => this.choose(this.number, meant(event), true));
  }
}
