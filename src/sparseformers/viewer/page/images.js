// Images: those to choose from, those that come in, and those of a folder that are nearest to the one that is shown.

import { shortName } from "./drawing.js";
import { listing, nearest, thumbnailOf, whyNoThumbnail } from "./talk.js";

/** A picture of an image that says so where it cannot be read. */
function thumbnail(key, name) {
  const image = document.createElement("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = name;
  image.src = thumbnailOf(key);
  image.addEventListener("error", async () => {
    const note = document.createElement("span");
    note.className = "unreadable";
    note.textContent = await whyNoThumbnail(key);
    image.replaceWith(note);
  });
  return image;
}

/** The images to choose from: those named at the start, and those dropped on the page, newest first. */
export class GalleryList {
  /** @param open is told the key of an image that was chosen */
  constructor(list, more, total, open) {
    this.list = list;
    this.more = more;
    this.total = total;
    this.open = open;
    this.listed = 0;
    this.buttons = new Map();
    more.addEventListener("click", () => this.fill());
  }

  /** Lists the next images that were named at the start; gives them back. */
  async fill() {
    const images = this.listed < this.total ? await listing(this.listed) : [];
    this.listed += images.length;
    for (const { key, name } of images) this.list.append(this.#item(key, name));
    this.more.hidden = this.listed >= this.total;
    this.more.textContent = `Show more (${this.total - this.listed})`;
    return images;
  }

  /** Puts a dropped image before the others. */
  add(key, name) {
    this.list.prepend(this.#item(key, name));
  }

  /** Marks the image that is shown. */
  mark(key) {
    for (const [other, button] of this.buttons) button.toggleAttribute("aria-current", other === key);
    this.buttons.get(key)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #item(key, name) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.title = name;
    button.append(thumbnail(key, name));
    button.addEventListener("click", () => this.open(key));
    this.buttons.set(key, button);
    item.append(button);
    return item;
  }
}

const AGAIN = 700; // milliseconds, while the folder is being embedded

/** The images of a folder that are nearest to the one that is shown. */
export class Nearest {
  /**
   * @param root the card
   * @param state of the page
   * @param open is told the key of a neighbour that was chosen
   */
  constructor(root, state, open) {
    this.root = root;
    this.open = open;
    this.by = "0";
    this.asked = 0;
    root.hidden = !state.neighbours;
    if (!state.neighbours) return;
    root.querySelector("#folder").textContent = state.neighbours.name;
    const names = state.models.map((model, number) => [String(number), shortName(model.name)]);
    const ends = names.map(([, name]) => name.split("/").at(-1));
    if (new Set(ends).size === ends.length) names.forEach((pair, number) => (pair[1] = ends[number])); // room is scarce
    if (state.teacher) names.push(["teacher", "teacher"]);
    const choice = root.querySelector("#nearest-by");
    choice.hidden = names.length < 2;
    for (const [value, name] of names) choice.append(this.#option(value, name));
  }

  /** Looks for the neighbours of an image, and waits for them as long as that image is shown. */
  async show(key) {
    if (this.root.hidden) return;
    this.key = key;
    const asked = ++this.asked;
    const status = this.root.querySelector("#nearest-status");
    const list = this.root.querySelector("#neighbours");
    for (;;) {
      let found;
      try {
        found = await nearest(key, this.by);
      } catch (problem) {
        found = { state: "failed", problem: problem.message };
      }
      if (asked !== this.asked) return; // another image is shown by now
      if (found.state !== "embedding") {
        this.#list(list, status, found);
        return;
      }
      this.#wait(list, status, found);
      await new Promise((resume) => setTimeout(resume, AGAIN));
    }
  }

  #wait(list, status, { done, total }) {
    list.replaceChildren();
    const bar = Object.assign(document.createElement("progress"), { max: total, value: done });
    status.replaceChildren(`Embedding the folder: ${done} of ${total} `, bar);
  }

  #list(list, status, found) {
    status.textContent = found.problem ?? (found.skipped ? `${found.skipped} images could not be read.` : "");
    list.replaceChildren(
      ...(found.results ?? []).map(({ key, name, cosine }) => {
        const [item, button, value] = ["li", "button", "span"].map((kind) => document.createElement(kind));
        button.type = "button";
        button.title = name;
        value.textContent = cosine.toFixed(3);
        button.append(thumbnail(key, name), value);
        button.addEventListener("click", () => this.open(key));
        item.append(button);
        return item;
      }),
    );
  }

  #option(value, name) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "nearest", value, checked: value === this.by });
    const text = Object.assign(document.createElement("span"), { textContent: name, title: name });
    input.addEventListener("change", () => {
      this.by = value;
      if (this.key) this.show(this.key);
    });
    label.append(input, text);
    return label;
  }
}

/** Ways for an image to come in: dropped anywhere on the page, pasted, or chosen. @param take is given the files */
export function receiveFiles(take) {
  const veil = document.querySelector("#dropping");
  const chooser = document.querySelector("#file");
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const veiled = (shown) => (veil.hidden = !shown);

  chooser.addEventListener("change", () => {
    if (chooser.files.length) take([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragenter", (event) => hasFiles(event) && veiled(true));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && veiled(false));
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    veiled(false);
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files);
  });
}
