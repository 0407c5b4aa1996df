// Questions to the server. What goes wrong comes back as an Error whose message is a sentence for the page.

export class Problem extends Error {}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Problem("The server does not answer. It may have been closed: start it again with sparseformers view.");
  }
  if (response.ok) return response.json();
  let said = {};
  try {
    said = await response.json();
  } catch {
    // no JSON: the status has to do
  }
  throw new Problem([said.problem ?? `The server answered ${response.status}.`, said.remedy].filter(Boolean).join(" "));
}

const image = (key) => `/api/images/${encodeURIComponent(key)}`;

export const state = () => answer(fetch("/api/state"));
export const listing = (start) => answer(fetch(`/api/images?start=${start}`));
export const describe = (key) => answer(fetch(image(key)));
export const trace = (key, model) => answer(fetch(`${image(key)}/trace/${model}`));
export const attention = (key) => answer(fetch(`${image(key)}/attention`));
export const nearest = (key, by) => answer(fetch(`${image(key)}/nearest/${by}`));
export const displayOf = (key) => `${image(key)}/display.jpg`;
export const thumbnailOf = (key) => `${image(key)}/thumbnail.jpg`;

/** Why a thumbnail is missing, as a sentence. */
export async function whyNoThumbnail(key) {
  try {
    await answer(fetch(thumbnailOf(key)));
  } catch (problem) {
    return problem.message;
  }
  return "";
}

/** Sends a dropped file; its key and size come back. */
export function upload(file, mostBytes) {
  if (file.size > mostBytes) {
    const [size, most] = [file.size, mostBytes].map((bytes) => (bytes / 1e6).toFixed(1).replace(".0", ""));
    throw new Problem(
      `'${file.name}' has ${size} MB, and at most ${most} MB are taken. ` +
        "Choose a smaller one, or start the page with a higher --upload-megabytes.",
    );
  }
  const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(file.name || "pasted image") };
  return answer(fetch("/api/images", { method: "POST", body: file, headers }));
}
