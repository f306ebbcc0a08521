//! Embeddings: unit vectors that mean nothing, as numbers or packed (`providers.md` 2.7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::reply::Reply;
use crate::words::mix;

/// A whole answer; embeddings are never streamed.
pub(super) fn whole(reply: &Reply) -> Value {
    let dimensions = reply.ask.extras.dimensions(reply.model());
    let data: Vec<Value> = (0..reply.ask.call.inputs.max(1))
        .map(|index| {
            let vector = unit_vector(reply.number.wrapping_add(index), dimensions);
            let embedding = if reply.ask.extras.packs_embeddings() {
                let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    json!({
        "object": "list",
        "data": data,
        "model": reply.model(),
        "usage": {"prompt_tokens": reply.input, "total_tokens": reply.input},
    })
}

/// All parts are equally large, with random signs.
fn unit_vector(seed: u64, dimensions: u32) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "an embedding is given in f32")]
    let part = (1.0 / f64::from(dimensions.max(1)).sqrt()) as f32;
    let sign = |at: u32| mix(seed ^ (u64::from(at) << 32)) & 1 == 0;
    (0..dimensions).map(|at| if sign(at) { part } else { -part }).collect()
}
