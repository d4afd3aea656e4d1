//! True occupancy: asks each runner process for its slots. Counts only; no text ever leaves the runner.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use herd_core::wire::{LoadedModel, Runner, RunnerActivity};
use reqwest::Client;
use serde::Deserialize;

use super::activity::Work;
use super::process::RunnerProcess;
use crate::ollama::{CallError, OllamaFacts, get_json};

/// A runner on this machine answers in a millisecond or two, unless it is busy with a large batch.
const TIMEOUT: Duration = Duration::from_millis(300);
/// A slot takes about 1.2 KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Ollama gives "no limit" to its runner as this many times the context.
const NO_LIMIT_CONTEXTS: u64 = 10;

/// Most names of models being loaded in one heartbeat.
const LOADING_MAX: usize = 16;
/// Most entries on the work of runners in one heartbeat.
const ACTIVITY_MAX: usize = 64;

/// What the runners of one Ollama do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Occupancy {
    /// `None` when models are loaded and none of their runners can be read: an older Ollama, or another kind of runner.
    pub(super) runners: Option<Vec<Runner>>,
    /// Names of the models being loaded; an empty one could not be named.
    pub(super) loading: Vec<String>,
}

/// Asks runners for their slots, and remembers what each said last.
#[derive(Debug, Default)]
pub(super) struct Runners {
    last: HashMap<RunnerProcess, Runner>,
}

/// What one runner said.
enum Answer {
    Slots(Runner),
    /// It still loads its model, and answers everything with a 503 meanwhile.
    Loading,
    Nothing,
}

impl Runners {
    /// Slots of every runner that answers, with the model's name where it can be told.
    pub(super) async fn ask(
        &mut self,
        client: &Client,
        processes: &[RunnerProcess],
        ollama: &OllamaFacts,
    ) -> Occupancy {
        let asked = join_all(processes.iter().map(|process| slots(client, process))).await;
        let answers: Vec<Answer> =
            processes.iter().zip(asked).map(|(process, asked)| self.answer(process, asked)).collect();
        self.last = readings(processes, &answers).map(|(process, runner)| (process.clone(), runner.clone())).collect();
        let loading = processes.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Answer::Loading));
        let (running, mut runners): (Vec<_>, Vec<_>) =
            readings(processes, &answers).map(|(process, runner)| (process, runner.clone())).unzip();
        let loading = loading_names(loading.map(|(process, _)| process.model.as_str()), ollama).await;
        if runners.is_empty() && !ollama.loaded.is_empty() {
            return Occupancy { runners: None, loading };
        }
        let loaded: Vec<LoadedModel> = ollama.loaded.iter().map(Into::into).collect();
        let names = names(&running, &runners, &loaded).await;
        for (runner, name) in runners.iter_mut().zip(names) {
            runner.model = name;
        }
        Occupancy { runners: Some(runners), loading }
    }

    /// Whether any of `processes` is busy with another number of requests than it said last. One that is late or gone says
    /// nothing.
    pub(super) async fn are_busy_otherwise(&self, client: &Client, processes: &[RunnerProcess]) -> bool {
        let known = processes.iter().filter_map(|process| Some((process, self.last.get(process)?)));
        let asked = known.map(async |(process, last)| {
            slots(client, process).await.is_ok_and(|runner| runner.slots_busy != last.slots_busy)
        });
        join_all(asked).await.into_iter().any(|other| other)
    }

    /// A runner answers between two steps of its engine: one that is late is in a long step, or hangs. Either way it is
    /// as busy as it was, and has got no further as far as anybody can tell.
    fn answer(&self, process: &RunnerProcess, asked: Result<Runner, CallError>) -> Answer {
        match asked {
            Ok(runner) => Answer::Slots(runner),
            Err(CallError::NotReady) => Answer::Loading,
            Err(CallError::Late) => self.last.get(process).cloned().map_or(Answer::Nothing, Answer::Slots),
            Err(_) => Answer::Nothing,
        }
    }
}

fn readings<'a>(
    processes: &'a [RunnerProcess],
    answers: &'a [Answer],
) -> impl Iterator<Item = (&'a RunnerProcess, &'a Runner)> {
    processes.iter().zip(answers).filter_map(|(process, answer)| match answer {
        Answer::Slots(runner) => Some((process, runner)),
        Answer::Loading | Answer::Nothing => None,
    })
}

async fn slots(client: &Client, process: &RunnerProcess) -> Result<Runner, CallError> {
    let url = format!("http://127.0.0.1:{}/slots", process.port).parse().map_err(|_| CallError::Garbled)?;
    let slots: Vec<Slot> = get_json(client, url, TIMEOUT, ANSWER_MAX_BYTES).await?;
    Ok(sum(&slots))
}

/// Names of the models with these weights: whichever of them was asked for, its runner is on its way.
async fn loading_names(blobs: impl Iterator<Item = &str>, ollama: &OllamaFacts) -> Vec<String> {
    let known: Vec<&str> = ollama.available.iter().map(|model| model.name.as_str()).collect();
    let mut loading = Vec::new();
    for blob in blobs.take(LOADING_MAX) {
        let names = names_by_blob(blob, &known).await;
        let unnamed = names.is_empty().then(String::new);
        loading.extend(names.into_iter().chain(unnamed));
    }
    loading.truncate(LOADING_MAX);
    loading
}

/// The work of runners under the names of their models: of those in memory, else of one that is being loaded.
pub(super) async fn named_work(work: &[Work], ollama: &OllamaFacts) -> Vec<RunnerActivity> {
    let loaded: Vec<&str> = ollama.loaded.iter().map(|model| model.name.as_str()).collect();
    let known: Vec<&str> = ollama.available.iter().map(|model| model.name.as_str()).collect();
    let mut activity = Vec::new();
    for Work { model, steps, conclusive } in work {
        let mut names = names_by_blob(model, &loaded).await;
        if names.is_empty() {
            names = names_by_blob(model, &known).await;
        }
        let unnamed = names.is_empty().then(String::new);
        let entry = |model| RunnerActivity { model, steps: *steps, conclusive: *conclusive };
        activity.extend(names.into_iter().chain(unnamed).map(entry));
    }
    activity.truncate(ACTIVITY_MAX);
    activity
}

/// One slot of `llama-server`, as far as it is counted here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Slot {
    n_ctx: u64,
    is_processing: bool,
    n_prompt_tokens: u64,
    n_prompt_tokens_processed: u64,
    n_prompt_tokens_cache: u64,
    params: Params,
    next_token: Vec<NextToken>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    n_predict: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NextToken {
    n_remain: i64,
    n_decoded: u64,
}

impl Slot {
    fn tokens_left(&self) -> u64 {
        let limited = u64::try_from(self.params.n_predict).is_ok_and(|limit| limit < NO_LIMIT_CONTEXTS * self.n_ctx);
        let remain = self.next_token.first().map_or(0, |next| next.n_remain);
        if limited { u64::try_from(remain).unwrap_or(0) } else { 0 }
    }

    fn prefill_tokens_left(&self) -> u64 {
        // With the first token decoded, the prompt is done, whatever the counters say.
        let prefilling = self.next_token.first().is_none_or(|next| next.n_decoded == 0);
        if prefilling { self.n_prompt_tokens.saturating_sub(self.prompt_tokens_done()) } else { 0 }
    }

    fn prompt_tokens_done(&self) -> u64 {
        self.n_prompt_tokens_processed.saturating_add(self.n_prompt_tokens_cache)
    }

    fn tokens_done(&self) -> u64 {
        let decoded = self.next_token.first().map_or(0, |next| next.n_decoded);
        self.prompt_tokens_done().saturating_add(decoded)
    }
}

fn sum(slots: &[Slot]) -> Runner {
    let busy: Vec<&Slot> = slots.iter().filter(|slot| slot.is_processing).collect();
    Runner {
        model: String::new(),
        slots: u32::try_from(slots.len()).unwrap_or(u32::MAX),
        slots_busy: u32::try_from(busy.len()).unwrap_or(u32::MAX),
        context_length: slots.first().map_or(0, |slot| slot.n_ctx),
        tokens_left: busy.iter().map(|slot| slot.tokens_left()).sum(),
        prefill_tokens_left: busy.iter().map(|slot| slot.prefill_tokens_left()).sum(),
        tokens_done: busy.iter().map(|slot| slot.tokens_done()).fold(0, u64::saturating_add),
    }
}

/// Names of the runners' models: by the weights that the model's manifest names, where it can be read; else by a context
/// size that only one runner and one loaded model have; else empty.
async fn names(processes: &[&RunnerProcess], runners: &[Runner], loaded: &[LoadedModel]) -> Vec<String> {
    let known: Vec<&str> = loaded.iter().map(|model| model.name.as_str()).collect();
    let mut by_blob = Vec::new();
    for process in processes {
        by_blob.push(names_by_blob(&process.model, &known).await.into_iter().next());
    }
    let free = |model: &LoadedModel| !by_blob.iter().flatten().any(|name| *name == model.name);
    let open: Vec<&LoadedModel> = loaded.iter().filter(|model| free(model)).collect();
    let unnamed: Vec<u64> =
        runners.iter().zip(&by_blob).filter(|(_, name)| name.is_none()).map(|(r, _)| r.context_length).collect();
    let name = |(runner, by_blob): (&Runner, &Option<String>)| {
        let by_context = || name_by_context(runner.context_length, &unnamed, &open);
        by_blob.clone().or_else(by_context).unwrap_or_default()
    };
    runners.iter().zip(&by_blob).map(name).collect()
}

fn name_by_context(context: u64, unnamed: &[u64], open: &[&LoadedModel]) -> Option<String> {
    let mut same = open.iter().filter(|model| model.context_length == context);
    let alone = unnamed.iter().filter(|other| **other == context).count() == 1;
    match (same.next(), same.next()) {
        (Some(model), None) if alone => Some(model.name.clone()),
        _ => None,
    }
}

/// Those of `known` whose manifest names these weights, in their order; none where manifests cannot be read.
async fn names_by_blob(blob: &str, known: &[&str]) -> Vec<String> {
    let blob = Path::new(blob);
    let models = blob.parent().filter(|dir| dir.ends_with("blobs")).and_then(Path::parent);
    let digest = blob.file_name().and_then(OsStr::to_str).map(|name| name.replacen('-', ":", 1));
    let (Some(models), Some(digest)) = (models, digest) else { return Vec::new() };
    let mut names = Vec::new();
    for name in known {
        let Some(manifest) = manifest_path(models, name) else { continue };
        let Ok(text) = tokio::fs::read_to_string(&manifest).await else { continue };
        if weights(&text).as_deref() == Some(digest.as_str()) {
            names.push((*name).to_owned());
        }
    }
    names
}

/// `tiny:latest` is `<models>/manifests/registry.ollama.ai/library/tiny/latest`.
fn manifest_path(models: &Path, name: &str) -> Option<PathBuf> {
    let (path, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, "latest"));
    let default = match path.matches('/').count() {
        0 => "registry.ollama.ai/library/",
        1 => "registry.ollama.ai/",
        _ => "",
    };
    let full = format!("{default}{path}/{tag}");
    let tame = full.split('/').all(|part| !matches!(part, "" | "." | ".."));
    tame.then(|| models.join("manifests").join(full))
}

/// Digest of the weights in a manifest.
fn weights(manifest: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Manifest {
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layer {
        media_type: String,
        digest: String,
    }
    let manifest: Manifest = serde_json::from_str(manifest).ok()?;
    let model = manifest.layers.into_iter().find(|layer| layer.media_type == "application/vnd.ollama.image.model")?;
    Some(model.digest)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::task::JoinSet;

    use super::*;
    use crate::ollama::{Loaded, Tag};
    use crate::test_dir::TestDir;

    /// An answer of a real runner, idle (`210_child_slots.txt` of the recorded samples, shortened).
    const IDLE: &str = r#"{"id":0,"n_ctx":4096,"speculative":false,"is_processing":false,"id_task":0,
        "n_prompt_tokens":39,"n_prompt_tokens_processed":0,"n_prompt_tokens_cache":0,
        "params":{"seed":4294967295,"max_tokens":40960,"n_predict":40960,"n_keep":4},
        "next_token":[{"has_next_token":false,"has_new_line":false,"n_remain":-1,"n_decoded":0}]}"#;

    fn busy(prompt: u64, cached: u64, processed: u64, limit: i64, remain: i64, decoded: u64) -> String {
        format!(
            r#"{{"n_ctx":4096,"is_processing":true,"n_prompt_tokens":{prompt},"n_prompt_tokens_cache":{cached},
            "n_prompt_tokens_processed":{processed},"params":{{"n_predict":{limit}}},
            "next_token":[{{"n_remain":{remain},"n_decoded":{decoded}}}]}}"#
        )
    }

    #[track_caller]
    fn check(slots: &[String], expected: &Runner) {
        let slots: Vec<Slot> = serde_json::from_str(&format!("[{}]", slots.join(","))).unwrap();
        assert_eq!(&sum(&slots), expected);
    }

    #[test]
    fn slots_are_summed() {
        let idle = Runner { slots: 1, context_length: 4096, ..Runner::default() };
        check(&[], &Runner::default());
        check(&[IDLE.to_owned()], &idle);
        let prefilling = busy(3000, 500, 1000, 128, 128, 0);
        let decoding = busy(39, 0, 39, 128, 28, 100);
        let endless = busy(39, 0, 39, 40960, 40860, 100);
        check(
            &[prefilling, decoding, endless, IDLE.to_owned()],
            &Runner {
                slots: 4,
                slots_busy: 3,
                tokens_left: 156,
                prefill_tokens_left: 1500,
                tokens_done: 1500 + 139 + 139,
                ..idle
            },
        );
    }

    fn loaded(name: &str, context_length: u64) -> LoadedModel {
        LoadedModel { name: name.to_owned(), context_length, ..LoadedModel::default() }
    }

    fn running(context_length: u64) -> Runner {
        Runner { slots: 1, context_length, ..Runner::default() }
    }

    async fn named(models: &str, runners: &[(&str, u64)], loaded: &[LoadedModel]) -> Vec<String> {
        let processes: Vec<RunnerProcess> = runners
            .iter()
            .map(|(blob, _)| RunnerProcess { port: 1, model: format!("{models}/blobs/sha256-{blob}") })
            .collect();
        let runners: Vec<Runner> = runners.iter().map(|(_, context)| running(*context)).collect();
        names(&processes.iter().collect::<Vec<_>>(), &runners, loaded).await
    }

    #[tokio::test]
    async fn a_runner_is_named_by_its_weights() {
        let dir = TestDir::new();
        let manifest = |blob: &str| {
            format!(
                r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.params","digest":"sha256:ff"}},
                {{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{blob}"}}]}}"#
            )
        };
        dir.write("manifests/registry.ollama.ai/library/tiny/latest", &manifest("aa"));
        dir.write("manifests/hf.co/Org/Model/Q4", &manifest("bb"));
        let models = dir.path().to_str().unwrap();
        let loaded = [loaded("tiny:latest", 4096), loaded("hf.co/Org/Model:Q4", 4096), loaded("other:latest", 4096)];
        let runners = [("bb", 4096), ("aa", 4096), ("cc", 4096)];
        assert_eq!(
            named(models, &runners, &loaded).await,
            ["hf.co/Org/Model:Q4", "tiny:latest", "other:latest"],
            "the one that is left is named by exclusion"
        );
    }

    #[tokio::test]
    async fn without_manifests_only_what_is_unique_is_named() {
        let models = [loaded("a", 4096), loaded("b", 8192), loaded("c", 8192)];
        assert_eq!(named("/gone", &[("1", 4096), ("2", 8192), ("3", 8192)], &models).await, ["a", "", ""]);
        assert_eq!(named("/gone", &[("1", 2048)], &models).await, [""]);
    }

    /// A runner whose `/slots` answers as the last value says: the status and the body, or nothing while it is `None`.
    async fn fake_runner(tasks: &mut JoinSet<()>) -> (watch::Sender<Option<(u16, &'static str)>>, u16) {
        let script = watch::Sender::new(Some((503, r#"{"error":{"message":"Loading model"}}"#)));
        let answers = script.clone();
        let slots = move || {
            let mut answers = answers.subscribe();
            async move {
                let (status, body) = answers.wait_for(Option::is_some).await.unwrap().unwrap();
                (StatusCode::from_u16(status).unwrap(), body)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move { axum::serve(listener, Router::new().route("/slots", get(slots))).await.unwrap() });
        (script, port)
    }

    #[tokio::test]
    async fn a_runner_is_seen_to_load_then_to_run_then_to_hang() {
        let (mut tasks, dir, client) = (JoinSet::new(), TestDir::new(), Client::new());
        let (script, port) = fake_runner(&mut tasks).await;
        let layer = r#"{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:aa"}"#;
        for name in ["tiny", "tiny2k"] {
            dir.write(
                &format!("manifests/registry.ollama.ai/library/{name}/latest"),
                &format!(r#"{{"layers":[{layer}]}}"#),
            );
        }
        let process = RunnerProcess { port, model: format!("{}/blobs/sha256-aa", dir.path().display()) };
        let tag = |name: &str| Tag { name: name.to_owned(), ..Tag::default() };
        let available = ["other:latest", "tiny:latest", "tiny2k:latest"].map(tag).to_vec();
        let mut ollama = OllamaFacts { available, ..OllamaFacts::default() };
        let mut runners = Runners::default();
        let loading = runners.ask(&client, std::slice::from_ref(&process), &ollama).await;
        assert_eq!(
            (loading.runners, loading.loading.as_slice()),
            (Some(vec![]), ["tiny:latest", "tiny2k:latest"].map(String::from).as_slice())
        );

        ollama.loaded = vec![Loaded { name: "tiny:latest".to_owned(), ..Loaded::default() }];
        script.send_replace(Some((200, r#"[{"is_processing":true,"n_prompt_tokens_processed":7}]"#)));
        let running = runners.ask(&client, std::slice::from_ref(&process), &ollama).await;
        let reading = running.runners.clone().unwrap().remove(0);
        assert_eq!((reading.model.as_str(), reading.slots_busy, reading.tokens_done), ("tiny:latest", 1, 7));
        assert!(running.loading.is_empty());

        script.send_replace(None);
        assert_eq!(runners.ask(&client, std::slice::from_ref(&process), &ollama).await, running, "as it was");
        assert_eq!(Runners::default().ask(&client, &[process], &ollama).await, Occupancy::default(), "never seen");
    }

    #[tokio::test]
    async fn a_load_without_a_name_is_told_all_the_same() {
        assert_eq!(loading_names(["/gone/blobs/sha256-aa"].into_iter(), &OllamaFacts::default()).await, [""]);
    }

    #[test]
    fn a_name_never_leads_out_of_the_folder() {
        assert_eq!(manifest_path(Path::new("/m"), "../../etc/passwd:x"), None);
        assert_eq!(
            manifest_path(Path::new("/m"), "me/tiny"),
            Some(PathBuf::from("/m/manifests/registry.ollama.ai/me/tiny/latest"))
        );
    }
}
