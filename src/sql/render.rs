//! Diagnostics as people read them in a terminal: sentence, place, line with carets, help.
//!
//! ```text
//! error: tumble needs an event-time column, but `price` is DOUBLE
//!  --> sql/candles.sql:7:21
//!   |
//! 7 | FROM TUMBLE(trades, price, INTERVAL '1 minute')
//!   |                     ^^^^^ expected TIMESTAMP
//!   = help: `trades` has one TIMESTAMP column: `traded_at`
//! ```

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity, SourceText, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Always,
    Never,
}

/// All diagnostics in the order of their places (those without one last), an empty line between two, no line break at the end.
///
/// A span over several lines is shown by its first. Spans that lie outside `text` are moved to its end.
pub fn render(text: &SourceText, diagnostics: &[Diagnostic], color: Color) -> String {
    let renderer = match color {
        Color::Always => Renderer::styled(),
        Color::Never => Renderer::plain(),
    };
    let mut ordered: Vec<&Diagnostic> = diagnostics.iter().collect();
    ordered.sort_by_key(|diagnostic| diagnostic.span.map_or(usize::MAX, |span| span.start));
    let rendered: Vec<String> = ordered
        .iter()
        .map(|diagnostic| {
            let rendered = without_empty_gutter(&renderer.render(&[group(text, diagnostic)]));
            // Without a line there is no number that the arrow could stand behind.
            if diagnostic.span.is_some() {
                rendered
            } else {
                rendered.replace('\n', "\n ")
            }
        })
        .collect();
    rendered.join("\n\n")
}

fn group<'a>(text: &'a SourceText, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str());
    let group = match diagnostic.span {
        None => title.element(Origin::path(text.name.as_str())),
        Some(span) => {
            let span = first_line(&text.text, span);
            let caret = AnnotationKind::Primary
                .span(span.start..span.end)
                .label(diagnostic.label.as_deref());
            title.element(
                Snippet::source(text.text.as_str())
                    .path(text.name.as_str())
                    .annotation(caret),
            )
        }
    };
    group.elements(diagnostic.help.iter().map(|help| Level::HELP.message(help.as_str())))
}

/// The part of a span that stands on its first line, on whole characters of `text`.
fn first_line(text: &str, span: Span) -> Span {
    let floor = |mut offset: usize| {
        offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let (start, end) = (floor(span.start), floor(span.end));
    let line_end = text[start..end.max(start)]
        .find('\n')
        .map_or(end.max(start), |newline| start + newline);
    Span::new(start, start + text[start..line_end].trim_end().len())
}

/// Cuts the lines that hold nothing but the bar and stand before a help.
fn without_empty_gutter(rendered: &str) -> String {
    let lines: Vec<&str> = rendered.lines().collect();
    let is_help = |line: &str| plain(line).trim_start().starts_with("= ");
    let kept = lines.iter().enumerate().filter(|(index, line)| {
        let is_bar = plain(line).trim() == "|";
        !(is_bar && lines.get(index + 1).is_some_and(|next| is_help(next)))
    });
    kept.map(|(_, line)| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// A line without its colors.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A color ends with its first letter.
            for part in characters.by_ref() {
                if part.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::SqlState;

    fn candles() -> SourceText {
        let sql = "CREATE MATERIALIZED VIEW candles AS\nSELECT\n  pair,\n  window_start,\n  max(price) AS high\n\nFROM TUMBLE(trades, price, INTERVAL '1 minute')\n";
        SourceText::new("sql/candles.sql", sql)
    }

    fn place(text: &SourceText, word: &str) -> Span {
        let start = text.text.find(word).expect("the word is there");
        Span::new(start, start + word.len())
    }

    #[test]
    fn a_mistake_is_a_sentence_a_place_carets_and_help() {
        let text = candles();
        let price = Span {
            end: place(&text, "price, ").end - 2,
            ..place(&text, "price, ")
        };
        let mistake = Diagnostic::error(
            SqlState::TypeMismatch,
            "tumble needs an event-time column, but `price` is DOUBLE",
            price,
        )
        .label("expected TIMESTAMP")
        .help("`trades` has one TIMESTAMP column: `traded_at`");
        insta::assert_snapshot!(render(&text, &[mistake], Color::Never), @r"
        error: tumble needs an event-time column, but `price` is DOUBLE
         --> sql/candles.sql:7:21
          |
        7 | FROM TUMBLE(trades, price, INTERVAL '1 minute')
          |                     ^^^^^ expected TIMESTAMP
          = help: `trades` has one TIMESTAMP column: `traded_at`
        ");
    }

    #[test]
    fn mistakes_stand_in_the_order_of_their_places() {
        let text = candles();
        let diagnostics = [
            Diagnostic::error(SqlState::Invalid, "nothing can be read", None).help("write something"),
            Diagnostic::warning(
                SqlState::Invalid,
                "many lines are shown by the first",
                Span::new(0, text.text.len()),
            ),
            Diagnostic::error(SqlState::Syntax, "behind the end", Span::new(10_000, 20_000)),
            Diagnostic::error(SqlState::Syntax, "an empty place", Span::new(36, 36))
                .help("one")
                .help("two"),
        ];
        insta::assert_snapshot!(render(&text, &diagnostics, Color::Never), @r"
        warning: many lines are shown by the first
         --> sql/candles.sql:1:1
          |
        1 | CREATE MATERIALIZED VIEW candles AS
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

        error: an empty place
         --> sql/candles.sql:2:1
          |
        2 | SELECT
          | ^
          = help: one
          = help: two

        error: behind the end
         --> sql/candles.sql:7:49
          |
        7 | FROM TUMBLE(trades, price, INTERVAL '1 minute')
          |                                                ^

        error: nothing can be read
         --> sql/candles.sql
          = help: write something
        ");
        assert_eq!(render(&text, &[], Color::Never), "", "no mistake is nothing");
    }

    #[test]
    fn colors_change_nothing_but_the_color() {
        let text = candles();
        let mistake = Diagnostic::error(SqlState::Syntax, "wrong", place(&text, "TUMBLE"))
            .label("here")
            .help("mend it");
        let colored = render(&text, std::slice::from_ref(&mistake), Color::Always);
        assert!(colored.contains('\u{1b}'));
        let lines: Vec<String> = colored.lines().map(|line| plain(line).trim_end().to_owned()).collect();
        assert_eq!(lines.join("\n"), render(&text, &[mistake], Color::Never));
    }
}
