//! Values of the environment: `${NAME}`, `${NAME:-default}` and `${file:PATH}` become text, and places lead back to what was written.
//!
//! ```text
//! 'h:${PORT:-9}'  ──▶  'h:9'       segments: ['h:] as written │ [9] stands for ${PORT:-9} │ ['] as written
//! ```
//! Comments stay as they are. A value never breaks out of the quotes that it stands in.

use super::{Diagnostic, SourceText, Span, SqlState, suggest::nearest};

/// Looks a variable up; `None` where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;
/// Reads a secret's file; the error is a sentence.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// A text with its variables filled in, and how its places lead back.
pub(super) struct Substituted {
    pub text: String,
    segments: Vec<Segment>,
    pub diagnostics: Vec<Diagnostic>,
}

/// A stretch of the new text and what it came from; segments follow each other without a gap.
struct Segment {
    new: Span,
    original: Span,
    kind: SegmentKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SegmentKind {
    AsWritten,
    Value,
    /// Shown as it was written, never as what it is.
    Secret,
}

/// Fills in `${NAME}`, `${NAME:-default}` and `${file:PATH}` in and outside string literals; `$$` is a dollar.
///
/// A value inside quotes has these quotes doubled. One trailing line break of a secret is cut. What cannot be filled in is a diagnostic
/// at its place in `text`, and the name stands in for the value so that the rest can be checked.
pub fn substitute(text: &SourceText, lookup: Lookup, read_file: ReadFile) -> (SourceText, Vec<Diagnostic>) {
    let done = Substituted::new(text, lookup, read_file);
    (SourceText::new(text.name.clone(), done.text), done.diagnostics)
}

impl Substituted {
    /// `text` as it is: nothing stands for anything else.
    pub fn unchanged(text: &SourceText) -> Self {
        let all = Span::new(0, text.text.len());
        let segments = vec![Segment {
            new: all,
            original: all,
            kind: SegmentKind::AsWritten,
        }];
        Self {
            text: text.text.clone(),
            segments,
            diagnostics: Vec::new(),
        }
    }

    pub fn new(text: &SourceText, lookup: Lookup, read_file: ReadFile) -> Self {
        let mut scan = Scan {
            source: &text.text,
            lookup,
            read_file,
            written_from: 0,
            out: Self {
                text: String::with_capacity(text.text.len()),
                segments: Vec::new(),
                diagnostics: Vec::new(),
            },
        };
        scan.run();
        scan.out
    }

    /// The place in the original text that a place of this text came from.
    pub fn original(&self, span: Span) -> Span {
        let start = self.segment(span.start);
        let start = match start.kind {
            SegmentKind::AsWritten => start.original.start + (span.start - start.new.start),
            _ => start.original.start,
        };
        // The end belongs to the last byte inside, so that a token before a variable does not reach into it.
        let end = match span.end.checked_sub(1).filter(|last| span.start <= *last) {
            None => start,
            Some(last) => {
                let segment = self.segment(last);
                match segment.kind {
                    SegmentKind::AsWritten => segment.original.start + (last - segment.new.start) + 1,
                    _ => segment.original.end,
                }
            }
        };
        Span::new(start, end.max(start))
    }

    fn segment(&self, offset: usize) -> &Segment {
        let index = self.segments.partition_point(|segment| segment.new.end <= offset);
        &self.segments[index.min(self.segments.len() - 1)]
    }

    /// The text of `span` such that filling it in again gives the same: secrets as they were written, dollars doubled where they would
    /// be read as variables. `comments` are spans of this text, in order.
    pub fn text_without_secrets(&self, original: &str, span: Span, comments: &[Span]) -> String {
        let mut parts: Vec<(&str, bool)> = Vec::new();
        let first = self.segments.partition_point(|segment| segment.new.end <= span.start);
        for segment in self.segments[first..]
            .iter()
            .take_while(|segment| segment.new.start < span.end)
        {
            match segment.kind {
                SegmentKind::Secret => parts.push((&original[segment.original.start..segment.original.end], false)),
                _ => {
                    let shown = Span::new(segment.new.start.max(span.start), segment.new.end.min(span.end));
                    parts.extend(self.outside_and_inside_comments(shown, comments));
                }
            }
        }
        let mut text = String::new();
        let mut characters = parts
            .iter()
            .flat_map(|(part, escape)| part.chars().map(move |character| (character, *escape)))
            .peekable();
        while let Some((character, escape)) = characters.next() {
            text.push(character);
            if character == '$' && escape && characters.peek().is_some_and(|(next, _)| matches!(next, '$' | '{')) {
                text.push('$');
            }
        }
        text
    }
}

impl Substituted {
    /// The parts of `span`, and for each whether it stands outside of comments: only there a dollar has a meaning.
    fn outside_and_inside_comments(&self, span: Span, comments: &[Span]) -> Vec<(&str, bool)> {
        let mut parts = Vec::new();
        let mut at = span.start;
        let first = comments.partition_point(|comment| comment.end <= span.start);
        for comment in comments[first..].iter().take_while(|comment| comment.start < span.end) {
            let (start, end) = (comment.start.max(at), comment.end.min(span.end));
            parts.push((&self.text[at..start], true));
            parts.push((&self.text[start..end], false));
            at = end;
        }
        parts.push((&self.text[at..span.end], true));
        parts
    }
}

/// What a place of the text lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Plain,
    /// Between quotes; in `E'…'` a backslash hides the next character.
    Quoted {
        quote: char,
        backslash: bool,
    },
    LineComment,
    BlockComment {
        depth: usize,
    },
}

struct Scan<'a> {
    source: &'a str,
    lookup: Lookup<'a>,
    read_file: ReadFile<'a>,
    /// Everything before stands in a segment already.
    written_from: usize,
    out: Substituted,
}

impl Scan<'_> {
    fn run(&mut self) {
        let source = self.source;
        let bytes = source.as_bytes();
        let mut context = Context::Plain;
        let mut at = 0;
        // All bytes that matter here are ASCII, so they never stand inside another character.
        while at < bytes.len() {
            let rest = &bytes[at..];
            match context {
                Context::LineComment => {
                    if rest[0] == b'\n' {
                        context = Context::Plain;
                    }
                    at += 1;
                    continue;
                }
                Context::BlockComment { depth } => {
                    if rest.starts_with(b"/*") {
                        context = Context::BlockComment { depth: depth + 1 };
                        at += 2;
                    } else if rest.starts_with(b"*/") {
                        context = if depth == 1 {
                            Context::Plain
                        } else {
                            Context::BlockComment { depth: depth - 1 }
                        };
                        at += 2;
                    } else {
                        at += 1;
                    }
                    continue;
                }
                Context::Quoted { backslash: true, .. } if rest[0] == b'\\' => {
                    at += 2;
                    continue;
                }
                Context::Quoted { quote, .. } if rest[0] == quote as u8 => {
                    // A doubled quote closes and opens again: the same for what follows.
                    context = Context::Plain;
                    at += 1;
                    continue;
                }
                Context::Plain if rest.starts_with(b"--") => {
                    context = Context::LineComment;
                    at += 2;
                    continue;
                }
                Context::Plain if rest.starts_with(b"/*") => {
                    context = Context::BlockComment { depth: 1 };
                    at += 2;
                    continue;
                }
                Context::Plain if matches!(rest[0], b'\'' | b'"' | b'`') => {
                    context = Context::Quoted {
                        quote: rest[0] as char,
                        backslash: rest[0] == b'\'' && follows_a_lone_e(bytes, at),
                    };
                    at += 1;
                    continue;
                }
                Context::Plain | Context::Quoted { .. } => {}
            }
            if rest.starts_with(b"$$") {
                self.replace(Span::new(at, at + 2), "$", SegmentKind::Value);
                at += 2;
            } else if rest.starts_with(b"${") {
                at = self.variable(at, context);
            } else {
                at += 1;
            }
        }
        self.write_up_to(source.len());
        if self.out.segments.is_empty() {
            let nothing = Span::new(0, 0);
            self.out.segments.push(Segment {
                new: nothing,
                original: nothing,
                kind: SegmentKind::AsWritten,
            });
        }
    }

    /// Handles the `${` at `start`; returns where to go on.
    fn variable(&mut self, start: usize, context: Context) -> usize {
        let body_start = start + 2;
        let body_end = self.source[body_start..].find(|c: char| match context {
            Context::Quoted { quote, .. } => c == '}' || c == '\n' || c == quote,
            _ => c == '}' || c == '\n',
        });
        let Some(body_end) = body_end
            .map(|length| body_start + length)
            .filter(|end| self.source[*end..].starts_with('}'))
        else {
            self.out.diagnostics.push(
                Diagnostic::error(SqlState::Syntax, "unclosed `${`", Span::new(start, body_start))
                    .help("close it with `}`, or write `$${` for a dollar and a brace"),
            );
            return body_start;
        };
        let (body, whole) = (&self.source[body_start..body_end], Span::new(start, body_end + 1));
        if let Some(path) = body.strip_prefix("file:") {
            match (self.read_file)(path) {
                Ok(secret) => {
                    let secret = secret
                        .strip_suffix('\n')
                        .map_or(secret.as_str(), |cut| cut.strip_suffix('\r').unwrap_or(cut));
                    self.replace(whole, &quoted(secret, context), SegmentKind::Secret);
                }
                Err(reason) => {
                    self.out.diagnostics.push(
                        Diagnostic::error(
                            SqlState::Invalid,
                            format!("cannot read the secret `{path}`: {reason}"),
                            whole,
                        )
                        .help("the file must exist and be readable by this process"),
                    );
                    self.replace(whole, "secret", SegmentKind::Secret);
                }
            }
            return whole.end;
        }
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        if !is_variable_name(name) {
            let mut mistake = Diagnostic::error(
                SqlState::Syntax,
                format!("`{name}` is not the name of a variable"),
                whole,
            )
            .help("write `${NAME}`, `${NAME:-default}` or `${file:PATH}`; `$$` is a dollar");
            if let Some((kind, _)) = name
                .split_once(':')
                .filter(|(kind, _)| nearest(kind, ["file"]).is_some())
            {
                mistake = mistake.help(format!("did you mean `file` instead of `{kind}`?"));
            }
            self.out.diagnostics.push(mistake);
            self.replace(whole, "variable", SegmentKind::Value);
            return whole.end;
        }
        if let Some(default) = default.filter(|default| default.contains("${")) {
            self.out.diagnostics.push(
                Diagnostic::error(
                    SqlState::Unsupported,
                    format!("the default of `{name}` holds another variable"),
                    whole,
                )
                .help(format!("a default is plain text; it reads `{default}`")),
            );
        }
        match ((self.lookup)(name), default) {
            (Some(value), _) => self.replace(whole, &quoted(&value, context), SegmentKind::Value),
            // A default stands in the file, between the same quotes, and is written as they ask for.
            (None, Some(default)) => self.replace(whole, default, SegmentKind::Value),
            (None, None) => {
                self.out.diagnostics.push(
                    Diagnostic::error(SqlState::Invalid, format!("variable {name} is not set"), whole)
                        .help(format!("set it, or give a default: ${{{name}:-…}}")),
                );
                self.replace(whole, name, SegmentKind::Value);
            }
        }
        whole.end
    }

    fn replace(&mut self, original: Span, value: &str, kind: SegmentKind) {
        self.write_up_to(original.start);
        let start = self.out.text.len();
        self.out.text.push_str(value);
        self.push_segment(Segment {
            new: Span::new(start, start + value.len()),
            original,
            kind,
        });
        self.written_from = original.end;
    }

    fn write_up_to(&mut self, end: usize) {
        let start = self.out.text.len();
        self.out.text.push_str(&self.source[self.written_from..end]);
        let (new, original) = (Span::new(start, self.out.text.len()), Span::new(self.written_from, end));
        self.push_segment(Segment {
            new,
            original,
            kind: SegmentKind::AsWritten,
        });
        self.written_from = end;
    }

    fn push_segment(&mut self, segment: Segment) {
        // An empty one holds no place, except a secret: it still has to be shown.
        if segment.new.start < segment.new.end || segment.kind == SegmentKind::Secret {
            self.out.segments.push(segment);
        }
    }
}

/// Whether the quote at `at` opens an `E'…'` string.
fn follows_a_lone_e(bytes: &[u8], at: usize) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii();
    at.checked_sub(1).is_some_and(|e| {
        matches!(bytes[e], b'e' | b'E') && !e.checked_sub(1).is_some_and(|before| is_word(bytes[before]))
    })
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `value` as it has to be written between the quotes of `context`.
fn quoted(value: &str, context: Context) -> String {
    match context {
        Context::Quoted { quote, backslash } => {
            let value = if backslash {
                value.replace('\\', "\\\\")
            } else {
                value.to_owned()
            };
            value.replace(quote, &format!("{quote}{quote}"))
        }
        _ => value.to_owned(),
    }
}
