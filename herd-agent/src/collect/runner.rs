//! True occupancy: asks each runner process for its slots. Counts only; no text ever leaves the runner.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use herd_core::wire::{LoadedModel, Runner};
use reqwest::Client;
use serde::Deserialize;

use super::process::RunnerProcess;
use crate::ollama::get_json;

/// A runner on this machine answers in a millisecond or two, unless it is busy with a large batch.
const TIMEOUT: Duration = Duration::from_millis(300);
/// A slot takes about 1.2 KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Ollama gives "no limit" to its runner as this many times the context.
const NO_LIMIT_CONTEXTS: u64 = 10;

/// Slots of every runner that answers, with the model's name where it can be told.
///
/// `None` when models are loaded and none of their runners can be read: an older Ollama, or another kind of runner.
pub(super) async fn occupancy(
    client: &Client,
    processes: &[RunnerProcess],
    loaded: &[LoadedModel],
) -> Option<Vec<Runner>> {
    let answers = join_all(processes.iter().map(|process| slots(client, process))).await;
    let (processes, mut runners): (Vec<&RunnerProcess>, Vec<Runner>) =
        processes.iter().zip(answers).filter_map(|(process, answer)| Some((process, answer?))).unzip();
    if runners.is_empty() && !loaded.is_empty() {
        return None;
    }
    let names = names(&processes, &runners, loaded).await;
    for (runner, name) in runners.iter_mut().zip(names) {
        runner.model = name;
    }
    Some(runners)
}

async fn slots(client: &Client, process: &RunnerProcess) -> Option<Runner> {
    let url = format!("http://127.0.0.1:{}/slots", process.port).parse().ok()?;
    let slots: Vec<Slot> = get_json(client, url, TIMEOUT, ANSWER_MAX_BYTES).await.ok()?;
    Some(sum(&slots))
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
        let done = self.n_prompt_tokens_processed + self.n_prompt_tokens_cache;
        if prefilling { self.n_prompt_tokens.saturating_sub(done) } else { 0 }
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
    }
}

/// Names of the runners' models: by the weights that the model's manifest names, where it can be read; else by a context
/// size that only one runner and one loaded model have; else empty.
async fn names(processes: &[&RunnerProcess], runners: &[Runner], loaded: &[LoadedModel]) -> Vec<String> {
    let mut by_blob = Vec::new();
    for process in processes {
        by_blob.push(name_by_blob(&process.model, loaded).await);
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

async fn name_by_blob(blob: &str, loaded: &[LoadedModel]) -> Option<String> {
    let blob = Path::new(blob);
    let models = blob.parent().filter(|dir| dir.ends_with("blobs"))?.parent()?;
    let digest = blob.file_name()?.to_str()?.replacen('-', ":", 1);
    for model in loaded {
        let Some(manifest) = manifest_path(models, &model.name) else { continue };
        let Ok(text) = tokio::fs::read_to_string(&manifest).await else { continue };
        if weights(&text).as_deref() == Some(digest.as_str()) {
            return Some(model.name.clone());
        }
    }
    None
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
    use super::*;
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
            &Runner { slots: 4, slots_busy: 3, tokens_left: 156, prefill_tokens_left: 1500, ..idle },
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

    #[test]
    fn a_name_never_leads_out_of_the_folder() {
        assert_eq!(manifest_path(Path::new("/m"), "../../etc/passwd:x"), None);
        assert_eq!(
            manifest_path(Path::new("/m"), "me/tiny"),
            Some(PathBuf::from("/m/manifests/registry.ollama.ai/me/tiny/latest"))
        );
    }
}
