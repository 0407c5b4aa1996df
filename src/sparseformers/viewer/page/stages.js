// The slider of the stages: regions glide from one to the next.

const STEP = 420; // milliseconds from a stage to the next
const REST = 700; // at each stage while playing

const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Stages {
  /** @param move is told the place between stages, from 0, whenever it changes */
  constructor(move) {
    this.move = move;
    this.slider = document.querySelector("#stage");
    this.button = document.querySelector("#play");
    this.place = 0;
    this.last = 0;
    this.timer = null;
    this.slider.addEventListener("input", () => {
      this.halt();
      this.goTo(Number(this.slider.value));
    });
    this.button.addEventListener("click", () => (this.timer === null ? this.play() : this.halt()));
  }

  /** Sets the names of the stages; the slider stays where it is as far as it can. */
  set names(names) {
    const atEnd = this.last === 0 || Number(this.slider.value) === this.last;
    this.named = names;
    this.last = names.length - 1;
    this.slider.max = this.last;
    this.slider.disabled = this.button.disabled = this.last === 0;
    const marks = names.map((_, stage) => Object.assign(document.createElement("option"), { value: stage }));
    document.querySelector("#stages").replaceChildren(...marks);
    this.jump(atEnd ? this.last : Math.min(Number(this.slider.value), this.last));
  }

  /** Goes to a stage at once. */
  jump(stage) {
    cancelAnimationFrame(this.frame);
    this.slider.value = stage;
    this.place = stage;
    this.#say(stage);
    this.move(stage);
  }

  /** Glides to a stage. */
  goTo(stage) {
    this.slider.value = stage;
    this.#say(stage);
    cancelAnimationFrame(this.frame);
    if (still()) {
      this.jump(stage);
      return;
    }
    const [from, begun] = [this.place, performance.now()];
    const glide = (now) => {
      const share = Math.min(1, Math.max(0, (now - begun) / STEP));
      this.place = from + (stage - from) * (share * share * (3 - 2 * share));
      if (share === 1) this.place = stage;
      this.move(this.place);
      if (share < 1) this.frame = requestAnimationFrame(glide);
    };
    this.frame = requestAnimationFrame(glide);
  }

  /** Goes through all stages once, from the start. */
  play() {
    this.#playing(true);
    this.jump(0);
    const next = () => {
      const stage = Number(this.slider.value) + 1;
      this.goTo(stage);
      if (stage < this.last) this.timer = setTimeout(next, STEP + REST);
      else this.#playing(false);
    };
    this.timer = setTimeout(next, REST);
  }

  halt() {
    clearTimeout(this.timer);
    this.#playing(false);
  }

  #playing(playing) {
    if (!playing) this.timer = null;
    this.button.classList.toggle("playing", playing);
    this.button.setAttribute("aria-label", playing ? "Stop" : "Play the stages");
  }

  #say(stage) {
    const name = this.last === 0 ? "the only one: its regions do not move" : this.named[stage];
    const said = `${stage + 1} of ${this.last + 1}, ${name}`;
    this.slider.setAttribute("aria-valuetext", said);
    document.querySelector("#stage-name").textContent = said;
  }
}
