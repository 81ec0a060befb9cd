//! Columns: lines of cells become lines of text.

use std::io::Write;

/// Aligns the cells of each line below those of the first one. Cells may hold colours, and no line end or tab.
pub fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let mut writer = tabwriter::TabWriter::new(Vec::new()).padding(3).ansi(true);
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| one_line(cell)).collect();
        // Writing to memory does not fail.
        let _ = writeln!(writer, "{}", cells.join("\t"));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The head of a table.
pub fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A text without line ends, tabs and other characters that move a terminal's cursor. Colours stay.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\u{1b}' { ' ' } else { c }).collect()
}

/// Text from outside (Git, the cluster) for a terminal: escapes of its own would be obeyed.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The first characters of a text, with a mark when there were more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room_and_line_ends_do_not_break_lines() {
        let rows = [
            head(&["A", "B", "C"]),
            vec![super::super::paint(super::super::GOOD, "yes"), "x\ny".into(), "1".into()],
            vec!["longer".into(), "z".into(), String::new()],
        ];
        let plain: Vec<String> =
            lines(&rows).iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect();
        assert_eq!(plain, ["A        B     C", "yes      x y   1", "longer   z"]);
    }

    #[test]
    fn escapes_from_outside_are_tamed() {
        assert_eq!(tame("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }
}
