//! Lays text out in aligned columns, and makes what a server sent harmless for a terminal.

use serde_json::{Map, Value};

/// Two spaces and more between columns, as in Vault's client (four).
const GAP: usize = 4;

/// Aligned columns under underlined headings; a cell of several lines goes on in its own column.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let underlines: Vec<String> = headings.iter().map(|text| "-".repeat(text.len())).collect();
    let headings: Vec<String> = headings.iter().map(|text| (*text).to_owned()).collect();
    let lines: Vec<Vec<String>> =
        [headings, underlines].iter().chain(rows).flat_map(|row| lines_of(row)).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    lines.iter().map(|line| padded(line, &widths)).collect()
}

/// One printed line for each line of the row's tallest cell.
fn lines_of(row: &[String]) -> Vec<Vec<String>> {
    let cells: Vec<Vec<String>> = row
        .iter()
        .map(|cell| cell.trim_end_matches('\n').split('\n').map(harmless).collect())
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    (0..height)
        .map(|line| cells.iter().map(|cell| cell.get(line).cloned().unwrap_or_default()).collect())
        .collect()
}

fn padded(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, wide) in line.iter().zip(widths) {
        text.push_str(cell);
        text.push_str(&" ".repeat(wide.saturating_sub(width(cell)) + GAP));
    }
    format!("{}\n", text.trim_end())
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Rows of an object, sorted by name.
pub(crate) fn rows_of(object: &Map<String, Value>) -> Vec<Vec<String>> {
    object.iter().map(|(name, value)| vec![name.clone(), cell(value)]).collect()
}

/// A value as a person reads it: text plainly, numbers as sent, null as `n/a`, the rest as JSON.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "n/a".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("[{}]", texts.join(" "))
        }
        other => other.to_string(),
    }
}

/// Shows control characters instead of handing them to the terminal; tabs become spaces.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => shown.push_str("    "),
            letter if letter.is_control() => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_line_up_by_characters_and_no_line_ends_in_spaces() {
        let rows = [row(&["user", "ü"]), row(&["passwörter", "x"]), row(&["empty", ""])];
        let expected =
            "Key           Value\n---           -----\nuser          ü\npasswörter    x\nempty\n";
        assert_eq!(table(&["Key", "Value"], &rows), expected);
    }

    #[test]
    fn a_cell_of_several_lines_goes_on_in_its_column() {
        let text = table(&["Key", "Value"], &[row(&["pem", "one\ntwo\n"]), row(&["b", "c"])]);
        assert_eq!(text, "Key    Value\n---    -----\npem    one\n       two\nb      c\n");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let text = table(&["K"], &[row(&["\u{1b}]0;title\u{7}\u{9b}1m"])]);
        assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text}");
    }

    #[test]
    fn values_are_shown_as_they_were_sent() {
        let body: Value = serde_json::from_str(
            r#"{"a":1.50,"b":12345678901234567890,"c":null,"d":["x","y"],"e":{"f":[1]},"g":true}"#,
        )
        .unwrap();
        let shown: Vec<String> = body.as_object().unwrap().values().map(cell).collect();
        assert_eq!(shown, ["1.50", "12345678901234567890", "n/a", "[x y]", r#"{"f":[1]}"#, "true"]);
    }
}
