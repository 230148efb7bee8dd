//! Lists as people read them.

use serde_json::Value;

/// Prints the rows of `list`, an array of objects, with `columns` of them.
pub(crate) fn print(list: &Value, columns: &[&str]) {
    print!("{}", render(list, columns));
}

fn render(list: &Value, columns: &[&str]) -> String {
    let mut rows: Vec<Vec<String>> =
        vec![columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect()];
    for row in list.as_array().into_iter().flatten() {
        rows.push(columns.iter().map(|column| cell(&row[*column])).collect());
    }
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// One value. Control characters in names that others chose do not reach the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_nothing_steers_the_terminal() {
        let list =
            json!([{ "name": "alice", "groups": ["a", "b"], "active": true }, { "name": "\u{1b}[2Jx", "groups": [] }]);
        let text = render(&list, &["name", "groups", "active"]);
        assert_eq!(text, "NAME   GROUPS  ACTIVE\nalice  a,b     true\n?[2Jx          -\n");
    }
}
