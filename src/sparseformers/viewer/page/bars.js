// The influence of each token as a bar: also the way to the tokens for those who use the keyboard.

import { percent, shortName } from "./geometry.js";

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
  show(look) {
    const influence = look.influence ?? this.buttons.map(() => null);
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
    this.list.classList.toggle("known", look.influence !== null);
    this.caption.textContent = look.influence_problem ?? "Influence on the embedding; dashed, an even share";
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
