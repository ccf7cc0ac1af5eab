//! Tables for people: a header, columns in line, no lines drawn.

use std::io::{self, Write};

use super::text::printable;

/// A column and its title.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// A table that is written in one go.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

impl Table {
    pub(super) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell).into_owned()).collect());
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let titles: Vec<_> = self.columns.iter().map(|column| column.title().to_owned()).collect();
        let width = |i: usize| {
            let cells = self.rows.iter().chain([&titles]).filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        for row in [&titles].into_iter().chain(&self.rows) {
            let cells =
                row.iter().zip(&self.columns).zip(&widths).map(|((cell, column), &width)| {
                    match column {
                        Column::Left(_) => format!("{cell:width$}"),
                        Column::Right(_) => format!("{cell:>width$}"),
                    }
                });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_line_and_lines_have_no_tail() {
        let mut table = Table::new([Column::Left("TOPIC"), Column::Right("N"), Column::Left("X")]);
        table.row(["é".to_owned(), "12".to_owned(), String::new()]);
        table.row(["room:lobby".to_owned(), "3".to_owned(), "a\tb".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "TOPIC        N  X\né           12\nroom:lobby   3  a\\tb\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
