//! A page of metrics in the text form of Prometheus.

/// The page.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

// === impl Metrics ===

impl Metrics {
    /// The sum of all series of `name` that carry these labels; zero if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']));
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        series
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The same of a counter, which is whole.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters of a test are small and not negative"
        )]
        let count = self.sum(name, labels) as u64;
        count
    }
}
