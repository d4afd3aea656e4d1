// Where a request would go, and why, without sending it.
import { html, nothing } from "../core/view.js";
import { post, query } from "../core/api.js";
import { refresh } from "../core/schedule.js";
import { param, setParams } from "../core/route.js";
import { nodes } from "../core/live.js";
import { count, duration, tokens } from "../core/format.js";
import { badge, empty, errorBox, section, skeleton } from "../parts/bits.js";
import { signalsTable } from "../parts/signals.js";

const SURFACES = ["ollama_chat", "ollama_generate", "openai_chat", "anthropic_messages", "ollama_embed"];
// A word is a token or so; what counts is the estimate that comes back with the answer.
const WORD = "word ";
const WORDS_MAX = 200_000;

let asked = null;
let answer = null;

function body({ model, num_ctx, prompt_tokens, max_tokens, surface }) {
  const text = WORD.repeat(Math.min(Number(prompt_tokens) || 1, WORDS_MAX));
  const options = {};
  if (num_ctx) options.num_ctx = Number(num_ctx);
  if (max_tokens) options.num_predict = Number(max_tokens);
  const messages = [{ role: "user", content: text }];
  if (surface === "ollama_generate") return { model, prompt: text, options };
  if (surface === "ollama_embed") return { model, input: text, options };
  if (surface === "ollama_chat") return { model, messages, options };
  return { model, messages, ...(max_tokens ? { max_tokens: Number(max_tokens) } : {}) };
}

const question = () => ({
  model: param("model"),
  num_ctx: param("num_ctx"),
  prompt_tokens: param("tokens"),
  max_tokens: param("max_tokens"),
  surface: param("surface") || SURFACES[0],
});

async function ask(wanted, again = false) {
  const key = JSON.stringify(wanted);
  if (asked === key && !again) return;
  asked = key;
  answer = again ? answer : null;
  try {
    const data = await post(query("/fleet/explain", { surface: wanted.surface }), body(wanted));
    if (asked === key) answer = { data };
  } catch (error) {
    if (asked === key) answer = { error };
  }
  refresh();
}

function submit(event) {
  event.preventDefault();
  const form = new FormData(event.target);
  asked = null;
  setParams(Object.fromEntries(form), { replace: false });
}

function form(wanted) {
  const known = [...new Set(nodes().flatMap((node) => node.models.map((model) => model.name)))].sort();
  const number = (name, label, value, placeholder) =>
    html`<label class="field"><span>${label}</span><input type="number" name=${name} min="1" step="1" .value=${value} placeholder=${placeholder}></label>`;
  return html`<form class="ask" @submit=${submit}>
    <label class="field grow"><span>Model</span><input name="model" list="models" required .value=${wanted.model} placeholder="llama3.2:3b" spellcheck="false" autocomplete="off"></label>
    <datalist id="models">${known.map((name) => html`<option value=${name}></option>`)}</datalist>
    ${number("num_ctx", "Context (num_ctx)", wanted.num_ctx, "not said")}
    ${number("tokens", "Prompt, tokens", wanted.prompt_tokens, "1")}
    ${number("max_tokens", "Answer, tokens at most", wanted.max_tokens, "not said")}
    <label class="field"><span>API</span><select name="surface">${SURFACES.map((one) => html`<option ?selected=${one === wanted.surface}>${one}</option>`)}</select></label>
    <button class="primary">Explain</button>
  </form>`;
}

function verdict(data) {
  const first = data.nodes.find((node) => node.node_id === data.winner);
  const where = data.goes_to
    ? html`It would go to <b>${data.goes_to}</b> now`
    : data.winner
      ? html`It would wait for <b>${data.winner}</b> (${first?.readiness?.replaceAll("_", " ") ?? "busy"})`
      : html`No node can serve it`;
  return html`<p class="verdict ${data.winner ? "" : "bad"}" role="status">${where}${first?.predicted
      ? html`, and take about <b>${duration(first.predicted.total_ms)}</b>: wait ${duration(first.predicted.wait_ms)}, load ${duration(first.predicted.load_ms)},
          prefill ${duration(first.predicted.prefill_ms)}, decode ${duration(first.predicted.decode_ms)}` : nothing}.</p>
    <p class="dim">${data.stand_in ? html`${badge(data.stand_in)} <b>${data.model}</b> would stand in for ${data.requested_model}. ` : nothing}
      ${first?.context_action ? html`Context: ${badge(first.context_action)} ${tokens(first.context_length)} tokens${first.reload_cause ? `, ${first.reload_cause.replaceAll("_", " ")}` : ""}. ` : nothing}
      Prompt: about ${count(data.prompt_tokens)} tokens.</p>`;
}

export function view() {
  const wanted = question();
  if (wanted.model) ask(wanted);
  const candidates = (answer?.data?.nodes ?? []).map((node) => ({ ...node, total: node.score }));
  return html`${form(wanted)}
    ${!wanted.model
      ? empty("Type a model", "and see which node would serve it, which would not, and why. Nothing is sent to a node.")
      : !answer
        ? skeleton(4)
        : answer.error
          ? errorBox(answer.error, () => ask(wanted, true))
          : section("Decision", html`${verdict(answer.data)}${signalsTable(candidates, answer.data.winner)}`, {
              tools: html`<button class="quiet" @click=${() => ask(wanted, true)}>Ask again</button>`,
            })}`;
}
