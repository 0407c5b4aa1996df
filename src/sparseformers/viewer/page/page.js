// The page, composed: images come in, each model's picture shows them, and one stage and one token are chosen for all.

import { drawScale, onPhotograph, shortName } from "./drawing.js";
import { GalleryList, Nearest, receiveFiles } from "./images.js";
import { Picture } from "./picture.js";
import { Stages } from "./stages.js";
import * as talk from "./talk.js";
import { showToken } from "./tokens.js";

const find = (selector) => document.querySelector(selector);

class App {
  constructor(state) {
    this.state = state;
    this.shown = 0; // how many images were asked for: an answer to an older question is dropped
    this.chosen = null; // {number, token, pinned}
    this.pictures = state.models.map((model, number) => new Picture(model, number, (...meant) => this.choose(...meant)));
    find("#pictures").append(...this.pictures.map((picture) => picture.root));
    find("#pictures").classList.toggle("two", this.pictures.length > 1);
    this.stages = new Stages((place) => this.moveTo(place));
    this.gallery = new GalleryList(find("#gallery"), find("#more"), state.images, (key) => this.open(key));
    this.nearest = new Nearest(find("#nearest"), state, (key) => this.open(key));
    this.#describe();
    this.#listen();
  }

  /** Lists the images, and opens the first. */
  async start() {
    const images = await this.gallery.fill();
    if (images.length) await this.open(images[0].key);
  }

  /** Shows an image: all models look at it first. */
  async open(key) {
    const asked = ++this.shown;
    this.say("");
    find("#busy").hidden = false;
    try {
      const image = await talk.describe(key);
      const traces = await Promise.all(this.pictures.map((_, number) => talk.trace(key, number)));
      if (asked !== this.shown) return;
      this.attention = null;
      await Promise.all(this.pictures.map((picture, number) => picture.show(image, talk.displayOf(key), traces[number])));
      if (asked !== this.shown) return;
      this.#reveal(image, traces);
      await this.#attend();
    } catch (problem) {
      if (asked === this.shown) this.say(problem.message);
    } finally {
      if (asked === this.shown) find("#busy").hidden = true;
    }
  }

  /** Takes in dropped files, and shows the first that can be read. */
  async take(files) {
    let first = null;
    const problems = [];
    find("#busy").hidden = false;
    for (const file of files) {
      try {
        const image = await talk.upload(file, this.state.most_bytes);
        this.gallery.add(image.key, image.name);
        first ??= image;
      } catch (problem) {
        problems.push(problem.message);
      }
    }
    find("#busy").hidden = true;
    if (first) await this.open(first.key);
    if (problems.length) this.say(problems.join(" "));
  }

  /** Moves all pictures to a place between the stages: to the same share of the way, if one has fewer stages. */
  moveTo(place) {
    for (const picture of this.pictures) {
      if (picture.traced) picture.moveTo(this.stages.last ? (place / this.stages.last) * picture.lastStage : 0);
    }
    this.#showChosen();
  }

  /** Brings out the token that the user means; null for none. A click keeps it until another click or Escape. */
  choose(number, token, stays) {
    const kept = this.chosen?.pinned;
    if (stays) {
      const same = kept && this.chosen.number === number && this.chosen.token === token;
      this.chosen = token === null || same ? null : { number, token, pinned: true };
    } else if (!kept) {
      if ((this.chosen?.token ?? null) === token && (token === null || this.chosen.number === number)) return;
      this.chosen = token === null ? null : { number, token, pinned: false };
    } else {
      return;
    }
    this.#showChosen();
  }

  /** Says what went wrong; nothing takes it away. */
  say(text) {
    find("#message p").textContent = text;
    find("#message").hidden = !text;
  }

  #describe() {
    const names = this.state.models.map((model) => shortName(model.name));
    find("#shown").textContent = names.join("  beside  ");
    document.title = `${names.join(", ")} – where it looks`;
    find("#shown").title = this.state.models.map((model) => model.name).join("  beside  ");
    find("#teacher").textContent = this.state.teacher ? shortName(this.state.teacher) : this.state.teacher_problem;
    find("#teacher").title = this.state.teacher ?? "";
    drawScale(find("#scale canvas"));
    showToken(find("#token"), null, null);
  }

  #reveal(image, traces) {
    this.key = image.key;
    find("#welcome").hidden = true;
    for (const id of ["#pictures", "#controls", "#side"]) find(id).hidden = false;
    this.chosen = null;
    this.stages.names = traces.map((traced) => traced.stages).reduce((one, other) => (other.length > one.length ? other : one));
    const hasMap = traces.some((traced) => traced.map);
    find("#attention-kind").hidden = !this.state.teacher && !hasMap;
    for (const radio of document.querySelectorAll("input[name=attention]")) {
      radio.parentElement.hidden = radio.value !== "" && !(radio.value === "map" ? hasMap : this.state.teacher);
    }
    this.gallery.mark(image.key);
    this.nearest.show(image.key);
  }

  async #attend() {
    const kind = find("input[name=attention]:checked").value;
    const key = this.key;
    find("#scale").hidden = !kind;
    if (kind && kind !== "map" && !this.attention) {
      const maps = await talk.attention(key);
      if (key !== this.key) return;
      this.attention = maps;
    }
    for (const picture of this.pictures) {
      if (kind === "map") picture.attend(picture.traced.map, picture.traced.seen);
      else picture.attend(kind ? this.attention[kind] : null, this.attention?.seen);
    }
  }

  #showChosen() {
    const { number = null, token = null, pinned = false } = this.chosen ?? {};
    const meant = number === null ? null : this.pictures[number];
    const region = meant ? onPhotograph(meant.rois[token], meant.traced.seen) : null;
    for (const picture of this.pictures) {
      if (!picture.traced) continue;
      if (picture.chosen !== (picture === meant ? token : null)) picture.bringOut(picture === meant ? token : null);
      picture.outline(picture === meant ? null : region);
    }
    showToken(find("#token"), meant ?? this.pictures[0], token, this.pictures.length > 1, pinned);
  }

  #listen() {
    for (const layer of ["boxes", "paths", "points"]) {
      const box = find(`#show-${layer}`);
      const set = () => this.pictures.forEach((picture) => picture.set({ [layer]: box.checked }));
      box.addEventListener("change", set);
      set();
    }
    find("#attention-kind").addEventListener("change", () => this.#attend().catch((problem) => this.say(problem.message)));
    find("#message button").addEventListener("click", () => this.say(""));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.chosen) this.choose(this.chosen.number, null, true);
    });
    receiveFiles((files) => this.take(files));
  }
}

try {
  await new App(await talk.state()).start();
} catch (problem) {
  find("#message p").textContent = problem.message;
  find("#message").hidden = false;
}
