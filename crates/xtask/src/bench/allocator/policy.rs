//! The policy: one account, two classes, many workloads; and changes to it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

pub(super) const QUOTAS_PER_NAMESPACE: u32 = 10;

/// In one file; a file holds a megabyte at most, and people sort theirs too.
const QUOTAS_PER_FILE: u32 = 100;

/// A limit on requests that binds, and one on tokens that does not.
const PROVIDER: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  protocol: OpenAI
  endpoint: http://{endpoint}
  limits:
  - name: all
    models: ["*"]
    requestsPerMinute: {requests}
    tokensPerMinute: {tokens}
    burstPercent: 5
---
apiVersion: weir.dev/v1alpha1
kind: LLMPriorityClass
metadata: {name: interactive}
spec: {value: 1000, minSharePercent: 2}
---
apiVersion: weir.dev/v1alpha1
kind: LLMPriorityClass
metadata: {name: batch}
spec: {value: 0, minSharePercent: 2, globalDefault: true}
"#;

/// Writes all of it.
pub(super) fn write(folder: &Path, count: u32, budget: u32) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let (name, text) = provider(0, budget);
    fs::write(folder.join(name), text)?;
    for file in 0..count.div_ceil(QUOTAS_PER_FILE) {
        let (from, to) = (file * QUOTAS_PER_FILE, count.min((file + 1) * QUOTAS_PER_FILE));
        fs::write(folder.join(quota_file(file)), text_of(from..to, 0))?;
    }
    Ok(())
}

/// The file of the account, as it is after so many changes.
pub(super) fn provider(change: u32, budget: u32) -> (String, String) {
    let text = PROVIDER.replace("{endpoint}", &format!("127.0.0.1:{}", 1 + change));
    let text = text.replace("{requests}", &(u64::from(budget) * 60).to_string());
    let tokens = u64::from(budget) * 60 * 4_000;
    ("provider.yaml".to_owned(), text.replace("{tokens}", &tokens.to_string()))
}

/// The first file of workloads, in which one is different after so many changes.
pub(super) fn quotas(change: u32, _budget: u32) -> (String, String) {
    (quota_file(0), text_of(0..QUOTAS_PER_FILE, change))
}

fn quota_file(file: u32) -> String {
    format!("quotas-{file}.yaml")
}

fn text_of(quotas: std::ops::Range<u32>, change: u32) -> String {
    let mut text = String::new();
    for quota in quotas {
        let (team, app) = (quota / QUOTAS_PER_NAMESPACE, quota % QUOTAS_PER_NAMESPACE);
        let class = if quota % 5 == 0 { "interactive" } else { "batch" };
        let most = 200 + if quota == 0 { change } else { 0 };
        let _ = write!(
            text,
            "---\napiVersion: weir.dev/v1alpha1\nkind: LLMQuota\n\
             metadata: {{namespace: team-{team}, name: app-{app}}}\n\
             spec:\n  selector: {{matchLabels: {{app: app-{app}}}}}\n  priorityClassName: {class}\n  \
             budgets: [{{provider: openai}}]\n  queue: {{maxWait: 10s, maxRequests: {most}}}\n"
        );
    }
    text
}
