//! Tables for people: columns as wide as their longest cell, narrowed where the terminal is narrower.
//!
//! Promises: no cell reaches the terminal raw; a column that must be copied whole is never cut; what does not fit is cut
//! with `…`, and columns that may be missed, or have nothing in them, are left out before others become unreadable.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::telemetry::escaped;

/// Narrower, a column tells nothing.
const LEAST: usize = 8;

/// What may be done to a column where the terminal is narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Nothing: what is in it is copied.
    Whole,
    /// It is cut.
    Cut,
    /// It is left out, the last ones first.
    Spare,
}

/// Rows under headings.
pub(super) struct Table {
    columns: Vec<(&'static str, Fit)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Fit)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| escaped(cell).into_owned()).collect());
    }

    /// The text, at most `width` columns where that is possible; `bold` marks the headings for a terminal.
    pub(super) fn text(&self, width: usize, bold: bool) -> String {
        let cells = |at: usize| self.rows.iter().map(move |row| row[at].width());
        let mut shown: Vec<(usize, usize)> = (0..self.columns.len())
            .filter(|at| self.rows.is_empty() || cells(*at).any(|n| n > 0))
            .map(|at| (at, cells(at).chain([self.columns[at].0.width()]).max().unwrap_or(0)))
            .collect();
        let total = |shown: &[(usize, usize)]| shown.iter().map(|(_, n)| n + 2).sum::<usize>().saturating_sub(2);
        // Columns are cut down to LEAST at first; one that may be missed goes when that is not enough.
        loop {
            let cuttable = |(at, n): &(usize, usize)| match self.columns[*at].1 {
                Fit::Whole => 0,
                _ => n.saturating_sub(LEAST.max(self.columns[*at].0.width())),
            };
            let slack: usize = shown.iter().map(cuttable).sum();
            if total(&shown) <= width.saturating_add(slack) {
                break;
            }
            match shown.iter().rposition(|(at, _)| self.columns[*at].1 == Fit::Spare) {
                Some(spare) => shown.remove(spare),
                None => break,
            };
        }
        while total(&shown) > width {
            let widest = shown
                .iter_mut()
                .filter(|(at, n)| self.columns[*at].1 != Fit::Whole && *n > LEAST.max(self.columns[*at].0.width()))
                .max_by_key(|(_, n)| *n);
            match widest {
                Some((_, n)) => *n -= 1,
                None => break,
            }
        }
        let mut out = String::new();
        let heading = line(shown.iter().map(|(at, n)| (self.columns[*at].0, *n)));
        let _ = if bold { writeln!(out, "\u{1b}[1m{heading}\u{1b}[0m") } else { writeln!(out, "{heading}") };
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(shown.iter().map(|(at, n)| (row[*at].as_str(), *n))));
        }
        out
    }
}

fn line<'a>(cells: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut text = String::new();
    for (cell, width) in cells {
        let cell = cut(cell, width);
        text.push_str(&cell);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
    }
    text.trim_end().to_owned()
}

/// `text` in at most `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// `text` broken between words into lines of at most `width` columns; a longer word has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Rows under headings and a rule, moved in by two: the demonstration's tables.
#[must_use]
pub(super) fn render(headings: &[&'static str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new(&headings.iter().map(|heading| (*heading, Fit::Whole)).collect::<Vec<_>>());
    let rule = headings.iter().enumerate().map(|(at, heading)| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| escaped(cell).width());
        "─".repeat(cells.chain([heading.width()]).max().unwrap_or(0))
    });
    table.rows.push(rule.collect());
    for row in rows {
        let cell = |at: usize| row.get(at).map(|cell| escaped(cell).into_owned()).unwrap_or_default();
        table.rows.push((0..headings.len()).map(cell).collect());
    }
    table.text(usize::MAX, false).lines().map(|line| format!("  {line}\n")).collect()
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
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["longer", "22"]);
        assert_eq!(lines[2].rfind('1'), lines[3].find("22"));
    }

    fn table() -> Table {
        let mut table =
            Table::new(&[("ID", Fit::Whole), ("NAME", Fit::Cut), ("NOTE", Fit::Spare), ("WHY", Fit::Spare)]);
        table.row(["0123456789abcdef", "a name that is long", "a note", ""].map(str::to_owned));
        table
    }

    #[test]
    fn a_narrow_terminal_loses_spare_columns_and_long_text_but_never_an_id() {
        let wide = table().text(80, false);
        assert!(wide.contains("a name that is long  a note") && !wide.contains("WHY"), "{wide}");
        for width in [20, 30, 40] {
            let text = table().text(width, false);
            assert!(text.contains("0123456789abcdef"), "{text}");
            assert!(text.lines().all(|line| line.width() <= width.max(26)), "{width}: {text}");
        }
        assert!(!table().text(30, false).contains("NOTE"));
    }

    #[test]
    fn text_is_broken_between_words_by_what_it_takes_on_the_screen() {
        assert_eq!(wrapped("a bb ccc dddddddd e", 5), ["a bb", "ccc", "dddddddd", "e"]);
        assert_eq!(wrapped("日本 語", 7), ["日本 語"]);
        assert_eq!(wrapped("日本 語", 6), ["日本", "語"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn text_is_cut_by_what_it_takes_on_the_screen() {
        assert_eq!(cut("日本語日本語", 8).width(), 7);
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
    }
}
