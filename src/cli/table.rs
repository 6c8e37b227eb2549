//! Tables for people.

use std::fmt::Write as _;

/// Rows under headings, columns as wide as their longest cell. Control characters are shown as `.`: cells hold text from outside.
#[must_use]
pub(super) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    line(&mut out, &widths, headings.iter().copied());
    line(&mut out, &widths, rule.iter().map(String::as_str));
    for row in &rows {
        line(&mut out, &widths, row.iter().map(String::as_str));
    }
    out
}

fn line<'a>(out: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        let _ = write!(text, "{cell:<width$}  ");
    }
    let _ = writeln!(out, "  {}", text.trim_end());
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') { '.' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = vec![vec!["a\u{1b}[31m".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]];
        let table = render(&["name", "n"], &rows);
        assert!(!table.contains('\u{1b}'));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3], "  longer  22");
    }
}
