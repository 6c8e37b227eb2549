//! Rows as CSV (RFC 4180, with LF): an empty cell is null, `""` is the empty text. Texts are quoted where they must be.

use serde_json::{Map, Number, Value};

use super::row::{COLUMNS, ExportedRow, NUMBERS};

/// The first line.
pub(super) fn head() -> String {
    COLUMNS.join(",") + "\n"
}

/// One row.
pub(super) fn line(row: &ExportedRow) -> Result<String, serde_json::Error> {
    let row = serde_json::to_value(row)?;
    let mut line = String::with_capacity(512);
    for (at, column) in COLUMNS.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        match &row[*column] {
            Value::Null => {}
            Value::String(text) if !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) => line.push_str(text),
            Value::String(text) => {
                line.push('"');
                line.push_str(&text.replace('"', "\"\""));
                line.push('"');
            }
            other => line.push_str(&other.to_string()),
        }
    }
    line.push('\n');
    Ok(line)
}

/// Reads what [`line`] wrote.
pub(super) fn row(line: &str) -> Result<ExportedRow, String> {
    let cells = cells(line.strip_suffix('\n').ok_or("the line is not whole")?)?;
    if cells.len() != COLUMNS.len() {
        return Err(format!("it has {} cells, and there are {} columns", cells.len(), COLUMNS.len()));
    }
    let mut row = Map::new();
    for (column, cell) in COLUMNS.iter().zip(cells) {
        let Some(text) = cell else { continue };
        let value = match *column {
            "erased" if text == "true" => Value::Bool(true),
            column if NUMBERS.contains(&column) => {
                let number: i64 = text.parse().map_err(|_| format!("{column} is not a number"))?;
                Value::Number(Number::from(number))
            }
            _ => Value::String(text),
        };
        row.insert((*column).to_owned(), value);
    }
    serde_json::from_value(Value::Object(row)).map_err(|error| error.to_string())
}

/// The cells of a line; none for null.
fn cells(line: &str) -> Result<Vec<Option<String>>, String> {
    let mut cells = Vec::with_capacity(COLUMNS.len());
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (cell, more) = rest.split_once(',').map_or((rest, None), |(cell, more)| (cell, Some(more)));
            cells.push((!cell.is_empty()).then(|| cell.to_owned()));
            match more {
                Some(more) => rest = more,
                None => return Ok(cells),
            }
            continue;
        };
        let mut cell = String::new();
        let mut inside = quoted;
        loop {
            let (text, more) = inside.split_once('"').ok_or("a quote is not closed")?;
            cell.push_str(text);
            match more.strip_prefix('"') {
                Some(more) => {
                    cell.push('"');
                    inside = more;
                }
                None => {
                    inside = more;
                    break;
                }
            }
        }
        cells.push(Some(cell));
        match inside.strip_prefix(',') {
            Some(more) => rest = more,
            None if inside.is_empty() => return Ok(cells),
            None => return Err("something follows a closing quote".to_owned()),
        }
    }
}
