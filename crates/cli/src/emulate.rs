//! `weir emulator`: says how to point an SDK at it, then serves.

use crate::output;

/// Serves until `shutdown`. Instructions go to stderr, because there is no data.
pub(crate) async fn emulate(
    args: emulator::Args,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    output::tell(&format!(
        "Emulating OpenAI and Anthropic. Any key will do. Point an SDK at it:\n\n  \
         export OPENAI_BASE_URL=http://{0}/v1 OPENAI_API_KEY=any\n  \
         export ANTHROPIC_BASE_URL=http://{0} ANTHROPIC_API_KEY=any\n\n\
         What was charged and refused: curl http://{1}/__emu/state\n\
         Ctrl-C ends it.",
        args.listen, args.admin
    ));
    Ok(emulator::run(args, shutdown).await?)
}
