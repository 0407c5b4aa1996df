// The images of a folder that are nearest to the one that is shown.

import { thumbnail } from "./gallery.js";
import { shortName } from "./geometry.js";
import { nearest } from "./talk.js";

const AGAIN = 700; // milliseconds, while the folder is being embedded

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
