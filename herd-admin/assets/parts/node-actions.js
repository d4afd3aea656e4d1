// What an operator does to a node, each after a question.
import { html } from "../core/view.js";
import { post, remove, segment } from "../core/api.js";
import { now } from "../core/live.js";
import { reload } from "../core/resource.js";
import { dialog } from "./dialog.js";

const path = (node) => `/fleet/nodes/${segment(node.node_id)}`;

async function done(answer) {
  await answer;
  now();
  reload("/dashboard/api/");
}

export function nodeActions(node) {
  const loaded = node.models.filter((model) => model.resident);
  return [
    node.cordoned ? { label: "Undrain", run: () => undrain(node) } : { label: "Drain…", run: () => drain(node) },
    ...loaded.map((model) => ({ label: `Unload ${model.name}…`, run: () => unload(node.node_id, model) })),
    { label: "Remove from the fleet…", danger: true, run: () => removeNode(node) },
  ];
}

export function drain(node) {
  dialog({
    title: `Drain ${node.node_id}?`,
    text: html`<p>It gets no new requests. ${node.in_flight ? `The ${node.in_flight} that run there finish.` : "Nothing runs there now."}
      It stays drained until it is undrained.</p>`,
    action: "Drain",
    run: () => done(post(`${path(node)}/drain`)),
  });
}

export function undrain(node) {
  dialog({
    title: `Undrain ${node.node_id}?`,
    text: html`<p>It takes new requests again.</p>`,
    action: "Undrain",
    run: () => done(post(`${path(node)}/undrain`)),
  });
}

export function unload(nodeId, model) {
  const busy = model.in_flight ? ` ${model.in_flight} requests of it run there now.` : "";
  dialog({
    title: `Unload ${model.name} from ${nodeId}?`,
    text: html`<p>The next request for it there waits until it is loaded again.${busy}</p>`,
    action: "Unload",
    danger: Boolean(model.in_flight),
    run: () => done(post(`/fleet/nodes/${segment(nodeId)}/unload`, { model: model.name })),
  });
}

function removeNode(node) {
  dialog({
    title: `Remove ${node.node_id} from the fleet?`,
    text: html`<p>herd forgets it. It comes back with its agent's next heartbeat, if it still sends any.</p>`,
    action: "Remove",
    danger: true,
    run: () => done(remove(path(node))),
  });
}
