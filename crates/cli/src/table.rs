//! How tables look, and how numbers are written in them.

use comfy_table::{LineStyle, Table, TableStyle};

/// An empty table: lines above and below and under the head, none between rows. It is as wide as what
/// is in it, on a terminal too, so that the same figures always look the same.
pub(crate) fn new(is_coloured: bool) -> Table {
    const STYLE: TableStyle = TableStyle::new()
        .top_border(LineStyle::none().fill('─').junction('─'))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .bottom_border(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE);
    table.force_no_tty();
    if is_coloured {
        table.enforce_styling();
    }
    table
}

/// `12,345`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `99.4 %`
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `850 ms`, `4.2 s`
pub(crate) fn millis(millis: f64) -> String {
    if millis < 999.5 { format!("{millis:.0} ms") } else { format!("{:.1} s", millis / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(percent(0.994_4), "99.4 %");
        for (number, text) in
            [(0.2, "0 ms"), (849.7, "850 ms"), (999.9, "1.0 s"), (4_249.0, "4.2 s")]
        {
            assert_eq!(millis(number), text);
        }
    }
}
