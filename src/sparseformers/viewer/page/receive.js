// Ways for an image to come in: dropped anywhere on the page, pasted, or chosen.

/** @param take is given the files */
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
