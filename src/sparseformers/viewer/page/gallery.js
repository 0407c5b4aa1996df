// The images to choose from: those named at the start, and those dropped on the page, newest first.

import { listing, thumbnailOf, whyNoThumbnail } from "./talk.js";

/** A picture of an image that says so where it cannot be read. */
export function thumbnail(key, name) {
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
