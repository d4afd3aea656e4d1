// What an operator does to models, each after a question.
import { html } from "../core/view.js";
import { ApiError, ask, post, remove, segment } from "../core/api.js";
import { nodes, now } from "../core/live.js";
import { reload } from "../core/resource.js";
import { dialog } from "./dialog.js";

async function done(answer) {
  await answer;
  now();
  reload("/dashboard/api/");
  reload("/fleet/");
}

export function pull({ model = "", node = "" } = {}) {
  const ids = nodes().map((one) => one.node_id);
  dialog({
    title: "Pull a model",
    text: html`<p>A node fetches it from the registry that its Ollama uses.</p>`,
    fields: [
      { name: "model", label: "Model", value: model, required: true, help: "As in llama3.2:3b" },
      {
        name: "node_id",
        label: "Node",
        value: node,
        options: [{ value: "", label: "where it fits best" }, ...ids],
      },
    ],
    action: "Pull",
    run: ({ model, node_id }) => done(startPull(model.trim(), node_id)),
  });
}

async function startPull(model, nodeId) {
  const body = { model, ...(nodeId ? { node_id: nodeId } : {}) };
  try {
    return await post("/dashboard/api/pull", body);
  } catch (error) {
    if (!error.missing) throw error;
    return pullAsOllama(body);
  }
}

// A herd without jobs for pulls keeps a pull as long as its client listens: the page does so in the background, and
// fails here only for what is told at once.
async function pullAsOllama(body) {
  const begun = ask("POST", "/api/pull", { body: { ...body, stream: false }, patience: 24 * 3_600_000 });
  begun.then(() => now(), () => now());
  const soon = new Promise((resolve) => setTimeout(resolve, 700));
  await Promise.race([begun, soon]);
}

export function cancelPull(pull) {
  dialog({
    title: `Cancel the pull of ${pull.model}?`,
    text: html`<p>For everybody who waits for it. What ${pull.node_id} has fetched stays there for the next time.</p>`,
    action: "Cancel the pull",
    danger: true,
    run: () => done(remove(`/fleet/pulls/${segment(pull.id)}`)),
  });
}

export function deleteModel(nodeId, model, loaded) {
  dialog({
    title: `Delete ${model} from ${nodeId}?`,
    text: html`<p>Its files on that node are gone afterwards; it would have to be pulled again.
      ${loaded ? html`<strong>It is in memory there now.</strong>` : ""}</p>`,
    action: "Delete",
    danger: true,
    run: () => done(post("/dashboard/api/delete", { model, node_id: nodeId })),
  });
}

export function pin(model, nodeId) {
  dialog({
    title: `Keep ${model} in memory${nodeId ? ` on ${nodeId}` : ""}?`,
    text: html`<p>It is loaded where it is not, and not unloaded for others.</p>`,
    action: "Pin",
    run: () => done(post("/fleet/pin", { model, ...(nodeId ? { node_id: nodeId } : {}) })),
  });
}

export function unpin(model) {
  dialog({
    title: `No longer pin ${model}?`,
    text: html`<p>It stays in memory until it is idle for long enough or others need the room.</p>`,
    action: "Unpin",
    run: () => done(remove(`/fleet/pin/${segment(model)}`)),
  });
}

// An action that the service itself proposes. Only its own paths are taken.
export function carryOut(title, text, action, after = () => {}) {
  dialog({
    title,
    text,
    action: "Do it",
    danger: action.method === "DELETE",
    run: async () => {
      if (!/^\/(fleet|dashboard\/api)\//.test(action.path)) throw new ApiError(0, "foreign", "Not an action of this herd.");
      await done(ask(action.method, action.path, { body: action.body ?? undefined }));
      after();
    },
  });
}
