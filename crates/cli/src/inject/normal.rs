//! What people write in manifests in more than one way, written as the API server writes it.
//!
//! Kubernetes reads YAML 1.1, where `0644` is an octal number; the library here reads 1.2, where it
//! is a text. And quantities may be numbers or texts, of which our structs know texts.

use serde_json::Value;

/// Puts the parts of a pod's spec right in which either occurs.
pub(super) fn normalise(template: &mut Value) {
    for list in ["containers", "initContainers", "ephemeralContainers", "volumes"] {
        if let Some(list) = template.pointer_mut(&format!("/spec/{list}")) {
            walk(list);
        }
    }
    for owner in ["resources", "overhead"] {
        if let Some(owner) = template.pointer_mut(&format!("/spec/{owner}")) {
            walk(owner);
            quantities(owner);
        }
    }
}

fn walk(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(walk),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match name.as_str() {
                    "defaultMode" | "mode" => octal(value),
                    "limits" | "requests" => quantities(value),
                    "sizeLimit" | "divisor" => quantity(value),
                    _ => walk(value),
                }
            }
        }
        _ => {}
    }
}

fn octal(value: &mut Value) {
    let digits = value.as_str().and_then(|text| text.strip_prefix('0'));
    if let Some(number) = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok()) {
        *value = number.into();
    }
}

fn quantities(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(quantity);
    }
}

fn quantity(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = number.to_string().into();
    }
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use serde_json::json;

    #[test]
    fn modes_and_quantities_become_what_the_api_server_writes() {
        let mut template = json!({
            "metadata": {"labels": {"mode": "0644"}},
            "spec": {
                "nodeSelector": {"mode": "0644"},
                "containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}],
                "volumes": [
                    {"secret": {"defaultMode": "0640", "items": [{"mode": "0400"}]}},
                    {"emptyDir": {"sizeLimit": 1024}},
                    {"configMap": {"defaultMode": 420}},
                    {"configMap": {"defaultMode": "rw"}},
                ],
            },
        });
        normalise(&mut template);
        assert_eq!(
            template,
            json!({
                "metadata": {"labels": {"mode": "0644"}},
                "spec": {
                    "nodeSelector": {"mode": "0644"},
                    "containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
                    "volumes": [
                        {"secret": {"defaultMode": 0o640, "items": [{"mode": 0o400}]}},
                        {"emptyDir": {"sizeLimit": "1024"}},
                        {"configMap": {"defaultMode": 420}},
                        {"configMap": {"defaultMode": "rw"}},
                    ],
                },
            })
        );
    }
}
